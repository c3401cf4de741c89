"""Output lines, pairs of files and job resources of some thirty public projects: see `tests/cases/real/index.md`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_vertex_batch.core.answers.classify import classify
from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.domain.jsonl import read_output
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from tests.builders import a_job
from tests.core.collecting import INPUT, OUTPUT
from tests.each_case import each_case
from tests.fakes import MemoryStore, MemoryWarehouse

REAL = Path(__file__).parents[1] / "cases" / "real"
OUTPUTS = {path.stem: path for path in sorted((REAL / "outputs").glob("*.jsonl"))}
JOBS = {path.stem: json.loads(path.read_text()) for path in sorted((REAL / "jobs").glob("*.json"))}
#: How many of an output's lines end as what, where not all are good.
ENDS = {
    "o01_gemini15_text": {"succeeded": 9, "blocked": 1},
    "o03_grounded_flash25": {"succeeded": 9, "failed": 1},
    "o07_flash_lite_25_max_tokens": {"succeeded": 1, "truncated": 1},
    "o11_docs_sample": {"succeeded": 1, "failed": 1},
    "o12_edge_lines_of_an_importer": {"failed": 5},
    "o13_status_grpc_word": {"failed": 1},
}
#: Input, output, rows with a good answer, rows in all.
PAIRS = {
    "text": ("text.in", "text.out", 9, 10),
    "multimodal": ("multimodal.in", "multimodal.out", 3, 3),
    "flash": ("grounded.in", "grounded_flash.out", 9, 10),
    "pro": ("grounded.in", "grounded_pro.out", 10, 10),
}


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def _rows(path: Path) -> list[ResultRow]:
    read = (read_output(raw, path.name, number) for number, raw in enumerate(_lines(path), start=1))
    return [classify(line, f"r{number}") for number, line in enumerate(read)]


class TestOutputs:
    @pytest.mark.parametrize("name", OUTPUTS)
    def test_every_line_is_read(self, name):
        rows = _rows(OUTPUTS[name])
        ends = {str(status): sum(row.status is status for row in rows) for status in {row.status for row in rows}}
        assert ends == ENDS.get(name, {"succeeded": len(rows)})

    @pytest.mark.parametrize(
        ("name", "total", "tool"),
        [
            ("o01_gemini15_text", 737, 0),
            ("o03_grounded_flash25", 377, 41),
            ("o09_bigquery_response_text", 539, 0),
            ("o17_parallel_tool_total", 284, 39),
        ],
    )
    def test_tokens_are_those_that_the_service_says(self, name, total, tool):
        usage = _rows(OUTPUTS[name])[0].usage
        assert (usage.total_tokens, usage.tool_tokens) == (total, tool)

    def test_words_of_the_service_are_understood(self):
        assert [row.code for row in _rows(OUTPUTS["o13_status_grpc_word"])] == ["PERMISSION_DENIED"]
        assert "RECITATION" in {row.code for row in _rows(OUTPUTS["o01_gemini15_text"])}
        assert "EMPTY_ANSWER" in {row.code for row in _rows(OUTPUTS["o03_grounded_flash25"])}

    def test_the_better_of_two_candidates_is_the_answer(self):
        (row,) = _rows(OUTPUTS["o15_two_candidates"])
        assert (row.status, row.answer) == (RowStatus.SUCCEEDED, {"a": 2})


class TestPairs:
    @pytest.mark.parametrize(("asked", "answered", "good", "count"), PAIRS.values(), ids=PAIRS)
    def test_answers_find_their_requests_without_a_key(self, asked, answered, good, count):
        output = REAL / "pairs" / f"{answered}.jsonl"
        store = MemoryStore(
            **{
                INPUT: (REAL / "pairs" / f"{asked}.jsonl").read_bytes(),
                f"{OUTPUT}/predictions.jsonl": output.read_bytes(),
            }
        )
        collector = Collector(store, MemoryWarehouse())
        rows = list(collector.rows(Batch(a_job(output_uri=OUTPUT), (INPUT,))))
        assert (len(rows), sum(row.status.is_good for row in rows)) == (count, good)
        assert RowStatus.MISSING not in {row.status for row in rows}
        odd = collector.anomalies
        assert (odd.rejoined_count, odd.foreign_count, odd.unmatched_count) == (count, 0, 0)

    @pytest.mark.parametrize(("asked", "answered", "good", "count"), PAIRS.values(), ids=PAIRS)
    def test_with_their_keys_the_echo_is_known_as_the_request(self, asked, answered, good, count):
        """Numbers and nulls are spelt otherwise in it, and members have another order."""
        requests = [json.loads(raw) for raw in _lines(REAL / "pairs" / f"{asked}.jsonl")]
        keys = {_shown(line["request"]): f"r{number}" for number, line in enumerate(requests)}
        lines = [json.loads(raw) for raw in _lines(REAL / "pairs" / f"{answered}.jsonl")]
        store = MemoryStore(
            **{
                INPUT: _jsonl({"key": keys[_shown(line["request"])], **line} for line in requests),
                f"{OUTPUT}/predictions.jsonl": _jsonl({**line, "key": keys[_shown(line["request"])]} for line in lines),
            }
        )
        collector = Collector(store, MemoryWarehouse())
        rows = list(collector.rows(Batch(a_job(output_uri=OUTPUT), (INPUT,))))
        assert (len(rows), sum(row.status.is_good for row in rows)) == (count, good)
        odd = collector.anomalies
        assert (odd.rejoined_count, odd.unmatched_count) == (0, 0)


def _shown(request: Any) -> str:
    """Return the texts of a request, by which a person would know it."""
    parts = request["contents"][0]["parts"]
    listed = [parts] if isinstance(parts, dict) else parts
    texts = [part.get("text") for part in listed]
    files = [part.get("fileData") or part.get("file_data") for part in listed]
    return json.dumps([texts, [next(iter(file.values())) for file in files if file]])


def _jsonl(lines: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


class TestJobs:
    @pytest.mark.parametrize("name", JOBS)
    def test_every_resource_is_read(self, name):
        job = BatchJob.from_api(JOBS[name])
        assert job.name == JOBS[name]["name"]
        assert job.state_text == JOBS[name]["state"]

    @each_case(
        itertools.product(JOBS, ["error", "labels", "completionStats", "outputInfo", "inputConfig", "startTime"])
    )
    def test_a_member_that_is_null_is_none(self, name, member):
        job = BatchJob.from_api(JOBS[name] | {member: None})
        assert job == BatchJob.from_api({key: value for key, value in JOBS[name].items() if key != member})

    def test_what_they_say_is_what_was_read(self):
        read = {name.partition("_")[0]: BatchJob.from_api(doc) for name, doc in JOBS.items()}
        assert (read["j09"].state, read["j09"].successful_count) == (JobState.CANCELLED, -1)
        assert (read["j11"].successful_count, read["j11"].incomplete_count) == (3, -1)
        assert read["j15"].input_uris == ("gs://bkt/in.jsonl",)
        assert (read["j13"].state, read["j13"].output_uri) == (JobState.SUCCEEDED, "")
        assert read["j16"].state is JobState.UNSPECIFIED
