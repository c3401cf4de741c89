"""A test of a whole table names each case that fails, says why, and never passes for want of cases."""

from __future__ import annotations

import pytest

from tests.each_case import compare_each, each_case

CASES = {"good": (1, "1"), "bad": (2, "one"), "worse": (None, "none"), "fine": (3, "3")}


def _spelled(number: int) -> str:
    return str(number + 0)


def test_all_that_differ_are_named_with_what_was_expected_and_what_was_found():
    with pytest.raises(AssertionError, match="2 of 4 cases failed") as caught:
        compare_each(CASES, _spelled)
    lines = str(caught.value).splitlines()
    assert lines[1] == "- bad: expected 'one', found '2'"
    assert lines[2].startswith("- worse: expected 'none', found TypeError: unsupported operand")
    assert "(test_each_case.py:" in lines[2]


def test_all_that_fail_are_named_with_what_their_assertion_says():
    @each_case({"good": 1, "bad": 2, "silent": 3, "broken": 0})
    def test(number):
        if number == 3:
            with pytest.raises(ValueError, match="three"):
                int(number)
        assert 6 / number == 6

    with pytest.raises(AssertionError, match="3 of 4 cases failed") as caught:
        test()
    text = str(caught.value)
    assert "- bad: assert (6 / 2) == 6" in text
    assert "- silent: DID NOT RAISE" in text
    assert "- broken: ZeroDivisionError: division by zero" in text
    assert "- good" not in text


def test_cases_without_a_name_are_named_by_their_arguments_and_none_is_lost():
    with pytest.raises(AssertionError, match="2 of 3 cases failed") as caught:
        compare_each([(2, 2, 5), (2, 2, 5), (1, 1, 2)], lambda left, right: left + right)
    assert str(caught.value).count("- 2, 2, 5: expected 5, found 4") == 2


class TestOfAClass:
    SEEN: list[int] = []  # noqa: RUF012 - what it saw

    @each_case([1, 2, 3])
    def test_every_case_is_met(self, number):
        self.SEEN.append(number)
        if number == 3:
            assert self.SEEN == [1, 2, 3]


def test_no_cases_are_no_success():
    with pytest.raises(AssertionError, match="there is no case"):
        compare_each({}, _spelled)
    with pytest.raises(AssertionError, match="there is no case"):
        each_case([])


def test_one_that_would_have_to_be_awaited_is_refused():
    async def test(number):
        assert number < 0

    with pytest.raises(AssertionError, match="nobody would wait for it"):
        each_case([1])(test)
