"""Is this line JSON? If not, where and why not? Bytes go in, an object or a fault comes out.

msgspec decodes the line. It is strict about encoding, numbers and surrogates, but it does not report repeated names. So
the standard library's decoder searches for repeated names, but only when a count of quotation marks says that msgspec
dropped some.

Invariant: `json.loads` accepts every line that `read_line` accepts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import msgspec

from airflow_vertex_batch.core.requests.lint.nodes import step
from airflow_vertex_batch.core.requests.lint.values import Fault

#: No object could be read.
UNREADABLE = object()
BLANK = object()
_BOM = b"\xef\xbb\xbf"
_LITERALS = ("true", "false", "null")

_decode = msgspec.json.Decoder().decode


def read_line(raw: bytes) -> tuple[Any, list[Fault]]:
    """Decode one line.

    :param raw: the line, with or without its line end.
    :return: the value, `BLANK` or `UNREADABLE`, and the faults of the bytes.
    """
    faults: list[Fault] = []
    body = raw.removesuffix(b"\n")
    if body.endswith(b"\r"):
        body = body[:-1]
        faults.append(("$", "crlf", "the line ends in CR LF", ""))
    if body.startswith(_BOM):
        body = body[len(_BOM) :]
        faults.append(("$", "bom", "the line begins with a byte order mark", ""))
    if not body.strip(b" \t\r\v\f"):
        return BLANK, [*faults, ("$", "blank-line", "the line is blank", "")]
    broken = _broken(body)
    if broken:
        return UNREADABLE, [*faults, broken]
    try:
        value = _decode(body)
    except RecursionError:
        return UNREADABLE, [*faults, ("$", "too-deep", "nested so deeply that no decoder follows", "")]
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
        value, found = _diagnose(body, is_truncated="truncated" in str(error))
        return value, faults + found
    if b"\\u0000" in body:
        faults += [(path, "nul", r"holds \u0000", "") for path in _texts(value, lambda text: "\0" in text)]
    return value, faults


def repeated_members(body: bytes) -> Iterator[str]:
    """Yield the paths of members whose name stands twice in their object."""
    value = json.loads(body.removesuffix(b"\n").removeprefix(_BOM), object_pairs_hook=_Pairs.of)
    for path, item in _tree(value):
        if isinstance(item, _Pairs):
            yield from (path + step(name) for name in item.repeated)


class _Pairs(dict[str, Any]):
    """An object with a name twice."""

    repeated: list[str]

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(pairs)
        if len(plain) == len(pairs):
            return plain
        made = cls(plain)
        names = [name for name, _ in pairs]
        made.repeated = [name for name in plain if names.count(name) > 1]
        return made


class _NotANumberError(ValueError):
    pass


def _refuse(_: str) -> NoReturn:
    raise _NotANumberError


def _broken(body: bytes) -> Fault | None:
    """Find what makes a line unreadable before any decoder looks at it."""
    if body.startswith(b"\x1f\x8b"):
        return ("$", "not-utf8", "the file is compressed with gzip", "Write it uncompressed")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ("$", "not-utf8", "the file is UTF-16", "")
    if (at := body.find(b"\0")) >= 0:
        return ("$", "nul", f"a NUL byte in column {at + 1}", "")
    if (at := body.find(b"\n")) >= 0:
        return ("$", "not-json", f"a line break inside the line, in column {at + 1}", "Write each request on one line")
    return None


def _diagnose(body: bytes, *, is_truncated: bool) -> tuple[Any, list[Fault]]:
    """Say why msgspec refused a line; return the value where the standard library takes it all the same."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        return UNREADABLE, [("$", "not-utf8", f"byte {error.start + 1} is not UTF-8", "")]
    try:
        value = json.loads(text, parse_constant=_refuse)
    except _NotANumberError:
        return UNREADABLE, [("$", "not-json", "NaN and Infinity are no JSON numbers", "Leave the member out")]
    except json.JSONDecodeError as error:
        return UNREADABLE, [_syntax(text, error, is_truncated=is_truncated)]
    except RecursionError:
        return UNREADABLE, [("$", "too-deep", "nested so deeply that no decoder follows", "")]
    except ValueError:
        return UNREADABLE, [("$", "number-range", "a number with thousands of digits", "")]
    faults = [(path, "lone-surrogate", "holds half of a surrogate pair", "") for path in _texts(value, _is_cut)]
    faults += [(path, "number-range", "too large for a column", "") for path in _infinite(value)]
    return value, faults or [("$", "not-json", "refused by the decoder", "")]


def _syntax(text: str, error: json.JSONDecodeError, *, is_truncated: bool) -> Fault:
    rest = text[error.pos :].strip()
    if is_truncated or not rest or any(word.startswith(rest) for word in _LITERALS):
        return ("$", "truncated-line", f"the line ends after {len(text)} characters, inside a value", "")
    if error.msg == "Extra data" and text.lstrip().startswith("{"):
        return ("$", "trailing-garbage", f"something follows the object in column {error.colno}", "")
    return ("$", "not-json", f"{error.msg} in column {error.colno}", "")


def _is_cut(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _infinite(value: Any) -> Iterator[str]:
    yield from (path for path, item in _tree(value) if isinstance(item, float) and math.isinf(item))


def _texts(value: Any, wanted: Callable[[str], bool]) -> Iterator[str]:
    """Yield the paths of texts, and of objects with names, that are `wanted`."""
    for path, item in _tree(value):
        if (isinstance(item, str) and wanted(item)) or (isinstance(item, dict) and any(map(wanted, item))):
            yield path


def _tree(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every value with its path; no recursion, since the depth is the author's."""
    pending: list[tuple[str, Any]] = [("$", value)]
    while pending:
        path, item = pending.pop()
        yield path, item
        if isinstance(item, dict):
            pending.extend((path + step(name), inner) for name, inner in reversed(item.items()))
        elif isinstance(item, list):
            pending.extend((f"{path}[{index}]", item[index]) for index in range(len(item) - 1, -1, -1))


def is_output(line: dict[str, Any]) -> bool:
    """Whether the service wrote this line: https://docs.cloud.google.com/…/batch-inference/resume-job, 2026-11-22."""
    if not isinstance(line.get("status"), str) or not isinstance(line.get("request"), dict):
        return False
    response = line.get("response")
    return ("response" in line and (response is None or isinstance(response, dict))) or "processed_time" in line
