"""One task's attempts to have its job bought, against a service, a store and a clock."""

from __future__ import annotations

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.purchase.submit import ensure_job, would_buy
from tests.builders import LOG, a_log, a_spec, an_order
from tests.fakes import Clock, Jobs, MemoryStore

FOLDER = Uri.parse(LOG)


class World:
    """A service, a store and a clock, and attempts of one task against them."""

    def __init__(self, **jobs) -> None:
        self.clock = Clock()
        self.store, self.service = MemoryStore(), Jobs(self.clock, **jobs)
        self.store.clock = self.clock

    def attempt(self, content: str = "c1", *, store=None, service=None, token: str = "a", **options):
        sleep, spec = options.pop("sleep", self.clock.sleep), options.pop("spec", a_spec())
        store = store or self.store
        store.clock = self.clock
        log = a_log(store, token, installation=options.pop("installation", ""))
        order = an_order(log, service or self.service, spec=spec, content=content, **options)
        return ensure_job(order, sleep=sleep)

    def would_buy(self, content: str = "c1", **options) -> bool:
        return would_buy(an_order(a_log(self.store, "reader"), self.service, content=content, **options))

    @property
    def log(self) -> list[type]:
        return [type(entry) for entry in a_log(self.store, "reader").entries()]
