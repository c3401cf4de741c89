"""The emulator on a real socket: quick while it works, connections that really break, a process that ends well."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import httpx
import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.emulator.clock import SystemClock
from airflow_vertex_batch.emulator.faults import Drop, Http
from airflow_vertex_batch.emulator.models import DeterministicModel
from airflow_vertex_batch.emulator.scenario import Scenario
from airflow_vertex_batch.emulator.server import serve
from tests.emulator.worlds import INPUT, PARENT, MemoryStore, World, a_body, a_line, listening

ROOT = Path(__file__).parents[2]


def eventually(condition, seconds=300):
    """Ask until `condition` gives something true."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        threading.Event().wait(0.01)
    raise AssertionError(f"{condition} did not come true in {seconds} s")


def succeeded(client, name):
    """Return a job that has succeeded."""
    job = client.get(f"/v1/{name}").json()
    return job if job["state"] == "JOB_STATE_SUCCEEDED" else None


class TestOverASocket:
    def test_a_job_is_created_driven_and_read(self):
        world = World(clock=SystemClock(), speed=2000)
        world.store.put(INPUT, *(a_line(f"k{number}") for number in range(20)))
        with listening(world) as url, httpx.Client(base_url=url, timeout=300) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            created = client.post(PARENT, json=a_body())
            assert (created.status_code, created.headers["content-type"]) == (200, "application/json")
            job = eventually(lambda: succeeded(client, created.json()["name"]))
            assert len(world.output(job)) == 20
            assert client.get("/emulator/books").json()["billed"]["rows"] == 20

    def test_calls_are_answered_while_a_model_takes_its_time(self):
        entered, release = threading.Event(), threading.Event()

        class Slow(DeterministicModel):
            def answer(self, request):
                entered.set()
                assert release.wait(300)
                return super().answer(request)

        world = World(clock=SystemClock(), speed=100_000, model=Slow())
        world.store.put(INPUT, a_line())
        with listening(world) as url, httpx.Client(base_url=url, timeout=300) as client:
            job = client.post(PARENT, json=a_body()).json()
            assert entered.wait(300)
            assert client.get(f"/v1/{job['name']}").json()["state"] == "JOB_STATE_RUNNING"
            assert len(client.get(PARENT).json()["batchPredictionJobs"]) == 1
            assert client.post(PARENT, json=a_body()).status_code == 200
            release.set()

    @pytest.mark.parametrize(("when", "created"), [("before", 0), ("after", 1)])
    def test_a_dropped_connection_gives_no_byte_of_an_answer(self, when, created):
        world = World(scenario=Scenario(faults=(Drop(on="create", when=when),)))
        with listening(world) as url, httpx.Client(base_url=url, timeout=300) as client:
            with pytest.raises(httpx.TransportError, match=r"disconnected|reset"):
                client.post(PARENT, json=a_body())
            books = client.get("/emulator/books").json()
            assert (books["jobsCreated"], books["replies"]["create"]) == (created, {"dropped": 1})
            assert client.post(PARENT, json=a_body()).status_code == 200

    def test_headers_and_pages_of_faults_arrive(self):
        faults = (Http(on="list", status=429, retry_after=3), Http(on="list", status=502, html=True))
        with (
            listening(World(scenario=Scenario(faults=faults))) as url,
            httpx.Client(base_url=url, timeout=300) as client,
        ):
            first, second = client.get(PARENT), client.get(PARENT)
        assert (first.status_code, first.headers["retry-after"]) == (429, "3")
        assert (second.status_code, second.headers["content-type"]) == (502, "text/html; charset=utf-8")

    def test_a_filter_and_an_escaped_colon_arrive(self):
        world = World()
        job = world.create(a_body(displayName="ü b"))
        with listening(world) as url, httpx.Client(base_url=url, timeout=300) as client:
            listed = client.get(PARENT, params={"filter": 'display_name="ü b"'}).json()
            assert listed["batchPredictionJobs"][0]["name"] == job["name"]
            assert client.post(f"/v1/{job['name']}%3Acancel").status_code == 200


PROGRAM = """
    import sys
    from pathlib import Path
    from airflow_vertex_batch.emulator.server import serve
    from tests.emulator.worlds import FolderStore
    home = Path(sys.argv[1])
    serve(host="127.0.0.1", port=0, data=home / "data", model="deterministic", speed=float(sys.argv[2]),
          store=FolderStore(home / "buckets"), warehouse=None, scenario=home / "scenario.json")
"""


class Process:
    """The emulator in a process of its own."""

    def __init__(self, home, speed):
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(home), str(speed)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        self.client = httpx.Client(base_url=self.line.split()[-1], timeout=300)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def home(tmp_path):
    (tmp_path / "scenario.json").write_text(json.dumps({"pace": {"pending_s": 1, "running_s": 0, "per_row_s": 1}}))
    for bucket in ("in", "out"):
        (tmp_path / "buckets" / bucket).mkdir(parents=True)
    lines = b"".join(json.dumps(a_line(f"k{number}")).encode() + b"\n" for number in range(400))
    (tmp_path / "buckets" / "in" / "requests.jsonl").write_bytes(lines)
    return tmp_path


class TestTheCommandsServer:
    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_says_where_it_is_and_ends_on_a_signal(self, home, how):
        with Process(home, 100) as emulator:
            assert emulator.line.startswith("Vertex AI batch emulator on http://127.0.0.1:")
            assert emulator.client.get("/healthz").status_code == 200
            emulator.process.send_signal(how)
            assert emulator.process.wait(300) == 0
            assert emulator.process.stdout.read() == ""

    def test_killed_in_the_middle_goes_on_without_answering_or_billing_twice(self, home):
        billed = lambda emulator: emulator.client.get("/emulator/books").json()["billed"]["rows"]  # noqa: E731
        with Process(home, 200) as emulator:
            name = emulator.client.post(PARENT, json=a_body()).json()["name"]
            eventually(lambda: billed(emulator) >= 50)
            emulator.process.kill()
        with Process(home, 2000) as emulator:
            assert 50 <= billed(emulator) <= 400
            job = eventually(lambda: succeeded(emulator.client, name))
            assert billed(emulator) == 400
        folder = home / "buckets" / job["outputInfo"]["gcsOutputDirectory"].removeprefix("gs://")
        keys = [json.loads(line)["key"] for line in (folder / "predictions.jsonl").read_bytes().splitlines()]
        assert sorted(keys) == sorted(f"k{number}" for number in range(400))

    def test_names_the_port_that_is_taken(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(InputError, match=rf"cannot listen on 127.0.0.1:{port}. Address already in use.*--port"):
                serve(
                    host="127.0.0.1",
                    port=port,
                    data=None,
                    model="deterministic",
                    speed=1,
                    store=MemoryStore(),
                    warehouse=None,
                )

    def test_names_the_scenario_it_cannot_read(self, tmp_path):
        options = {
            "host": "127.0.0.1",
            "port": 0,
            "data": None,
            "model": "deterministic",
            "speed": 1,
            "warehouse": None,
        }
        with pytest.raises(InputError, match=r"absent.json cannot be read. No such file"):
            serve(store=MemoryStore(), scenario=tmp_path / "absent.json", **options)

    def test_imports_neither_airflow_nor_google(self):
        code = (
            "import sys, airflow_vertex_batch.emulator.server\n"
            # Empty namespaces may be there from the start, put by site-packages itself.
            "loaded = {name for name, module in sys.modules.items() if getattr(module, '__file__', None)}\n"
            "print(sorted(name for name in loaded if name.split('.')[0] in {'airflow', 'google'}))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_a_store_that_never_answers_does_not_keep_the_emulator_from_stopping():
    asked, never = threading.Event(), threading.Event()

    class Silent(MemoryStore):
        def open_read(self, uri, version=""):
            asked.set()
            never.wait(3600)
            return super().open_read(uri, version)

    world = World(Silent(), clock=SystemClock(), speed=100_000)
    # It stops while the store is silent, or never.
    with listening(world):
        world.create()
        assert asked.wait(300)
    never.set()
