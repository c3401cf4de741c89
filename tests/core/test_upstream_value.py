"""Nothing is told from an empty list, in every form in which a task is given it."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.upstream_value import Origin, items, no_value_error, why_no_value

JOB = "projects/1/locations/global/batchPredictionJobs/2"


class TestNothing:
    @pytest.mark.parametrize(
        ("value", "how"),
        [
            (None, "None"),
            ("None", "'None'"),
            ("", "''"),
            (" \n", r"' \n'"),
            ("null", "'null'"),
            ([None], "1 of 1 are nothing"),
            ([JOB, None, "None", ""], "3 of 4 are nothing"),
            (({"name": JOB}, None), "1 of 2 are nothing"),
            ("[None]", "1 of 1 are nothing"),
            (f"['{JOB}', None]", "1 of 2 are nothing"),
        ],
        ids=repr,
    )
    def test_is_said(self, value, how):
        assert why_no_value(value) == how

    @pytest.mark.parametrize(
        "value",
        [[], (), "[]", {}, JOB, [JOB], f"['{JOB}']", {"uri": "gs://b/m", "rejected_uri": ""}, "[None", "SELECT 1", 0],
        ids=repr,
    )
    def test_is_not_what_is_empty_or_something(self, value):
        assert why_no_value(value) == ""


class TestItems:
    @pytest.mark.parametrize(
        ("value", "wanted"),
        [
            (JOB, [JOB]),
            ({"name": JOB}, [{"name": JOB}]),
            ([JOB], [JOB]),
            ((JOB, JOB), [JOB, JOB]),
            (iter([JOB]), [JOB]),
            (f"['{JOB}']", [JOB]),
            ("[]", []),
            ("[1 +", ["[1 +"]),
            (None, [None]),
            (7, [7]),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_one_or_several(self, value, wanted):
        assert items(value) == wanted


class TestTheMessage:
    @pytest.mark.parametrize(
        ("origin", "states", "said"),
        [
            (Origin(("a.prepare",)), {"a.prepare": "failed"}, "It is the output of task a.prepare (failed)."),
            (Origin(("a", "b")), {"a": "success", "b": None}, "It is the output of task a (success), b."),
            (Origin(("a",), "{{ ti.xcom_pull('a') }}"), {}, "It is the output of {{ ti.xcom_pull('a') }}, task a."),
            (Origin((), "{{ params.jobs }}"), {}, "It is the output of {{ params.jobs }}."),
        ],
        ids=["one task", "several", "a template and the tasks before", "a template"],
    )
    def test_says_where_it_should_have_come_from(self, origin, states, said):
        text = str(no_value_error("b.export", "manifest", "None", origin, states))
        assert said in text

    def test_has_four_parts(self):
        error = no_value_error("b.export", "manifest", "None", Origin(("b.prepare",)), {"b.prepare": "skipped"})
        assert str(error) == (
            "Task b.export was given nothing as its manifest (None). It is the output of task b.prepare (skipped). "
            "Nothing was sent, cancelled or landed, and what has landed before is as it was. "
            "Clear the task that gave nothing, with what comes after it. If this task ran because of its trigger_rule, "
            "'all_success' keeps it from running without its input."
        )

    def test_leaves_out_what_nobody_knows(self):
        assert "output of" not in str(no_value_error("export", "jobs", "''", Origin()))
