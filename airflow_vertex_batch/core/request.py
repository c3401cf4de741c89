"""How does a row become a request? A prompt template, the parts that are the same for every row, and a stable key.

Invariants: row data is put into the prompt and never rendered itself; the same row gives the same bytes, so the same
key; a row that cannot become a request is a `RowProblem` with a reason, not a crash; the constant members are encoded
once.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.core.address import model_id
from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.jsonl import encode
from airflow_vertex_batch.core.schema import response_schema
from airflow_vertex_batch.core.sources import media_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_vertex_batch.core.sources import Row

#: The most requests one job takes, and the most bytes one input file may have; 1 GB is read as 10^9, the smaller
#: reading (https://docs.cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini, 2026-11-22).
MAX_REQUESTS = 200_000
MAX_BYTES = 1_000_000_000
#: Keys longer than this are replaced by their digest: a request label, the second channel, takes 63 characters.
MAX_KEY_LENGTH = 63
_SAFE_KEY = re.compile(r"[A-Za-z][\w.:/@-]*", re.ASCII)


class OnRejectedRow(StrEnum):
    """What a row that cannot be sent does to the task."""

    FAIL = "fail"
    DEAD_LETTER = "dead_letter"


class RowProblem(Exception):  # noqa: N818 - it never leaves prepare: a bad row is data
    """A row cannot be sent.

    :param code: a stable word for counting.
    :param reason: for people; names columns, never their content.
    """

    def __init__(self, code: str, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(code, reason)


class RequestTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What every request of a batch has in common.

    :param prompt: a Jinja template over the row's columns (``{{ column }}``, ``{{ row["odd name"] }}``) and
        `variables`.
    :param system_instruction: text, or a ``Content`` object.
    :param response_schema: a JSON Schema (see `core.schema`); asks for JSON.
    :param media: column with an address → its MIME type, or None to go by the address.
    :param extra: further members of GenerateContentRequest, as they are.
    """

    prompt: str = ""
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

    :raises InputError: when the template cannot be compiled.
    """

    def __init__(self, template: RequestTemplate) -> None:
        self._render = compile_prompt(template.prompt, template.variables) if template.prompt else None
        self._media = tuple(template.media.items())
        members = encode(template.constant_members())[1:]
        self._tail = b"]}]" + (members if members == b"}" else b"," + members)

    def __call__(self, row: Row) -> bytes:
        """Return the request of one row.

        :raises RowProblem: when the row cannot be sent.
        """
        try:
            parts = [encode({"text": self._text(row)})] if self._render else []
            for column, kind in self._media:
                if value := row.get(column):
                    parts.append(
                        _file_part(column, value, kind or row.get(f"{column}_mime_type") or row.get("mime_type"))
                    )
        except UnicodeEncodeError:
            raise RowProblem("not-unicode", "The request holds a lone surrogate, which is no character") from None
        if not parts:
            raise RowProblem("no-content", "The row has neither a prompt nor a file")
        return b'{"contents":[{"role":"user","parts":[' + b",".join(parts) + self._tail

    def _text(self, row: Row) -> str:
        assert self._render is not None
        try:
            text = self._render(row)
        except Exception as error:  # noqa: BLE001 - a template runs whatever its author wrote
            # Jinja's own message may quote the value it failed on.
            raise RowProblem("prompt-template", f"The prompt template failed: {_template_reason(error)}") from None
        if not text.strip():
            raise RowProblem("empty-prompt", "The prompt is empty for this row")
        return text


def _template_reason(error: Exception) -> str:
    from jinja2 import UndefinedError

    return str(error) if isinstance(error, UndefinedError) else type(error).__name__


def _file_part(column: str, value: Any, kind: Any) -> bytes:
    uri = str(value)
    mime = str(kind or media_type(uri))
    if not mime:
        raise RowProblem(
            "no-mime-type", f"Nothing says the media type of column {column!r}: add a column {column}_mime_type"
        )
    return encode({"fileData": {"fileUri": uri, "mimeType": mime}})


def compile_prompt(source: str, variables: dict[str, Any] | None = None) -> Callable[[Row], str]:
    """Compile a prompt template. A template of plain ``{{ column }}`` places takes a fast path with the same result.

    :raises InputError: when the template is not valid Jinja.
    """
    from jinja2 import Environment, StrictUndefined, TemplateSyntaxError

    # Prompts are text, not HTML: escaping would change what the model reads.
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)  # noqa: S701
    try:
        tree = environment.parse(source)
        template = environment.from_string(source, globals=variables or {})
    except TemplateSyntaxError as error:
        raise InputError(
            f"The prompt template has a mistake in line {error.lineno}",
            why=error.message or "",
            todo="Correct `prompt`",
        ) from error

    def render(row: Row) -> str:
        return template.render(row, row=row)

    pieces = _plain_pieces(tree)
    if pieces is None or any(is_name and (text in _SPECIAL or text in (variables or {})) for text, is_name in pieces):
        return render
    names = [text for text, _ in pieces]
    slots = [index for index, (_, is_name) in enumerate(pieces) if is_name]

    def fast(row: Row) -> str:
        made = names.copy()
        try:
            for index in slots:
                value = row[names[index]]
                made[index] = value if type(value) is str else str(value)
        except KeyError:
            return render(row)  # says which column is missing, in Jinja's words
        return "".join(made)

    return fast


#: Names that Jinja, or we, give a meaning of their own in a template.
_SPECIAL = frozenset({"row", "self"})


def _plain_pieces(tree: Any) -> list[tuple[str, bool]] | None:
    """Return a template as (text or name, is it a name), or None when it does more than name columns."""
    from jinja2 import nodes

    pieces: list[tuple[str, bool]] = []
    for node in tree.body:
        if not isinstance(node, nodes.Output):
            return None
        for piece in node.nodes:
            if isinstance(piece, nodes.TemplateData):
                pieces.append((piece.data, False))
            elif isinstance(piece, nodes.Name):
                pieces.append((piece.name, True))
            else:
                return None
    return pieces


def request_digest(request: bytes, model: str = "") -> str:
    """Return the digest of a request for a model: 32 hexadecimal digits. Two that share it share an answer.

    :param request: the bytes of the ``request`` member as they stand in the request file.
    :param model: the model in any spelling; only its last segment counts.
    """
    key = model_id(model).encode()[: hashlib.blake2b.MAX_KEY_SIZE]
    return hashlib.blake2b(request, digest_size=16, key=key).hexdigest()


def content_key(request: bytes) -> str:
    """Return the key of a request without one of its own: the same content has the same key in any order."""
    return "r" + hashlib.blake2b(request, digest_size=10).hexdigest()


def row_key(value: Any) -> str:
    """Return the key for a value of the user's key column; always begins with a letter.

    The service turns texts that look like numbers into numbers, so anything that does not begin with a letter gets one.

    :raises RowProblem: when there is no value.
    """
    if value is None or value == "":
        raise RowProblem("no-key", "The key column is empty for this row")
    text = str(value)
    if not text.isascii() and not _is_unicode(text):
        raise RowProblem("not-unicode", "The key holds a lone surrogate, which is no character")
    if not _SAFE_KEY.match(text[:1] or "-"):
        text = f"r-{text}"
    if len(text) <= MAX_KEY_LENGTH and text.isprintable():
        return text
    return "r-" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def carried(row: Row, columns: Iterable[str]) -> bytes:
    """Return the user's own columns that travel beside the answer, as JSON.

    :raises RowProblem: when the row lacks one, or holds what JSON cannot.
    """
    try:
        return encode({column: row[column] for column in columns})
    except KeyError as error:
        raise RowProblem("no-column", f"The row has no column {error.args[0]!r}") from None
    except (TypeError, UnicodeEncodeError) as error:
        raise RowProblem(
            "not-json", f"A column that is kept beside the answer cannot be JSON: {type(error).__name__}"
        ) from None
