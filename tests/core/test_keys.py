"""Keys and digests are found again however many there are, and memory does not grow with them."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.requests.prepare.keys import Digests, SeenKeys, digest_sum

FEW = st.lists(st.sampled_from([f"k{number}" for number in range(12)]), max_size=8)


#: The same answers with next to nothing held in memory, with a filter that knows nothing, and with an index always.
SIZES = pytest.mark.parametrize(
    "sizes",
    [{}, {"held": 3}, {"held": 3, "filter_bytes": 2}, {"held": 3, "filter_bytes": 2, "read_through": 0}],
    ids=["as it is", "small memory", "no filter", "always indexed"],
)


class TestSeenKeys:
    @SIZES
    def test_a_key_that_was_there_is_found(self, sizes):
        chooser = random.Random(3)
        before: set[str] = set()
        with SeenKeys(**sizes) as seen:
            for _ in range(60):
                chunk = [f"k{chooser.randrange(150)}" for _ in range(chooser.randrange(6))]
                wanted = []
                for index, key in enumerate(chunk):
                    if key in before:
                        wanted.append(index)
                    before.add(key)
                assert seen.repeated(chunk) == wanted

    @SIZES
    def test_a_number_behind_a_key_is_one_that_nobody_has(self, sizes):
        with SeenKeys(**sizes) as seen:
            assert seen.repeated(["a", "a-2", "b", "a-4"]) == []
            assert [seen.numbered("a") for _ in range(3)] == ["a-3", "a-5", "a-6"]
            assert seen.numbered("b") == "b-2"
            assert seen.repeated(["a-5"]) == [0]

    @given(st.lists(FEW, max_size=6))
    def test_whatever_the_chunks(self, chunks):
        flat = [key for chunk in chunks for key in chunk]
        with SeenKeys() as seen:
            count = sum(len(seen.repeated(chunk)) for chunk in chunks)
        assert count == len(flat) - len(set(flat))

    def test_memory_does_not_grow_with_the_keys(self):
        def peak(count: int) -> int:
            with SeenKeys(filter_bytes=1 << 16, read_through=0) as seen:
                tracemalloc.start()
                for start in range(0, count, 500):
                    assert seen.repeated([f"r-{number}" for number in range(start, start + 500)]) == []
                top = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                return top

        assert peak(100_000) < 1.2 * peak(20_000)


class TestDigests:
    @SIZES
    def test_the_first_key_of_a_digest_is_kept(self, sizes):
        with Digests(**sizes) as digests:
            digests.add([(f"d{number}", f"k{number}") for number in range(10)])
            digests.add([(f"d{number}", "other") for number in range(10)])
            assert digests.find(["d1", "x", "d9", "d9"]) == {"d1": "k1", "d9": "k9"}
            assert digests.find([]) == {}


class TestDigestSum:
    @given(st.lists(st.binary(max_size=4), max_size=8), st.randoms(use_true_random=False))
    def test_it_knows_no_order(self, lines, order):
        assert digest_sum(lines) == digest_sum(order.sample(lines, len(lines)))

    @given(st.lists(st.binary(max_size=2), max_size=5), st.lists(st.binary(max_size=2), max_size=5))
    def test_it_knows_everything_else(self, some, others):
        assert (digest_sum(some) == digest_sum(others)) is (Counter(some) == Counter(others))
