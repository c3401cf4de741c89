"""``make demo``: the nightly job for three days in a real Airflow, on this machine, without a Google account.

Starts the local servers and an Airflow, loads sample tickets, backfills three days of ``dags/nightly_tickets.py``,
prints the resulting table and its cost, and runs until Ctrl-C. With ``ONCE=1`` it exits instead: with status 0 only if
every ticket of every day is accounted for in the tables.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import requests
from tabulate import tabulate

from airflow_vertex_batch.gcp.environment import ENDPOINT_VARIABLE
from stack.__main__ import USUAL, elsewhere
from stack.client import AirflowError
from stack.laptop import PROJECT, Ports, Stack
from stack.process import StackError
from stack.servers import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud.bigquery import Client

ROOT = LOCAL.parent
BUCKET = "demo"
DAG_ID = "nightly_tickets"
DAYS = ("2026-11-17", "2026-11-18", "2026-11-19")
TICKETS = Path(__file__).with_name("tickets.jsonl")
#: The longest time, in seconds, without a change of a task or an answered row. It is long, because a busy machine is
#: slow.
SILENCE_S = 600.0
#: The exit status of a program that Ctrl-C ended, as shells define it.
INTERRUPTED = 130
#: Seconds without a line after which the demo says how far the model is.
QUIET_S = 30.0
#: The guide's own request line; its media lie in a public bucket, which the emulator takes as readable.
ANIMALS = {
    "request": {
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "What is the relation between the following video and image samples?"},
                    {
                        "fileData": {
                            "fileUri": "gs://cloud-samples-data/generative-ai/video/animals.mp4",
                            "mimeType": "video/mp4",
                        }
                    },
                    {
                        "fileData": {
                            "fileUri": "gs://cloud-samples-data/generative-ai/image/cricket.jpeg",
                            "mimeType": "image/jpeg",
                        }
                    },
                ],
            }
        ],
        "generationConfig": {"temperature": 0.9, "topP": 1, "maxOutputTokens": 256},
    }
}


def main() -> int:
    """Run the demo and return its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    once = bool(os.environ.get("ONCE"))
    began = time.monotonic()
    try:
        with _stack() as stack:
            os.environ.update(stack.env)
            tickets = load_samples()
            print(f"Loaded {tickets} sample tickets of {len(DAYS)} days into {PROJECT}.support.tickets", flush=True)
            run_days(stack)
            complete = show(tickets)
            print(f"\nAll of it took {time.monotonic() - began:.0f} s.")
            if once:
                return 0 if complete else 1
            print(_stay(stack), flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("\nstopped.")
        # A demo that runs until Ctrl-C has ended as expected. With ONCE=1, Ctrl-C means that not all days have landed.
        return INTERRUPTED if once else 0
    except (StackError, AirflowError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def _stack() -> Stack:
    env = {
        "VERTEX_BATCH_PROJECT": PROJECT,
        "VERTEX_BATCH_BUCKET": BUCKET,
        "VERTEX_BATCH_POLL_INTERVAL": "5",
        # The wait for a possibly lost create call is for the real service; here nothing is lost.
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "1",
    }
    print(
        "Starting Cloud Storage, BigQuery, PostgreSQL, the Vertex AI emulator and Airflow on this machine …", flush=True
    )
    return Stack(
        LOCAL / "demo",
        dags=ROOT / "dags",
        ports=Ports.from_environment(**USUAL),
        model=os.environ.get("MODEL") or "smollm2",
        speed=float(os.environ.get("SPEED") or 30),
        env=env,
        say=lambda line: print(line, flush=True),
    )


def load_samples() -> int:
    """Put the sample tickets into BigQuery and the other examples' input into Cloud Storage; return how many
    tickets.
    """
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery, storage

    bucket = storage.Client(project=PROJECT, credentials=AnonymousCredentials()).create_bucket(BUCKET)  # type: ignore[no-untyped-call]
    bucket.blob("requests/animals.jsonl").upload_from_string(json.dumps(ANIMALS) + "\n")
    for name, colour in (("sunrise", (250, 160, 60)), ("sea", (30, 90, 160)), ("meadow", (90, 160, 60))):
        bucket.blob(f"images/{name}.png").upload_from_string(_picture(colour), content_type="image/png")
    client = _bigquery()
    client.create_dataset("support")
    config = bigquery.LoadJobConfig(
        source_format="NEWLINE_DELIMITED_JSON",
        schema=[
            bigquery.SchemaField(name, "DATE" if name == "created_on" else "STRING")
            for name in ("ticket_id", "created_on", "subject", "body")
        ],
    )
    # From Cloud Storage, as the exports will: the local BigQuery cannot take its first such loads side by side.
    bucket.blob("samples/tickets.jsonl").upload_from_filename(str(TICKETS))
    loading = client.load_table_from_uri(f"gs://{BUCKET}/samples/tickets.jsonl", "support.tickets", job_config=config)
    return int(loading.result().output_rows)  # type: ignore[attr-defined]


def _bigquery() -> Client:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    return bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]


def _picture(colour: tuple[int, int, int]) -> bytes:
    """Return a small PNG of one colour."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = 16
    raw = b"".join(b"\0" + bytes(colour) * side for _ in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def run_days(stack: Stack) -> None:
    """Backfill the days and tell what happens.

    :raises AirflowError: when a run does not end in time.
    """
    client = stack.airflow.client
    client.wait_for_dag(DAG_ID)
    client.unpause(DAG_ID)
    first, last = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (DAYS[0], DAYS[-1]))
    client.backfill(DAG_ID, first, last, max_active_runs=3)
    print(
        f"Backfilling {DAG_ID} from {DAYS[0]} to {DAYS[-1]}. Watch it at {stack.airflow.url}/dags/{DAG_ID}", flush=True
    )
    progress = Progress(lambda: _answered(stack))
    while True:
        runs = [run for run in client.runs(DAG_ID) if run["run_type"] == "backfill"]
        for run in runs:
            progress.tell(run, client.tasks(DAG_ID, run["dag_run_id"]))
        if len(runs) == len(DAYS) and all(run["state"] in {"success", "failed"} for run in runs):
            tell_failures(stack, runs)
            return
        if progress.silence_s() > SILENCE_S:
            raise AirflowError(
                f"For {SILENCE_S:.0f} s no task has moved and no row was answered. The logs are in "
                f"{stack.state / 'logs'}.\nTo do: Try again when the machine is less busy, or do without the local "
                "model: make demo MODEL=deterministic."
            )
        time.sleep(1)


def _answered(stack: Stack) -> int:
    """Return how many rows the emulator has answered so far; 0 if it is too busy to answer."""
    try:
        books = requests.get(f"{stack.env[ENDPOINT_VARIABLE]}/emulator/books", timeout=10).json()
    except requests.RequestException:
        return 0
    return int(books["billed"]["rows"])


def tell_failures(stack: Stack, runs: list[dict[str, Any]]) -> None:
    """Print the end of the log of every task that failed."""
    client = stack.airflow.client
    for run in runs:
        for task in client.tasks(DAG_ID, run["dag_run_id"]):
            if task["state"] == "failed":
                log = client.log(DAG_ID, run["dag_run_id"], task["task_id"], task["try_number"])
                print(
                    f"\n{task['task_id']} of {run['logical_date'][:10]} failed; the end of its log:\n"
                    + "\n".join(log.splitlines()[-12:])
                )


class Progress:
    """Prints one line for each change of a run, and while there is none, how far the model is.

    :param answered: returns how many rows have been answered.
    :param clock: returns seconds.
    """

    _MARKS: ClassVar = {
        "success": "done",
        "running": "…",
        "deferred": "waiting",
        "failed": "FAILED",
        "up_for_retry": "again",
        "queued": "queued",
    }

    def __init__(self, answered: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._last: dict[str, str] = {}
        self._answered, self._rows, self._clock = answered, 0, clock
        self._began = self._moved = self._said = clock()

    def tell(self, run: dict[str, Any], tasks: list[dict[str, Any]]) -> None:
        """Print the run's tasks if any has moved."""
        order = ("prepare", "create", "wait", "repair", "export")
        states = {task["task_id"].rpartition(".")[2]: task["state"] for task in tasks}
        line = "  ".join(f"{name} {self._MARKS.get(states.get(name) or '', '-')}" for name in order)
        if self._last.get(run["dag_run_id"]) != line:
            self._last[run["dag_run_id"]] = line
            self._moved = self._clock()
            self._say(f"{run['logical_date'][:10]}  {line}")

    def silence_s(self) -> float:
        """Return for how many seconds neither a run nor the model has moved."""
        if self._clock() - self._said >= QUIET_S:
            rows = self._answered()
            if rows > self._rows:
                self._rows, self._moved = rows, self._clock()
            self._say(f"{self._rows} rows are answered so far")
        return self._clock() - self._moved

    def _say(self, text: str) -> None:
        self._said = self._clock()
        print(f"  {self._said - self._began:4.0f} s  {text}", flush=True)


def show(tickets: int) -> bool:
    """Print the table and the bill; say whether every ticket is in one of the two tables."""
    good, bad = _rows("triage"), _rows("triage_dead_letters")
    head = ("day", "ticket", "language", "mood", "topic", "summary")
    body = [
        (
            row["partition_date"],
            row["row_key"],
            *(_answer(row).get(name, "") for name in head[2:5]),
            _short(_answer(row).get("summary", "")),
        )
        for row in good
    ]
    print(f"\n{PROJECT}.support.triage\n{tabulate(body, headers=head)}")
    if bad:
        dead = [(row["partition_date"], row["row_key"], row["status"], row["reason"]) for row in bad]
        print(
            f"\n{PROJECT}.support.triage_dead_letters\n{tabulate(dead, headers=('day', 'ticket', 'status', 'reason'))}"
        )
    days = [_bill(day, good, bad) for day in DAYS]
    models = " and ".join(sorted({row["model_version"] for row in good + bad if row["model_version"]}))
    columns = ("day", "good", "dead letters", "tokens", f"USD at batch prices of {models}")
    print("\n" + tabulate(days, headers=columns, disable_numparse=True, colalign=("left", *["right"] * 4)))
    complete = len(good) + len(bad) == tickets and all(day[1] for day in days)
    print(
        f"\n{tickets} tickets in, {len(good)} answered, {len(bad)} dead letters: "
        + ("all accounted for." if complete else "SOME ARE MISSING.")
    )
    return complete


def _rows(table: str) -> list[dict[str, Any]]:
    from google.api_core.exceptions import NotFound

    columns = "partition_date, row_key, status, reason, answer, model_version, total_tokens, cost_usd"
    sql = f"SELECT {columns} FROM `{PROJECT}.support.{table}` ORDER BY partition_date, row_key"  # noqa: S608 - our own names
    try:
        return [dict(row.items()) for row in _bigquery().query(sql).result()]
    except NotFound:
        return []


def _answer(row: dict[str, Any]) -> dict[str, Any]:
    answer = row["answer"]
    answer = json.loads(answer) if isinstance(answer, str) else answer
    return answer if isinstance(answer, dict) else {}


def _short(text: str) -> str:
    limit = 60
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _bill(day: str, good: list[dict[str, Any]], bad: list[dict[str, Any]]) -> tuple[str, int, int, str, str]:
    mine = [row for row in good + bad if str(row["partition_date"]) == day]
    tokens = sum(row["total_tokens"] or 0 for row in mine)
    cost = sum((Decimal(row["cost_usd"] or 0) for row in mine), Decimal(0))
    answered = sum(row["status"] == "succeeded" for row in mine)
    return day, answered, len(mine) - answered, f"{tokens:,}", f"{cost:.6f}"


def _stay(stack: Stack) -> str:
    return f"""
Airflow's UI        {stack.airflow.url}/dags/{DAG_ID}   (no password)
Run it again        Backfill or clear a run there: the table stays the same, nothing is bought twice
Other examples      trigger requests_from_cloud_storage, describe_images, steps_one_by_one or one_task
Logs                {stack.state / "logs"}
{elsewhere(stack, BUCKET)}
Ctrl-C stops everything."""


if __name__ == "__main__":
    sys.exit(main())
