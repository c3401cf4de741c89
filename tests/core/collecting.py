"""A job with its request file and its output files, for the tests of collecting and joining."""

from __future__ import annotations

from typing import Any

from airflow_vertex_batch.core.answers.collect import Batch, Collector
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.row import ResultRow
from tests.builders import a_failed_output, a_job, a_line, a_request, an_output, jsonl
from tests.fakes import MemoryStore, MemoryWarehouse

INPUT, OUTPUT = "gs://in/requests.jsonl", "gs://out/prediction-model-1"


class Case:
    """One job with its request file and its output files."""

    def __init__(
        self,
        requests: list[Any],
        *outputs: bytes,
        state: JobState = JobState.SUCCEEDED,
        columns: bytes = b"",
        **job: Any,
    ):
        self.store = MemoryStore(**{INPUT: jsonl(*requests)})
        for number, data in enumerate(outputs):
            self.store.objects[f"{OUTPUT}/predictions.jsonl-{number:05d}-of-{len(outputs):05d}"] = data
        if columns:
            self.store.objects["gs://in/columns.jsonl"] = columns
        self.batch = Batch(a_job(state, output_uri=OUTPUT, **job), (INPUT,), "gs://in/columns.jsonl" if columns else "")
        self.collector = Collector(self.store, MemoryWarehouse())

    def rows(self) -> list[ResultRow]:
        return list(self.collector.rows(self.batch))

    def by_key(self) -> dict[str, ResultRow]:
        rows = self.rows()
        made = {row.key: row for row in rows}
        assert len(made) == len(rows), "a request ended as two rows"
        return made

    @property
    def odd(self) -> tuple[int, int, int]:
        """Duplicates, foreign lines, lines joined by their contents."""
        odd = self.collector.anomalies
        return odd.duplicate_count, odd.foreign_count, odd.rejoined_count


def asked(key: str) -> dict[str, Any]:
    return a_line(key, text=f"question {key}")


def answered(key: str, **members: Any) -> dict[str, Any]:
    return an_output(key, text=f"answer {key}", request=a_request(f"question {key}")) | members


def failed(key: str, **members: Any) -> dict[str, Any]:
    return a_failed_output(key, request=a_request(f"question {key}")) | members


def without_key(line: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "key"}


KEYS = ("r1", "r2", "r3")
ASKED = [asked(key) for key in KEYS]
