"""How does a task sweep? It looks at the jobs of a connection and returns those that were left behind.
`core.upkeep.sweep` decides what to do with each.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_vertex_batch.core.domain.durations import seconds
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import check_folder
from airflow_vertex_batch.edge.base import (
    VertexBatchBaseOperator,
    attempt_token,
    fail_or_retry,
    texts,
)
from airflow_vertex_batch.links import VertexBatchJobLink, addresses
from airflow_vertex_batch.operators.shared import price_table
from airflow_vertex_batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import timedelta
    from typing import Unpack

    from airflow.sdk import BaseOperatorLink, Context

    from airflow_vertex_batch.core.domain.identity import Identity
    from airflow_vertex_batch.core.upkeep.sweep import Sweeper
    from airflow_vertex_batch.core.upkeep.sweep_decision import Owner, SweepPolicy
    from airflow_vertex_batch.parameters import NamedCommonParameters


class VertexBatchSweepOperator(VertexBatchBaseOperator):
    """Find jobs that carry our labels and that no task owns. With `apply`, adopt, cancel or harvest them.

    A running job is cancelled if the log says that another job replaces it, if its DAG run has failed or was deleted,
    or if it is older than `owner_timeout` and no run of its own is active. A job is adopted if its task wanted to buy
    it and did not record it: the next attempt attaches to it. A running job that no log names is only reported: only a
    person may cancel it. A finished job is harvested if it has rows that no task lands. Every other job is kept. Jobs
    that other installations bought, and jobs without our labels, are always kept. A retry does the work that is left.

    :param apply: adopt, cancel and harvest; without it the task only reports. A text is read too, because a template
        such as ``{{ params.apply }}`` makes a text. Templated.
    :param older_than: keep jobs that are younger than this, a timedelta or seconds, at least 90 seconds; an hour if not
        given. The task of a young job may be starting, or a person may want to clear a run that failed.
    :param owner_timeout: age at which a running job counts as left behind even if its task's log names it, a timedelta
        or seconds; 98 hours if not given, which is more than the service allows a job.
    :param lookback: keep jobs that ended longer ago than this, a timedelta or seconds; 7 days if not given.
    :param harvest_uri: ``gs://`` folder for the rows of finished jobs that no task lands, with a folder for each job.
        If not given, nothing is harvested. Templated.
    :param locations: where to look, a list of locations. If not given, only `location`. Templated.
    :returns: counts by action, reasons, costs, and up to a hundred jobs.
    """

    templated: ClassVar[tuple[str, ...]] = ("apply", "harvest_uri", "locations")
    operator_extra_links: Sequence[BaseOperatorLink] = (VertexBatchJobLink(),)

    def __init__(
        self,
        *,
        apply: bool | str = False,
        older_than: timedelta | float = 3600.0,
        owner_timeout: timedelta | float = 98 * 3600.0,
        lookback: timedelta | float = 7 * 24 * 3600.0,
        harvest_uri: str | None = None,
        locations: str | Sequence[str] | None = None,
        **kwargs: Unpack[NamedCommonParameters],
    ) -> None:
        super().__init__(**kwargs)
        # Not `dry_run`: every Airflow operator has a method of that name.
        self.apply, self.harvest_uri, self.locations = apply, harvest_uri, locations
        self.older_than = seconds(older_than, "older_than")
        self.owner_timeout = seconds(owner_timeout, "owner_timeout", is_limit=True)
        self.lookback = seconds(lookback, "lookback", is_limit=True)
        check_folder(harvest_uri, "harvest_uri")
        self.policy()
        self.require("staging_uri", *(() if locations else ("location",)))

    def execute(self, context: Context) -> dict[str, Any]:
        """Sweep, and return what was found."""
        with fail_or_retry():
            from airflow_vertex_batch.core.upkeep.sweep_report import SweepReport

            only_look = not _truth(self.apply)
            found = chain.from_iterable(each.sweep(dry_run=only_look) for each in self._sweepers())
            mine = Settings.read().installation
            swept = SweepReport.of(found, is_dry_run=only_look, asked=f"this Airflow ({mine})", installation=mine)
            self.push_links(context, addresses(jobs=[finding.job_name for finding in swept.findings]))
            self.log.info("%s", swept.text())
            if swept.is_name_unknown:
                self.log.warning("%s.", swept.headline)
            context["ti"].xcom_push("report", swept.as_dict())
            swept.refuse_errors()
            return swept.as_dict()

    def policy(self) -> SweepPolicy:
        """Return the ages and periods that decide about a job."""
        from airflow_vertex_batch.core.upkeep.sweep_decision import SweepPolicy

        return SweepPolicy(older_than=self.older_than, owner_timeout=self.owner_timeout, lookback=self.lookback)

    def _sweepers(self) -> Iterator[Sweeper]:
        """Yield one sweeper for each location."""
        from airflow_vertex_batch.core.domain.address import cloud_folder
        from airflow_vertex_batch.core.upkeep.sweep import Sweeper

        for location in texts(self.locations) if self.locations else (self.location,):
            hook = self.hook(location)
            store = hook.store()
            yield Sweeper(
                hook.jobs(), store, hook.warehouse(), self.staging(), self.policy(),
                prices=price_table(store),
                harvest=cloud_folder(self.harvest_uri, "harvest_uri") if self.harvest_uri else None,
                ask=_owner, installation=Settings.read().installation, attempt=attempt_token(),
            )  # fmt: skip


def _owner(identity: Identity) -> Owner:
    """Ask this Airflow for the state of the run that a job was bought for."""
    from airflow_vertex_batch.core.upkeep.sweep_decision import Owner
    from airflow_vertex_batch.edge.compat import run_state

    return Owner.of_run(run_state(identity.dag_id, identity.run_id))


def _truth(value: bool | str) -> bool:  # noqa: FBT001 - what a template leaves
    """Read yes or no from a parameter, or from the text that a template made of one.

    :raises InputError: when it is neither.
    """
    word = str(value).strip().lower()
    if word not in {"true", "false"}:
        raise InputError(f"apply={value!r} is neither true nor false", left="Nothing was touched", todo="Use a boolean")
    return word == "true"
