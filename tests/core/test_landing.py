"""From finished jobs to a landed report: the seed page end to end, and sets of several jobs."""

from __future__ import annotations

import json

import pytest

from airflow_vertex_batch.core.answers.report import Report
from airflow_vertex_batch.core.answers.rounds import Round, better, read_jobs, read_round
from airflow_vertex_batch.core.domain.address import JobName, Uri, job_names
from airflow_vertex_batch.core.domain.errors import InputError, JobError, ServiceError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.manifest import Manifest, Shard
from airflow_vertex_batch.core.domain.row import RowStatus, Usage
from airflow_vertex_batch.core.landing.destination import Files
from airflow_vertex_batch.core.landing.landing import Landing, refuse_bad_end
from airflow_vertex_batch.core.landing.record import LandPlan
from airflow_vertex_batch.core.requests.prepare import PreparePlan, prepare
from airflow_vertex_batch.core.requests.request import OnRejectedRow, RequestTemplate
from airflow_vertex_batch.core.requests.sources import Requests, Rows
from tests.builders import JOB_NAME, SEED, a_job, a_line, a_request, a_row, an_output, jsonl, seed
from tests.fakes import MemoryStore, MemoryWarehouse

PLAN = LandPlan(batch_id="b", partition_date="2026-11-22")
ANSWERS = Uri.parse("gs://out/answers")


def _land(store, jobs, manifest=None, schema=None) -> Report:
    first = Round(manifest=manifest, jobs=tuple(jobs))
    landing = Landing([first], store, MemoryWarehouse(), PLAN, schema=schema)
    return landing.land(Files(ANSWERS))


def _prepared(store, rows, **plan) -> Manifest:
    made = PreparePlan(**{"template": RequestTemplate(prompt="{{ text }}")} | plan)
    return prepare(Rows(rows).rows(store, MemoryWarehouse()), made, store, Uri.parse("gs://b/run"), "one")


def _answer(store, manifest, text="Hi"):
    """Answer every request of a prepared set, one job a shard."""
    jobs = []
    for number, shard in enumerate(manifest.shards):
        lines = [json.loads(line) for line in store.objects[shard.uri].splitlines()]
        store.objects[f"gs://out/{number}/predictions.jsonl"] = jsonl(
            *[an_output(line["key"], text, request=line["request"]) for line in lines]
        )
        jobs.append(a_job(name=f"{JOB_NAME}{number}", input_uris=(shard.uri,), output_uri=f"gs://out/{number}"))
    return jobs


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class TestSeedPage:
    """The page's request, success and failed line, each as printed."""

    def test_its_request_goes_from_prepare_to_report(self, store):
        store.objects["gs://in/page.jsonl"] = (SEED / "request.jsonl").read_bytes()
        rows = Requests(("gs://in/page.jsonl",)).rows(store, MemoryWarehouse())
        manifest = prepare(rows, PreparePlan(template=None), store, Uri.parse("gs://b/run"), "one")
        store.objects["gs://out/0/predictions.jsonl"] = jsonl(seed("success.json"))
        report = _land(store, [a_job(input_uris=(manifest.shards[0].uri,), output_uri="gs://out/0")], manifest)
        assert (report.statuses, report.rejoined_count) == ({"succeeded": 1}, 1)
        (good,) = [json.loads(line) for line in store.objects[report.destination].splitlines()]
        assert good["text"].startswith("This video shows")
        assert (good["prompt_tokens"], good["output_tokens"], good["total_tokens"]) == (29180, 36, 29216)

    def test_its_failed_line_is_a_dead_letter_with_its_reason(self, store):
        """Sent as it is, without prepare: the request has no key and the line has none either."""
        store.objects["gs://in/page.jsonl"] = jsonl(seed("request.jsonl"), {"request": seed("failed.json")["request"]})
        store.objects["gs://out/0/predictions.jsonl"] = jsonl(seed("failed.json"), seed("success.json"))
        report = _land(store, [a_job(input_uris=("gs://in/page.jsonl",), output_uri="gs://out/0")])
        assert (report.statuses, report.rejoined_count) == ({"succeeded": 1, "failed": 1}, 2)
        (dead,) = [json.loads(line) for line in store.objects[report.dead_letters].splitlines()]
        assert (dead["code"], dead["reason"]) == ("INVALID_ARGUMENT", "Please use a valid role: user, model.")

    def test_prepare_finds_that_line_before_it_is_sent(self, store):
        """What the service answers after hours with a failed row is told here at once, with file and line."""
        store.objects["gs://in/page.jsonl"] = jsonl(seed("request.jsonl"), {"request": seed("failed.json")["request"]})
        rows = Requests(("gs://in/page.jsonl",)).rows(store, MemoryWarehouse())
        with pytest.raises(InputError, match=r"gs://in/page.jsonl:2: .*role.*user.*model"):
            prepare(rows, PreparePlan(template=None), store, Uri.parse("gs://b/run"), "one")


class TestManifest:
    def test_rows_of_all_shards_and_rejected_ones_add_up(self, store):
        rows = [{"id": n, "text": "" if n == 4 else f"t{n}"} for n in range(10)]
        manifest = _prepared(
            store, rows, key_column="id", columns=("id",), max_requests=4, on_rejected_row=OnRejectedRow.DEAD_LETTER
        )
        jobs = _answer(store, manifest)
        report = _land(store, jobs[::-1], manifest)
        assert report.statuses == {"succeeded": 9, "rejected": 1}
        assert report.request_count == manifest.row_count == 10
        assert report.jobs == tuple(job.name for job in jobs[::-1])
        landed = [json.loads(line) for line in store.objects[report.destination].splitlines()]
        assert sorted(row["columns"]["id"] for row in landed) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
        (dead,) = [json.loads(line) for line in store.objects[report.dead_letters].splitlines()]
        assert (dead["status"], dead["code"], dead["reason"]) == (
            "rejected",
            "empty-prompt",
            "rows:5: The prompt is empty for this row",
        )

    def test_a_shard_without_a_job_lands_nothing(self, store):
        manifest = _prepared(store, [{"text": "a"}, {"text": "b"}], max_requests=1)
        jobs = _answer(store, manifest)
        with pytest.raises(
            InputError,
            match=rf"No job answers {manifest.shards[1].uri}.*Nothing was landed.*created from this manifest",
        ):
            _land(store, jobs[:1], manifest)
        assert not any(name.startswith("gs://out/answers") for name in store.objects)

    def test_answers_are_checked_against_the_manifest_s_schema(self, store):
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        manifest = _prepared(store, [{"text": "a"}], schema=schema)
        assert _land(store, _answer(store, manifest, '{"a": 1}'), manifest).statuses == {"succeeded": 1}
        assert _land(store, _answer(store, manifest, '{"a": "x"}'), manifest).statuses == {"invalid_output": 1}

    def test_a_schema_given_to_the_export_comes_first(self, store):
        manifest = _prepared(store, [{"text": "a"}])
        jobs = _answer(store, manifest, "prose")
        assert _land(store, jobs, manifest).statuses == {"succeeded": 1}
        assert _land(store, jobs, manifest, {"type": "object"}).statuses == {"invalid_output": 1}


class TestBetter:
    """Of two attempts at one request the better one lands, and the bill holds both."""

    GOOD, ANSWERED = (
        a_row(text="yes", response=b"{}", usage=Usage(1, 1)),
        a_row(status=RowStatus.TRUNCATED, response=b"x"),
    )
    SILENT = a_row(status=RowStatus.MISSING)

    @pytest.mark.parametrize(
        ("before", "now", "best"),
        [
            (SILENT, GOOD, GOOD),
            (ANSWERED, GOOD, GOOD),
            (ANSWERED, SILENT, ANSWERED),
            (SILENT, ANSWERED, ANSWERED),
            (SILENT, a_row(status=RowStatus.FAILED), a_row(status=RowStatus.FAILED)),
            (ANSWERED, a_row(status=RowStatus.BLOCKED, response=b"y"), a_row(status=RowStatus.BLOCKED, response=b"y")),
        ],
        ids=["silent-good", "answered-good", "answered-silent", "silent-answered", "both-silent", "both-answered"],
    )
    def test_a_good_answer_before_any_answer_before_the_later_one(self, before, now, best):
        chosen = better(before, now)
        assert (chosen.status, chosen.response, chosen.text) == (best.status, best.response, best.text)
        assert chosen.attempts == 2

    def test_whether_it_may_heal_is_the_later_attempt_s_word(self):
        cut = a_row(status=RowStatus.TRUNCATED, response=b"x", repairable=True)
        refused = a_row(status=RowStatus.FAILED, code="INVALID_ARGUMENT")
        chosen = better(cut, refused)
        assert (chosen.status, chosen.repairable) == (RowStatus.TRUNCATED, False)

    def test_what_belongs_to_the_request_stays_and_every_attempt_is_billed(self):
        first = a_row(status=RowStatus.TRUNCATED, usage=Usage(10, 5), columns={"id": 1}, request_digest="d")
        second = a_row(status=RowStatus.TRUNCATED, usage=Usage(20, 6), request_digest="other")
        third = a_row(usage=Usage(30, 7))
        row = better(better(first, second), third)
        assert (row.columns, row.request_digest, row.attempts) == ({"id": 1}, "d", 3)
        assert sorted([row.usage, *row.earlier], key=lambda usage: usage.prompt_tokens) == [
            Usage(10, 5), Usage(20, 6), Usage(30, 7),
        ]  # fmt: skip


class TestReadyInput:
    def test_the_job_s_own_input_is_what_must_be_accounted_for(self, store):
        store.objects["gs://in/a.jsonl"] = jsonl(a_line("r1"), a_line("r2"))
        store.objects["gs://out/0/predictions.jsonl"] = jsonl(
            an_output("r1"), an_output("r1"), an_output("zzz", request=a_request("?"))
        )
        report = _land(store, [a_job(input_uris=("gs://in/a.jsonl",), output_uri="gs://out/0")])
        assert report.statuses == {"succeeded": 1, "missing": 1}
        assert (report.duplicate_count, report.foreign_count) == (1, 1)


class TestJobs:
    @pytest.mark.parametrize(
        ("given", "count"),
        [
            (JOB_NAME, 1),
            ([JOB_NAME, JOB_NAME], 2),
            (a_job().as_dict(), 1),
            ([a_job().as_dict()], 1),
            (str([JOB_NAME, JOB_NAME]), 2),
            (str([a_job().as_dict()]), 1),
            ([], 0),
            ("[]", 0),
        ],
        ids=["name", "names", "dict", "dicts", "text of names", "text of dicts", "empty", "empty text"],
    )
    def test_names_are_taken_from_whatever_a_task_was_given(self, given, count):
        assert job_names(given) == [JobName.parse(JOB_NAME)] * count

    def test_what_is_no_job_is_refused(self):
        for nonsense in (["nonsense"], "None", "", "[1 +", "[]]", None, [None], [JOB_NAME, None], "[None]", 7):
            with pytest.raises(InputError, match="is not the name of a batch prediction job"):
                job_names(nonsense)
            with pytest.raises(InputError, match="is not the name of a batch prediction job"):
                read_jobs(nonsense, lambda _name: a_job())

    NOW = a_job(output_uri="gs://out/late")

    @pytest.mark.parametrize("given", [JOB_NAME, a_job().as_dict()], ids=["a name", "a stored job"])
    def test_a_job_is_asked_for_however_it_was_given(self, given):
        """What was stored when it ended may not name its output yet."""
        jobs = {JobName.parse(JOB_NAME): self.NOW}
        assert read_jobs([given], jobs.__getitem__) == (self.NOW,)

    def test_the_jobs_of_a_round_are_asked_for_too(self):
        stored = Round(manifest=None, jobs=(a_job(),))
        assert read_round(stored.as_dict(), lambda _name: self.NOW).jobs == (self.NOW,)

    @pytest.mark.parametrize("status", [404, 403, 503], ids=["deleted", "no right", "an outage"])
    def test_one_that_cannot_be_asked_about_is_taken_as_it_was(self, status):
        def get(_name):
            raise ServiceError("No.", status=status)

        assert read_jobs([a_job().as_dict()], get) == (a_job(),)
        with pytest.raises(ServiceError, match="No"):
            read_jobs([JOB_NAME], get)


def _asked(*jobs, number=0, resume_uri=""):
    shard = Shard(uri="gs://b/r", request_count=3, size_bytes=9, resume_uri=resume_uri)
    manifest = Manifest(uri="gs://b/m", fingerprint="f", row_count=3, request_count=3, shards=(shard,), round=number)
    return Round(manifest=manifest, jobs=jobs)


class TestRefuseBadEnd:
    REPORT = Report(request_count=3, statuses={"succeeded": 2, "cancelled": 1}, unanswered_count=1)

    @pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED], ids=str)
    def test_a_good_end_passes(self, state):
        refuse_bad_end([_asked(a_job(state))], self.REPORT)

    def test_a_bad_end_passes_when_a_repair_round_has_answered_every_row_it_left(self):
        report = Report(request_count=3, statuses={"succeeded": 2, "blocked": 1})
        refuse_bad_end([_asked(a_job(JobState.CANCELLED))], report)

    def test_a_round_that_ended_well_makes_good_how_those_before_it_ended(self):
        refuse_bad_end([_asked(a_job(JobState.CANCELLED)), _asked(a_job(), number=1)], self.REPORT)
        with pytest.raises(JobError, match="ended as JOB_STATE_EXPIRED"):
            refuse_bad_end([_asked(a_job(JobState.CANCELLED)), _asked(a_job(JobState.EXPIRED), number=1)], self.REPORT)

    def test_but_not_one_that_only_completed_an_output(self):
        """It has no line for a request that the job did not come to."""
        completes = _asked(a_job(), number=1, resume_uri="gs://b/o")
        with pytest.raises(JobError, match="ended as JOB_STATE_CANCELLED"):
            refuse_bad_end([_asked(a_job(JobState.CANCELLED)), completes], self.REPORT)

    def test_nor_what_was_bought_in_the_place_of_one_of_its_jobs(self):
        with pytest.raises(JobError, match="ended as JOB_STATE_CANCELLED"):
            refuse_bad_end([_asked(a_job(JobState.CANCELLED)), _asked(a_job())], self.REPORT)

    @pytest.mark.parametrize("state", [JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED], ids=str)
    def test_a_bad_end_fails_after_landing_and_says_what_landed(self, state):
        with pytest.raises(
            JobError, match=rf"ended as {state}. 24 h. What it answered has landed: 3 rows: 2 succeeded, 1 cancelled"
        ) as caught:
            refuse_bad_end([_asked(a_job(), a_job(state, error_message="24 h"))], self.REPORT)
        assert not caught.value.retryable
