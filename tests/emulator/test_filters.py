"""The grammar of ``filter=``: what it selects, and what it refuses."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.emulator.filters import parse_filter
from airflow_vertex_batch.emulator.wire import ApiError

JOB = {
    "displayName": 'night "1"',
    "model": "publishers/google/models/gemini-2.5-flash",
    "state": "JOB_STATE_RUNNING",
    "createTime": "2026-11-22T10:00:00.500000Z",
    "labels": {"team": "support", "data-day": "2026-11-21", "empty": ""},
}


class TestAFilterSelects:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("", True, id="nothing selects everything"),
            pytest.param('state="JOB_STATE_RUNNING"', True, id="state, quoted"),
            pytest.param("state=JOB_STATE_RUNNING", True, id="state, bare"),
            pytest.param("state = 'JOB_STATE_PENDING'", False, id="another state, single quotes, spaces"),
            pytest.param("state!=JOB_STATE_RUNNING", False, id="state, unequal"),
            pytest.param(r'display_name="night \"1\""', True, id="escaped quotes"),
            pytest.param("""display_name='night "1"'""", True, id="quotes in other quotes"),
            pytest.param('displayName:"night*"', True, id="camelCase and wildcard"),
            pytest.param('display_name:"*1?"', False, id="only the star is a wildcard"),
            pytest.param('display_name:"[n]*"', False, id="a bracket means itself"),
            pytest.param('display_name="night*"', False, id="a star means itself after ="),
            pytest.param('display_name!="other"', True, id="display name, unequal"),
            pytest.param("model_display_name=gemini-2.5-flash", True, id="model"),
            pytest.param("modelDisplayName!=gemini-2.5-flash", False, id="model, unequal"),
            pytest.param('create_time>="2026-11-22T10:00:00.500Z"', True, id="time, from"),
            pytest.param('create_time>"2026-11-22T10:00:00.500Z"', False, id="time, after"),
            pytest.param('createTime<"2026-11-22T12:00:01+02:00"', True, id="time in another zone"),
            pytest.param('create_time="2026-11-22T10:00:00.5Z"', True, id="time, equal"),
            pytest.param('create_time<="2026-11-21T00:00:00Z"', False, id="time, until"),
            pytest.param("labels.team=support", True, id="label"),
            pytest.param('labels.data-day="2026-11-21"', True, id="label with a dash in key and value"),
            pytest.param('labels."data-day"="2026-11-21"', True, id="label with a quoted key"),
            pytest.param("labels.team=sales", False, id="label of another value"),
            pytest.param("labels.team:*", True, id="label exists"),
            pytest.param("labels.empty:*", True, id="an empty label exists"),
            pytest.param("labels.other:*", False, id="label does not exist"),
            pytest.param("labels.team=support AND state=JOB_STATE_RUNNING", True, id="and"),
            pytest.param("labels.team=support AND state=JOB_STATE_FAILED", False, id="and, one false"),
            pytest.param("state=JOB_STATE_FAILED OR state=JOB_STATE_RUNNING", True, id="or"),
            pytest.param("NOT state=JOB_STATE_FAILED", True, id="not"),
            pytest.param("-labels.team:*", False, id="minus is not"),
            pytest.param("NOT (state=JOB_STATE_FAILED OR labels.team:*)", False, id="not, parentheses"),
            pytest.param("state=JOB_STATE_RUNNING OR labels.a=b AND labels.c=d", False, id="or binds tighter than and"),
            pytest.param("state=JOB_STATE_RUNNING OR (labels.a=b AND labels.c=d)", True, id="parentheses decide"),
            pytest.param("((state=JOB_STATE_RUNNING))", True, id="nested parentheses"),
            pytest.param(
                'state="JOB_STATE_PENDING" OR state="JOB_STATE_QUEUED" OR state="JOB_STATE_RUNNING" OR '
                'state="JOB_STATE_CANCELLING" OR state="JOB_STATE_UPDATING"',
                True,
                id="what the official SDK asks for pending jobs",
            ),
        ],
    )
    def test_exactly_the_jobs_it_names(self, text, expected):
        assert parse_filter(text).matches(JOB) is expected

    def test_a_job_without_labels_by_their_absence(self):
        assert parse_filter("NOT labels.team:*").matches({"displayName": "x"})


class TestABadFilterIsRefused:
    @pytest.mark.parametrize(
        ("text", "why"),
        [
            pytest.param("state", "an operator is expected", id="no operator"),
            pytest.param("state=", "a value is expected", id="no value"),
            pytest.param("=x", "a field is expected", id="no field"),
            pytest.param("color=red", "'color' is not supported", id="unknown field"),
            pytest.param("state=RUNNING", "'RUNNING' is not a state", id="unknown state"),
            pytest.param("state>JOB_STATE_FAILED", "state does not support >", id="states have no order"),
            pytest.param("state:JOB_STATE_*", "state does not support :", id="states have no wildcard"),
            pytest.param("display_name<x", "display_name does not support <", id="names have no order"),
            pytest.param(
                "model_display_name:gem*", "model_display_name does not support :", id="no wildcard for models"
            ),
            pytest.param("create_time:x", "create_time does not support :", id="times have no wildcard"),
            pytest.param("create_time>yesterday", "is not an RFC 3339 time", id="no time"),
            pytest.param('create_time>"2026-11-22T10:00:00"', "has no time zone", id="time without a zone"),
            pytest.param("labels.team!=x", "labels support = and", id="labels are not unequal"),
            pytest.param("labels.team:x", "labels support = and", id="labels have no other wildcard"),
            pytest.param("labels.=x", "a label needs a key", id="label without a key"),
            pytest.param("(state=JOB_STATE_FAILED", "a parenthesis is not closed", id="open parenthesis"),
            pytest.param("state=JOB_STATE_FAILED)", r"unexpected '\)'", id="closed too often"),
            pytest.param("labels.a=b labels.c=d", "unexpected 'labels.c'", id="no AND between"),
            pytest.param("labels.a=b AND", "it ends where a field is expected", id="AND without a second"),
            pytest.param('display_name="x', "cannot be read from", id="open quote"),
        ],
    )
    def test_with_its_reason(self, text, why):
        with pytest.raises(ApiError, match=why) as caught:
            parse_filter(text)
        assert caught.value.code == 400


def test_many_stars_cost_no_time():
    """A pattern that tries every way to share out the name would take years."""
    assert not parse_filter(f'display_name:"{"1*" * 30}x"').matches({"displayName": "1" * 200})


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("labels.a=b", (("a", "b"),)),
        ("labels.a=b AND state=JOB_STATE_FAILED AND labels.c=d", (("a", "b"), ("c", "d"))),
        ("labels.a=b OR labels.c=d", ()),
        ("NOT labels.a=b", ()),
        ("-labels.a=b AND labels.c=d", (("c", "d"),)),
        ("labels.a:*", ()),
        ("(labels.a=b OR state=JOB_STATE_FAILED) AND labels.c=d", (("c", "d"),)),
        ("labels.a=b AND (labels.c=d OR labels.e=f)", (("a", "b"),)),
        ("", ()),
    ],
)
def test_labels_that_every_job_has_are_told(text, labels):
    """The list looks only at the jobs that have one of them."""
    assert parse_filter(text).labels == labels
