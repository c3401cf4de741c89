"""How do our prices and our models' last days differ from LiteLLM's newest price map, and is each difference explained?

Run by ``make prices``. Gets the newest ``litellm`` wheel from the package index that this machine is set up for, by
name, and reads the price map inside; nothing of it is imported or kept. Explanations are lines of
`tools/known_price_differences.json`, each with reason and date. Each holds for one value of their map: if their value
changes, the difference is new. If their rate equals our rate of another day, no line is needed, because their map has
no days.

Exit status: 0 every difference is explained, 1 one is not, 2 the map could not be had.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from tabulate import tabulate

from airflow_vertex_batch.cli.escapes import printed
from airflow_vertex_batch.core.domain.catalog import lives
from airflow_vertex_batch.core.money.prices import Price, PriceTable, billing_day
from tools.known import idle, reason_of

ROOT = Path(__file__).resolve().parent.parent
KNOWN = Path(__file__).with_name("known_price_differences.json")
_UV = ROOT / ".local" / "uv" / "bin" / "uv"
_MAP = "litellm/model_prices_and_context_window_backup.json"
_MILLION = Decimal(1_000_000)
#: What is compared: our rate, and the member of their map, which is per token.
_RATES = {
    "input": "input_cost_per_token_batches",
    "output": "output_cost_per_token_batches",
    "cached_input": "cache_read_input_token_cost",
    "cached_input_added": "cache_read_input_token_cost_batches",
    "audio_input": "input_cost_per_audio_token_batches",
    "cached_audio_input": "cache_read_input_audio_token_cost",
    "image_output": "output_cost_per_image_token_batches",
    "long_context.input": "input_cost_per_token_above_200k_tokens_batches",
    "long_context.output": "output_cost_per_token_above_200k_tokens_batches",
    "long_context.cached_input": "cache_read_input_token_cost_above_200k_tokens",
}
#: If we have no rate for audio, it costs the same as text.
_AS_TEXT = {"audio_input": "input", "cached_audio_input": "cached_input"}


class Difference(msgspec.Struct, frozen=True):
    """One figure on which we and they do not agree; empty where one of us has none.

    :param other_days: our figures on other days.
    """

    model: str
    member: str
    ours: str
    theirs: str
    other_days: tuple[str, ...] = ()


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a difference is right.

    :param model: a glob.
    :param member: a glob over the names of `Difference.member`.
    :param theirs: their figure that this explains; ``*`` for any.
    """

    model: str
    member: str
    theirs: str
    reason: str
    date: str

    def explains(self, difference: Difference) -> bool:
        """Whether this is about that difference."""
        return (
            fnmatchcase(difference.model, self.model)
            and fnmatchcase(difference.member, self.member)
            and self.theirs in {"*", difference.theirs}
        )


def differences(table: PriceTable, theirs: Mapping[str, Any], day: str) -> list[Difference]:
    """Return every figure that is not the same on a billing day, model by model, each once."""
    entries = sorted(_of_vertex(theirs), key=lambda pair: pair[0])
    ours, named = {price.model for price in table}, {model for model, _ in entries}
    found = [Difference(model, "model", "priced", "") for model in sorted(ours - named)]
    for model, entry in entries:
        found += _of_model(model, table.of(model, day) if model in ours else None, entry, table)
    return list(dict.fromkeys(found))


def explain(found: Difference, known: Iterable[Known]) -> str:
    """Return why a difference is right; nothing when nobody has said so."""
    if found.theirs and found.theirs in found.other_days:
        return "their map knows no days: it is our price of another day"
    return reason_of(found, known)


def _of_vertex(theirs: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield their entries of Gemini models that have a batch price on Vertex AI, by our name; some are there twice."""
    for name, entry in theirs.items():
        bare, provider = name.removeprefix("vertex_ai/"), str(entry.get("litellm_provider", ""))
        if bare.startswith("gemini-") and provider.startswith("vertex_ai") and "input_cost_per_token_batches" in entry:
            yield bare, entry


def _of_model(model: str, price: Price | None, entry: Mapping[str, Any], table: PriceTable) -> Iterator[Difference]:
    last, life = str(entry.get("deprecation_date") or ""), lives().get(model)
    if life is not None and life.retires != last:
        yield Difference(model, "retires", life.retires, last)
    if price is None:
        yield Difference(model, "model", "", "priced")
        return
    for member, name in _RATES.items():
        theirs = _per_million(entry.get(name))
        as_text = theirs is not None
        ours, *all_days = (_rate(each, member, as_text=as_text) for each in (price, *table.periods(model)))
        if ours != theirs:
            yield Difference(model, member, _text(ours), _text(theirs), tuple(map(_text, all_days)))


def _rate(price: Price, member: str, *, as_text: bool) -> Decimal | None:
    """Return a rate of ours.

    :param as_text: whether sound without a rate of its own has that of text.
    """
    value: Any = price
    for name in member.split("."):
        value = getattr(value, name, None)
    if value is None and as_text and member in _AS_TEXT:
        return _rate(price, _AS_TEXT[member], as_text=False)
    return value if isinstance(value, Decimal) else None


def _per_million(per_token: float | None) -> Decimal | None:
    return None if per_token is None else Decimal(str(per_token)) * _MILLION


def _text(rate: Decimal | None) -> str:
    return "" if rate is None else f"{rate.normalize():f}"


def newest_map() -> tuple[str, dict[str, Any]]:
    """Return version and content of the price map in the newest wheel.

    :raises subprocess.CalledProcessError: when the wheel cannot be had.
    """
    uv = str(_UV) if _UV.exists() else "uv"
    with tempfile.TemporaryDirectory() as folder:
        command = [uv, "pip", "install", "--quiet", "--no-deps", "--no-cache", "--target", folder, "litellm"]
        subprocess.run([*command, "--python", sys.executable], check=True)
        (info,) = Path(folder).glob("litellm-*.dist-info")
        return info.name.split("-")[1].removesuffix(".dist"), json.loads((Path(folder) / _MAP).read_bytes())


def report(found: Sequence[tuple[Difference, str]], version: str, day: str) -> str:
    """Return the differences for people, those without an explanation first."""
    rows = [
        (each.model, each.member, each.ours or "none", each.theirs or "none", why or "NOT EXPLAINED")
        for each, why in sorted(found, key=lambda pair: bool(pair[1]))
    ]
    headers = ("model", "member", "ours", "theirs", "why")
    table = tabulate(rows, headers, maxcolwidths=[None, None, None, None, 70], disable_numparse=True)
    open_count = sum(1 for _, why in found if not why)
    said = f"{len(found)} differences to LiteLLM {version} on {day}, {open_count} of them not explained"
    return f"US dollars per million tokens, at the batch rate\n\n{table}\n\n{said}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--map", type=Path, default=None, metavar="FILE", help="a price map at hand (default: get it)")
    parser.add_argument("--day", default=billing_day(datetime.now(UTC)), help="compare our prices of this day (today)")
    options = parser.parse_args(arguments)
    try:
        version, theirs = (options.map.name, json.loads(options.map.read_bytes())) if options.map else newest_map()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"LiteLLM's price map could not be had: {error}", file=sys.stderr)
        return 2
    known = msgspec.json.decode(KNOWN.read_bytes(), type=list[Known])
    found = [(each, explain(each, known)) for each in differences(PriceTable.shipped(), theirs, options.day)]
    print(report(found, version, options.day))
    for each in idle([difference for difference, _ in found], known):
        print(f"No longer needed in {KNOWN.name}: {each.model}, {each.member}")
    return 1 if any(not why for _, why in found) else 0


if __name__ == "__main__":
    with printed():
        status = main()
    sys.exit(status)
