"""An object in Cloud Storage is replaced only if it still is the version that was read, against a running server."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_vertex_batch.core.domain.errors import ChangedError
from airflow_vertex_batch.core.domain.row import RowStatus
from airflow_vertex_batch.core.landing.files import FileSink
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.landing.sink import land
from tests.builders import a_row


class TestReplacingOneVersion:
    def test_the_version_that_was_read_is_replaced_and_no_other(self, gcs, bucket):
        uri = bucket / "day/a.jsonl"
        assert gcs.version(uri) == ""
        with gcs.open_replace(uri, "") as stream:
            stream.write(b"one")
        read = gcs.version(uri)
        assert [info.version for info in gcs.list(uri)] == [read]
        with gcs.open_replace(uri, read, "text/plain") as stream:
            stream.write(b"two")
        for stale in ("", read):
            with pytest.raises(ChangedError, match="was replaced"), gcs.open_replace(uri, stale) as stream:
                stream.write(b"three")
        assert gcs.read(uri) == b"two"
        assert gcs.client.bucket(bucket.bucket).get_blob(uri.name).content_type == "text/plain"

    def test_a_block_that_fails_leaves_no_trace(self, gcs, bucket):
        with contextlib.suppress(ValueError), gcs.open_replace(bucket / "a", "") as stream:
            stream.write(b"x")
            raise ValueError
        assert gcs.version(bucket / "a") == ""

    def test_landings_at_the_same_moment_lose_no_row(self, gcs, bucket):
        start = threading.Barrier(4)

        def run(number: int) -> None:
            plan = LandPlan(batch_id="b", partition_date="2026-11-22", run_id=f"run {number}")
            rows = [a_row(f"r{number}"), a_row(f"bad{number}", RowStatus.FAILED), a_row("shared", text=str(number))]
            start.wait()
            land(rows, FileSink(gcs, bucket / "out", plan), plan, expected=lambda: 3)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run, range(4)))
        keys = {
            kind: sorted(
                json.loads(line)["row_key"]
                for info in gcs.list(bucket / f"out/{kind}/")
                for line in gcs.read(info.uri).splitlines()
            )
            for kind in ("answers", "dead-letters")
        }
        assert keys == {
            "answers": [*(f"r{number}" for number in range(4)), "shared"],
            "dead-letters": [f"bad{number}" for number in range(4)],
        }
