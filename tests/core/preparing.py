"""Prepares rows and ready-made lines in memory, and reads back what was written."""

from __future__ import annotations

import json
from typing import Any

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.manifest import Manifest
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import OnRejectedRow, RequestTemplate
from airflow_vertex_batch.core.requests.sources import Requests, Rows
from tests.builders import jsonl
from tests.fakes import MemoryStore, MemoryWarehouse

FOLDER = Uri.parse("gs://b/run")
PROMPT = RequestTemplate(prompt="{{ text }}")
DEAD_LETTER = OnRejectedRow.DEAD_LETTER


def a_plan(**members: Any) -> PreparePlan:
    return PreparePlan(**{"template": PROMPT} | members)


def placed(rows):
    return Rows(rows).rows(MemoryStore(), MemoryWarehouse())


def texts(count: int) -> list[dict[str, Any]]:
    return [{"id": n, "text": f"text {n}", "mood": n % 3} for n in range(count)]


def prepared(rows, store: MemoryStore, *, token: str = "one", **plan: Any) -> Manifest:
    return prepare(placed(rows), a_plan(**plan), store, FOLDER, token)


def ready_made(lines: list[Any], store: MemoryStore, **plan: Any) -> Manifest:
    store.objects["gs://b/in/ready.jsonl"] = jsonl(*lines)
    rows = Requests(("gs://b/in/ready.jsonl",)).rows(store, MemoryWarehouse())
    return prepare(rows, a_plan(template=None, **plan), store, FOLDER, "one")


def read_jsonl(store: MemoryStore, uri: str) -> list[Any]:
    return [json.loads(line) for line in store.objects[uri].splitlines()]


def requests_of(store: MemoryStore, manifest: Manifest) -> list[Any]:
    return [line for shard in manifest.shards for line in read_jsonl(store, shard.uri)]
