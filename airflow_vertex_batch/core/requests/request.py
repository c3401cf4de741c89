"""How does a row become a request? A prompt template, the parts that are the same for every row, and a stable key.

Invariants: row data is put into the prompt and never rendered itself. The same row gives the same bytes, and so the
same key. A row that cannot become a request is a `RowProblem` with a reason, not a crash. The constant members are
encoded once. The digest of a request does not depend on whether the key travels with it as a label.
"""

from __future__ import annotations

import hashlib
import re
from datetime import date, time
from enum import StrEnum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.domain.address import model_id
from airflow_vertex_batch.core.domain.jsonl import encode
from airflow_vertex_batch.core.requests.prompt import PromptError, compile_prompt, listed
from airflow_vertex_batch.core.requests.schema import response_schema
from airflow_vertex_batch.core.requests.sources import media_type
from airflow_vertex_batch.core.requests.values import NoTextError, OnNull, is_missing, stable_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_vertex_batch.core.requests.readers import Row

#: The most requests one job takes, and the most bytes one input file may have; 1 GB is read as 10^9, the smaller
#: reading (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
MAX_REQUESTS = 200_000
MAX_BYTES = 1_000_000_000
#: Keys longer than this are replaced by their digest: a request label, the second channel, takes 63 characters.
MAX_KEY_LENGTH = 63
#: The request label that carries `key_label`: the second channel by which an answer finds its row. The importer makes
#: it the name of a column, so it holds no hyphen.
KEY_LABEL = "avb_key"
#: Words that begin with a letter but come back as another type than text.
_WORD = r"(?:nan|inf|infinity|null|true|false)\s*\Z"
_RETYPED, _LETTER = re.compile(_WORD, re.ASCII | re.IGNORECASE), re.compile(r"[A-Za-z]")
#: Keys that need no second look.
_PLAIN_KEY = re.compile(rf"(?!{_WORD})[a-z][\w.:/@-]{{0,62}}", re.ASCII | re.IGNORECASE)
_OUR_LABEL = rb'"avb_key":"k[0-9a-f]{30}"\}'
#: Our label alone, which we write in front; and behind labels of the user's.
_LABEL_ALONE, _LABEL_LAST = re.compile(rb'"labels":\{' + _OUR_LABEL + b","), re.compile(b"," + _OUR_LABEL)
_LABEL_NAME = f'"{KEY_LABEL}"'.encode()
#: Values in a column of media that mean "no file".
_NO_FILE: tuple[Any, ...] = ("", 0, [], {})
#: Ends the parts of a content that is the last, with more members of the request behind it.
_PARTS_END = b"]}],"


class OnRejectedRow(StrEnum):
    """What happens to the task if a row cannot be sent."""

    FAIL = "fail"
    DEAD_LETTER = "dead_letter"


class Correlation(StrEnum):
    """The second channel by which an answer finds its row when the service drops the key."""

    #: The contents, which the service echoes.
    CONTENTS = "contents"
    #: A label of the request, `KEY_LABEL`.
    LABEL = "label"


class RowProblem(Exception):  # noqa: N818 - it never leaves prepare: a bad row is data
    """A row cannot be sent.

    :param code: a stable word for counting.
    :param reason: for people; names columns, never their content.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(code, reason)


_PARTS = b'"contents":[{"role":"user","parts":['


class RequestTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What every request of a batch has in common.

    :param prompt: a Jinja template over the row's columns (``{{ column }}``, ``{{ row["odd name"] }}``) and
        `variables`.
    :param system_instruction: text, or a ``Content`` object.
    :param response_schema: a JSON Schema (see `core.requests.schema`); asks for JSON.
    :param on_null: what to do if the prompt uses a missing value.
    :param media: column with an address → its MIME type, or None to find the type from the address.
    :param extra: further members of GenerateContentRequest, as they are.
    """

    prompt: str = ""
    on_null: OnNull = OnNull.REJECT
    system_instruction: str | dict[str, Any] | None = None
    generation_config: dict[str, Any] = {}
    response_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] = []
    safety_settings: list[dict[str, Any]] = []
    media: dict[str, str | None] = {}
    variables: dict[str, Any] = {}
    extra: dict[str, Any] = {}

    def constant_members(self) -> dict[str, Any]:
        """Return the members of the request that are the same for every row."""
        config = dict(self.generation_config)
        if self.response_schema is not None:
            config |= {"responseMimeType": "application/json", "responseSchema": response_schema(self.response_schema)}
        instruction = self.system_instruction
        if isinstance(instruction, str):
            instruction = {"parts": [{"text": instruction}]} if instruction else None
        members = {
            "systemInstruction": instruction,
            "generationConfig": config,
            "tools": self.tools,
            "safetySettings": self.safety_settings,
            **self.extra,
        }
        return {name: value for name, value in members.items() if value}


class RequestBuilder:
    """Turns rows into request bytes.

    :param members: the constant members, if they are not the template's own because they were repaired.
    :raises InputError: when the template cannot be compiled.
    """

    def __init__(self, template: RequestTemplate, members: dict[str, Any] | None = None) -> None:
        self.prompt = compile_prompt(template.prompt, template.variables, template.on_null) if template.prompt else None
        self.media = tuple(template.media.items())
        rest = dict(template.constant_members() if members is None else members)
        labels = rest.pop("labels", {})
        encoded = encode(rest)[1:]
        #: What stands before and behind the parts.
        self.head = b"{" + (b'"labels":' + encode(labels) + b"," if labels else b"") + _PARTS
        self.tail = b"]}]" + (encoded if encoded == b"}" else b"," + encoded)
        #: The same with our label in it: what stands before its value, and from there to the parts.
        others = encode({**labels, KEY_LABEL: ""}) if isinstance(labels, dict) else b""
        self.labelled_head = (b'{"labels":' + others[:-2], b'"},' + _PARTS)

    def __call__(self, row: Row) -> bytes:
        """Return the request of one row.

        :raises RowProblem: when the row cannot be sent.
        """
        return self.head + self.parts(self.text(row) if self.prompt else "", self.files(row)) + self.tail

    @staticmethod
    def parts(text: str, files: list[tuple[str, str]]) -> bytes:
        """Return the parts of a request: the prompt, then the media.

        :raises RowProblem: when there is neither, or one is no text.
        """
        try:
            parts = [encode({"text": text})] if text else []
            parts += [encode({"fileData": {"fileUri": uri, "mimeType": mime}}) for uri, mime in files]
        except UnicodeEncodeError:
            raise RowProblem("not-unicode", "The request holds a lone surrogate, which is no character") from None
        if not parts:
            raise RowProblem("no-content", "The row has neither a prompt nor a file")
        return b",".join(parts)

    def files(self, row: Row) -> list[tuple[str, str]]:
        """Return address and MIME type of each of the row's media. An empty column has no media.

        :raises RowProblem: when there is no such column, or nothing says the MIME type.
        """
        return [
            _file(column, value, kind or _given(row, f"{column}_mime_type") or _given(row, "mime_type"))
            for column, kind in self.media
            if not is_missing(value := value_of(row, column)) and value not in _NO_FILE
        ]

    def text(self, row: Row) -> str:
        """Return the prompt of one row, for a template that has one.

        :raises RowProblem: when the template fails, or the prompt is empty.
        """
        assert self.prompt is not None
        try:
            text = self.prompt(row)
        except PromptError as error:
            raise RowProblem("prompt-template", f"The prompt template failed: {error}") from None
        if not text.strip():
            raise RowProblem("empty-prompt", "The prompt is empty for this row")
        return text


def value_of(row: Row, column: str) -> Any:
    """Return what a row has in a column.

    :raises RowProblem: when it has no such column.
    """
    try:
        return row[column]
    except KeyError:
        raise no_column(row, column) from None


def no_column(row: Row, column: str) -> RowProblem:
    """Return the problem of a row without a column: the missing column, and the columns that it has."""
    return RowProblem("no-column", f"The row has no column {column!r}; it has {listed(list(row))}")


def _given(row: Row, column: str) -> Any:
    value = row.get(column)
    return None if is_missing(value) else value


def _file(column: str, value: Any, kind: Any) -> tuple[str, str]:
    if not isinstance(value, str | PurePath):
        raise RowProblem("odd-file", f"Column {column!r} holds a {type(value).__name__}, not the address of one file")
    uri = str(value).strip()
    mime = str(kind or media_type(uri))
    if not mime:
        raise RowProblem(
            "no-mime-type", f"Nothing says the media type of column {column!r}: add a column {column}_mime_type"
        )
    return uri, mime


def request_digest(request: bytes, model: str = "") -> str:
    """Return the digest of a request for a model: 32 hexadecimal digits. Two requests with the same digest have the
    same answer.

    :param request: the bytes of the ``request`` member as they stand in the request file; our label does not count.
    :param model: the model in any spelling; only its last segment counts.
    """
    return Digester(model)(request).hex()


class Digester:
    """Gives the digests of many requests for a model, as bytes. The part that all requests share is hashed once.

    A request is cut behind the parts of its first content, where the text of a plain request ends: from there on, the
    requests of a job are mostly the same. The place follows from the bytes alone, and so does the digest.
    """

    def __init__(self, model: str) -> None:
        self._model = model_id(model).encode() + b"\0"
        self._keep(b"")

    def __call__(self, request: bytes) -> bytes:
        """Return the digest of a request, without our label: 16 bytes."""
        if _LABEL_NAME in request:
            request = _LABEL_LAST.sub(b"}", _LABEL_ALONE.sub(b"", request, count=1), count=1)
        return self.unlabelled(request)

    def unlabelled(self, request: bytes) -> bytes:
        """Return the digest of a request that is known to be without our label."""
        end = request.find(b"]")
        if not request.startswith(_PARTS_END, end):
            end = _parts_end(request, end)
        if len(request) - end != len(self._rest) or not request.endswith(self._rest):
            self._keep(request[end:])
        # Of the secure hashes, this one has processor instructions.
        return hashlib.sha256(self._begun + request[:end]).digest()[:16]

    def _keep(self, rest: bytes) -> None:
        # The digest of the rest has one length, so no two requests give the same bytes.
        self._rest, self._begun = rest, self._model + hashlib.sha256(rest).digest()


def _parts_end(request: bytes, at: int) -> int:
    """Return where the first ``]}],`` of a request is, or its length.

    :param at: the first closing bracket, -1 where there is none.
    """
    # A search for one byte is ten times as fast as for several, but not in texts that have this byte very often.
    for _ in range(4):
        if at < 0:
            return len(request)
        if request.startswith(_PARTS_END, at):
            return at
        at = request.find(b"]", at + 1)
    at = request.find(_PARTS_END, at) if at >= 0 else at
    return at if at >= 0 else len(request)


def key_label(key: str) -> str:
    """Return a key in the alphabet of labels: 31 characters of a-z and 0-9, always the same for the same key."""
    return "k" + hashlib.blake2b(key.encode(), digest_size=15).hexdigest()


def content_key(request: bytes) -> str:
    """Return the key of a request without one of its own: the same content has the same key in any order."""
    return "r" + hashlib.blake2b(request, digest_size=10).hexdigest()


def row_key(value: Any) -> str:
    """Return the key for a value of the user's key column; always begins with a letter.

    The service turns texts that look like numbers, dates or truth values into those, so anything that does gets a
    letter in front.

    :raises RowProblem: when there is no value.
    """
    text = _key_text(value)
    if _PLAIN_KEY.fullmatch(text):
        return text
    if not text.isascii() and not _is_unicode(text):
        raise RowProblem("not-unicode", "The key holds a lone surrogate, which is no character")
    if not _LETTER.match(text) or _RETYPED.match(text):
        text = f"r-{text}"
    if len(text) <= MAX_KEY_LENGTH and text.isprintable():
        return text
    return "r-" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _key_text(value: Any) -> str:
    if is_missing(value) or value == "":
        raise RowProblem("no-key", "The key column is empty for this row")
    if isinstance(value, dict | list | tuple):
        # A key appears in logs and reports, so it must not be a whole request or other content of a row.
        raise RowProblem("odd-key", f"The key column cannot name this row: it holds a {type(value).__name__}")
    try:
        return stable_text(value)
    except NoTextError as error:
        raise RowProblem("odd-key", f"The key column cannot name this row: {error}") from None


def row_keys(values: list[Any]) -> list[str]:
    """Return the keys for several values at once. This is faster than one by one.

    :raises RowProblem: when one of them has no key.
    """
    keys = [f"r-{value}" if type(value) is int else row_key(value) for value in values]
    return keys if max(map(len, keys), default=0) <= MAX_KEY_LENGTH else list(map(row_key, values))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _as_json(value: Any) -> Any:
    """Return a value of pandas or numpy as a plain Python value for JSON."""
    if is_missing(value):
        return None
    if isinstance(value, date | time):
        return value.isoformat()
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(type(value).__name__)


_encode_columns = msgspec.json.Encoder(enc_hook=_as_json).encode


def columns_json(row: Row, columns: Iterable[str]) -> bytes:
    """Return the user's own columns that are kept beside the answer, as JSON.

    :raises RowProblem: when the row lacks one, or holds what JSON cannot.
    """
    for column in columns:
        if column not in row:
            raise no_column(row, column)
    try:
        return _encode_columns({column: row[column] for column in columns})
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise RowProblem("not-json", _why_not_json(row, columns)) from None


def _why_not_json(row: Row, columns: Iterable[str]) -> str:
    """Return a text with the columns that cannot be kept beside the answer, and the types of their values."""
    odd = [f"{column!r} ({type(row[column]).__name__})" for column in columns if not _is_json(row[column])]
    return f"Columns that are kept beside the answer cannot be JSON: {', '.join(odd)}"


def _is_json(value: Any) -> bool:
    try:
        _encode_columns(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True
