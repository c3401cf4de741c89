"""One test for a whole table: every case is tried, and those that fail are listed together, each by its name."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

#: Name and what stands beside it: a tuple of arguments, or the one argument. Without names, the arguments are the name.
Cases = Mapping[Any, Any] | Iterable[Any]

#: Of a failure as many characters are shown, and of arguments that are a name.
SHOWN, NAME = 2_000, 200


def each_case(cases: Cases) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test with arguments one test of all cases; it takes no fixtures, because each case needs its own."""
    named = _named(cases)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        assert not inspect.iscoroutinefunction(test), "nobody would wait for it: it would pass whatever it asserts"

        # Without the parameters of the test, in which pytest would look for fixtures: so no `functools.wraps`.
        def every_case(*myself: Any) -> None:
            failures = []
            for name, arguments in named:
                try:
                    test(*myself, *arguments)
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, it is listed
                    failures.append(f"{name}: {_said(error)}")
            _refuse(failures, len(named))

        every_case.__name__, every_case.__qualname__ = test.__name__, test.__qualname__
        every_case.__module__, every_case.__doc__ = test.__module__, test.__doc__
        return every_case

    return decorate


def compare_each(cases: Cases, answer: Callable[..., Any]) -> None:
    """Compare ``answer`` of each case's arguments with what is expected, the last member of the case."""
    __tracebackhide__ = True
    failures, named = [], _named(cases)
    for name, (*arguments, expected) in named:
        try:
            found = answer(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is listed
            failures.append(f"{name}: expected {expected!r}, found {_said(error)}")
        else:
            if found != expected:
                failures.append(f"{name}: expected {expected!r}, found {found!r}")
    _refuse(failures, len(named))


def _named(cases: Cases) -> list[tuple[str, tuple[Any, ...]]]:
    pairs = cases.items() if isinstance(cases, Mapping) else ((_name(case), case) for case in cases)
    named = [(str(name), case if isinstance(case, tuple) else (case,)) for name, case in pairs]
    assert named, "there is no case: this test would pass whatever the product does"
    return named


def _name(case: Any) -> str:
    return _cut(", ".join(map(str, case)) if isinstance(case, tuple) else repr(case), NAME)


def _said(error: BaseException) -> str:
    """Return what an error says, and the line that raised it."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    kind = "" if isinstance(error, AssertionError | pytest.fail.Exception) else f"{type(error).__name__}: "
    return f"{kind}{error} ({Path(place.filename).name}:{place.lineno})"


def _refuse(failures: list[str], count: int) -> None:
    __tracebackhide__ = True
    shown = "\n".join("- " + _cut(failure, SHOWN).replace("\n", "\n  ") for failure in failures)
    assert not failures, f"{len(failures)} of {count} cases failed:\n{shown}"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
