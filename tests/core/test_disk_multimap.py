"""Values by key, on disk."""

from __future__ import annotations

from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap


class TestShelf:
    def test_a_key_s_values_come_back_in_the_order_they_were_put(self):
        with DiskMultimap() as multimap:
            for value in (b"1", b"2", b"3"):
                multimap.put("a", value)
                multimap.put("b", value * 2)
            assert multimap.all("a") == [b"1", b"2", b"3"]
            assert multimap.last("b") == b"33"
            assert (multimap.all("c"), multimap.last("c"), multimap.count) == ([], None, 6)

    def test_what_is_taken_is_gone_and_can_be_put_again(self):
        with DiskMultimap() as multimap:
            multimap.put("a", b"1")
            assert (multimap.take("a"), multimap.take("a")) == ([b"1"], [])
            multimap.put("a", b"2")
            assert multimap.take("a") == [b"2"]

    def test_more_than_fits_into_memory_s_buffer_is_kept(self):
        with DiskMultimap() as multimap:
            for number in range(12_000):
                multimap.put(f"k{number}", str(number).encode())
            assert multimap.all("k11999") == [b"11999"]
            assert sum(1 for _ in multimap.items()) == 12_000

    def test_the_keys_of_an_unused_shelf_are_none(self):
        with DiskMultimap() as multimap:
            assert list(multimap.items()) == []
