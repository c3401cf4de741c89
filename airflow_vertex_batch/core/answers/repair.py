"""Which rows are sent again, and how is the request changed? Only rows for which another try may give a good answer.

The rows of all rounds so far are read as they would land. The rows that are worth another try are written into a
smaller prepared set, and their requests are changed as their status requires. Invariants: a row with a good answer is
never sent again, and neither is a row whose error never heals. The same rounds give the same set, so a retry finds the
set and does not make another.
"""

from __future__ import annotations

import contextlib
from decimal import Decimal
from enum import Flag, StrEnum, auto
from typing import TYPE_CHECKING, Any, Self

import msgspec

from airflow_vertex_batch.core.answers.classify import UNREPAIRABLE_CODES
from airflow_vertex_batch.core.answers.collect import result_files
from airflow_vertex_batch.core.answers.rounds import badly_ended
from airflow_vertex_batch.core.answers.sent_rows import History, stripped
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.jsonl import decode, encode
from airflow_vertex_batch.core.domain.lines import read_lines
from airflow_vertex_batch.core.domain.row import ResultRow, RowStatus
from airflow_vertex_batch.core.domain.row_progress import RowProgress
from airflow_vertex_batch.core.domain.unrendered import refuse_idle
from airflow_vertex_batch.core.requests.prepare import PreparePlan, write_set
from airflow_vertex_batch.core.requests.request import MAX_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_vertex_batch.core.answers.rounds import Round, Rounds
    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import ObjectStore
    from airflow_vertex_batch.core.money.prices import PriceTable

#: The largest number of answer tokens of current Gemini models
#: (https://cloud.google.com/vertex-ai/generative-ai/docs/models/gemini/2-5-flash, 2026-11-22).
MAX_OUTPUT_TOKENS = 65_536

#: Reading the answers of so many rows takes a fifth of a second (docs/benchmarks.md), about as long as writing one
#: object and reading it.
REREAD_ROWS = 10_000


class Action(StrEnum):
    """How a row is sent again."""

    #: Send the request as it was.
    AS_IS = "as_is"
    #: Send it with ``maxOutputTokens`` doubled, up to the cap; give up once the cap is reached.
    MORE_TOKENS = "more_tokens"
    #: Do not send it again.
    GIVE_UP = "give_up"


#: The default action for each status.
ACTIONS: dict[RowStatus, Action] = {
    RowStatus.SUCCEEDED: Action.GIVE_UP,
    RowStatus.TRUNCATED: Action.MORE_TOKENS,
    RowStatus.BLOCKED: Action.GIVE_UP,
    RowStatus.INVALID_OUTPUT: Action.AS_IS,
    RowStatus.FAILED: Action.AS_IS,
    RowStatus.EXPIRED: Action.AS_IS,
    RowStatus.CANCELLED: Action.AS_IS,
    RowStatus.MISSING: Action.AS_IS,
    RowStatus.REJECTED: Action.GIVE_UP,
}


class RepairPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows are sent again, and how.

    :param actions: actions by status, for statuses that differ from `ACTIONS`.
    :param max_output_tokens: the cap of `Action.MORE_TOKENS`, in tokens.
    :param resume: for failed rows that have a line in the output, give the service its own output file to complete
        (https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/capabilities/batch-inference/resume-job,
        2026-11-22); rows without a line, or with a bad answer, are sent as requests in a later round.
    :param max_requests: the largest number of requests in one job.
    :param reread_rows: a batch of at most so many rows is read again for each decision. For a larger one, a file says
        what was known of the rows that are sent again (`core.answers.sent_rows`).
    """

    actions: dict[RowStatus, Action] = {}
    max_output_tokens: int = MAX_OUTPUT_TOKENS
    resume: bool = False
    max_requests: int = MAX_REQUESTS
    reread_rows: int = REREAD_ROWS

    @classmethod
    def of(cls, actions: Mapping[str, str] | None, **members: Any) -> RepairPolicy:
        """Read a policy from texts.

        :raises InputError: for a status or an action that does not exist, or a status that cannot be repaired.
        """
        read: dict[RowStatus, Action] = {}
        for status, action in (actions or {}).items():
            if status not in set(RowStatus) - {RowStatus.SUCCEEDED, RowStatus.REJECTED}:
                raise InputError(f"repair_actions names {status!r}, which is no status of a row that was sent")
            if action not in set(Action):
                raise InputError(
                    f"repair_actions[{status!r}] is {action!r}",
                    todo=f"Use one of {', '.join(map(repr, map(str, Action)))}",
                )
            read[RowStatus(status)] = Action(action)
        return cls(actions=read, **members)

    @property
    def raises_tokens(self) -> bool:
        """Whether a row of any status is sent with more tokens."""
        return Action.MORE_TOKENS in (ACTIONS | self.actions).values()

    def action(self, row: ResultRow) -> Action:
        """Return the action for one row."""
        if row.status.is_good or row.code in UNREPAIRABLE_CODES or not row.attempts:
            return Action.GIVE_UP
        # A row that was blocked for its content is not repairable by default, but the author may choose to send it
        # again.
        if not row.repairable and not (row.status is RowStatus.BLOCKED and row.status in self.actions):
            return Action.GIVE_UP
        return self.actions.get(row.status, ACTIONS[row.status])


def refuse_idle_repair(task_id: str, policy: RepairPolicy, rounds: int, on_clear: str) -> None:
    """Refuse arguments that only a repair round uses, if no repair round can be made.

    :raises InputError: with the names of the arguments.
    """
    if rounds or on_clear == "repair":
        return
    given = {
        "repair_actions": policy.actions,
        "repair_by": policy.resume,
        "repair_max_output_tokens": policy.max_output_tokens != MAX_OUTPUT_TOKENS,
    }
    refuse_idle(task_id, given, why="It has no repair round", todo="Set repair_rounds, or on_clear='repair'")


class Wants(Flag):
    """Which rows may be sent in another round."""

    #: Rows for which another try may help, as long as each round cures some rows, or its job ended badly.
    CURABLE = auto()
    #: The same rows, also after a round that cured nothing.
    AGAIN = auto()
    #: Rows for which no job has a line, always.
    UNANSWERED = auto()


class Selection(msgspec.Struct, frozen=True):
    """The result of reading the rounds so far.

    :param manifest: the rows to send again, or None when there are none, or when the last round cured nothing.
    :param wanted_count: the number of rows for which another try may help.
    :param cured: the number of rows to which the last round gave a good answer.
    :param cost_usd: the cost of all rounds.
    """

    manifest: Manifest | None
    wanted_count: int
    cured: int
    cost_usd: Decimal


def select(
    rounds: Rounds,
    policy: RepairPolicy,
    store: ObjectStore,
    folder: Uri,
    token: str,
    *,
    prices: PriceTable | None = None,
    wants: Wants = Wants.CURABLE,
) -> Selection:
    """Write the set of rows to send again.

    :param folder: the folder of the task's prepared sets.
    :param token: names this attempt's files; anything unique.
    :param wants: which kinds of rows may be sent.
    """
    first, number = rounds.rounds[0].manifest, len(rounds.rounds)
    if first is None:
        raise InputError("Rows can only be sent again from a manifest", todo="Pass what the prepare task returned")
    history = History(rounds, encode(policy), store, prices, is_large=first.request_count > policy.reread_rows)
    progress = RowProgress("Read", history.row_count)
    with _Worthwhile(policy, wants, keeps=history.is_large) as rows:
        for row in history.rows():
            progress.add()
            rows.add(row)
        cured, count = rounds.cured[-1] if number > 1 else 0, rows.wanted.count
        # If the job of a round ended badly, the round does not show that its rows cannot be cured.
        is_hopeful = number == 1 or bool(cured) or bool(wants & Wants.AGAIN) or bool(badly_ended(rounds.rounds[-1:]))
        chosen = rows.wanted if wants & Wants.CURABLE and is_hopeful else rows.missed
        if not chosen.count:
            return Selection(None, count, cured, history.cost)
        resumes = chosen is rows.wanted and rows.resumable.count
        output = _output_to_resume(rounds.rounds[-1], store) if resumes else ""
        made = write_set(
            _lines(rounds.rounds, rows.resumable if output else chosen, policy, store),
            PreparePlan(
                template=None, max_requests=policy.max_requests, model=first.model, schema=first.response_schema
            ),
            store,
            folder,
            token,
            round=number,
        )
        if history.is_large and made.request_count == count and not output:
            # Every wanted row goes again: the next decision need not look at the others.
            history.note(made, rows.before())
    manifest = with_resume(made, output) if made.request_count else None
    return Selection(manifest, count, cured, history.cost)


class _Worthwhile(contextlib.ExitStack):
    """The rows for which another try may help, each with its action: all of them, those that no job reached, and those
    that the service itself can complete.
    """

    def __init__(self, policy: RepairPolicy, wants: Wants, *, keeps: bool) -> None:
        super().__init__()
        self._policy, self._wants, self._keeps = policy, wants, keeps

    def __enter__(self) -> Self:
        super().__enter__()
        self.wanted, self.missed, self.resumable, self._before = (self.enter_context(DiskMultimap()) for _ in range(4))
        return self

    def add(self, row: ResultRow) -> None:
        """Look at the best answer to a request."""
        action = self._policy.action(row)
        if action is Action.GIVE_UP:
            return
        self.wanted.put(row.key, action.encode())
        if self._keeps:
            self._before.put(row.key, stripped(row))
        if self._wants & Wants.UNANSWERED and row.code.startswith("JOB_STATE_"):
            self.missed.put(row.key, action.encode())
        if self._policy.resume and _has_failed_line(row):
            self.resumable.put(row.key, Action.AS_IS.encode())

    def before(self) -> Iterator[bytes]:
        """Yield what a later decision needs of each wanted row, if that is kept."""
        return (row for _, row in self._before.items())


def _has_failed_line(row: ResultRow) -> bool:
    """Whether the output has a line for the row that the service itself can complete."""
    return row.status is RowStatus.FAILED and not row.response and not row.code.startswith("JOB_STATE_")


def _output_to_resume(last: Round, store: ObjectStore) -> str:
    """Return the output file of a round if there is exactly one, else an empty text: one job cannot complete several
    files.
    """
    outputs = [uri for job in last.jobs if job.output_uri for uri in _output_files(job.output_uri, store)]
    return str(outputs[0]) if len(outputs) == 1 else ""


def _output_files(output_uri: str, store: ObjectStore) -> list[Uri]:
    return [] if output_uri.startswith("bq://") else result_files(store, Uri.parse(output_uri))


def with_resume(manifest: Manifest, output_uri: str) -> Manifest:
    """Return a set whose job completes the output file of an earlier job; for an empty address, the set unchanged."""
    if not output_uri or len(manifest.shards) != 1:
        return manifest
    shard = msgspec.structs.replace(manifest.shards[0], resume_uri=output_uri)
    return msgspec.structs.replace(manifest, shards=(shard,))


def _lines(
    rounds: tuple[Round, ...], wanted: DiskMultimap, policy: RepairPolicy, store: ObjectStore
) -> Iterator[tuple[str, bytes]]:
    """Yield the wanted requests, as they were sent last, with the change that their action needs."""
    for asked in reversed(rounds):
        for shard in asked.manifest.shards if asked.manifest is not None else ():
            if not wanted.count:
                return
            with store.open_read(Uri.parse(shard.uri)) as stream:
                for _, raw in read_lines(stream):
                    line = _decode_line(raw)
                    for action in wanted.take(line.key):
                        request = _changed(bytes(line.request), Action(action.decode()), policy)
                        if request is not None:
                            yield line.key, request


class _Line(msgspec.Struct):
    key: str
    request: msgspec.Raw


_decode_line = msgspec.json.Decoder(_Line).decode


def _changed(request: bytes, action: Action, policy: RepairPolicy) -> bytes | None:
    """Return the request for another try; None if the action cannot help any more."""
    if action is Action.AS_IS:
        return request
    doc = decode(request)
    config_name = "generation_config" if "generation_config" in doc else "generationConfig"
    config = doc.get(config_name) or {}
    name = "max_output_tokens" if "max_output_tokens" in config else "maxOutputTokens"
    most = config.get(name)
    if most is None:
        # The answer reached the model's own limit. A longer answer is not possible, but the next answer may be shorter.
        return request
    if int(most) >= policy.max_output_tokens:
        return None
    doc[config_name] = {**config, name: min(int(most) * 2, policy.max_output_tokens)}
    return encode(doc)
