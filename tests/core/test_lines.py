"""A line is a line however it is cut into blocks, and one that is too long costs itself alone."""

from __future__ import annotations

import io

import pytest

from airflow_vertex_batch.core.domain.lines import BLOCK_BYTES, TOO_LONG, read_blocks, read_lines, too_long

LONGEST = 2 * BLOCK_BYTES


class TestLongLines:
    @pytest.mark.parametrize("size", [1, BLOCK_BYTES, LONGEST - 1, LONGEST, LONGEST + 1, 3 * LONGEST])
    @pytest.mark.parametrize("end", [b"\n", b""], ids=["with its end", "without"])
    def test_one_that_is_too_long_stands_for_itself_and_the_others_are_whole(self, size, end):
        data = b"first\n" + b"x" * size + b"\nmiddle\n" + b"y" * size + end
        lines = [line for _, block in read_blocks(io.BytesIO(data), LONGEST) for line in block]
        is_long, is_last_long = size + 1 > LONGEST, size + len(end) > LONGEST
        assert lines == [
            b"first\n",
            TOO_LONG if is_long else b"x" * size + b"\n",
            b"middle\n",
            TOO_LONG if is_last_long else b"y" * size + end,
        ]

    def test_their_numbers_stay(self):
        data = b"a\n" + b"x" * 2 * LONGEST + b"\n\nb\n"
        assert [number for number, _ in read_lines(io.BytesIO(data), LONGEST)] == [1, 2, 4]

    def test_it_says_so_of_itself_alone(self):
        ((_, line),) = read_lines(io.BytesIO(b"x" * 2 * LONGEST), LONGEST)
        assert too_long(line) == "it is longer than 268,435,456 bytes"
        assert too_long(b"x") == ""
