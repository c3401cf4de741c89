"""Tasks that buy jobs and are killed, over a service in memory, and the sweep that comes after them."""

from __future__ import annotations

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.buyer import display_name, owner_labels
from airflow_vertex_batch.core.purchase.entries import Part
from airflow_vertex_batch.core.purchase.log import BatchLog
from airflow_vertex_batch.core.purchase.submit import ensure_job
from airflow_vertex_batch.core.upkeep.sweep import Sweeper
from airflow_vertex_batch.core.upkeep.sweep_decision import Owner, SweepPolicy
from tests.builders import a_line, a_response, a_spec, an_identity, an_order, an_output, jsonl
from tests.fakes import Clock, EffectLimit, Jobs, MemoryStore, MemoryWarehouse

POLICY = SweepPolicy()
#: The name of this Airflow.
HERE = "airflow-here"
STAGING, HARVEST = Uri.parse("gs://b/staging"), Uri.parse("gs://b/harvest")
INPUT = "gs://b/staging/nightly/requests.jsonl"


class World:
    """A service, a store, and tasks that buy and are killed."""

    def __init__(self):
        self.clock = Clock()
        self.jobs = Jobs(self.clock)
        self.store = MemoryStore()
        self.store.clock = self.clock
        self.store.objects[INPUT] = jsonl(*(a_line(f"k{number}") for number in range(3)))
        self.owners = {}

    def buy(self, task="create", content="c", bought_by=HERE, **options):
        """Let a task buy its job; its log and labels are as in production."""
        identity = self.identity(task)
        spec = a_spec(
            display_name=display_name(identity),
            inputs=(INPUT,),
            labels=owner_labels(identity),
            model="publishers/google/models/gemini-2.5-flash",
        )
        effect_limit = EffectLimit(options.pop("effect_limit", None))
        log = BatchLog(effect_limit.store(self.store), identity, "1:task", installation=bought_by).of_job(Part())
        order = an_order(log, effect_limit.service(self.jobs), spec=spec, content=content, **options)
        return ensure_job(order, sleep=self.clock.sleep)

    def end(self, name, rows=3, state=JobState.SUCCEEDED):
        """Let a job answer rows and end."""
        output = f"gs://b/out/{name.rpartition('/')[2]}"
        response = a_response() | {"modelVersion": "gemini-2.5-flash"}
        lines = [an_output(f"k{number}", response=response) for number in range(rows)]
        self.store.objects[f"{output}/predictions.jsonl"] = jsonl(*lines)
        self.jobs.change(
            name, state=str(state), outputInfo={"gcsOutputDirectory": output},
            completionStats={"successfulCount": str(rows)},
        )  # fmt: skip

    def identity(self, task="create"):
        """Return whose the jobs of a task are."""
        return an_identity(task_id=task, staging=str(STAGING))

    def sweep(self, *, dry_run=False, harvest=HARVEST, service=None, store=None, installation=HERE):
        """Sweep, and return the findings."""
        sweeper = Sweeper(
            service or self.jobs, store or self.store, MemoryWarehouse(), STAGING, POLICY, harvest=harvest,
            ask=self.ask, installation=installation,
        )  # fmt: skip
        return list(sweeper.sweep(dry_run=dry_run))

    def ask(self, identity):
        """Say what is known of a run."""
        return self.owners.get(identity.task_id, Owner.UNKNOWN)

    def later(self, hours=2.0):
        """Let hours pass."""
        self.clock.sleep(hours * 3600)

    def forget_logs(self):
        """Lose every log, and what leads to it."""
        for name in [name for name in self.store.objects if "/log/" in name or "/owners/" in name]:
            del self.store.objects[name]

    def state(self, name):
        """Return a job's state."""
        return {job.name: job.state for job in self.jobs.paid}[name]
