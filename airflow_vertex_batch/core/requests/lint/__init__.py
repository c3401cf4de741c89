"""Can this request file be sent? Before the upload, lint finds faults that would make the job fail after hours in the
queue.

The service loads request files through an importer with undocumented rules, and one bad line fails the whole job.
`Linter` checks the lines of one job as they pass, against those rules, the form that the API wants and the service's
limits. `RULES` is the list.

Severity decides: *errors* make ``lint`` exit with 1, and let prepare reject the row; *warnings* alone leave the exit
status at 0. Errors are reported on every line where they occur, warnings once for each job and key path.

Invariants: memory does not grow with the lines, except for 8-byte key hashes, at most as many as a job may have. No
finding carries prompt text. Nothing here raises, whatever a line holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from airflow_vertex_batch.core.requests.lint.fast_path import CleanLines, is_plain_key
from airflow_vertex_batch.core.requests.lint.fix import fix_line
from airflow_vertex_batch.core.requests.lint.lines import BLANK, UNREADABLE, read_line, repeated_members
from airflow_vertex_batch.core.requests.lint.models import REFUSED
from airflow_vertex_batch.core.requests.lint.nodes import Place
from airflow_vertex_batch.core.requests.lint.rules import LIMITS, RULES, Finding, Limits, Rule
from airflow_vertex_batch.core.requests.lint.values import file_uri
from airflow_vertex_batch.core.requests.lint.walk import FILE, Found, Walker

__all__ = [
    "LIMITS",
    "RULES",
    "Finding",
    "Limits",
    "Linter",
    "Rule",
    "file_uri",
    "fix_line",
    "lint_files",
    "lint_lines",
    "model_refusal",
]

_QUOTE = b"\\u0022"
_NUMBERS = re.compile(r"\[\d+\]")


class Linter:
    """The lines of one job, checked as they pass.

    :param file: name of the first file, as findings shall show it.
    :param ignore: names of rules to leave out.
    :param rejecting: whether a line with an error will be left out of the job (prepare does that). Then the line does
        not count, and later lines are not compared with it.
    :param unique_keys: whether the caller knows that every key is unique. Then keys are not remembered.
    :param limits: the service's limits.
    :param model: the model of the job, as the job names it; empty if it is not known. Some settings are allowed only
        for some models.
    :param shortcut: False reads every line in full. The findings are the same, but it takes longer.
    :raises ValueError: for a rule that does not exist.
    """

    def __init__(
        self,
        file: str,
        *,
        ignore: frozenset[str] = frozenset(),
        rejecting: bool = False,
        unique_keys: bool = False,
        limits: Limits = LIMITS,
        shortcut: bool = True,
        model: str = "",
    ) -> None:
        if unknown := ignore - RULES.keys():
            raise ValueError(f"No such lint rule: {', '.join(sorted(unknown))}. The rules are {', '.join(RULES)}.")
        self._files = [file]
        self._base = 0
        self._ignore = ignore
        self._rejecting = rejecting
        self._unique_keys = unique_keys
        self._limits = limits
        self._walker = Walker(limits, self._files, unique_keys=unique_keys, model=model)
        self._keys = self._walker.keys
        self._shapes = CleanLines() if shortcut else None
        self._warned: set[tuple[str, str]] = set()
        #: Requests and bytes that count towards the job; errors and warnings reported so far.
        self.request_count = self.byte_count = self.error_count = self.warning_count = 0

    def next_file(self, file: str) -> None:
        """Go on with another file of the same job."""
        self._files.append(file)
        self._base += FILE

    def check(self, line_number: int, raw: bytes) -> list[Finding]:
        """Return what is wrong with one line, given all lines before it.

        :param line_number: 1-based, in the current file.
        :param raw: the line, with or without its line end.
        """
        return [] if self._is_known(line_number, raw) else self._check(line_number, raw)

    def finish(self) -> list[Finding]:
        """Return what is wrong with the job as a whole, after its last line."""
        here = (len(self._files) - 1, 1)
        found: list[Found] = [
            ((index, 1), "$", "packed-file", f"{name} was unpacked to be read", "")
            for index, name in enumerate(self._files)
            if name.endswith(".gz")
        ]
        if not self.request_count and not (self._rejecting and self.error_count):
            found.append((here, "$", "no-requests", "no line with a request", ""))
        return self._findings(found, here)

    def _is_known(self, line_number: int, raw: bytes) -> bool:
        """Accept a line that differs from a clean line only in its key and texts."""
        key = self._shapes.match(raw) if self._shapes is not None else None
        if key is None:
            return False
        limits, size = self._limits, len(raw)
        if (
            self.request_count >= limits.requests
            or self.byte_count + size > limits.job_bytes
            or size > limits.line_bytes
        ):
            return False
        if key:
            hashed = hash(key)
            if hashed in self._keys or not is_plain_key(key):
                return False
            if not self._unique_keys:
                self._keys[hashed] = self._base + line_number
        self.byte_count += size
        self.request_count += 1
        return True

    def _check(self, line_number: int, raw: bytes) -> list[Finding]:
        here = (len(self._files) - 1, line_number)
        line, faults = read_line(raw)
        found: list[Found] = [(here, *fault) for fault in faults]
        if line is not BLANK:
            found += self._limits_at(here, raw)
        is_walked = line is not BLANK and line is not UNREADABLE
        if is_walked:
            found += self._walker.walk(line, here)
            if self._walker.is_outdated and self._shapes is not None:
                self._shapes.forget()
            if self._walker.is_partial or _QUOTE in raw or self._walker.quotes != raw.count(b'"'):
                found += self._repeated(here, raw)
        findings = self._findings(found, here)
        if self._rejecting and any(finding.severity == "error" for finding in findings):
            if is_walked:
                self._walker.undo()
        elif line is not BLANK:
            self.request_count += 1
            self.byte_count += len(raw)
            if self._shapes is not None and not any(RULES[rule].severity == "error" for _, _, rule, _, _ in found):
                self._shapes.learn(raw)
        return findings

    def _limits_at(self, here: Place, raw: bytes) -> Iterator[Found]:
        """Report the request that breaks a limit of the job, once each."""
        limits = self._limits
        if len(raw) > limits.line_bytes:
            yield (here, "$", "line-too-long", f"{len(raw):,} bytes, a row may have {limits.line_bytes:,}", "")
        if self.request_count == limits.requests:
            yield (here, "$", "too-many-requests", f"more than {limits.requests:,} requests in this job", "")
        if self.byte_count <= limits.job_bytes < self.byte_count + len(raw):
            yield (here, "$", "too-many-bytes", f"more than {limits.job_bytes:,} bytes (1 GB = 10^9) in this job", "")

    def _repeated(self, here: Place, raw: bytes) -> Iterator[Found]:
        try:
            for path in repeated_members(raw):
                yield (here, path, "duplicate-member", "the name stands twice", "")
        except (ValueError, RecursionError):
            # The standard library's decoder gives up on depth and on numbers msgspec takes; both are reported already.
            return

    def _findings(self, found: Iterable[Found], here: Place) -> list[Finding]:
        made = []
        for place, path, rule, message, cure in found:
            known = RULES[rule]
            # Where rows are rejected one by one, the earlier of two that disagree has been taken already.
            if rule in self._ignore or (self._rejecting and place != here):
                continue
            if known.severity == "error":
                self.error_count += 1
            else:
                once = (rule, _NUMBERS.sub("[]", path))
                if once in self._warned or len(self._warned) >= self._limits.columns:
                    continue
                self._warned.add(once)
                self.warning_count += 1
            file = self._files[place[0]]
            made.append(Finding(file, place[1], rule, known.severity, path, message, cure or known.cure))
        return made


def lint_lines(file: str, lines: Iterable[bytes]) -> Iterator[Finding]:
    """Yield what is wrong with a job of one file.

    :param lines: the file's lines, such as the file itself opened in binary mode.
    """
    return lint_files([(file, lines)])


def lint_files(
    files: Iterable[tuple[str, Iterable[bytes]]], *, ignore: frozenset[str] = frozenset(), model: str = ""
) -> Iterator[Finding]:
    """Yield what is wrong with a job of several files, in the order its lines are read.

    :param files: name and lines of each file.
    :param ignore: names of rules to leave out.
    :param model: that the job will ask; empty where it is not known.
    """
    linter: Linter | None = None
    for name, lines in files:
        if linter is None:
            linter = Linter(name, ignore=ignore, model=model)
        else:
            linter.next_file(name)
        for number, line in enumerate(lines, start=1):
            yield from linter.check(number, line)
    if linter is not None:
        yield from linter.finish()


def model_refusal(line: bytes, model: str) -> str:
    """Return what a model is known to refuse in a request; empty if nothing is known.

    :param line: one request line.
    :param model: as a job names it.
    """
    found = (each for each in Linter("", model=model).check(1, line) if each.rule == REFUSED)
    return next((f"{each.path}: {each.message}" for each in found), "")
