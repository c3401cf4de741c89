"""The append-only record: nothing is overwritten, two writers never both win, unreadable is never "nothing"."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.address import Uri
from airflow_vertex_batch.core.errors import LedgerError, ServiceError
from airflow_vertex_batch.core.ledger import Ledger
from tests.builders import JOB_NAME
from tests.fakes import MemoryStore

FOLDER = Uri.parse("gs://b/ledger/abc")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def ledger(store) -> Ledger:
    return Ledger(store, FOLDER, "attempt-1")


def test_an_empty_ledger_has_no_entries(ledger):
    assert ledger.entries() == ()


def test_entries_come_back_in_order_as_they_were(ledger, store):
    entries = (
        ledger.intent("f1"),
        ledger.refusal("f1", "QUOTA"),
        ledger.intent("f1"),
        ledger.submission("f1", JOB_NAME, "old"),
    )
    for number, entry in enumerate(entries):
        assert ledger.append(entry, number)
    assert Ledger(store, FOLDER, "attempt-2").entries() == entries
    assert {entry.attempt for entry in ledger.entries()} == {"attempt-1"}
    assert all(entry.at.tzinfo is not None for entry in ledger.entries())


def test_a_number_is_written_once(ledger, store):
    mine, theirs = ledger.intent("f1"), Ledger(store, FOLDER, "attempt-2").intent("f1")
    assert ledger.append(mine, 0)
    assert not ledger.append(theirs, 0)
    assert ledger.entries() == (mine,)


def test_it_works_over_local_files(local, folder):
    ledger = Ledger(local, folder / "ledger", "a")
    entry = ledger.intent("f1")
    assert ledger.append(entry, 0)
    assert not ledger.append(ledger.intent("f2"), 0)
    assert ledger.entries() == (entry,)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("000000.json", b"not json"),
        ("000000.json", b""),
        ("000000.json", b'{"kind": "promise"}'),
        ("000000.json", b'{"kind": "submission", "fingerprint": "f"}'),
        ("000001.json", b'{"kind": "intent", "fingerprint": "f", "attempt": "a", "at": "2026-11-22T00:00:00Z"}'),
        ("readme.txt", b"hello"),
    ],
    ids=["not JSON", "empty", "a kind we never wrote", "a member missing", "a gap", "a stranger's object"],
)
def test_a_damaged_ledger_is_an_error_never_nothing(ledger, store, name, data):
    store.objects[f"{FOLDER}/{name}"] = data
    with pytest.raises(
        LedgerError, match=r"The ledger gs://b/ledger/abc is damaged.*Nothing was sent.*console shows no job"
    ):
        ledger.entries()


def test_an_unreadable_ledger_is_a_retryable_error_with_its_cause():
    class Closed(MemoryStore):
        def list(self, folder):
            raise ServiceError(f"Cloud Storage refused {folder}", status=403)

    with pytest.raises(
        LedgerError, match=r"cannot be read.*Cloud Storage refused.*Nothing was sent.*Restore access"
    ) as caught:
        Ledger(Closed(), FOLDER, "a").entries()
    assert caught.value.retryable


def test_an_object_that_vanishes_between_list_and_read_is_damage(store, ledger):
    class Vanishing(MemoryStore):
        def read(self, uri):
            return None

    ledger.append(ledger.intent("f"), 0)
    with pytest.raises(LedgerError, match="is damaged"):
        Ledger(Vanishing(**store.objects), FOLDER, "a").entries()
