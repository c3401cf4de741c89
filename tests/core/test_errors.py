"""Errors are sorted by what the reader should do, and say it."""

from __future__ import annotations

import re

import pytest

from airflow_vertex_batch.core.domain import errors
from airflow_vertex_batch.core.domain.errors import (
    AmbiguousError,
    InputError,
    JobError,
    LogError,
    ResultError,
    ServiceError,
    VertexBatchError,
)


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*(_subclasses(sub) for sub in kind.__subclasses__()))


def test_the_tree_drawn_at_the_top_is_the_tree():
    drawn = re.findall(r"(\w+Error)\b", errors.__doc__.split("::")[1].split("\n\n")[1])
    assert set(drawn) == {kind.__name__ for kind in _subclasses(VertexBatchError)}


def test_a_message_has_four_parts_in_order_each_a_sentence():
    error = VertexBatchError("What", why="because!", left="nothing is left", todo="Do this.")
    assert str(error) == "What. because! nothing is left. Do this."
    assert (error.what, error.why, error.left, error.todo) == ("What", "because!", "nothing is left", "Do this.")


def test_parts_that_are_not_known_are_left_out():
    assert str(InputError("What", todo="Do this")) == "What. Do this."


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (InputError("x"), False),
        (LogError("x"), True),
        (ResultError("x", uri="gs://b/f"), False),
        (JobError("x", job_name="n", state="s"), True),
        (JobError("x", job_name="n", state="s", retryable=False), False),
        (AmbiguousError("x", status=503), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_says_whether_a_retry_may_help(error, retryable):
    assert error.retryable is retryable


@pytest.mark.parametrize("status", [0, 408, 425, 429, 500, 502, 503, 504])
def test_a_transient_status_is_worth_a_retry(status):
    assert ServiceError("x", status=status).retryable


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 409, 412, 501])
def test_any_other_status_is_not(status):
    assert not ServiceError("x", status=status).retryable


def test_only_404_is_not_found():
    assert ServiceError("x", status=404).is_not_found
    assert not ServiceError("x", status=403).is_not_found


def test_an_input_error_is_a_value_error():
    """So that callers without this package in their hands can catch it."""
    with pytest.raises(ValueError, match="x"):
        raise InputError("x")
