"""Has an ended job rows? One place decides, and whoever asks gets its answer: who buys, who lands, who sweeps."""

from __future__ import annotations

import itertools
from datetime import timedelta

from airflow_vertex_batch.core.domain.errors import JobError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.decide import Attach, Reuse, Terms, decide
from airflow_vertex_batch.core.purchase.entries import Submission
from airflow_vertex_batch.core.purchase.ownership import FINGERPRINT_LABEL
from airflow_vertex_batch.core.upkeep.sweep_decision import Harvest, Owner, SweepPolicy, decide_sweep
from airflow_vertex_batch.core.waiting.watch import Ended, conclude
from tests.builders import NIGHT, a_job
from tests.each_case import each_case

GOOD = {JobState.SUCCEEDED, JobState.PARTIALLY_SUCCEEDED}
BAD = {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
FINAL = [state for state in JobState if state.is_final]
COUNTS, OUTPUTS = [-1, 0, 3], ["", "gs://out/x"]
#: What a bad end leaves, by the service's count and whether it names an output. Where it does not count, an output that
#: it names may hold rows that are paid.
AFTER_A_BAD_END = {
    (-1, ""): False,
    (-1, "gs://out/x"): True,
    (0, ""): False,
    (0, "gs://out/x"): False,
    (3, ""): True,
    (3, "gs://out/x"): True,
}


def _job(state, count, output):
    made = NIGHT - timedelta(hours=2)
    labels = {FINGERPRINT_LABEL: "f"}
    return a_job(state, name="mine", successful_count=count, output_uri=output, labels=labels, created_at=made)


def test_every_final_state_is_a_good_end_or_a_bad_one():
    assert set(FINAL) == GOOD | BAD


class TestEveryCase:
    @each_case(itertools.product(FINAL, COUNTS, OUTPUTS))
    def test_the_table(self, state, count, output):
        assert _job(state, count, output).has_rows is (state in GOOD or AFTER_A_BAD_END[count, output])

    @each_case(itertools.product([state for state in JobState if not state.is_final], COUNTS, OUTPUTS))
    def test_a_job_that_runs_has_rows_only_where_the_service_counts_them(self, state, count, output):
        assert _job(state, count, output).has_rows is (count > 0)

    @each_case(itertools.product(FINAL, COUNTS, OUTPUTS))
    def test_whoever_asks_gets_the_same_answer(self, state, count, output):
        job = _job(state, count, output)
        log = [Submission(fingerprint="f", attempt="a", at=NIGHT, job_name="mine")]
        bought = decide(log, "f", [job], now=NIGHT, terms=Terms(reuse=Reuse.WITH_ROWS))
        swept = decide_sweep(job, log, NIGHT, SweepPolicy(), owner=Owner.FAILED)
        try:
            landed = bool(conclude([Ended(job)]))
        except JobError:
            landed = False
        assert (isinstance(bought, Attach), landed, isinstance(swept, Harvest)) == (job.has_rows,) * 3
