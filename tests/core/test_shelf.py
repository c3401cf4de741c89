"""Values by key, on disk."""

from __future__ import annotations

from airflow_vertex_batch.core.domain.on_disk import Shelf


class TestShelf:
    def test_a_key_s_values_come_back_in_the_order_they_were_put(self):
        with Shelf() as shelf:
            for value in (b"1", b"2", b"3"):
                shelf.put("a", value)
                shelf.put("b", value * 2)
            assert shelf.all("a") == [b"1", b"2", b"3"]
            assert shelf.last("b") == b"33"
            assert (shelf.all("c"), shelf.last("c"), shelf.count) == ([], None, 6)

    def test_what_is_taken_is_gone_and_can_be_put_again(self):
        with Shelf() as shelf:
            shelf.put("a", b"1")
            assert (shelf.take("a"), shelf.take("a")) == ([b"1"], [])
            shelf.put("a", b"2")
            assert shelf.take("a") == [b"2"]

    def test_more_than_fits_into_memory_s_buffer_is_kept(self):
        with Shelf() as shelf:
            for number in range(12_000):
                shelf.put(f"k{number}", str(number).encode())
            assert shelf.all("k11999") == [b"11999"]
            assert sum(1 for _ in shelf.items()) == 12_000

    def test_the_keys_of_an_unused_shelf_are_none(self):
        with Shelf() as shelf:
            assert list(shelf.items()) == []
