"""The emulator writes lines as they stand in real files, and whatever their form they are read."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.emulator.row_faults import Finish
from tests.builders import a_job
from tests.emulator.worlds import INPUT, a_world
from tests.fakes import MemoryWarehouse

OUTPUTS = Path(__file__).parents[1] / "cases" / "real" / "outputs"
FORMS = {
    "2024-11": "o01_gemini15_text",
    "2025-08": "o07_flash_lite_25_max_tokens",
    "2025-11": "o05_flash_lite_25_status_after_request",
}


def _made(form: str, *faults: Any) -> dict[str, Any]:
    world = a_world(*faults, line_form=form)
    return world.output(world.ended(world.create()))[0]


def _real(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (OUTPUTS / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("form", "name"), FORMS.items(), ids=FORMS)
class TestAgainstRealLines:
    def test_members_stand_in_the_same_order(self, form, name):
        made = _made(form)
        assert [member for member in made if member != "key"] == list(_real(name)[0])

    def test_the_response_has_the_same_members(self, form, name):
        made, real = _made(form)["response"], _real(name)[0]["response"]
        assert list(made) == list(real)
        assert made["candidates"][0].keys() == real["candidates"][0].keys()
        assert made["usageMetadata"].keys() == real["usageMetadata"].keys()

    def test_times_have_as_many_digits_and_the_same_order(self, form, name):
        made, real = _made(form), _real(name)[0]
        assert len(made["processed_time"]) == len(real["processed_time"])
        assert _is_created_first(made) == _is_created_first(real)


def _is_created_first(line: dict[str, Any]) -> bool | None:
    created = line["response"].get("createTime")
    return None if created is None else datetime.fromisoformat(created) < datetime.fromisoformat(line["processed_time"])


def test_a_recitation_of_2024_has_no_content_and_no_average():
    (real,) = [
        line["response"] for line in _real("o01_gemini15_text") if "content" not in line["response"]["candidates"][0]
    ]
    made = _made("2024-11", Finish(reason="RECITATION"))["response"]
    assert made["candidates"][0]["avgLogprobs"] == real["candidates"][0]["avgLogprobs"] == "NaN"
    assert "content" not in made["candidates"][0]


@pytest.mark.parametrize("form", ["page", *FORMS])
@pytest.mark.parametrize("padding", ["row", "file"])
def test_whatever_the_form_every_row_is_read_under_its_key(form, padding):
    world = a_world(line_form=form, echo_padding=padding, grounding="present", thought_signature="present")
    job = world.ended(world.create())
    collector = Collector(world.store, MemoryWarehouse())
    rows = list(collector.rows(Batch(a_job(output_uri=job["outputInfo"]["gcsOutputDirectory"]), (INPUT,))))
    assert [row.status for row in rows] == [RowStatus.SUCCEEDED] * 10
    assert collector.anomalies.unmatched_count == collector.anomalies.rejoined_count == 0
