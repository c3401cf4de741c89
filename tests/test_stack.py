"""What the local servers and the demo say to whoever starts them with a mistake, or on a busy machine."""

from __future__ import annotations

import signal
from itertools import count

import pytest

from stack import demo
from stack.client import AirflowClient, AirflowError
from stack.demo import INTERRUPTED, QUIET_S, Progress
from stack.laptop import Ports
from stack.process import StackError
from tests.gcp.scripted_server import Answer, ScriptedServer


@pytest.mark.parametrize("text", ["abc", "65536", "-1", "8080.5"])
def test_what_is_no_port_is_named_with_its_variable(monkeypatch, text):
    monkeypatch.setenv("PORT_AIRFLOW", text)
    with pytest.raises(StackError, match=f"PORT_AIRFLOW must be a port number, .* but is '{text}'"):
        Ports.from_environment()


@pytest.mark.parametrize(("once", "status"), [("1", INTERRUPTED), ("", 0)])
def test_a_demo_that_was_to_end_by_itself_is_no_success_when_it_is_stopped(monkeypatch, once, status):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setenv("ONCE", once)
    monkeypatch.setattr(demo, "_stack", stopped)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert demo.main() == status
    finally:
        signal.signal(signal.SIGTERM, handler)


class TestTheDemosProgress:
    """A slow model is not silent: what it has answered is said, and counts as a move."""

    def test_says_how_far_the_model_is_while_no_task_moves(self, capsys):
        time, rows = [0.0], [0]
        progress = Progress(lambda: rows[0], lambda: time[0])
        for seconds, answered, silence in ((QUIET_S - 1, 0, QUIET_S - 1), (100, 3, 0), (150, 3, 50), (200, 4, 0)):
            time[0], rows[0] = seconds, answered
            assert progress.silence_s() == silence
        said = capsys.readouterr().out.splitlines()
        assert [line.split("s  ")[1] for line in said] == [f"{n} rows are answered so far" for n in (3, 3, 4)]


def test_a_dag_whose_file_fails_twice_is_not_waited_for_until_the_end():
    """Once may be a file that is still being written."""
    looks = count()

    def route(asked):
        if asked.path == "/auth/token":
            return Answer(body={"access_token": "token"})
        if asked.path.endswith("/importErrors"):
            error = {"filename": "night.py", "timestamp": str(next(looks)), "stack_trace": "NameError: x"}
            return Answer(body={"import_errors": [error], "total_entries": 1})
        return Answer(status=404, body={"detail": "not found"})

    with (
        ScriptedServer(route=route) as server,
        pytest.raises(AirflowError, match=r"cannot come from night.py:\nNameErr"),
    ):
        AirflowClient(server.url).wait_for_dag("night")
    assert next(looks) == 2
