"""What is the text of a value? It must be the same in every process, or the value is refused: with another text, the
request is another one, and is paid for again.

Invariants: a missing value (None, NaN, the NA and NaT of pandas) is sent as the word "None" or "nan" only if the author
asks for it. A value whose text depends on the process, such as a set or an object with an address, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Any, NoReturn

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
#: Types whose text is always the same, and is never missing: for a quick look at many values.
PLAIN_TYPES = frozenset({str, int, bool})
#: The missing values of pandas, by name: importing pandas to ask would cost every worker a second.
_MISSING_TYPES = frozenset({"NAType", "NaTType"})


class OnNull(StrEnum):
    """What to do if a prompt uses a missing value."""

    #: The row is rejected, with the name of the column.
    REJECT = "reject"
    #: An empty text is put there.
    EMPTY = "empty"


class NoTextError(ValueError):
    """A value has no text that can be sent. The message names its type, never its content."""


class MissingError(NoTextError):
    """A value is missing, and must not be sent as a text."""

    def __init__(self) -> None:
        super().__init__("a value is missing")


def is_missing(value: Any) -> bool:
    """Whether a value stands for "no value": None, NaN, or what pandas uses for them."""
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - only NaN differs from itself
    except (TypeError, ValueError, ArithmeticError):
        # An array compares item by item; a signalling Decimal NaN refuses to be compared.
        return type(value).__name__ == "Decimal"


def holds_missing(value: Any) -> bool:
    """Whether a value, or something in it, stands for "no value"."""
    if isinstance(value, list | tuple | dict):
        return any(map(holds_missing, value.values() if isinstance(value, dict) else value))
    return is_missing(value)


def stable_text(value: Any) -> str:
    """Return the text of a value that is not missing.

    :raises NoTextError: when it has none that is the same in every process.
    """
    if type(value) in PLAIN_TYPES or isinstance(value, str):
        return _written(value)
    _refuse_unstable(value)
    text = _written(value)
    if _ADDRESS.search(text):
        _refuse(value, "its text holds an address in memory")
    return text


def _written(value: Any) -> str:
    try:
        return str(value)
    except ValueError:
        # Python writes no number of more than 4,300 digits.
        return _refuse(value, "it has too many digits")


def _refuse_unstable(value: Any) -> None:
    if isinstance(value, set | frozenset):
        _refuse(value, "its order changes from process to process")
    if isinstance(value, bytes | bytearray | memoryview):
        _refuse(value, "bytes are no text")
    if isinstance(value, type) or callable(value) or type(value).__module__.startswith("jinja2."):
        _refuse(value, "it is code, not a value")
    if hasattr(value, "iter_references"):
        _refuse(value, "it stands for the output of a task, and is not that output")
    # The text of every collection contains its items: also of a deque, and of a table's own kind of list.
    if isinstance(value, Collection):
        for item in (*value, *(value.values() if isinstance(value, dict) else ())):
            if type(item) not in PLAIN_TYPES and item is not value:
                _refuse_unstable(item)


def _refuse(value: Any, why: str) -> NoReturn:
    raise NoTextError(f"a value of type {type(value).__name__} has no text to send: {why}")
