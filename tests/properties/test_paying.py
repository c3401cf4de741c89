"""However often attempts die, and whatever becomes of their answers: one paid job for one input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_vertex_batch.core.domain.errors import ServiceError
from airflow_vertex_batch.core.purchase.submit import ensure_job
from tests.builders import a_log, an_order
from tests.fakes import Clock, Died, EffectLimit, Jobs, MemoryStore

QUOTA = ServiceError("Vertex AI answered HTTP 429", status=429, reason="RESOURCE_EXHAUSTED")
#: After how many effects an attempt dies (None: it lives), and what the service answers to its create calls.
ATTEMPTS = st.lists(st.one_of(st.none(), st.integers(1, 6)), max_size=6)
FATES = st.lists(st.sampled_from([None, "committed", "dropped", QUOTA]), max_size=6)


@given(ATTEMPTS, FATES, st.integers(0, 8), st.sets(st.integers(0, 5)))
def test_one_paid_job(attempts, fates, lags, unanswered):
    clock, store = Clock(), MemoryStore()
    service = Jobs(clock, creates=list(fates), list_lags=lags)

    def attempt(number: int, effects: int | None) -> str:
        effect_limit = EffectLimit(effects)
        log = a_log(effect_limit.store(store), str(number), clock)
        if number in unanswered:
            service.list_errors = [ServiceError("Vertex AI did not answer", status=503)]
        try:
            return ensure_job(an_order(log, effect_limit.service(service)), sleep=clock.sleep).job.name
        except (Died, ServiceError):
            return ""

    names = {attempt(number, effects) for number, effects in enumerate(attempts)} - {""}
    assert len(service.paid) <= 1
    # At last a quiet night: no faults are left after as many attempts as there were faults.
    service.list_errors = []
    while not (final := attempt(99, None)):
        assert len(service.paid) == 0
    assert [job.name for job in service.paid] == [final]
    assert names <= {final}
