"""The requests of a job: names that are each one's own, in little memory."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_vertex_batch.core.answers.collect.expected import BAD, GOOD, NOTHING, Expected, KeyTable, digest_at
from airflow_vertex_batch.core.domain.errors import ResultError
from airflow_vertex_batch.core.requests.request import request_digest


class TestKeyTable:
    @given(st.dictionaries(st.text(), st.binary(min_size=3, max_size=3)), st.text())
    def test_it_is_a_dict_of_few_bytes(self, wanted, other):
        table = KeyTable(3)
        assert all(table.add(key, data) for key, data in wanted.items())
        assert not any(table.add(key, b"xxx") for key in wanted)
        assert len(table) == len(wanted)
        for key, data in wanted.items():
            bucket, at = table.find(key)
            assert bucket[at : at + 3] == data
        assert (table.find(other) is None) is (other not in wanted)

    def test_bytes_that_look_like_a_hash_are_no_key(self):
        """The bytes beside a key are that of another key's hash, whichever bucket it is in."""
        table = KeyTable(16)
        keys = [f"r{number}" for number in range(40_000)]
        for key, other in zip(keys, reversed(keys), strict=True):
            assert table.add(key, b"\1" + hash(other).to_bytes(8, "little", signed=True) + b"\1" * 7)
        for key, other in zip(keys, reversed(keys), strict=True):
            bucket, at = table.find(key)
            assert int.from_bytes(bucket[at + 1 : at + 9], "little", signed=True) == hash(other)


def _expected(*keys: object) -> Expected:
    return Expected(lambda: [(key, b"%d" % number, False, 0) for number, key in enumerate(keys)], "m", "the input")


class TestNames:
    @given(st.lists(st.sampled_from(["a", "a-2", "a-3", "b", 7, None, ""]), min_size=1, max_size=9))
    @example(["a-2", "a", "a", "a-2"])
    def test_every_request_has_a_name_of_its_own_every_time(self, keys):
        expected = _expected(*keys)
        named = list(expected.named())
        assert [request for _, request in named] == [b"%d" % number for number in range(len(keys))]
        assert len({name for name, _ in named}) == len(keys) == len(expected)
        for name, request in named:
            assert digest_at(expected.place(name)) == request_digest(request, "m")

    def test_of_those_that_share_a_key_the_one_that_wants_a_line_most_comes_first(self):
        expected = _expected("a", "a", "b")
        assert expected.name_of("a") == "a"
        expected.mark(expected.place("a"), BAD)
        assert expected.name_of("a") == "a-2"
        expected.mark(expected.place("a-2"), GOOD)
        assert expected.name_of("a") == "a"
        assert (expected.name_of("b"), expected.name_of("c")) == ("b", None)


class TestStates:
    def test_a_bad_line_never_takes_a_good_one_s_place(self):
        expected = _expected("a", "b")
        assert list(expected.unseen()) == ["a", "b"]
        for state in (GOOD, BAD):
            expected.mark(expected.place("a"), state)
        assert (expected.state("a"), expected.state("b")) == (GOOD, NOTHING)
        assert (list(expected.unseen()), expected.counts) == (["b"], [1, 0, 0, 1])

    def test_no_requests_are_an_error(self):
        with pytest.raises(ResultError, match="The input the input has no requests any more"):
            _expected()
