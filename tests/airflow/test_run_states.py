"""What became of a DAG run, asked from outside a task: each answer of Airflow's REST API; and an Airflow's name."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.errors import InputError, ServiceError
from airflow_vertex_batch.edge.runs import PASSWORD_VARIABLE, TOKEN_VARIABLE, RestRuns, runs_here
from airflow_vertex_batch.settings import Settings
from tests.builders import an_identity
from tests.gcp.scripted_server import Answer, ScriptedServer

RUN = "scheduled__2026-11-22"
#: Airflow's own words (3.3.2, core_api/routes/public/dag_run.py).
MISSING = Answer(404, {"detail": f"The DagRun with dag_id: `nightly` and run_id: `{RUN}` was not found"})
VERSION = Answer(200, {"version": "3.3.2", "git_version": None})


class Airflow:
    """An API server that answers one question about a run as it is told.

    :param about: the answer about any run.
    :param version: what it says it is.
    """

    def __init__(self, about=MISSING, *, version=VERSION, token=Answer(201, {"access_token": "made"})):  # noqa: B008
        self._about, self._version, self._token = about, version, token

    def __call__(self, asked):
        if asked.path == "/api/v2/version":
            return self._version
        return self._token if asked.path == "/auth/token" else self._about


@pytest.fixture
def airflow(monkeypatch):
    """Start an API server; return it and what asks it."""
    servers = []

    def start(*about, user="", **options):
        servers.append(ScriptedServer(route=Airflow(*about, **options)))
        server = servers[-1].__enter__()
        return server, RestRuns(server.url, user)

    monkeypatch.setenv(TOKEN_VARIABLE, "given")
    yield start
    for server in servers:
        server.__exit__(None, None, None)


class TestAnAnswer:
    @pytest.mark.parametrize(
        ("answer", "state"),
        [
            (Answer(200, {"state": "failed"}), "failed"),
            (Answer(200, {"state": "running"}), "running"),
            (MISSING, "deleted"),
            (Answer(404, {"detail": "Not Found"}), None),
            (Answer(404, b"<html>no such page</html>"), None),
            (Answer(403, {"detail": "Forbidden"}), None),
            (Answer(500, {"detail": f"{RUN}?"}), None),
            (Answer(200, b"<html>sign in</html>"), None),
        ],
        ids=["failed", "running", "gone", "no such route", "a proxy's 404", "no right", "trouble", "a sign-in page"],
    )
    def test_is_a_state_or_an_absence_or_nothing_that_is_known(self, airflow, answer, state):
        assert airflow(answer)[1].state(an_identity()) == state

    def test_an_id_goes_into_one_part_of_the_address(self, airflow):
        server, runs = airflow()
        runs.state(an_identity(run_id="manual__2026-11-22T02:00:00+00:00/1"))
        assert server.asked[-1].path == "/api/v2/dags/nightly/dagRuns/manual__2026-11-22T02%3A00%3A00%2B00%3A00%2F1"

    def test_a_token_that_ran_out_is_an_error(self, airflow):
        with pytest.raises(ServiceError, match=rf"does not let us in \(HTTP 401\).*{TOKEN_VARIABLE}"):
            airflow(Answer(401))[1].state(an_identity())


class TestComingIn:
    def test_with_a_token_that_was_given(self, airflow):
        server, runs = airflow()
        runs.state(an_identity())
        assert server.asked[-1].authorization == "Bearer given"

    def test_with_a_password(self, airflow, monkeypatch):
        monkeypatch.delenv(TOKEN_VARIABLE)
        monkeypatch.setenv(PASSWORD_VARIABLE, "hush")
        server, runs = airflow(user="ann")
        runs.state(an_identity())
        (login,) = [asked for asked in server.asked if asked.path == "/auth/token"]
        assert (login.method, login.body) == ("POST", {"username": "ann", "password": "hush"})
        assert server.asked[-1].authorization == "Bearer made"

    def test_where_all_are_admins_without_either(self, airflow, monkeypatch):
        monkeypatch.delenv(TOKEN_VARIABLE)
        assert airflow()[1].state(an_identity()) == "deleted"

    def test_a_refusal_never_repeats_the_password(self, airflow, monkeypatch):
        monkeypatch.delenv(TOKEN_VARIABLE)
        monkeypatch.setenv(PASSWORD_VARIABLE, "hush")
        with pytest.raises(ServiceError, match=r"does not let us in \(HTTP 403\)") as caught:
            airflow(user="ann", token=Answer(403))
        assert "hush" not in str(caught.value)

    @pytest.mark.parametrize("version", [Answer(404), Answer(200, b"<html>"), Answer(200, {})], ids=str)
    def test_what_is_no_airflow_is_told_nothing(self, airflow, version):
        with pytest.raises(InputError, match=r"is no Airflow 3.*Give the address of the API server"):
            airflow(version=version)

    def test_nobody_at_the_address(self):
        with pytest.raises(ServiceError, match="did not answer"):
            RestRuns("http://127.0.0.1:9")


class TestTheName:
    """An Airflow's name: what is set, as a label value, or a hash of what its machines share."""

    @pytest.fixture(autouse=True)
    def _an_airflow(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://one.example")
        monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "k" * 43 + "=")

    def test_is_the_same_whenever_it_is_asked_and_a_legal_label(self):
        name = Settings.read().installation
        assert name == Settings.read().installation
        assert name.startswith("airflow-")
        assert len(name) == 18

    @pytest.mark.parametrize("option", ["AIRFLOW__API__BASE_URL", "AIRFLOW__CORE__FERNET_KEY"])
    def test_differs_where_address_or_key_do(self, monkeypatch, option):
        before = Settings.read().installation
        monkeypatch.setenv(option, "another")
        assert Settings.read().installation != before

    def test_holds_nothing_of_the_key(self):
        assert "kkk" not in Settings.read().installation

    def test_is_what_is_set_as_a_label_value(self, monkeypatch):
        monkeypatch.setenv("AIRFLOW__VERTEX_BATCH__INSTALLATION", "Airflow Production.EU")
        assert Settings.read().installation == "airflow-production-eu"


class TestHere:
    def test_a_machine_without_runs_is_no_witness(self, monkeypatch, tmp_path):
        """An Airflow that was made by asking for it, with an empty database, would call every run deleted."""
        monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
        with pytest.raises(InputError, match="The Airflow of this machine cannot be asked"):
            runs_here()
