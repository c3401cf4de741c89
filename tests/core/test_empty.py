"""A source without a row: what it is, and what it is not."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.landing.on_empty import OnEmpty, empty_error


def a_manifest(**counts):
    return Manifest(uri="gs://b/m", fingerprint="f", shards=(), **{"row_count": 0, "request_count": 0} | counts)


def test_a_set_without_a_row_is_empty_and_says_what_to_do():
    assert str(empty_error(a_manifest())) == (
        "The source has no row: there is nothing to ask. "
        "No job is created and nothing is landed; what has landed before is as it was; "
        "jobs of an earlier attempt may still run. "
        "See whether the source was filled before this task read it, then clear this task. If days without a row "
        "are normal, set on_empty='skip', or 'succeed' to land the empty day."
    )


@pytest.mark.parametrize("kind", ["request_count", "known_count", "rejected_count"])
def test_rows_of_any_kind_are_no_emptiness(kind):
    assert empty_error(a_manifest(row_count=3, **{kind: 3})) is None


def test_the_author_chooses_one_of_three():
    assert [OnEmpty.of(word) for word in ("fail", "skip", "succeed")] == list(OnEmpty)
    with pytest.raises(InputError, match=r"on_empty='ignore' is not known\. Use 'fail', 'skip' or 'succeed'"):
        OnEmpty.of("ignore")
