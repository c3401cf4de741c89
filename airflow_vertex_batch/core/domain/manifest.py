"""What was prepared? The files of one set of requests, and how large they are."""

from __future__ import annotations

from typing import Any

from airflow_vertex_batch.core.domain.record import Record


class Shard(Record, frozen=True, kw_only=True):
    """One request file: the input of one job."""

    uri: str
    request_count: int
    size_bytes: int
    #: The user's own columns of the same rows by key, or empty when none are carried.
    columns_uri: str = ""
    #: For the service's own resume: the output file that is sent instead of `uri`.
    resume_uri: str = ""
    #: Of its requests and their keys, whatever their order: two files with the same one are as good as each other.
    digest: str = ""


class Weight(Record, frozen=True, kw_only=True):
    """What the requests of a set weigh together: counted while they are written, priced by `core.money.estimate`.

    :param ascii_chars: characters of text, system instruction and schema included, of the ASCII kind.
    :param other_chars: the other characters.
    :param media: parts with media by kind (``image``, ``video``, ``audio``, ``document``).
    :param max_output_tokens: the most tokens that all answers together may have; 0 when a request sets no bound.
    """

    ascii_chars: int = 0
    other_chars: int = 0
    media: dict[str, int] = {}  # noqa: RUF012 - msgspec copies defaults
    max_output_tokens: int = 0


class Manifest(Record, frozen=True, kw_only=True):
    """The prepared set: what will be asked, counted and fingerprinted. Small; the requests stay in Cloud Storage.

    :param version: since 2 a job is told by the file that it was given; before, by that file's size.
    :param fingerprint: of the requests, whatever their order and sharding.
    :param row_count: source rows read: the sum of the other four counts.
    :param rejected_uri: the dead-letter file of rows that were never sent, with their reasons.
    :param duplicates_uri: rows whose request is sent once, under another row's key.
    :param known_uri: rows that have a good answer from an earlier run and are not sent.
    :param fixed_count: requests that lint refused and cured; they are among those that are sent.
    :param model: the model the requests are meant for; empty when prepare was not told.
    :param round: 0 for the whole batch, n for the rows that are sent again in repair round n.
    :param response_schema: what an answer must look like, or None; kept so that export can say which answers do not.
    """

    version: int = 2
    uri: str
    fingerprint: str
    row_count: int
    request_count: int
    rejected_count: int = 0
    rejected_uri: str = ""
    duplicate_count: int = 0
    duplicates_uri: str = ""
    known_count: int = 0
    known_uri: str = ""
    fixed_count: int = 0
    shards: tuple[Shard, ...]
    response_schema: dict[str, Any] | None = None
    model: str = ""
    weight: Weight | None = None
    round: int = 0

    @property
    def files(self) -> set[str]:
        """The addresses of all files that it names."""
        beside = (self.rejected_uri, self.duplicates_uri, self.known_uri)
        return {uri for uri in (*beside, *(uri for one in self.shards for uri in (one.uri, one.columns_uri))) if uri}

    @property
    def size_bytes(self) -> int:
        """Bytes of all request files together."""
        return sum(shard.size_bytes for shard in self.shards)

    def summary(self) -> str:
        """One sentence with the counts."""
        others = (
            (self.duplicate_count, "asked under another row's key"),
            (self.known_count, "answered by an earlier run"),
            (self.fixed_count, "cured before they were sent"),
            (self.rejected_count, "rejected"),
        )
        said = "".join(f", {count:,} {what}" for count, what in others if count)
        plural = "" if len(self.shards) == 1 else "s"
        files = f"{self.request_count:,} requests in {len(self.shards)} file{plural} ({self.size_bytes:,} bytes)"
        return f"{self.row_count:,} rows: {files}{said}"
