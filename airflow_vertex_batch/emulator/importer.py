"""May this request file be imported? The rules that hold for a file as a whole, before any row is answered.

The service loads the JSONL as BigQuery loads one: it infers one type per member path over all lines, and one bad line
fails the whole job with code 3 and a message that begins "Failed to import data" (F1, F2; python-genai#2123,
python-aiplatform#4110). The rules and the fragments of their messages are in section 3.3 of the project's notes; what
cases that those leave open are decided here, with a comment at each place.

Invariants: memory grows with the number of distinct member paths, never with the number of lines. Written apart from
`core.requests.lint`, which checks the same rules for users: the two check each other.
"""

from __future__ import annotations

import re
from typing import IO, TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Levels of names, the innermost included; ``request`` is level 1, and a list of records counts once. That the
#: innermost counts is from a captured load: "Schema nested too deeply for field protoPayload…apiGroups.items, maximum
#: allowed depth is 15" names a record that is itself the 15th (bxparks/bigquery-schema-generator#51).
MAX_DEPTH = 15
#: BigQuery's rule for column names (classic, without flexible names: ``$defs`` and spaces are refused, as captured).
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
#: "Column names can't use any of the following prefixes", and "Duplicate column names are not allowed even if the case
#: differs" (https://cloud.google.com/bigquery/docs/schemas#column_names, 2026-11-22).
_RESERVED = (
    "_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier", "_change_sequence_number",
    "_change_type", "_change_timestamp",
)  # fmt: skip
#: Members of a request that hold lists: a null there is refused even if no line has a list, unless the file has shown
#: something else there. In snake_case too.
_LISTS = frozenset({
    "contents", "parts", "tools", "functionDeclarations", "function_declarations", "safetySettings", "safety_settings",
    "stopSequences", "stop_sequences", "responseModalities", "response_modalities", "allowedFunctionNames",
    "allowed_function_names",
})  # fmt: skip
#: The same for members of a schema. Outside a schema these names have no special meaning.
_SCHEMA_LISTS = frozenset({"enum", "required", "anyOf", "any_of", "propertyOrdering", "property_ordering"})
_SCHEMAS = frozenset({
    "responseSchema", "response_schema", "responseJsonSchema", "response_json_schema", "parameters",
    "parametersJsonSchema", "parameters_json_schema",
})  # fmt: skip
#: Below these members the names are the caller's own: a member called ``parts`` may have any type there.
_OWN = frozenset({
    "args", "response", "labels", "default", "example", "const", "additionalProperties", "additional_properties",
    "customConfigs", "custom_configs",
})  # fmt: skip
#: Maps: the names in them are the caller's own, but the values are objects of the API.
_MAPS = frozenset({"properties", "defs"})
#: Members an output line has besides its request. As input (native resume, S4) they are the service's own, not columns.
OUTPUT_MEMBERS = frozenset({"response", "status", "processed_time"})
_INTEGER = re.compile(r"[+-]?\d{1,18}")
_FLOAT = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?")

_CHUNK_BYTES = 1 << 20

decode = msgspec.json.Decoder().decode


class JobFailedError(Exception):
    """The job ends as FAILED.

    :param code: the gRPC code of its ``error``.
    """

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


def import_failure(source: str, fragment: str, at: str = "") -> JobFailedError:
    """Return the failure of one bad line: deterministic, code 3."""
    return JobFailedError(
        3, f"Failed to import data from {source}. Error while reading data, error message: {fragment}{at}"
    )


def read_lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Yield the byte position and the text of every line that is not blank.

    :raises ValueError: when a line is longer than `max_bytes`.
    """
    position, rest = 0, b""
    while chunk := stream.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if len(line) > max_bytes:
                raise ValueError(f"Row size is larger than: {max_bytes}.")
            if line.strip():
                yield position, line
            position += len(line) + 1
        if len(rest) > max_bytes:
            raise ValueError(f"Row size is larger than: {max_bytes}.")
    if rest.strip():
        yield position, rest


class _Node:
    """What is known about one member path: how it is shaped, and whether a null was seen there."""

    __slots__ = ("fields", "folded", "kinds", "null_seen", "shape")

    def __init__(self) -> None:
        self.shape = ""  # "", "scalar", "record", "list of scalars", "list of records", "list"
        self.null_seen = False
        self.fields: dict[str, _Node] = {}
        self.folded: dict[str, str] = {}
        self.kinds: set[str] = set()

    @property
    def repeated(self) -> bool:
        return self.shape.startswith("list")

    def new_field(self, name: str) -> _Node:
        """Add a column.

        :raises _RuleError: when BigQuery does not take its name.
        """
        if not _FIELD_NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
            raise _RuleError(
                f'Invalid field name "{name}". Fields must contain only letters, numbers, and underscores, '
                "start with a letter or underscore, and be at most 300 characters long."
            )
        if (twin := self.folded.setdefault(name.lower(), name)) != name:
            raise _RuleError(f"Duplicate(Case Insensitive) field names: {twin} and {name}")
        made = self.fields[name] = _Node()
        return made


class _RuleError(Exception):
    """One rule is broken; the text is the service's fragment."""


class Importer:
    """Reads lines, one at a time, and refuses the first that breaks a rule.

    :param source: the object being read, for messages.
    """

    def __init__(self) -> None:
        self._root = _Node()
        self._is_resumed = False

    def feed(self, line: bytes, source: str, position: int) -> None:
        """Check one line against all lines before it.

        :raises JobFailedError: when the line breaks a rule; nothing is imported then.
        """
        at = f" (in the row that starts at position {position})"
        try:
            row = decode(line.removeprefix(b"\xef\xbb\xbf") if position == 0 else line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise import_failure(source, f"JSON parsing error: {error}", at) from error
        if not isinstance(row, dict):
            raise import_failure(source, "JSON parsing error: Start of object expected", at)
        self._is_resumed = _is_output(row)
        try:
            self._record(self._root, {name: row[name] for name in row if name not in OUTPUT_MEMBERS}, (), "outside")
        except _RuleError as error:
            raise import_failure(source, str(error), at) from error

    def finish(self, source: str) -> dict[str, str]:
        """Return the type of every column besides the request: INTEGER, FLOAT, BOOLEAN, STRING or JSON.

        :raises JobFailedError: when no line had a request.
        """
        if "request" not in self._root.fields:
            raise import_failure(source, "Required column request was not found in the input.")
        columns = {name: _column_type(node) for name, node in self._root.fields.items()}
        del columns["request"]
        return columns

    def _record(self, node: _Node, record: dict[str, Any], path: tuple[str, ...], names: str) -> None:
        # The captured rule is "no empty objects anywhere", not only where no line has a member (F1).
        if not record:
            raise _RuleError(f"Cannot store struct '{'.'.join(path)}' with no fields")
        if len(path) >= MAX_DEPTH:
            raise _RuleError(f"Schema nested too deeply, at least {len(path) + 1}: {'.'.join(path)}")
        for name, value in record.items():
            child = node.fields.get(name)
            if child is None:
                child = node.new_field(name)
            self._value(child, value, (*path, name), names)

    def _value(self, node: _Node, value: Any, path: tuple[str, ...], names: str) -> None:
        if value is None:
            self._null(node, path, names)
        elif isinstance(value, list):
            self._list(node, value, path, names)
        elif isinstance(value, dict):
            self._shape(node, "record", path)
            self._record(node, value, path, _names_below(path, names))
        else:
            self._shape(node, "scalar", path)
            node.kinds.add(_kind(value))

    def _null(self, node: _Node, path: tuple[str, ...], names: str) -> None:
        # The service's own output is padded with nulls, and is valid input (S4).
        if self._is_resumed:
            return
        node.null_seen = True
        if node.repeated or (not node.shape and names == "api" and _is_list(path)):
            raise _null_in_list(path)

    def _list(self, node: _Node, items: list[Any], path: tuple[str, ...], names: str) -> None:
        if node.null_seen:
            raise _null_in_list(path)
        self._shape(node, node.shape if node.repeated else "list", path)
        for item in items:
            if item is None and self._is_resumed:
                continue
            if item is None:
                raise _null_in_list(path)
            if isinstance(item, dict):
                self._shape(node, "list of records", path)
                self._record(node, item, path, _names_below(path, names))
            elif isinstance(item, list):
                # "An array cannot contain another array directly" (cloud.google.com/bigquery/docs/nested-repeated,
                # 2026-11-22).
                raise _RuleError(f"Nested arrays not allowed. Field: {'.'.join(path)}.")
            else:
                self._shape(node, "list of scalars", path)

    @staticmethod
    def _shape(node: _Node, shape: str, path: tuple[str, ...]) -> None:
        if node.shape in {"", shape} or (node.shape == "list" and shape.startswith("list")):
            node.shape = shape
        elif node.repeated != shape.startswith("list"):
            raise _RuleError(f"Repeated field must be imported as a JSON array. Field: {'.'.join(path)}.")
        else:
            raise _RuleError(f"JSON object specified for non-record field: {'.'.join(path)}")


def _is_output(row: dict[str, Any]) -> bool:
    """Whether the service wrote this line: an earlier job's output is a later job's input (S4)."""
    return isinstance(row.get("status"), str) and not OUTPUT_MEMBERS.isdisjoint(row.keys() - {"status"})


def _names_below(path: tuple[str, ...], names: str) -> str:
    """Return whose names are below a path: the API's, the caller's ("own"), or the caller's for one level ("map")."""
    if names == "outside":
        return "api" if path == ("request",) else names
    if names == "api":
        return "own" if path[-1] in _OWN else "map" if path[-1] in _MAPS else "api"
    return "api" if names == "map" else "own"


def _is_list(path: tuple[str, ...]) -> bool:
    """Whether a member holds a list by its name and its place."""
    return path[-1] in _LISTS or (path[-1] in _SCHEMA_LISTS and not _SCHEMAS.isdisjoint(path))


def _null_in_list(path: tuple[str, ...]) -> _RuleError:
    return _RuleError(f"Only optional fields can be set to NULL. Field: {'.'.join(path)}; Value: NULL")


def _kind(value: object) -> str:
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return "integer text"
        return "float text" if _FLOAT.fullmatch(value) else "str"
    return type(value).__name__


def _column_type(node: _Node) -> str:
    """One type for the whole column: texts that all look like numbers become numbers (F1: ``"000000"`` came back as
    0).
    """
    if node.shape not in {"", "scalar"}:
        return "JSON"
    if node.kinds and node.kinds <= {"int", "integer text"}:
        return "INTEGER"
    if node.kinds and node.kinds <= {"int", "float", "integer text", "float text"}:
        return "FLOAT"
    return "BOOLEAN" if node.kinds == {"bool"} else "STRING"


def retyped(value: Any, column_type: str) -> Any:
    """Return a column's value as the importer stored it."""
    if value is None or isinstance(value, dict | list):
        return value
    match column_type:
        case "INTEGER":
            return int(value)
        case "FLOAT":
            return float(value)
        case "STRING" if not isinstance(value, str):
            return msgspec.json.encode(value).decode()
    return value
