"""Why is a difference right? For the tools that compare our tables with those of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar


class Explanation(Protocol):
    """Why a difference is right."""

    @property
    def reason(self) -> str:
        """What is to be said of it, with its source."""

    @property
    def date(self) -> str:
        """The day of that."""

    def explains(self, found: Any, /) -> bool:
        """Whether it is about a difference."""


K = TypeVar("K", bound=Explanation)


def reason_of(found: Any, known: Iterable[Explanation]) -> str:
    """Return why a difference is right; None if there is no explanation."""
    return next((f"{each.reason} ({each.date})" for each in known if each.explains(found)), "")


def idle(found: Sequence[Any], known: Iterable[K]) -> list[K]:
    """Return the explanations of differences that do not exist any more."""
    return [each for each in known if not any(map(each.explains, found))]
