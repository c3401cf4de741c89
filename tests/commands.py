"""The command lines of `test_commands.py`, and the folder they are run in.

Each file's text holds `CANARY` where a row's content stands: no command may print it.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from airflow_vertex_batch.core.domain.catalog import EXAMPLE_MODEL
from airflow_vertex_batch.core.domain.identity import Identity
from airflow_vertex_batch.core.purchase.entries import Submission
from airflow_vertex_batch.core.purchase.log import BatchLog
from tests.builders import NIGHT, a_failed_output, a_line, a_request, an_output, jsonl
from tests.fakes import MemoryStore

CANARY = "canary-7f3e"
BUCKET = "command-lines"
#: Nothing listens there.
NOWHERE = "http://127.0.0.1:9"

_PRICE = {"model": EXAMPLE_MODEL, "input": 1, "output": 2, "cached_input": 0.1}
_SOURCED = _PRICE | {"source": "a contract", "date": "2026-11-24"}
_CLEAN = jsonl(a_line("r1", CANARY), a_line("r2", f"{CANARY}, too"))
_BROKEN = jsonl(a_line("r1"), {"key": "r2", "request": a_request(CANARY, tools=[{"googleSearch": {}}])})
_CURABLE = jsonl({"key": "r1", "request": a_request(CANARY, labels={})})
_OUTPUT = jsonl(an_output("r1", CANARY), a_failed_output("r2"))
_MOODS = f"""
model = "{EXAMPLE_MODEL}"
location = "global"
staging_uri = "gs://{BUCKET}/runs"
destination = "gs://{BUCKET}/answers-of-runs"
rows = ["{CANARY}"]
""".encode()
_CSV = f"id,body\n1,{CANARY}\n".encode()


def _files() -> dict[str, bytes]:
    return {
        "requests.jsonl": _CLEAN,
        "broken.jsonl": _BROKEN,
        "curable.jsonl": _CURABLE,
        "empty.jsonl": b"",
        "blank.jsonl": b"\n \n",
        "text.jsonl": f"hello {CANARY}\n".encode(),
        "list.jsonl": b"[1, 2]\n",
        "bad.jsonl": f'{{"key": "r1", {CANARY}\n'.encode(),
        "deep.jsonl": b'{"key": "r1", "request": ' + b"[" * 5_000 + b"]" * 5_000 + b"}\n",
        "latin.jsonl": f'{{"key": "r1", "request": "caf\xe9 {CANARY}"}}\n'.encode("latin-1"),
        "bom.jsonl": b"\xef\xbb\xbf" + _CLEAN,
        "utf16.jsonl": _CLEAN.decode().encode("utf-16"),
        "binary.jsonl": bytes(range(256)),
        "image.png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "tickets.csv": _CSV,
        "tickets.tsv": _CSV.replace(b",", b"\t"),
        "tickets.csv.gz": gzip.compress(_CSV, mtime=0),
        "tickets.parquet": b"PAR1" + bytes(100) + b"PAR1",
        "table.jsonl": _CSV,
        "spread.jsonl": json.dumps({"request": a_request(CANARY)}, indent=2).encode() + b"\n",
        "spread-list.jsonl": b"[\n  1\n]\n",
        "packed.jsonl.gz": gzip.compress(_CLEAN, mtime=0),
        "cut.jsonl.gz": gzip.compress(_CLEAN * 50, mtime=0)[:60],
        "unpacked.jsonl.gz": _CLEAN,
        "packed.jsonl": gzip.compress(_CLEAN, mtime=0),
        "a[1].jsonl": _CLEAN,
        "predictions.jsonl": _OUTPUT,
        "mixed.jsonl": _OUTPUT + _CLEAN,
        "torn.jsonl": _OUTPUT + b'{"key": "r3',
        "unpriced.jsonl": jsonl(an_output("r1", CANARY, response=_from_nowhere())),
        "folder/predictions.jsonl": _OUTPUT,
        "folder/notes.txt": b"nothing",
        "prices.json": json.dumps({"prices": [_SOURCED]}).encode(),
        "prices-bad.json": b'{"prices": [',
        "prices-list.json": b"[]",
        "prices-member.json": json.dumps({"prices": [_SOURCED | {"rate": 1}]}).encode(),
        "prices-unsourced.json": json.dumps({"prices": [_PRICE]}).encode(),
        "prices-twice.json": json.dumps({"prices": [_SOURCED, _SOURCED]}).encode(),
        "prices-dear.json": json.dumps({"prices": [_SOURCED | {"input": 1e6}]}).encode(),
        "prices-day.json": json.dumps({"prices": [_SOURCED | {"date": "yesterday"}]}).encode(),
        "prices-latin.json": '{"prices": [{"model": "caf\xe9"}]}'.encode("latin-1"),
        "prices-deep.json": b'{"prices": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "prices-empty.json": b"",
        "moods.toml": _MOODS,
        "bad.toml": b"model = ",
        "typo.toml": _MOODS + b"promt = 1\n",
        "idle.toml": _MOODS + b"deferrable = true\n",
        "wrong.toml": _MOODS + b'repair_rounds = "two"\n',
        "half.toml": b'model = "gemini-3.8-flash"\n',
        "scenario-bad.json": b"{",
        "scenario-member.json": b'{"switches": {"nothing": 1}}',
        "scenario-fault.json": b'{"faults": [{"type": "nothing"}]}',
        "scenario-latin.json": '{"switches": {"echo": "\xe9"}}'.encode("latin-1"),
        "scenario-deep.json": b'{"faults": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    }  # fmt: skip


def _from_nowhere() -> dict[str, object]:
    response = json.loads(json.dumps(an_output()["response"]))
    return response | {"modelVersion": "gemini-without-a-price"}


def write_files(folder: Path) -> None:
    """Write the files that the commands are given."""
    for name, content in _files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "empty-folder").mkdir()
    (folder / "dangling.jsonl").symlink_to("nothing-there")
    (folder / "loop.jsonl").symlink_to("loop.jsonl")


def objects() -> dict[str, bytes]:
    """Return what lies in the bucket, by name."""
    names = ("requests.jsonl", "broken.jsonl", "curable.jsonl", "predictions.jsonl", "tickets.csv", "prices.json")
    files = _files()
    made = {name: files[name] for name in names}
    job = "answers/prediction-model-2026-11-22T03:04:05.123456Z"
    return (
        made
        | _logs()
        | {f"{job}/predictions.jsonl": _OUTPUT, "plain/predictions.jsonl": _OUTPUT, "other/notes.txt": b"n"}
    )


def _logs() -> dict[str, bytes]:
    """Logs of batches, one of them torn, one of a version to come."""
    store = MemoryStore()
    submission = Submission(fingerprint="f", job_name="projects/1/locations/global/batchPredictionJobs/7")
    for dag_id, task_id in (("dag", "task"), ("dag", "gr.create"), ("torn", "task"), ("future", "task")):
        who = Identity(staging=f"gs://{BUCKET}/staging", dag_id=dag_id, task_id=task_id, run_id="run")
        BatchLog(store, who, "1:x", lambda: NIGHT).add(submission)
    found = {name.removeprefix(f"gs://{BUCKET}/"): data for name, data in store.objects.items()}
    for name in [name for name in found if "/log/" in name]:
        found[name] = found[name][:40] if "/torn/" in name else found[name]
        found[name] = found[name].replace(b'"version":1', b'"version":9') if "/future/" in name else found[name]
    return found


_JOBS = "--project my-project --location global"
_DOCTOR = f"doctor {_JOBS} --model {EXAMPLE_MODEL}"
_SWEEP = f"sweep {_JOBS} --staging gs://{BUCKET}/staging"
_STORY = "story dag run task"
_ROW = json.dumps({"subject": CANARY})
_GS = f"gs://{BUCKET}"

#: Exit status, and the command lines that end with it: in a folder made by `write_files`, with a Cloud Storage server
#: that holds `objects`, and no Vertex AI.
LINES: dict[int, tuple[str, ...]] = {
    0: (
        "lint requests.jsonl", "lint 'a[1].jsonl'", "lint packed.jsonl.gz", "lint predictions.jsonl",
        "lint --ignore empty-object broken.jsonl", "lint --format json requests.jsonl", f"lint {_GS}/requests.jsonl",
        f"lint '{_GS}/re*.jsonl'", "lint --fix curable.jsonl --output copies",
        f"lint --fix {_GS}/curable.jsonl --output {_GS}/copies",
        "report predictions.jsonl", "report predictions.jsonl predictions.jsonl",
        "report mixed.jsonl", "report torn.jsonl", "report unpriced.jsonl", "report folder",
        "report folder/", "report empty.jsonl predictions.jsonl", "report 'pre*.jsonl'",
        "report --format json predictions.jsonl",
        "report --format markdown predictions.jsonl", "report --prices prices.json predictions.jsonl",
        f"report {_GS}/predictions.jsonl", f"report {_GS}/answers", f"report {_GS}/answers/", f"report {_GS}/plain",
        f"report '{_GS}/plain/*.jsonl'", f"report --prices {_GS}/prices.json predictions.jsonl",
        f"report {_GS}", f"report {_GS}/",
        "prices", "prices --format json", "prices --day 2026-12-01", "prices --file prices.json",
        f"prices --file {_GS}/prices.json", "--version", "--help", "lint --help", "sweep --help", "run --help",
        "story --help", f"{_STORY} --staging {_GS}/staging", f"story dag run gr --staging {_GS}/staging",
        f"{_STORY} --format json --staging {_GS}/staging/",
    ),
    1: (
        "lint broken.jsonl", "lint curable.jsonl", "lint empty.jsonl", "lint blank.jsonl", "lint text.jsonl",
        "lint list.jsonl", "lint bad.jsonl", "lint deep.jsonl", "lint latin.jsonl", "lint bom.jsonl",
        "lint table.jsonl", "lint --format json broken.jsonl", "lint requests.jsonl requests.jsonl",
        "lint --fix broken.jsonl text.jsonl --output copies", f"lint {_GS}/broken.jsonl",
        # Nobody can be asked, and these are wrong whatever the answer.
        f"doctor {_JOBS} --model 'not a model'", "doctor --project my-project --location 'not a place' --model m",
        "doctor --project P --location global --model m", f"{_DOCTOR} --label BAD=x", f"{_DOCTOR} --label=novalue",
        f"{_DOCTOR} --staging folder", f"{_DOCTOR} --destination nothing", f"{_DOCTOR} --staging gs://no-such-bucket/x",
        f"{_DOCTOR} --display-name {'x' * 129}", f"{_DOCTOR} --canary --prompt '{{{{ body }}}}' --row '{_ROW}'",
        f"{_DOCTOR} --format json --staging {_GS}/staging",
    ),
    2: (
        "lint", "lint --model 'a b' requests.jsonl",
        "lint none.jsonl", "lint '*.nothing'", "lint empty-folder", "lint utf16.jsonl", "lint binary.jsonl",
        "lint image.png", "lint tickets.csv", "lint tickets.tsv", "lint tickets.csv.gz", "lint tickets.parquet",
        "lint cut.jsonl.gz", "lint unpacked.jsonl.gz", "lint packed.jsonl",
        "lint spread.jsonl", "lint spread-list.jsonl", "lint dangling.jsonl", "lint loop.jsonl",
        "lint requests.jsonl/x", "lint ''", "lint s3://bucket/x", "lint gs://", "lint gs://UPPER/x", "lint bq://p.d.t",
        f"lint {'x' * 300}", "lint --format xml requests.jsonl", "lint --ignore nothing requests.jsonl",
        f"lint {_GS}/none.jsonl", f"lint {_GS}/tickets.csv", "lint gs://no-such-bucket/x", "lint --fix none.jsonl",
        "lint --fix tickets.csv", "lint --fix cut.jsonl.gz", "lint --fix requests.jsonl --output requests.jsonl/x",
        "lint --fix requests.jsonl --output .", "lint --fix requests.jsonl --output gs://no-such-bucket/x",
        "lint --fix requests.jsonl --output ''", "lint --output copies requests.jsonl", "lint --nothing requests.jsonl",
        "report", "report none.jsonl", "report requests.jsonl", "report bom.jsonl", "report deep.jsonl",
        "report latin.jsonl", "report empty.jsonl", "report empty-folder",
        "report folder/notes.txt", "report tickets.csv",
        "report tickets.parquet", "report image.png", "report text.jsonl", "report packed.jsonl.gz",
        "report spread.jsonl",
        "report utf16.jsonl", "report dangling.jsonl", "report loop.jsonl", "report '*.nothing'", "report ''",
        "report bq://p.d.t", "report --format xml predictions.jsonl", "report --prices none.json predictions.jsonl",
        "report --prices prices-bad.json predictions.jsonl", "report --prices folder predictions.jsonl",
        f"report {_GS}/none", f"report {_GS}/other", f"report {_GS}/requests.jsonl", "report gs://no-such-bucket/x",
        "report gs://no-such-bucket",
        "prices --format markdown", "prices --day yesterday", "prices --day 2026-13-01", "prices --file none.json",
        "prices --file folder", "prices --file prices-bad.json", "prices --file prices-list.json",
        "prices --file prices-member.json", "prices --file prices-unsourced.json", "prices --file prices-twice.json",
        "prices --file prices-dear.json", "prices --file prices-day.json", "prices --file prices-latin.json",
        "prices --file prices-deep.json", "prices --file prices-empty.json", "prices --file bq://p.d.t",
        "prices --file ''", f"prices --file {_GS}/none.json", "prices extra",
        "doctor", f"{_DOCTOR} --row '{{\"a\": {CANARY}'", f"{_DOCTOR} --row '[\"{CANARY}\"]'",
        f"{_DOCTOR} --schema '{{'", f"{_DOCTOR} --generation-config 3", f"{_DOCTOR} --staging gs://",
        f"{_DOCTOR} --format xml",
        "sweep", f"sweep {_JOBS} --staging folder", f"sweep {_JOBS} --staging ''",
        f"sweep --project my-project --location 'not a place' --staging {_GS}/staging",
        f"sweep --project 'P P' --location global --staging {_GS}/staging", f"{_SWEEP} --older-than=-1",
        f"{_SWEEP} --older-than nan", f"{_SWEEP} --lookback week", f"{_SWEEP} --prices none.json",
        f"{_SWEEP} --airflow-url {NOWHERE}", f"{_SWEEP} --airflow-url nothing --installation here",
        f"{_SWEEP} --airflow-url {NOWHERE} --installation here", f"{_SWEEP} --airflow-url http://a --airflow-here",
        f"{_SWEEP} --harvest-to nothing", f"{_SWEEP} --format xml",
        "run", "run none.toml", "run folder", "run requests.jsonl", "run binary.jsonl", "run gs://no-such-bucket/a.toml",
        f"run {_GS}/none.toml", "run bad.toml", "run typo.toml", "run idle.toml", "run wrong.toml", "run half.toml",
        "run moods.toml --once --detach", "run moods.toml --day yesterday", "run moods.toml --destination answers",
        "run moods.toml --staging ''", "run moods.toml --prices none.json", "run moods.toml --format xml",
        "run moods.toml extra",
        "story", "story dag", "story dag run", "story dag run task", f"{_STORY} --staging folder",
        f"{_STORY} --staging '{_GS}/s*'", f"{_STORY} --staging gs://no-such-bucket/s", f"{_STORY} --staging ''",
        f"{_STORY} --map-index one --staging {_GS}/staging", f"story dag run other --staging {_GS}/staging",
        f"{_STORY} --format xml --staging {_GS}/staging", f"story torn run task --staging {_GS}/staging",
        f"story future run task --staging {_GS}/staging", f"{_STORY} --ask --staging {_GS}/staging",
        "emulator --port 65536", "emulator --port -1", "emulator --port eight", "emulator --port 22.5",
        "emulator --port 0 --host ''", "emulator --port 0 --speed 0", "emulator --port 0 --speed nan",
        "emulator --port 0 --speed fast", "emulator --port 0 --model nothing", "emulator --port 0 --scenario none.json",
        "emulator --port 0 --scenario folder", "emulator --port 0 --scenario scenario-bad.json",
        "emulator --port 0 --scenario scenario-member.json", "emulator --port 0 --scenario scenario-fault.json",
        "emulator --port 0 --scenario scenario-latin.json", "emulator --port 0 --scenario scenario-deep.json",
        "emulator --port 0 --scenario ''", "emulator --port 0 --data requests.jsonl",
        "emulator --port 0 --data requests.jsonl/x", "emulator --port 0 --data ''", "emulator --port 0 --staging ''",
        "emulator --port 0 --staging folder", "emulator --port 0 --staging gs://", "emulator --port 0 extra",
        "", "dance", "--nothing",
    ),
}  # fmt: skip

#: Where no server answers: status 2, within seconds.
UNANSWERED = (
    f"lint {_GS}/requests.jsonl", f"report {_GS}/predictions.jsonl", f"prices --file {_GS}/prices.json", _SWEEP,
    f"lint --fix requests.jsonl --output {_GS}/copies",
)  # fmt: skip
