"""A whole batch without a cloud: a service that answers jobs as it is told, and the course that a task goes through."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from airflow_vertex_batch.core.answers.repair import RepairPolicy
from airflow_vertex_batch.core.batch import Batch
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.job import BatchJob, JobState
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.progress import Ask, Attempt, Done, Policy, Progress, Wait
from airflow_vertex_batch.core.purchase.buyer import Buyer
from airflow_vertex_batch.core.purchase.decide import OnClear, Terms
from airflow_vertex_batch.core.purchase.fold import Start, State, fold
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.purchase.place import Place
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import RequestTemplate
from airflow_vertex_batch.core.requests.sources import Rows
from tests.builders import a_response, a_spec, an_identity, jsonl
from tests.fakes import Clock, Jobs, MemoryStore, MemoryWarehouse

FOLDER = Uri.parse("gs://b/run")
PLAN = LandPlan(batch_id="b", partition_date="2026-11-22")


def answers(text: str = "yes", finish: str = "STOP", tokens: int = 5) -> dict[str, Any]:
    """An output line's members for an answer."""
    response = a_response(text, finishReason=finish)
    response["usageMetadata"] = {"promptTokenCount": 10, "candidatesTokenCount": tokens}
    return {"status": "", "response": response}


def fails(code: int = 503, word: str = "UNAVAILABLE") -> dict[str, Any]:
    """An output line's members for a failed row."""
    return {"status": json.dumps({"error": {"code": code, "message": "No.", "status": word}}), "response": {}}


class World:
    """A store, a job service and what the service makes of each key, round by round.

    :param script: key → what comes of it in each round it is sent in; the last entry is repeated, None writes no line;
        keys that are not named are answered well.
    """

    def __init__(self, script: dict[str, list[dict[str, Any] | None]] | None = None) -> None:
        self.script = script or {}
        self.store, self.clock = MemoryStore(), Clock()
        self.jobs = Jobs(self.clock)
        self.sent: Counter[str] = Counter()
        #: Keys by job, in the order in which the jobs ran.
        self.batches: list[list[str]] = []

    def run(self, state: JobState = JobState.SUCCEEDED, *, only: int | None = None, names_model: bool = True) -> None:
        """Let every running job write its output and end.

        :param only: how many rows are answered before the job ends.
        :param names_model: whether an answer says which model made it.
        """
        for job in self.jobs.running:
            lines = [json.loads(raw) for raw in self.store.objects[job.input_uris[0]].splitlines()]
            made = [self._line(line) for line in lines[:only]]
            for line in made:
                if line is not None and not names_model:
                    del line["response"]["modelVersion"]
            self.batches.append([line["key"] for line in lines[:only]])
            output = f"gs://out/{job.job_name.job_id}"
            self.store.objects[f"{output}/predictions.jsonl"] = jsonl(*[line for line in made if line is not None])
            done = sum(1 for line in made if line is not None and not line["status"])
            self.jobs.change(
                job.name,
                state=str(state),
                outputInfo={"gcsOutputDirectory": output},
                completionStats={"successfulCount": str(done)},
            )

    def check_paid_once(self) -> None:
        """Insist that no two jobs run for the same requests."""
        owners = Counter(
            tuple(job.labels[f"avb-{name}"] for name in ("identity", "round", "shard")) for job in self.jobs.running
        )
        assert set(owners.values()) <= {1}

    def cancel(self) -> None:
        """Begin to cancel every running job."""
        for job in self.jobs.running:
            self.jobs.change(job.name, state=str(JobState.CANCELLING))

    def bounds(self, key: str, number: int) -> int:
        """Return the ``maxOutputTokens`` that a key was sent with in a job."""
        lines = map(json.loads, self.store.objects[self.jobs.paid[number].input_uris[0]].splitlines())
        [line] = [line for line in lines if line["key"] == key]
        return line["request"]["generationConfig"]["maxOutputTokens"]

    def _line(self, line: dict[str, Any]) -> dict[str, Any] | None:
        key = line["key"]
        if line.get("response"):
            return line
        fates = self.script.get(key, [answers()])
        fate = fates[min(self.sent[key], len(fates) - 1)]
        self.sent[key] += 1
        return None if fate is None else {"key": key, "processed_time": "", "request": line["request"], **fate}


class Task:
    """One task instance: every attempt makes its objects anew, as a worker does."""

    def __init__(self, world: World, rows: list[dict[str, Any]], **options: Any) -> None:
        self.world, self.rows = world, rows
        self.plan = {"template": RequestTemplate(prompt="{{ text }}"), "key_column": "id"} | options.pop("plan", {})
        self.rounds = options.pop("rounds", 0)
        self.on_clear = OnClear(options.pop("on_clear", "attach"))
        self.identity, self.installation = options.pop("identity", an_identity()), options.pop("installation", "")
        # Large batches decide from less than small ones do: here, each does as a large one.
        options["repair"] = msgspec.structs.replace(options.pop("policy", RepairPolicy()), reread_rows=0)
        options["elsewhere"] = tuple(options.pop("elsewhere", ()))
        self.policy = Policy(**options)
        self.generation, self.upstream, self.attempts = 1, "", 0
        #: Airflow's number of the try; counted where it is not said.
        self.tries: int | None = None

    def clear(self) -> None:
        """Let a person clear the task."""
        self.generation += 1

    def attempt(self, store: Any = None, service: Any = None) -> Progress:
        """Begin an attempt that reads the source, and go as far as it goes."""
        store = store or self.world.store
        rows = Rows(self.rows).rows(store, MemoryWarehouse())
        self.manifest = prepare(rows, PreparePlan(**self.plan), store, FOLDER, f"{self.installation}{self.attempts}")
        return self.batch(store, service).advance(Attempt(owes_repair=True))

    def resume(self, store: Any = None, service: Any = None, *, owes_repair: bool = False) -> Progress:
        """Go on when a wait is over, in a new process.

        :param owes_repair: whether the attempt has yet to send what an earlier one left behind.
        """
        return self.batch(store, service).advance(Attempt(fresh=False, owes_repair=owes_repair))

    def take_over(self, jobs: list[BatchJob], *, fresh: bool = False) -> Progress:
        """Go on from another task's jobs.

        :param fresh: whether this is a new attempt, as against the end of a wait.
        """
        return self.batch(jobs=jobs).advance(Attempt(fresh=fresh))

    def answer(self, step: Ask, *, approved: bool) -> None:
        """Let a person answer."""
        self.batch().answered(step.question.id, "Ada", approved=approved, of_round=step.round)

    def move(self, step: Wait, store: Any = None, service: Any = None) -> list[Place | None]:
        """Give up every job that still queues at its present place; return where their requests go."""
        batch = self.batch(store, service)
        queued = [job for job in step.jobs if job.state is JobState.PENDING]
        return [batch.move(step.manifest, job) for job in queued]

    def state(self) -> State:
        """Return what the log says."""
        return fold(self.log().entries(), self.installation)

    def to_the_end(self, most: int = 20) -> Done:
        """Attempt, and let jobs run whenever the course waits for them."""
        step = self.attempt()
        for _ in range(most):
            if isinstance(step, Done):
                return step
            self.world.run()
            step = self.resume()
        raise AssertionError(f"still waiting after {most} jobs")

    def land(self, done: Done, **options: Any) -> Any:
        """Land the rounds as files, and return the report."""
        landing = Landing(done.rounds, self.world.store, MemoryWarehouse(), PLAN, **options)
        return landing.land(Files(Uri.parse("gs://out/landed")))

    def landed(self) -> dict[str, dict[str, Any]]:
        """Return every landed record by its key; a key that landed twice fails."""
        found: dict[str, dict[str, Any]] = {}
        for name, data in self.world.store.objects.items():
            if name.startswith("gs://out/landed/"):
                for line in data.splitlines():
                    record = json.loads(line)
                    assert record["row_key"] not in found
                    found[record["row_key"]] = record
        return found

    def batch(self, store: Any = None, service: Any = None, **parts: Any) -> Batch:
        """Make the batch as an attempt does."""
        self.attempts += 1
        store, service = store or self.world.store, service or self.world.jobs
        start = Start(
            generation=str(self.generation), upstream=self.upstream, rounds=self.rounds, on_clear=self.on_clear
        )
        terms = Terms(settle_seconds=0.0, generation=str(self.generation), renew=self.on_clear is OnClear.NEW)
        buyer = Buyer(
            base=a_spec(output="gs://b/run/output", labels={"team": "support"}),
            log=self.log(store=store),
            store=store,
            service=service,
            terms=terms,
            at=service.at,
            sleep=lambda _seconds: None,
        )
        return Batch(
            buyer=buyer,
            warehouse=MemoryWarehouse(),
            folder=FOLDER,
            policy=self.policy,
            start=start,
            base=self.manifest,
            **parts,
        )

    def log(self, attempt: str = "", store: Any = None) -> BatchLog:
        """Return the log, as an attempt writes it."""
        attempt = f"{attempt or self.tries or self.attempts}:x"
        return BatchLog(store or self.world.store, self.identity, attempt, installation=self.installation)


def some_rows(count: int) -> list[dict[str, Any]]:
    """Rows with the ids a0, a1 and so on."""
    return [{"id": f"a{number}", "text": f"text {number}"} for number in range(count)]
