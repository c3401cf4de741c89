"""What rows, prompts and secrets hold is where it belongs, and nowhere else: a search through a whole Airflow.

Every text of a night has a mark. Rows fail in every way, with texts of the service that quote them; templates, sources
and tasks fail. Then every column of every table of Airflow's database, and every log, is searched for marks.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from pathlib import Path

import pytest
import sqlalchemy

MARK = re.compile(r"avb-canary-([a-z]+)")
DAGS = ("canaries", "canaries_at_once", "canaries_in_errors")
#: What a DAG's author wrote into its file, as the guide says: Airflow shows templated arguments, the manifest in an
#: XCom has the schema, and labels are a job's, which is told of. The prompt is shown nowhere.
ARGUMENTS = {"system", "variable", "stop", "label"}
SHOWN = {
    ("rendered_task_instance_fields", "rendered_fields"): {*ARGUMENTS, "schema"},
    ("serialized_dag", "data"): ARGUMENTS,
    ("xcom", "value"): {"schema", "label"},
}
#: Where an argument also stands once Airflow itself has ended an attempt, as it does on a machine under load: what the
#: attempt kept over its wait.
SHOWN_AFTER_A_RETRY = {("task_instance_history", "next_kwargs"): {"label"}}
SHOWN_IN_LOGS = {"label"}
OF_ROWS = {"subject", "body", "note", "media"}
SECRET = "password"
#: Tasks of `canaries_in_errors`: prompts, files, and the others.
ERRORS = 14 + 4 + 7


def mark(name):
    """What must not be found where it does not belong."""
    return f"avb-canary-{name}"


def faults():
    """Every fault of a row; its text quotes the row where the service gives one."""
    said = f"The request could not be served: {mark('subject')} {mark('body')} {mark('note')} {mark('system')}"
    ours = {"labels": {"airflow-dag": "canaries*"}, "times": None}
    return [
        {"do": "row_error", "keys": ["r-1"], "code": 400, "message": said, **ours},
        {"do": "row_error", "keys": ["r-2"], "code": 503, "message": said, **ours},
        {"do": "blocked", "keys": ["r-3"], "message": said, **ours},
        {"do": "finish", "keys": ["r-4"], "reason": "SAFETY", "message": said, **ours},
        {"do": "invalid_json", "keys": ["r-5"], "text": said, **ours},
        {"do": "missing", "keys": ["r-6"], **ours},
        {"do": "truncated", "keys": ["r-7"], **ours},
        {"do": "row_error", "keys": ["r-8"], "text": f"{said} {{", **ours},
    ]


@pytest.fixture(scope="module")
def searched(stack):
    """Run the DAGs to their ends."""
    from tests.airflow.conftest import Cloud

    client, cloud = stack.airflow.client, Cloud(stack)
    sockets = stack.airflow.database_url.partition("host=")[2]
    shop = {"connection_id": "canaries", "conn_type": "postgres", "host": sockets, "login": "postgres"}
    client._send("POST", "connections", json={**shop, "schema": "airflow", "password": mark(SECRET)})
    _upload(cloud)
    with cloud.misbehaving(faults()):
        runs = {}
        for dag_id in DAGS:
            client.wait_for_dag(dag_id)
            client.unpause(dag_id)
            runs[dag_id] = client.trigger(dag_id)
        for dag_id, run_id in runs.items():
            client.wait_for_run(dag_id, run_id)
    return runs


def _upload(cloud):
    cloud._bucket.blob(f"marked-images/{mark('media')}.png").upload_from_string(b"png")
    cloud.upload("marked/csv.txt", f'id,body\n1,"{mark("body")}\n2,{mark("body")}\n')
    cloud.upload("marked/json.txt", f'{{"body": "{mark("body")}", oops}}\n["{mark("body")}"]\n')
    cloud.upload("marked/torn.txt", f'{{"body": "{mark("body")}')
    cloud._bucket.blob("marked/bytes.txt").upload_from_string(b"id,body\n1," + mark("body").encode() + b"\xff\n")
    bad = [
        {"key": "r-1", "request": {"contents": mark("body")}},
        {"key": "r-2", "request": {"contents": [{"role": mark("body"), "parts": [{"text": mark("body")}]}]}},
        {"key": "r-3", "request": mark("body")},
        {"key": "r-4", "request": {"contents": [{"parts": [{"fileData": {"fileUri": mark("body")}}]}]}},
        {"key": "r-5", "request": {"contents": [], "generationConfig": {"temperature": mark("body")}}},
    ]
    cloud.upload("marked/requests.jsonl", "".join(json.dumps(line) + "\n" for line in bad))


@pytest.fixture(scope="module")
def in_database(stack, searched):
    """Marks by table and column of Airflow's database."""
    found: dict[tuple[str, str], set[str]] = {}
    engine = sqlalchemy.create_engine(stack.airflow.database_url)
    with engine.connect() as connection:
        for table in sqlalchemy.inspect(engine).get_table_names():
            for (row,) in connection.execute(sqlalchemy.text(f'SELECT row_to_json(t) FROM "{table}" AS t')):
                for column, value in row.items():
                    if names := _marks(value):
                        found.setdefault((table, column), set()).update(names)
    return found


def _marks(value):
    """The marks in a value of a column; packed bytes are unpacked."""
    text = value if isinstance(value, str) else json.dumps(value)
    if text.startswith("\\x"):
        data = bytes.fromhex(text[2:])
        with contextlib.suppress(zlib.error):
            data = zlib.decompress(data)
        text = data.decode("utf-8", "replace")
    return set(MARK.findall(text))


@pytest.fixture(scope="module")
def in_files(stack, searched):
    """Marks by file: task logs, and the logs of Airflow's servers."""
    logs = [stack.log(f"airflow-{name}") for name in ("api-server", "scheduler", "triggerer", "dag-processor")]
    assert all(log.stat().st_size for log in logs)
    tasks = [path for path in (stack.airflow.home / "logs").rglob("*") if path.is_file()]
    assert len([path for path in tasks if "dag_id=canaries" in str(path)]) > 30
    found = {path: set(MARK.findall(path.read_text("utf-8", "replace"))) for path in [*logs, *tasks]}
    return {path: names for path, names in found.items() if names}


class TestTheRuns:
    """They met what they should."""

    def test_tasks_waited_in_the_triggerer_failed_and_were_tried_again(self, airflow, stack, searched):
        states = {}
        for dag_id, run_id in searched.items():
            for task in airflow.tasks(dag_id, run_id):
                states[f"{dag_id}.{task['task_id']}"] = (task["state"], task["try_number"])
        # How often Airflow itself ends an attempt depends on the machine.
        steps = {
            name: states[f"canaries.batch.{name}"][0] for name in ("prepare", "create", "wait", "repair", "export")
        }
        assert steps == {**dict.fromkeys(("prepare", "create", "wait", "repair"), "success"), "export": "failed"}
        assert states["canaries_at_once.whole"][0] == "failed"
        errors = {name.partition(".")[2]: state for name, state in states.items() if "in_errors" in name}
        assert len(errors) == ERRORS
        assert {state for state, _ in errors.values()} == {"failed"}
        assert {name for name, (_, tries) in errors.items() if tries == 2} >= {
            "rows_break", "rows_cause", "database", "decorated",
        }  # fmt: skip
        waits = {str(path) for path in (stack.airflow.home / "logs").rglob("attempt=1.log.trigger*")}
        assert any("dag_id=canaries" in path for path in waits), "nothing was deferred"

    def test_marks_are_in_staging_and_at_the_destination(self, cloud, searched):
        staging = b"".join(cloud.objects("vertex-batch").values()).decode("utf-8", "replace")
        assert set(MARK.findall(staging)) >= {*OF_ROWS, *ARGUMENTS, "prompt", "schema"} - {"label"}
        answers, letters = (
            b"".join(cloud.objects(f"canaries/{kind}").values()).decode("utf-8", "replace")
            for kind in ("answers", "dead-letters")
        )
        assert "note" in MARK.findall(answers)
        assert {*MARK.findall(letters)} >= {"subject", "body", "note"}
        assert len(cloud.query("SELECT * FROM `demo.support.canaries_dead_letters`")) >= 8


class TestNoMark:
    """Of a row, a prompt or a secret; of arguments only where Airflow shows arguments."""

    def test_is_in_a_log(self, in_files, stack):
        home = Path(stack.state)
        found = {str(path.relative_to(home)): names - SHOWN_IN_LOGS for path, names in in_files.items()}
        assert {path: names for path, names in found.items() if names} == {}

    def test_is_in_the_database(self, in_database):
        shown = {**SHOWN, **SHOWN_AFTER_A_RETRY}
        assert {place: names for place, names in in_database.items() if names - shown.get(place, set())} == {}

    def test_of_an_argument_is_missed_by_the_search(self, in_database):
        """Else it would prove nothing."""
        assert {place: in_database.get(place) for place in SHOWN} == SHOWN

    def test_is_in_the_error_of_a_dag_file(self, airflow, stack):
        """A prompt that cannot be compiled."""
        file = stack.airflow.dags / "marked_prompt.py"
        file.write_text(
            "from airflow.sdk import DAG\nfrom airflow_vertex_batch import VertexBatchPrepareOperator\n"
            "with DAG('marked', schedule=None):\n"
            "    mark = '-'.join(('avb', 'canary', 'prompt'))\n"
            "    VertexBatchPrepareOperator(task_id='a', rows=['x'], prompt=mark + ' {{ a b }} ' + mark)\n"
        )
        try:
            errors = airflow.wait_for("the import error", lambda: airflow.import_errors() or None, lambda: "")
        finally:
            file.unlink()
            airflow.wait_for(
                "it to go", lambda: not airflow.import_errors() or None, lambda: str(airflow.import_errors())
            )
        (text,) = errors.values()
        assert "The prompt template has a mistake in line 1" in text
        assert MARK.findall(text) == []
        assert MARK.findall(stack.log("airflow-dag-processor").read_text("utf-8", "replace")) == []
