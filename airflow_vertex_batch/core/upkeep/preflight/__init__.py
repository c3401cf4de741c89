"""Will this batch run? A table of checks, asked before the batch is prepared and before it waits 72 hours.

Invariants: every check that applies is run, even if others fail. No check raises. Nothing is created, and nothing is
paid except the canary. All checks together take seconds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.errors import CannotAskError, InputError, ServiceError, VertexBatchError
from airflow_vertex_batch.core.domain.record import Record
from airflow_vertex_batch.core.upkeep.preflight import agent, buckets, canary, datasets, served, vertex
from airflow_vertex_batch.core.upkeep.preflight.definitions import (
    Canary,
    CheckResult,
    Cloud,
    Finding,
    Plan,
    Verdict,
    failed,
    reason_text,
    unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

__all__ = ["CHECKS", "Canary", "Cloud", "Finding", "Plan", "Report", "Verdict", "check_destination", "preflight"]


def _always(_plan: Plan) -> Sequence[str]:
    return ("",)


class Check(msgspec.Struct, frozen=True):
    """One check.

    :param why: why it matters, for people.
    :param subjects: what to check in a plan: buckets, tables, or one empty name for the whole plan; nothing if the
        check does not apply.
    """

    name: str
    why: str
    look: Callable[[Plan, Cloud, str], CheckResult]
    subjects: Callable[[Plan], Sequence[str]] = _always


CHECKS: tuple[Check, ...] = (
    Check("credentials", "every call needs a token", vertex.credentials),
    Check("project", "jobs and their bill belong to it", vertex.project),
    Check("vertex-ai", "jobs are created there", vertex.api),
    Check("rights", "jobs must be created, found again and followed", vertex.rights),
    Check("model", "a job for a model that is not served for batch is refused", served.model),
    Check("model-life", "a model that retires takes the rows with it that are not answered", served.life),
    Check("names", "a job with illegal labels or name is refused", vertex.names),
    Check(
        "staging",
        "request files and answers pass through it",
        buckets.staging_is_remote,
        lambda plan: [""] if plan.staging else [],
    ),
    Check("bucket", "a job is accepted without it, and fails hours later", buckets.bucket, Plan.job_buckets),
    Check("bucket-rights", "the tasks read and write there", buckets.caller_rights, Plan.written_buckets),
    Check("bucket-place", "data that crosses regions costs", buckets.place, Plan.job_buckets),
    Check("soft-delete", "the service rewrites its output while it runs", buckets.soft_delete, Plan.job_buckets),
    Check("dataset", "tables are made in it, it is not made", datasets.dataset, Plan.tables),
    Check("dataset-place", "rows only move within one place", datasets.place, Plan.tables),
    Check("dataset-rights", "answers become a table there", datasets.rights, Plan.written_tables),
    Check(
        "source",
        "without rows there is no batch",
        buckets.source,
        lambda plan: list(dict.fromkeys(uri for uri in (plan.source, plan.input) if uri)),
    ),
    Check("service-agent", "the job reads and writes as Google's account", agent.of_bucket, Plan.job_buckets),
    Check("service-agent", "the job reads and writes as Google's account", agent.of_table, Plan.job_tables),
    Check(
        "canary",
        "one row tells what all rows would meet",
        canary.canary,
        lambda plan: [""] if plan.canary is not None else [],
    ),
)


class Report(Record, frozen=True, kw_only=True):
    """All findings.

    :param seconds: how long it took.
    """

    project: str
    location: str
    model: str
    findings: tuple[Finding, ...]
    seconds: float

    def of(self, verdict: Verdict) -> list[Finding]:
        """Return the findings of one verdict."""
        return [finding for finding in self.findings if finding.verdict is verdict]

    def counts(self) -> dict[str, int]:
        """Return findings by verdict."""
        return {str(verdict): len(self.of(verdict)) for verdict in Verdict}

    def error(self, allowed: Collection[str] = ()) -> VertexBatchError | None:
        """Return why the batch must not begin, or None.

        :param allowed: names of checks that may fail.
        """
        bad = [finding for finding in self.of(Verdict.FAILED) if finding.check not in allowed]
        if not bad:
            return None
        what = f"{len(bad)} of {len(self.findings)} preflight checks failed for {self.model} in {self.location}"
        parts: dict[str, Any] = {
            "why": "; ".join(f"{finding.check} {finding.subject}".strip() + f": {finding.found}" for finding in bad),
            "left": "Nothing was created and no job was paid",
            "todo": ". ".join(dict.fromkeys(finding.todo for finding in bad if finding.todo)),
        }
        if all(finding.is_temporary for finding in bad):
            return ServiceError(what, status=0, **parts)
        return InputError(what, **parts)

    def text(self) -> str:
        """Return the report for people: one line a finding, then what to do."""
        from tabulate import tabulate

        rows = [(finding.check, finding.subject, finding.verdict.upper(), finding.found) for finding in self.findings]
        table = tabulate(
            rows, ("check", "about", "verdict", "found"), maxcolwidths=[None, 40, None, 70], disable_numparse=True
        )
        todos = [f"{each.check} {each.subject}".strip() + f" ({each.why}): {each.todo}." for each in self._to_do()]
        counts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts().items())
        return "\n".join(
            [table, *(["", "What to do:", *todos] if todos else []), "", f"{counts}; {self.seconds:.1f} s"]
        )

    def _to_do(self) -> Iterator[Finding]:
        return (finding for finding in self.findings if finding.todo and finding.verdict is not Verdict.OK)


#: The checks whether answers can land.
_DESTINATION_CHECKS = frozenset({"bucket-rights", "dataset", "dataset-rights"})


def check_destination(destination: str, cloud: Cloud, *, project: str, location: str) -> None:
    """Check that answers can land, before anything is paid. An unknown result does not stop the batch.

    :param destination: ``bq://`` table or ``gs://`` folder.
    :raises InputError: when Google says that they cannot.
    """
    plan = Plan(project=project, location=location, model="", destination=destination)
    report = preflight(plan, cloud, [check for check in CHECKS if check.name in _DESTINATION_CHECKS])
    bad = report.of(Verdict.FAILED)
    if bad:
        raise InputError(
            f"No answer can land at {destination}",
            why="; ".join(dict.fromkeys(f"{finding.check} {finding.subject}: {finding.found}" for finding in bad)),
            left="Nothing was prepared and no job was paid",
            todo=". ".join(dict.fromkeys(finding.todo for finding in bad if finding.todo)),
        )


def preflight(
    plan: Plan, cloud: Cloud, checks: Sequence[Check] = CHECKS, *, clock: Callable[[], float] = time.monotonic
) -> Report:
    """Run all checks that apply to a plan.

    :param checks: the checks to run.
    :raises InputError: when an address in the plan is not valid.
    """
    began = clock()
    subjects = [(check, check.subjects(plan)) for check in checks]
    findings = tuple(_finding(check, plan, cloud, subject) for check, about in subjects for subject in about)
    return Report(
        project=plan.project,
        location=plan.location,
        model=plan.model,
        findings=findings,
        seconds=round(clock() - began, 3),
    )


def _finding(check: Check, plan: Plan, cloud: Cloud, subject: str) -> Finding:
    said: dict[str, Any] = msgspec.structs.asdict(_look(check, plan, cloud, subject))
    return Finding(check=check.name, subject=subject, why=check.why, **said)


def _look(check: Check, plan: Plan, cloud: Cloud, subject: str) -> CheckResult:
    """Run a check, and turn an unexpected error into a verdict."""
    try:
        return check.look(plan, cloud, subject)
    except CannotAskError as error:
        return unknown(reason_text(error), error.todo)
    except ServiceError as error:
        return _refused(error)
    except InputError as error:
        return failed(reason_text(error), error.todo)
    except Exception as error:  # noqa: BLE001 - an answer of an unexpected shape must not stop the other checks
        return unknown(f"the answer could not be understood ({type(error).__name__})")


def _refused(error: ServiceError) -> CheckResult:
    if error.status in {401, 404}:
        todo = error.todo or ("Check the name" if error.is_not_found else "Check the connection's credentials")
        return failed(reason_text(error), todo)
    return CheckResult(Verdict.UNKNOWN, reason_text(error), error.todo, is_temporary=error.retryable)
