"""What was known of the rows that a repair round sends again? It is written down beside the round's request files, so
that the next decision reads the answers of the last round only, not those of the whole night.

Invariants: a decision made with this file equals the decision made without it (a property test compares them). The file
holds states, tokens and keys, and neither a prompt nor an answer. If it is missing or cannot be read, or was written
under other conditions, everything is read again. The conditions are: this version of the package, the policy, the check
of answers, the prices, the jobs of the rounds before, and what their outputs consisted of.
"""

from __future__ import annotations

from decimal import Decimal
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

import msgspec
from xxhash import xxh3_128_hexdigest

from airflow_vertex_batch.core.answers.report import Totals
from airflow_vertex_batch.core.answers.rounds import better, last_end
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.errors import ChangedError, InputError
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.lines import read_lines
from airflow_vertex_batch.core.domain.row import ResultRow
from airflow_vertex_batch.core.money.prices import PriceTable
from airflow_vertex_batch.core.requests.answer_check import AnswerCheck

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_vertex_batch.core.answers.rounds import Rounds
    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import ObjectStore

_PACKAGE = "airflow-vertex-batch"
#: What stands for a response that there was.
_SOME_RESPONSE = b"{}"


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of the file.

    :param conditions: a digest of the conditions of the decision.
    :param cost_usd: the cost of all rounds before the one that is sent.
    """

    conditions: str
    cost_usd: Decimal


class _File(msgspec.Struct, frozen=True):
    """A file that can be used: one version of it, and its first line."""

    uri: Uri
    version: str
    terms: _Terms


class History:
    """The rows of all rounds so far, and their cost. They are read from the outputs; or, if the last round sent every
    wanted row again, from its output and from what was written down before.

    :param policy: the policy of repair, as bytes.
    :param is_large: whether a file is worth its while.
    """

    def __init__(
        self, rounds: Rounds, policy: bytes, store: ObjectStore, prices: PriceTable | None, *, is_large: bool
    ) -> None:
        self._rounds, self._store, self.is_large = rounds, store, is_large
        prices = prices or PriceTable.shipped()
        *earlier, last = rounds.rounds
        # What an earlier attempt cost was added up when that attempt was the last.
        self._now, self._before = Totals(prices, now=rounds.ended_at), Totals(prices, now=last_end(earlier))
        self._given = [policy.decode(), _judged_by(rounds), prices.digest]
        # Before the outputs are read: a line that comes meanwhile makes the next decision read everything.
        self._conditions = self._conditions_of(len(rounds.rounds)) if is_large else ""
        self._sent = self._find(last.manifest) if is_large and earlier else None

    @property
    def row_count(self) -> int:
        """How many rows there are to be read."""
        asked = self._rounds.rounds[0 if self._sent is None else -1].manifest
        return asked.request_count if asked is not None else 0

    def rows(self) -> Iterator[ResultRow]:
        """Yield the best answer to each request that may have one more try; in the first round, to each."""
        if self._sent is None:
            for row in self._rounds.rows():
                self._now.add(row)
                yield row
            return
        for before, row in self._merged(self._sent):
            self._before.add(before)
            self._now.add(row)
            yield row

    @property
    def cost(self) -> Decimal:
        """The cost of all rounds, after `rows` has been read to the end."""
        spent = self._sent.terms.cost_usd - self._before.cost if self._sent is not None else Decimal(0)
        return spent + self._now.cost

    def note(self, manifest: Manifest, rows: Iterable[bytes]) -> None:
        """Write the file of a round that sends all of some rows again. Who writes it again writes the same.

        :param rows: what `stripped` returns.
        """
        with self._store.open_write(_beside(manifest)) as stream:
            stream.write(encode(_Terms(conditions=self._conditions, cost_usd=self.cost)) + b"\n")
            for row in rows:
                stream.write(row + b"\n")

    def _conditions_of(self, count: int) -> str:
        names = [job.name for asked in self._rounds.rounds[:count] for job in asked.jobs]
        return xxh3_128_hexdigest(encode([version_of(_PACKAGE), self._given, names, self._rounds.output_states(count)]))

    def _find(self, manifest: Manifest | None) -> _File | None:
        """Return the file of the last round; None where it cannot be used."""
        if manifest is None or not manifest.round:
            return None
        uri = _beside(manifest)
        version = self._store.version(uri)
        if not version:
            return None
        try:
            with self._store.open_read(uri, version) as stream:
                terms = msgspec.json.decode(next(read_lines(stream))[1], type=_Terms)
        except (StopIteration, msgspec.DecodeError, InputError, ChangedError):
            return None
        is_same = terms.conditions == self._conditions_of(len(self._rounds.rounds) - 1)
        return _File(uri, version, terms) if is_same else None

    def _merged(self, file: _File) -> Iterator[tuple[ResultRow, ResultRow]]:
        """Yield each row as it was and as it is now."""
        with DiskMultimap() as before:
            with self._store.open_read(file.uri, file.version) as stream:
                lines = read_lines(stream)
                next(lines)
                for _, line in lines:
                    before.put(_decode(line).key, line)
            for answer in self._rounds.last_answers():
                for line in before.all(answer.key):
                    earlier = _decode(line)
                    yield earlier, better(earlier, answer)


def _judged_by(rounds: Rounds) -> str:
    return rounds.check.digest if isinstance(rounds.check, AnswerCheck) else str(rounds.check is not None)


def stripped(row: ResultRow) -> bytes:
    """Return what a later decision needs of a row."""
    return encode(
        ResultRow(
            key=row.key,
            status=row.status,
            code=row.code,
            model_version=row.model_version,
            usage=row.usage,
            processed_at=row.processed_at,
            response=_SOME_RESPONSE if row.response else b"",
            repairable=row.repairable,
            attempts=row.attempts,
            earlier=row.earlier,
        )
    )


_decode = msgspec.json.Decoder(ResultRow).decode


def _beside(manifest: Manifest) -> Uri:
    folder, _, name = manifest.uri.rpartition("/manifests/")
    return Uri.parse(f"{folder}/sent-rows/{name.removesuffix('.json')}.jsonl")
