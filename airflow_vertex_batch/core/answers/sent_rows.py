"""What was known of the rows that a repair round sends again? It is written down beside the round's request files, so
that the next decision reads the answers of the last round only, not those of the whole night.

Invariants: a decision made with this file equals the decision made without it (a property test compares them). The file
holds states, tokens and keys, and neither a prompt nor an answer. Where it is missing, or was written under other
conditions, everything is read again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from airflow_vertex_batch.core.answers.rounds import better
from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.disk_multimap import DiskMultimap
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.domain.lines import read_lines
from airflow_vertex_batch.core.domain.row import ResultRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from airflow_vertex_batch.core.domain.manifest import Manifest
    from airflow_vertex_batch.core.domain.ports import ObjectStore

#: What stands for a response that there was.
_SOME_RESPONSE = b"{}"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The conditions of a decision, and its result for all other rows.

    :param conditions: the policy, the check of answers, and the jobs of the rounds before, as a digest.
    :param cost_usd: what all rounds before the one that is sent cost.
    """

    conditions: str
    cost_usd: Decimal


class SentRows:
    """The rows of a round as they were before it was sent.

    :param version: of the file at `uri`.
    :param terms: as they were written.
    """

    def __init__(self, store: ObjectStore, uri: Uri, version: str, terms: Terms) -> None:
        self._store, self._uri, self._version, self.terms = store, uri, version, terms

    @staticmethod
    def write(manifest: Manifest, rows: Iterable[bytes], terms: Terms, store: ObjectStore) -> None:
        """Write the file of a round. Who writes it again writes the same.

        :param rows: what `stripped` returns.
        """
        with store.open_write(_beside(manifest)) as stream:
            stream.write(encode(terms) + b"\n")
            for row in rows:
                stream.write(row + b"\n")

    @classmethod
    def of(cls, manifest: Manifest | None, conditions: str, store: ObjectStore) -> SentRows | None:
        """Return what is known of a round's rows; None where it cannot be used."""
        if manifest is None or not manifest.round:
            return None
        uri = _beside(manifest)
        version = store.version(uri)
        if not version:
            return None
        with store.open_read(uri, version) as stream:
            terms = msgspec.json.decode(next(read_lines(stream))[1], type=Terms)
        return cls(store, uri, version, terms) if terms.conditions == conditions else None

    def merged(self, answers: Iterable[ResultRow]) -> Iterator[tuple[ResultRow, ResultRow]]:
        """Yield each row as it was and as it is now.

        :param answers: the rows of the round, as its jobs answered them.
        """
        with DiskMultimap() as before:
            with self._store.open_read(self._uri, self._version) as stream:
                lines = read_lines(stream)
                next(lines)
                for _, line in lines:
                    row = _decode(line)
                    before.put(row.key, line)
            for answer in answers:
                for line in before.all(answer.key):
                    earlier = _decode(line)
                    yield earlier, better(earlier, answer)


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
