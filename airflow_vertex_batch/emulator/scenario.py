"""How does this service behave in a test? Contested facts are switches; speed, limits and scripted faults are data too.

`Scenario` is what a test writes (or a JSON file, or ``PUT /emulator/scenario``); `Script` counts what was used of it.

Invariants: every default is the answer with the best evidence, said beside it (section numbers are those of the
project's notes on the API, S1-S14 Google's pages, F1-F7 field reports); faults are consumed in order, per kind and
operation; a fault that was never used up is an error (`Script.check_used`), because a test that did not meet its
fault proves nothing.
"""

from __future__ import annotations

import threading
from fnmatch import fnmatchcase
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import msgspec

from airflow_vertex_batch.core.domain.catalog import life_of, misspelt
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.emulator.faults import CallFault, Fault, JobFault
from airflow_vertex_batch.emulator.forms import Form
from airflow_vertex_batch.emulator.output_faults import OutputFault
from airflow_vertex_batch.emulator.row_faults import RowFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

F = TypeVar("F", bound=Fault)


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the scenario's values: a misspelt name is an error, not a default."""


class Switches(Data, frozen=True, kw_only=True):
    """The thirteen facts on which the sources disagree, and some more."""

    #: 1. ``uris`` as a bare string in a create body. S0, S2 print it and a field client sends it live; protobuf's
    #: parser refuses.
    scalar_uris: Literal["accepted", "refused"] = "accepted"
    #: 2. A job still running after 24 h. S1 (overview, the newer page) says cancelled, S3 (BigQuery guide) says failed.
    run_cutoff: Literal["cancelled", "failed"] = "cancelled"
    #: 3. ``completionStats`` while running. S0 and S3 say no live progress; S2 only dropped the sentence.
    live_stats: bool = False
    #: 4. ``response`` of a failed row. ``{}`` is printed in S0 and S2; absent and null come from field code (F1, F6).
    failed_response: Literal["empty", "absent", "null"] = "empty"
    #: 5. Echo with sorted members and null-padded list elements. Printed in S2 and seen in a real line (F4).
    echo: Literal["normalised", "verbatim"] = "normalised"
    #: Not numbered: what the lists of an echo are padded to: the members of the row's own elements (S2's sample has one
    #: row), or those of all rows of the file (a real pair of files of 2024-11-05, `pairs/multimodal`).
    echo_padding: Literal["row", "file"] = "file"
    #: Not numbered: the form of a line, by when it was written (`emulator.forms`); on the user's page (S0), or in
    #: captures of 2024-11, of 2025-08 to 2025-09, and from 2025-11 on.
    line_form: Form = "page"
    #: Not numbered: ``groundingMetadata`` of a request that searches: in all of twenty real lines (o03, o04),
    #: which have no ``avgLogprobs`` either.
    grounding: Literal["absent", "present"] = "present"
    #: Not numbered: whether ``totalTokenCount`` has the tokens of tools (``toolUsePromptTokenCount``) in it. Left out
    #: in all of twenty real lines (o03, o04); in it on Google's page of grounding with Parallel (o17), and by the API's
    #: definition of the member (S6).
    tool_total: Literal["without", "with"] = "without"
    #: Not numbered: a ``thoughtSignature`` beside the text. One line of Gemini 3.1 has it (o09), none of 2.5.
    thought_signature: Literal["absent", "present"] = "absent"
    #: 6. Other top-level members in the output. Echoed in three captures (F1, F2, F3), numeric texts re-typed (F1);
    #: older reports (2023-2025) say they are dropped.
    siblings: Literal["retyped", "verbatim", "dropped"] = "retyped"
    #: 7. Output objects. One ``predictions.jsonl`` in every listing shown (S14, F1); shards and ``incremental_`` only
    #: in code (F5).
    output_files: Literal["single", "shards", "incremental"] = "single"
    #: 8. A job whose every row failed. SUCCEEDED was captured (F1); the others follow from the generic API text (S6).
    all_failed: Literal["succeeded", "failed", "partially_succeeded"] = "succeeded"
    #: 9. BigQuery with location ``global``. Google's notebook (S14) dropped its warning on 2025-12-19 and runs it; S3
    #: contradicts.
    bigquery_global: Literal["allowed", "refused"] = "allowed"
    #: 10. A destination table that exists. S6 and S14 say it must not; one field client creates it beforehand.
    existing_table: Literal["error", "append"] = "error"
    #: 11. ``error.details`` filled. No capture shows it; google-genai breaks on it.
    error_details: bool = False
    #: 12. A cancelled job leaves its finished rows. S1 and S2 say so; nobody has shown it.
    cancelled_output: bool = True
    #: 13. ``outputInfo`` on a job that failed after it had begun. Present on some (F1).
    failed_output_info: bool = True
    #: Not numbered: the type of ``response`` in an output table. S3 does not say; one field client parses text.
    bigquery_response: Literal["JSON", "STRING"] = "JSON"
    #: Not numbered: what ``successfulCount`` counts where a row was answered and its line got lost. S6 says only
    #: "successfully processed"; the captures (F1) have a line for each row that was counted.
    counted: Literal["lines", "answers"] = "lines"
    #: Not numbered: a schema with an OBJECT without properties. Refused with 400 (browser-use#3786, on the Developer
    #: API); others saw ``{}`` for every row (pydantic-ai#1203, python-genai#2889).
    empty_objects: Literal["refused", "taken"] = "refused"
    #: Not numbered: settings of which reports disagree, or that only the Developer API was seen to refuse, by model:
    #: several candidates of Gemini 3 (refused in js-genai#1609, taken by Vertex AI in python-genai#1723), penalties of
    #: 2.5 (vercel/ai#8943), a budget of 0 for 3.5 Flash-Lite (python-genai#2936), the level XHIGH before Gemini 4 Neon.
    contested_settings: Literal["taken", "refused"] = "taken"
    #: Not numbered: which names the service does not know (404). It knows its own models alone, and this package not
    #: those of next year: a name that is one slip away from a known one is refused, or every name that is not in
    #: `core.domain.catalog`, or none that the table of models serves.
    unknown_names: Literal["misspelt", "all", "none"] = "misspelt"
    #: Not numbered: a model after its last day. "API requests referencing a retired model ID typically returns a 404"
    #: (Google's page of model versions, 2026-11-28); of 2.5, Google wrote to customers that those who used it before
    #: are served for months (open-chat-studio#4509, 2026-09-16), so a laptop's clock does not refuse by itself.
    retired_models: Literal["served", "refused"] = "served"
    #: Not numbered: the model that every tuned one was made from. Those of Gemini 3 and newer have no batch (S1).
    tuned_from: str = "gemini-2.5-flash"

    def knows(self, model: str, day: str) -> bool:
        """Whether the service has a Google model of that name on a day."""
        life = life_of(model)
        if life is None:
            return self.unknown_names == "none" or (self.unknown_names == "misspelt" and not misspelt(model))
        is_over = bool(life.retires) and day > life.retires
        return self.retired_models == "served" or not is_over


class Pace(Data, frozen=True, kw_only=True):
    """How long things take, in seconds of the service's time (the server's ``--speed`` divides them).

    Seen live (F1): a tiny job waits about 90 s and runs about 2 minutes.
    """

    queued_s: float = 0.0
    pending_s: float = 90.0
    running_s: float = 120.0
    per_row_s: float = 0.02
    cancelling_s: float = 10.0
    delete_s: float = 2.0


class Limits(Data, frozen=True, kw_only=True):
    """What one job may be; None switches a limit off. S1, read 2026-11-22; per job or per file is not known: per job
    here.
    """

    requests: int | None = 200_000
    #: "1 GB"; one field report of 4.3 GB says it may not be enforced.
    input_bytes: int | None = 2**30
    #: BigQuery's limit of one row in a load (the importer behaves like one).
    line_bytes: int = 100 * 1024 * 1024
    queue_s: float = 72 * 3600.0
    run_s: float = 24 * 3600.0


class Served(Data, frozen=True, kw_only=True):
    """One line of the table of models: a glob over ``publisher/model``, and where its batches run (``*``
    everywhere).
    """

    model: str
    locations: tuple[str, ...] = ("*",)


#: Four field reports agree that Gemini 3 batches run in ``global`` only and 2.x everywhere (section 6). Globs, so
#: that a model of next year is known; embeddings and other publishers have other line formats and are not served
#: here.
CATALOG = (
    Served(model="google/gemini-[12].*"),
    Served(model="google/gemini-[3-9]*", locations=("global",)),
)


class Scenario(Data, frozen=True, kw_only=True):
    """Switches, pace, limits, the table of models, and faults in the order of their use."""

    switches: Switches = Switches()
    pace: Pace = Pace()
    limits: Limits = Limits()
    catalog: tuple[Served, ...] = CATALOG
    faults: tuple[Fault, ...] = ()

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """Read a scenario from JSON.

        :raises InputError: when a member or a fault is not known, or a value is of the wrong kind.
        """
        try:
            doc = msgspec.json.decode(text, type=_Document)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(
                "The scenario cannot be read", why=str(error), todo="Correct the member it names"
            ) from error
        faults = tuple(_read_fault(index, fault) for index, fault in enumerate(doc.faults))
        return cls(switches=doc.switches, pace=doc.pace, limits=doc.limits, catalog=doc.catalog, faults=faults)

    def as_dict(self) -> dict[str, Any]:
        """Return the scenario as `parse` reads it."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    def serves(self, model: str, location: str, day: str = "") -> bool | None:
        """Whether batches of ``publisher/model`` run in `location`; None when there is no such model.

        :param day: today, ISO; where empty, no model has retired.
        """
        bare = model.partition("@")[0]
        if bare.startswith("google/") and not self.switches.knows(bare, day):
            return None
        lines = [line for line in self.catalog if fnmatchcase(bare, line.model)]
        if not lines:
            return None
        return any(fnmatchcase(location, glob) for line in lines for glob in line.locations)


class _Document(Data, frozen=True, kw_only=True):
    switches: Switches = Switches()
    pace: Pace = Pace()
    limits: Limits = Limits()
    catalog: tuple[Served, ...] = CATALOG
    faults: tuple[dict[str, Any], ...] = ()


def fault_tags() -> dict[str, type[Fault]]:
    """Return every fault by its name in a scenario."""
    return {str(kind.__struct_config__.tag): kind for kind in _kinds()}


def fault_type() -> Any:
    """Return the union of all faults, for decoding."""
    return reduce(or_, _kinds())


def _kinds() -> Iterator[type[Fault]]:
    for base in (CallFault, JobFault, OutputFault, RowFault):
        yield from base.__subclasses__()


def _read_fault(index: int, doc: dict[str, Any]) -> Fault:
    try:
        return msgspec.convert(doc, fault_type())  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        known = ", ".join(sorted(fault_tags()))
        raise InputError(
            f"Fault {index} of the scenario cannot be read", why=str(error), todo=f"Known faults are {known}"
        ) from error


class UnusedFaultError(AssertionError):
    """A scripted fault did not happen as often as it should."""


class Script:
    """A scenario being used: hands out each fault as often as it says, in order.

    :param scenario: what to use.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.refused_tokens: set[str] = set()
        self._used = [0] * len(scenario.faults)
        self._lock = threading.Lock()

    def take(self, kind: type[F], accepts: Callable[[F], bool]) -> F | None:
        """Return the first fault of `kind` that is not used up and for which `accepts` is true, and count it."""
        with self._lock:
            for index, fault in enumerate(self.scenario.faults):
                if isinstance(fault, kind) and self._left(index) and accepts(fault):
                    self._used[index] += 1
                    return fault
        return None

    def unused(self) -> list[dict[str, Any]]:
        """Return the faults that were used less often than they say; for ever counts as once."""
        return [entry for entry in self.faults() if entry["used"] < (entry["fault"].get("times") or 1)]

    def faults(self) -> list[dict[str, Any]]:
        """Return every fault with how often it was used."""
        return [
            {"fault": msgspec.to_builtins(fault) | {"times": fault.times}, "used": used}
            for fault, used in zip(self.scenario.faults, self._used, strict=True)
        ]

    def check_used(self) -> None:
        """Raise unless every fault was used up.

        :raises UnusedFaultError: naming the faults that were not.
        """
        if unused := self.unused():
            text = "; ".join(f"{entry['fault']} (used {entry['used']} times)" for entry in unused)
            raise UnusedFaultError(f"{len(unused)} scripted faults were not met: {text}")

    def _left(self, index: int) -> bool:
        times = self.scenario.faults[index].times
        return times is None or self._used[index] < times
