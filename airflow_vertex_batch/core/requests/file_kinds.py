"""What kind of file is this? Somebody may give the wrong file. The kind is found from its name and its first bytes.

Invariant: a file that may be JSON lines, even damaged or in another encoding, counts as JSON lines. Its reader then
says which line is wrong.
"""

from __future__ import annotations

from enum import Enum
from typing import IO, TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.requests.readers import format_of

if TYPE_CHECKING:
    from airflow_vertex_batch.core.domain.address import Uri

#: Bytes that are looked at.
_HEAD_BYTES = 1 << 12
#: Bytes that some encoding of text has.
_TEXT = bytes([*b"\t\n\v\f\r\x1b", *range(32, 256)])

#: First lines of JSON that is printed over several lines for people. No line of a JSON lines file is like this.
_OPENED = (b"{", b"[")


class Kind(Enum):
    """What a file is, as a sentence says it."""

    JSON_LINES = "JSON lines"
    CSV = "a CSV file"
    PARQUET = "a Parquet file"
    COMPRESSED = "packed with gzip"
    UTF16 = "text in UTF-16"
    BINARY = "no text"
    SPREADSHEET = "JSON over several lines"

    def refused(self, uri: Uri, why: str, table: str) -> InputError:
        """Return the error of a file that is not made of JSON lines.

        :param why: what was wanted.
        :param table: what to do with a file of rows.
        """
        cures = {
            Kind.CSV: table,
            Kind.PARQUET: table,
            Kind.COMPRESSED: "Unpack it",
            Kind.UTF16: "Write it as UTF-8",
            Kind.BINARY: "Check the name of the file",
            Kind.SPREADSHEET: f"Write each object on one line, as jq -c . {uri.basename} does",
        }
        return InputError(f"{uri} is {self.value}", why=why, todo=cures[self])


def kind_of(name: str, stream: IO[bytes]) -> Kind:
    """Return what kind of file a stream is.

    :param name: of the file: a CSV file may look like anything.
    :param stream: at its start; it is read from.
    """
    if format_of(name) == "csv":
        return Kind.CSV
    head = stream.read(_HEAD_BYTES)
    if head.startswith(b"PAR1"):
        return Kind.PARQUET
    if head.startswith(b"\x1f\x8b"):
        return Kind.COMPRESSED
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Kind.UTF16
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.partition(b"\n")[0].rstrip() in _OPENED:
        return Kind.SPREADSHEET
    is_json = text.startswith((b"{", b"["))
    return Kind.BINARY if not is_json and head.translate(None, _TEXT) else Kind.JSON_LINES
