"""How does a text that is nearly JSON become JSON? A line of a lenient writer is still an answer.

Invariants: the result is JSON that every decoder takes, with a depth and with numbers that a BigQuery table takes. A
text that cannot be repaired gives None. Nothing here raises.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from itertools import accumulate

#: Levels of nesting that are kept. BigQuery's JSON has 500
#: (https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#json_type, 2026-11-28), and Python's
#: encoders give up at some point that depends on who calls them; no schema of the service is deeper than 15.
MAX_DEPTH = 200
#: What 64 bits hold, with and without a sign: encoders refuse what is outside.
_LEAST, _MOST = -(1 << 63), (1 << 64) - 1
#: Possessive quantifiers: backtracking into a text would need 120 bytes of memory for each of its characters.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_MARKS = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_STEPS = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_STEP_BYTES = 1 << 20
#: Every digit as a zero: so a number of many digits, or with an exponent of three, is found at once.
_DIGITS = bytes.maketrans(b"123456789E", b"000000000e")
_LONG = b"0" * len(str(_MOST))
_NUMBERS = re.compile(_STRING + rb"|-?[0-9]++(?P<real>\.[0-9]++)?(?P<power>[eE][+-]?[0-9]++)?", re.DOTALL)
#: A byte order mark, NULs of a block that was never written, and blanks.
_AROUND = "\ufeff\0 \t\r\n"


def is_deep(raw: bytes | str) -> bool:
    """Whether JSON is nested deeper than `MAX_DEPTH`."""
    # Most is not, and has fewer brackets than that.
    if isinstance(raw, str):
        return raw.count("{") + raw.count("[") > MAX_DEPTH and is_deep(raw.encode("utf-8", "replace"))
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    brackets = _STRINGS.sub(b"", raw).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH


def is_wide(raw: bytes) -> bool:
    """Whether JSON holds a number that no column holds: an integer of more than 64 bits, or a number beyond 1e308."""
    digits = raw.translate(_DIGITS)
    if _LONG not in digits and b"0e000" not in digits and b"0e+000" not in digits:
        return False
    return any(map(_is_wide, _NUMBERS.finditer(raw)))


def _is_wide(found: re.Match[bytes]) -> bool:
    if found.string[found.start()] == ord('"'):
        return False
    if found["real"] is None and found["power"] is None:
        return len(found[0]) >= len(_LONG) and type(_integer(found[0].decode())) is not int
    return not math.isfinite(float(found[0]))


def well_encoded(raw: bytes) -> bytes:
    """Return bytes that are UTF-8; what was none is a replacement character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        # In steps: as one text with an emoji in it, it would be four times as large.
        for start in range(0, len(raw), _STEP_BYTES):
            decoder.decode(raw[start : start + _STEP_BYTES])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace").encode()
    return raw


def shallow(raw: bytes) -> bytes:
    """Return JSON with a null in the place of whatever is nested deeper than `MAX_DEPTH`."""
    kept, start, depth = [], 0, 0
    for found in _MARKS.finditer(raw):
        step = _STEPS.get(raw[found.start()], 0)
        depth += step
        if step > 0 and depth == MAX_DEPTH + 1:
            kept.append(raw[start : found.start()])
        elif step < 0 and depth == MAX_DEPTH:
            kept.append(b"null")
            start = found.end()
    # If the text ends inside a value, it is damaged, and stays so.
    return b"".join([*kept, raw[start:]]) if depth <= MAX_DEPTH else raw


def repair_json(raw: bytes) -> bytes | None:
    """Return JSON that the strict decoder takes, or None where there is no JSON.

    Bytes that are no UTF-8, lone surrogates, NaN, control characters in texts and a byte order mark are no JSON, but
    every lenient writer lets them through: they become replacement characters and nulls. Numbers that no column holds
    become the nearest that is one, or null.
    """
    text = (shallow(raw) if is_deep(raw) else raw).decode("utf-8", "replace").strip(_AROUND)
    try:
        doc = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None
    return json.dumps(doc, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _integer(text: str) -> int | float | None:
    # Python reads no number of 4,300 digits as an integer, and no encoder writes one of 20.
    number = int(text) if len(text) <= len(str(_LEAST)) else None
    return number if number is not None and _LEAST <= number <= _MOST else _real(text)


def _real(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_real, parse_constant=lambda _: None, strict=False)
