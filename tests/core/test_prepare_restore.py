"""A manifest that was sent may be there, whatever the answer: its files stay, and a set that is found has them all."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.requests.prepare import PreparePlan, read_manifest, write_set
from tests.core.preparing import DEAD_LETTER, FOLDER, prepared, read_jsonl, requests_of, texts
from tests.fakes import MemoryStore

#: Rows of every kind: sent in two files, with columns; one rejected, one a duplicate.
ROWS = [*texts(4), {"id": 9, "text": "", "mood": 0}, {"id": 10, "text": "text 0", "mood": 1}]
PLAN = {"columns": ("mood",), "on_rejected_row": DEAD_LETTER, "deduplicate": True, "max_requests": 2}


class LostWriteAnswer(MemoryStore):
    """Loses the answer to the write of a manifest.

    :param fate: "lost": it is written, and the answer does not come; "repeated": the client sends it again and is
        told that it is there; "blind": as this, and a look at it is refused; "refused": nothing is written.
    """

    def __init__(self, fate: str) -> None:
        super().__init__()
        self.fate, self.is_blind = fate, False

    def write_new(self, uri: Uri, data: bytes) -> bool:
        if "/manifests/" not in uri.name or not self.fate:
            return super().write_new(uri, data)
        fate, self.fate = self.fate, ""
        if fate != "refused":
            assert super().write_new(uri, data)
        self.is_blind = fate == "blind"
        if fate in {"lost", "refused"}:
            raise ServiceError("Cloud Storage did not answer", status=0)
        return False

    def read(self, uri: Uri) -> bytes | None:
        if self.is_blind:
            self.is_blind = False
            raise ServiceError("Cloud Storage refused", status=503)
        return super().read(uri)


def _attempt(store, token="one"):
    return prepared(ROWS, store, token=token, **PLAN)


def _check_whole(manifest, store):
    """Insist that every file a manifest names is there, and says what it should."""
    assert manifest.files <= store.objects.keys()
    assert len(manifest.files) == 6
    assert [len(store.objects[shard.uri]) for shard in manifest.shards] == [s.size_bytes for s in manifest.shards]
    assert len(requests_of(store, manifest)) == manifest.request_count == 4


class TestALostAnswer:
    @pytest.mark.parametrize("fate", ["lost", "blind", "refused"])
    def test_the_next_attempt_has_a_whole_set(self, fate):
        store = LostWriteAnswer(fate)
        with pytest.raises(ServiceError, match="Cloud Storage"):
            _attempt(store)
        manifest = _attempt(store, "two")
        _check_whole(manifest, store)
        assert _attempt(store, "three") == manifest

    def test_an_attempt_that_finds_its_own_manifest_keeps_its_files(self):
        store = LostWriteAnswer("repeated")
        manifest = _attempt(store)
        _check_whole(manifest, store)
        assert _attempt(store, "two") == manifest

    def test_an_attempt_that_finds_another_one_s_manifest_removes_its_own_files_only(self):
        store = MemoryStore()
        manifest = _attempt(store)
        before = set(store.objects)
        assert _attempt(store, "two") == manifest
        assert set(store.objects) == before

    def test_a_set_of_columns_of_its_own_keeps_the_request_files_of_another(self):
        """A manifest may name files of two attempts; a lost answer takes neither."""
        store = LostWriteAnswer("")
        earlier = prepared(texts(4), store, max_requests=2)
        store.fate = "lost"
        with pytest.raises(ServiceError, match="did not answer"):
            prepared(texts(4), store, token="two", max_requests=2, columns=("mood",))
        made = prepared(texts(4), store, token="three", max_requests=2, columns=("mood",))
        assert [shard.uri for shard in made.shards] == [shard.uri for shard in earlier.shards]
        assert made.files <= store.objects.keys()

    @pytest.mark.parametrize("fate", ["lost", "blind", "repeated"])
    def test_a_repair_set_is_as_safe(self, fate):
        store, plan = LostWriteAnswer(fate), PreparePlan(template=None)
        for token in ("one", "two"):
            try:
                made = write_set([("a", b'{"contents":[]}')], plan, store, FOLDER, token, round=1)
            except ServiceError:
                continue
        assert requests_of(store, made)[0]["key"] == "a"


class TestASetThatIsFound:
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()

    @pytest.mark.parametrize("number", range(6))
    def test_each_file_that_is_gone_is_written_again(self, store, number):
        manifest = _attempt(store)
        gone = sorted(manifest.files)[number]
        was = sorted(map(str, read_jsonl(store, gone)))
        del store.objects[gone]
        assert _attempt(store, "two") == manifest
        _check_whole(manifest, store)
        assert sorted(map(str, read_jsonl(store, gone))) == was

    def test_a_request_file_of_another_size_is_written_again(self, store):
        manifest = _attempt(store)
        uri = manifest.shards[1].uri
        was = store.objects[uri]
        store.objects[uri] = was[:-20]
        _attempt(store, "two")
        assert store.objects[uri] == was

    def test_rows_in_another_order_restore_a_file_that_has_them_all(self, store):
        manifest = prepared(texts(4), store)
        was = set(store.objects[manifest.shards[0].uri].splitlines())
        store.objects.clear()
        store.objects[manifest.uri] = encode(manifest)
        assert prepared(texts(4)[::-1], store, token="two") == manifest
        assert set(store.objects[manifest.shards[0].uri].splitlines()) == was

    def test_rows_that_are_divided_differently_do_not_fit(self, store):
        manifest = prepared(texts(4), store, max_requests=2)
        gone = manifest.shards[0].uri
        del store.objects[gone]
        before = set(store.objects)
        with pytest.raises(InputError, match=rf"{gone} is not there.*another order.*Restore the object"):
            prepared([*texts(4)[1:], texts(4)[0]], store, token="two", max_requests=2)
        assert set(store.objects) == before

    def test_rows_in_another_order_may_fill_another_number_of_files(self, store):
        """Small rows and big ones: how they fill files of so many bytes depends on their order."""
        rows = [{"text": f"{number} {'x' * size}"} for number, size in enumerate((700, 300, 300, 700))]
        manifest = prepared(rows, store, max_bytes=1_400)
        other = prepared(sorted(rows, key=lambda row: len(row["text"])), MemoryStore(), max_bytes=1_400)
        assert len(other.shards) != len(manifest.shards)
        again = sorted(rows, key=lambda row: len(row["text"]))
        assert prepared(again, store, token="two", max_bytes=1_400) == manifest
        del store.objects[manifest.shards[0].uri]
        with pytest.raises(InputError, match=r"is not there as it was prepared.*another order"):
            prepared(again, store, token="three", max_bytes=1_400)

    def test_nothing_is_compared_that_was_not_lost(self, store):
        """Rows in another order, all files there: the set is found as it is."""
        manifest = prepared(texts(4), store, max_requests=2)
        assert prepared(texts(4)[::-1], store, token="two", max_requests=2) == manifest
        assert read_manifest(store, Uri.parse(manifest.uri)) == manifest
