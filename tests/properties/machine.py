"""What happens in ten thousand nights? A machine that draws them, and says what must hold in each.

A night is one task of one run: attempts that die anywhere, retries, clears, edits, two workers at once, a service that
fails, lags, loses answers and labels, jobs that end in every way, logs that are lost, days that pass. At its end the
faults are over, and the task is tried until it has landed.

Beyond what a night may hold is what no client can repair: the service knows no request id. A worker that stands still
for longer than a create call may take between its last look and that call; the log lost while labels are lost too,
or while a new job is not listed yet; a 404 for a job that is there and not listed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.purchase.decide import OnChangedInput, OnClear
from airflow_vertex_batch.core.waiting.watch import OnTimeout
from airflow_vertex_batch.emulator import faults, row_faults
from airflow_vertex_batch.emulator.output_faults import LateOutput
from airflow_vertex_batch.emulator.scenario import Pace, Switches
from tests.properties.attempts import Death, Worker, play
from tests.properties.nights import Conditions, Night, is_log, round_of

HOUR, DAY = 3600.0, 86_400.0

PACES = [
    Pace(),
    Pace(pending_s=HOUR, running_s=HOUR),
    Pace(queued_s=600, pending_s=6 * HOUR),
    Pace(pending_s=80 * HOUR),
    Pace(running_s=30 * HOUR),
]
SWITCHES = st.builds(
    Switches,
    live_stats=st.booleans(),
    cancelled_output=st.sampled_from([True, True, True, False]),
    failed_output_info=st.sampled_from([True, True, True, False]),
    output_files=st.sampled_from(["single", "single", "shards", "incremental"]),
    all_failed=st.sampled_from(["succeeded", "failed", "partially_succeeded"]),
    run_cutoff=st.sampled_from(["cancelled", "failed"]),
)

#: The first round only, the first two, or always: so what a row needs to heal.
_WHEN = st.sampled_from([{"avb-round": "0"}, {"avb-round": "[01]"}, {}])


def _row_fault(kind: type[row_faults.RowFault], **members: Any) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["a0", "a1", "a2", "a[0-1]", "*"]).map(lambda glob: (glob,))
    return st.builds(kind, keys=keys, labels=_WHEN, **{name: st.just(value) for name, value in members.items()})


ROW_FAULTS = st.lists(
    st.one_of(
        _row_fault(row_faults.Missing),
        _row_fault(row_faults.Duplicated),
        _row_fault(row_faults.RowError),
        _row_fault(row_faults.RowError, code=400, status="INVALID_ARGUMENT"),
        _row_fault(row_faults.RowError, text="no JSON at all"),
        _row_fault(row_faults.Blocked),
        _row_fault(row_faults.Truncated),
        _row_fault(row_faults.Finish, reason="SAFETY"),
        _row_fault(row_faults.Empty),
    ),
    max_size=2,
)
CONDITIONS = st.builds(
    Conditions,
    in_steps=st.booleans(),
    row_count=st.integers(1, 5),
    shard_rows=st.sampled_from([2, 50]),
    rounds=st.integers(0, 2),
    on_clear=st.sampled_from(list(OnClear)),
    resume=st.booleans(),
    timeout=st.sampled_from([97 * HOUR, 97 * HOUR, 2 * HOUR, 600.0]),
    on_timeout=st.sampled_from([OnTimeout.CANCEL, *OnTimeout]),
    poll_interval=st.sampled_from([None, None, 600.0]),
    on_changed_input=st.sampled_from([OnChangedInput.RESUBMIT, OnChangedInput.RESUBMIT, OnChangedInput.FAIL]),
    pace=st.sampled_from(PACES),
    switches=SWITCHES,
    row_faults=ROW_FAULTS.map(tuple),
)

_ANY_CALL = st.sampled_from(["create", "create", "get", "list", "cancel"])
_UNSURE = st.sampled_from([408, 499, 500, 502, 503, 504])
CALL_FAULTS = st.lists(
    st.one_of(
        st.builds(faults.Http, on=_ANY_CALL, status=_UNSURE, when=st.sampled_from(["before", "after"]),
                  times=st.sampled_from([1, 1, 2, 5])),
        st.builds(faults.Drop, on=_ANY_CALL, when=st.sampled_from(["before", "after"])),
        st.builds(faults.Http, on=_ANY_CALL, status=st.just(429), retry_after=st.sampled_from([None, 7, 120]),
                  times=st.sampled_from([1, 2, 5])),
        st.builds(faults.Http, on=_ANY_CALL, status=st.sampled_from([401, 403, 409]),
                  times=st.sampled_from([1, 1, 4])),
        st.builds(faults.Http, on=st.sampled_from(["create", "list"]), status=st.sampled_from([400, 404, 412])),
        st.builds(faults.Http, on=st.just("get"), status=st.just(404), times=st.sampled_from([1, 3])),
        st.builds(faults.Http, on=_ANY_CALL, status=st.just(502), html=st.just(True)),
        st.builds(faults.Delay, on=_ANY_CALL, seconds=st.just(25.0), when=st.sampled_from(["before", "after"])),
        st.builds(faults.Stale, seconds=st.sampled_from([5.0, 10.0])),
    ),
    max_size=4,
)  # fmt: skip
_ENDS = [str(state) for state in JobState if state.is_final]
_HOLDS = ["JOB_STATE_PAUSED", "JOB_STATE_UPDATING", "JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_DREAMING"]
_SHARE = st.sampled_from([0.0, 0.5, 0.5, 1.0])
JOB_FAULTS = st.lists(
    st.one_of(
        # A job that succeeds has run: without an output it would be one whose rows are lost for good.
        st.builds(faults.End, state=st.sampled_from(_ENDS), after=_SHARE, from_pending=st.booleans()).map(
            lambda end: msgspec.structs.replace(end, from_pending=end.from_pending and "_SUCCEEDED" not in end.state)
        ),
        st.builds(LateOutput, seconds=st.sampled_from([60.0, 600.0]), share=_SHARE),
        st.builds(faults.Hold, state=st.sampled_from(_HOLDS), after=_SHARE, from_pending=st.booleans(),
                  seconds=st.sampled_from([600.0, 3 * HOUR, 2 * DAY])),
    ),
    max_size=2,
)  # fmt: skip
ENDS = st.one_of(
    st.just(Death()),
    st.builds(Death, effects=st.integers(1, 12)),
    st.builds(Death, naps=st.integers(0, 6), by_hand=st.booleans()),
)
STALLING = st.builds(
    Death,
    effects=st.one_of(st.none(), st.integers(1, 12)),
    stalls=st.dictionaries(st.integers(1, 40), st.sampled_from([10.0, 30.0, 44.0, 120.0, DAY]), max_size=3),
)
LATE = st.one_of(st.none(), st.none(), st.none(), st.sampled_from([5.0, 30.0]))


def bounded(nights: int, **more: Any) -> settings:
    """Return settings for so many nights."""
    quiet = {
        "deadline": None,
        "suppress_health_check": list(HealthCheck),
        "print_blob": True,
        "stateful_step_count": 10,
    }
    return settings(**{**quiet, "max_examples": nights, **more})


class Nights(RuleBasedStateMachine):
    """One night at a time; counts what it met in `seen`, over all nights."""

    seen: ClassVar[Counter[str]] = Counter()
    night_kind: ClassVar[type[Night]] = Night

    def __init__(self) -> None:
        super().__init__()
        self.night: Any = None

    @initialize(conditions=CONDITIONS)
    def begins(self, conditions: Conditions) -> None:
        self.night = self.night_kind(conditions)
        self.seen["nights in steps" if conditions.in_steps else "nights in one task"] += 1

    # What may happen --------------------------------------------------------------------------------------------------

    @rule(calls=CALL_FAULTS, jobs=JOB_FAULTS, end=ENDS, late=LATE)
    def a_retry(self, calls: list[Any], jobs: list[Any], end: Death, late: float | None) -> None:
        self.an_attempt(calls, jobs, end, late)

    @rule(calls=CALL_FAULTS, jobs=JOB_FAULTS, end=ENDS, late=LATE)
    def an_attempt(self, calls: list[Any], jobs: list[Any], end: Death, late: float | None) -> None:
        self._count("an attempt")
        self._script(calls, jobs, late)
        Worker(self.night, end).run()

    @rule(
        calls=CALL_FAULTS,
        jobs=JOB_FAULTS,
        ends=st.tuples(STALLING, STALLING),
        turns=st.lists(st.integers(0, 1), max_size=60),
        late=LATE,
        text=st.sampled_from(["", "", "edited between"]),
    )
    @precondition(lambda self: not self.night.conditions.in_steps)
    def two_at_once(
        self,
        calls: list[Any],
        jobs: list[Any],
        ends: tuple[Death, Death],
        turns: list[int],
        late: float | None,
        text: str,
    ) -> None:
        """Delays of the service are not those of one worker: here workers stall instead."""
        self._count("two attempts at once" + (", edited between" if text else ""))
        self._script([fault for fault in calls if not isinstance(fault, faults.Delay)], jobs, late)
        first = Worker(self.night, ends[0])
        if text:
            self.night.is_edited = True
            self.night.rows[0] = {"id": "a0", "text": f"{text} {self.night.attempts}"}
        second = Worker(self.night, ends[1])
        play([first, second], turns)

    @rule(is_whole=st.booleans())
    def a_clear(self, *, is_whole: bool) -> None:
        self._count("a clear of all" if is_whole else "a clear of one task")
        self.night.generation += 1
        if is_whole:
            self.night.upstream += 1
            self.night.passed_on.clear()
        else:
            self.night.passed_on.pop("rounds", None)

    @rule(how=st.sampled_from(["change", "add", "remove", "as it was"]))
    def an_edit(self, how: str) -> None:
        """An edit is met when the batch is prepared again: after a clear, in steps of all; never by a retry."""
        self._count("an edit")
        self.night.is_edited, rows = True, self.night.rows
        if how == "change":
            rows[0] = {"id": "a0", "text": f"edited {self.night.attempts}"}
        elif how == "add":
            rows.append({"id": f"a{len(rows)}", "text": "added"})
        elif how == "remove" and len(rows) > 1:
            rows.pop()
        else:
            rows[:] = [{"id": row["id"], "text": f"text {number}"} for number, row in enumerate(rows)]

    @rule(seconds=st.sampled_from([10.0, 300.0, HOUR, 12 * HOUR, 4 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self._count("time passes")
        self.night.pass_time(seconds)

    @precondition(lambda self: not self.night.unlabelled and self.night.jobs())
    @rule()
    def the_log_is_lost(self) -> None:
        self._count("the log is lost")
        self.night.pass_time(60)
        objects = self.night.store.objects
        for name in list(objects):
            if is_log(name):
                del objects[name]
        self.night.is_log_lost = True

    @precondition(lambda self: self._recorded())
    @rule()
    def labels_are_lost(self) -> None:
        """Those of jobs that the log names: of others nobody would know whose they are."""
        self._count("labels are lost")
        self.night.unlabelled |= self._recorded()

    @precondition(lambda self: self._deletable())
    @rule()
    def a_job_is_deleted(self) -> None:
        self._count("a job is deleted")
        self.night.emulator.delete("demo", "global", self._deletable()[0], "v1")
        self.night.is_any_deleted = True

    def _count(self, event: str) -> None:
        self.seen[f"event: {event}"] += 1

    def _script(self, calls: list[Any], jobs: list[Any], late: float | None) -> None:
        night = self.night
        if night.unlabelled or any(isinstance(fault, faults.Stale) for fault in calls):
            # A job that is not listed is asked for by its name; "there is none" must not be a lie then.
            calls = [fault for fault in calls if (fault.on, getattr(fault, "status", 0)) != ("get", 404)]
        night.script(*calls, *jobs)
        night.late_seconds = [] if late is None else [late]

    def _recorded(self) -> set[str]:
        logs = b" ".join(data for name, data in self.night.store.objects.items() if is_log(name))
        return {job["name"] for job in self.night.jobs() if job["name"].encode() in logs}

    def _deletable(self) -> list[str]:
        jobs = [job for job in self.night.jobs() if JobState.read(job["state"]).is_final and not job["deleted"]]
        return [job["name"].rpartition("/")[2] for job in jobs]

    # What must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        if self.night is not None:
            assert not self.night.wrong, "\n".join(self.night.wrong)

    def teardown(self) -> None:
        if self.night is None:
            return
        try:
            self._ends()
        finally:
            self.night.emulator.stop()
            for name, count in self.night.seen.items():
                self.seen[name] += count

    def _ends(self) -> None:
        """The faults are over: the task lands, all of it, once, and nothing runs on."""
        night = self.night
        night.script(is_last=True)
        night.late_seconds = []
        outcomes: list[str] = []
        while (outcome := (worker := Worker(night)).run()) != "landed":
            outcomes.append(worker.why)
            assert len(outcomes) < 8, "\n".join(["never landed:", *outcomes])
            # Retries come later each time; where only a person can help, one clears the task.
            night.pass_time(300.0 * 4 ** len(outcomes))
            if night.conditions.in_steps and outcome == "JobError":
                self.a_clear(is_whole=True)
        self.seen[f"attempts until landed: {len(outcomes) + 1}"] += 1
        self._all_has_landed(worker)
        self.nothing_is_wrong()
        self._nothing_runs_on()
        before = dict(night.store.objects)
        assert Worker(night).run() == "landed"
        changed = {name for name in night.store.objects if before.get(name) != night.store.objects[name]}
        assert not {name for name in changed if name.startswith("gs://out/") or is_log(name)}, changed
        self.nothing_is_wrong()

    def _all_has_landed(self, worker: Worker) -> None:
        """Every row once, and each good answer that was paid for, unless an edit or a loss led away from it.

        Rows that an edit took out stay where they have landed before: only `replace_partition` would remove them.
        """
        night, landed = self.night, self.night.landed()
        stays = len(landed) - worker.base.row_count
        assert stays >= 0 if night.is_edited else stays == 0
        if not night.conditions.in_steps:
            expected = night.prepared[worker.base.uri]
            may_stay = set().union(*night.prepared.values()) if night.is_edited else expected
            assert expected <= landed.keys() <= may_stay, f"{sorted(landed)} landed of {sorted(expected)}"
        is_led_away = night.is_edited or night.is_log_lost or night.is_any_deleted
        if not is_led_away and night.conditions.on_clear is not OnClear.NEW:
            good = night.good_keys(worker.base.fingerprint)
            assert {key for key in good if landed[key] != "succeeded"} == set()
            self.seen["good answers followed to their landing"] += len(good)

    def _nothing_runs_on(self) -> None:
        """But what may not be cancelled after an edit, and what only a lost record knew of: that is for the sweep.

        What an edit or a clear with ``on_clear="new"`` replaces is cancelled only where the log names it.
        """
        night = self.night
        night.pass_time(60)
        is_replaced = night.is_edited or night.conditions.on_clear is OnClear.NEW
        if is_replaced and night.is_log_lost:
            return
        if night.is_edited and night.conditions.on_changed_input is OnChangedInput.FAIL:
            return
        running = [job for job in night.running() if not (night.is_log_lost and round_of(job))]
        assert not running, running
