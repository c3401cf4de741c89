"""Which key paths does this job have, and what is known about each? A tree that grows when a name is seen for the first
time.

The importer turns every key path into a column. A `Node` is one path. It holds the type that the API documents there,
the JSON kind that was seen first (and where), and the faults of the name itself, which are found once and reported
wherever the name stands.

Invariants: there are as many nodes as distinct paths, and never more than the columns that a table may have. A node is
never removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from airflow_vertex_batch.core.requests.lint.api import (
    ANY,
    LIST,
    NEWER_MEMBERS,
    OBJECT,
    REVISION_DATE,
    TEXT,
    Type,
    camel,
    member_type,
    messages,
)
from airflow_vertex_batch.core.requests.lint.objects import ObjectCheck, object_check
from airflow_vertex_batch.core.requests.lint.values import (
    ValueCheck,
    is_near,
    label_fault,
    label_value,
    suggestion,
    value_check,
)

#: (index of the file, line)
Place = tuple[int, int]
#: Rule, message, cure, whether it also stands against a null.
NameFault = tuple[str, str, str, bool]

_LINE = Type(frozenset({OBJECT}), message="Line")
_REQUEST = Type(frozenset({OBJECT}), message="GenerateContentRequest")
_KEY = Type(frozenset({TEXT}))
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
#: Column names: cloud.google.com/bigquery/docs/schemas#column_names, 2026-11-22. Names with $ and with spaces were
#: refused in captured jobs, so the wider "flexible" alphabet does not apply.
_NAME_LENGTH = 300
_RESERVED = (
    "_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier",
    "_change_sequence_number", "_change_type", "_change_timestamp",
)  # fmt: skip
#: Characters of a name that a path shows.
_SHOWN = 60

#: Where the members of a message go, for "misplaced"; names that many messages share are left out by `_homes`.
_HOMES = {
    "GenerateContentRequest": "request",
    "GenerationConfig": "request.generationConfig",
    "GenerationConfigThinkingConfig": "request.generationConfig.thinkingConfig",
    "Content": "an element of request.contents",
    "Part": "an element of parts",
    "FileData": "fileData",
    "Blob": "inlineData",
    "Tool": "an element of request.tools",
    "FunctionDeclaration": "an element of functionDeclarations",
    "FunctionCallingConfig": "request.toolConfig.functionCallingConfig",
    "SafetySetting": "an element of request.safetySettings",
    "VideoMetadata": "videoMetadata of the part",
}
#: Members of other people's APIs, and what they are called here.
_ALIASES = {
    "model": "The model is named once, on the job: remove it",
    "messages": "Write contents: [{role, parts: [{text}]}]",
    "prompt": "Write contents: [{role, parts: [{text}]}]",
    "system": "Write systemInstruction: {parts: [{text}]}",
    "max_tokens": "Write generationConfig.maxOutputTokens",
    "stop": "Write generationConfig.stopSequences",
    "functions": "Write tools: [{functionDeclarations: […]}]",
    "uri": "Write fileUri",
    "url": "Write fileUri",
    "image": "Write fileData: {fileUri, mimeType} or inlineData: {data, mimeType}",
}
_KEYWORDS = {
    "oneOf": "Write anyOf",
    "allOf": "Merge its members into one schema",
    "const": 'Write "enum" with the one value',
    "exclusiveMinimum": "Write minimum",
    "exclusiveMaximum": "Write maximum",
    "examples": "Remove it, or write one example",
    "definitions": "Inline the definitions",
    **dict.fromkeys(
        ("not", "if", "then", "else", "patternProperties", "propertyNames", "prefixItems", "contains", "uniqueItems",
         "multipleOf", "minContains", "maxContains", "dependentRequired", "dependentSchemas", "readOnly", "writeOnly",
         "deprecated", "discriminator", "unevaluatedProperties", "unevaluatedItems", "contentEncoding",
         "contentMediaType"),
        "",
    ),
}  # fmt: skip
#: Members of a JSON Schema that are lists, and those that hold data, whose names are the author's.
SCHEMA_LISTS = frozenset({"enum", "required", "anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMA_DATA = frozenset({"default", "const", "example", "examples"})
#: Members the API has and batch does not, or that batch mishandles.
_UNSUPPORTED = {
    ("GenerateContentRequest", "cachedContent"): ("cached-content", "explicit caching does not exist in batch"),
    ("Retrieval", "vertexRagStore"): ("rag-tool", "RAG retrieval does not exist in batch"),
    ("GenerationConfig", "responseJsonSchema"): ("json-schema", "a free-form response schema"),
    ("FunctionDeclaration", "parametersJsonSchema"): ("json-schema", "free-form parameters"),
    ("FunctionDeclaration", "responseJsonSchema"): ("json-schema", "a free-form response"),
    ("Schema", "additionalProperties"): ("schema-additional", "additionalProperties is not enforced"),
}


class Node:
    """One key path of the job."""

    __slots__ = (
        "canonical", "check", "children", "depth", "element", "faults", "has_spellings", "is_constant", "is_disputed",
        "is_list", "is_plain", "is_twin", "kind", "message", "named", "null_at", "place", "seen", "step", "stray",
        "twins", "type", "whole",
    )  # fmt: skip

    def __init__(self, step: str, kind: Type, depth: int) -> None:
        #: This path's last step as it stands in a JSON path.
        self.step, self.type, self.depth = step, kind, depth
        self.message = kind.message
        self.children: dict[str, Node] = {}
        self.element: Node | None = None
        self.canonical = ""
        self.seen: set[str] = set()
        #: Children by lower-case name: BigQuery's columns do not know case.
        self.named: dict[str, list[Node]] = {}
        #: The paths whose names differ from this one in case only, itself included; whether another of them came first.
        self.twins: list[Node] = []
        self.is_twin = False
        #: Whether two children are spellings of one name: only then objects are searched for both.
        self.has_spellings = False
        self.faults: tuple[NameFault, ...] = ()
        self.check: ValueCheck | None = None
        self.whole: ObjectCheck | None = None
        #: Whether values need no look beyond their kind; whether they tend to be the same on every line.
        self.is_plain = self.is_constant = False
        #: Whether the documentation has a list here, whatever the file shows.
        self.is_list = LIST in kind.kinds
        #: The JSON kind of this column, and where it was first seen.
        self.kind: str | None = None
        self.place: Place = (0, 0)
        #: The first null before any kind was known; the first value of a kind the API does not document here.
        self.null_at: Place | None = None
        self.stray: tuple[str, Place] | None = None
        #: Whether the first line has been told that a later one disagrees.
        self.is_disputed = False

    @classmethod
    def root(cls) -> Node:
        """Return the node of whole lines."""
        return cls("$", _LINE, 0)

    def child(self, name: str) -> Node:
        """Return a new child, with the faults of its name; the caller decides whether to keep it."""
        kind, faults = _typed(self, name)
        made = Node(step(name), kind, self.depth + 1)
        # Two spellings of a member are one member to the API; the author's own names are as they are.
        canonical = camel(name) if self.message in messages() else name
        made.canonical = canonical.lower()
        made.faults = (*faults, *_unsupported(self.message, canonical))
        made.check = value_check(self.message, canonical, kind) if self.message else None
        made.whole = object_check(kind.message, canonical)
        if self.canonical == "labels" and self.type.inner is not None:
            made.faults = (*made.faults, *_label_key(name))
            made.check = label_value
        made.is_list = made.is_list or (kind.is_json_schema and name in SCHEMA_LISTS and self.step != ".properties")
        made.is_plain = not made.faults and made.check is None
        made.is_constant = self.message == "GenerateContentRequest" and canonical not in {"contents", "labels"}
        return made

    def keep(self, name: str, child: Node) -> None:
        """Add a child to the tree."""
        self.has_spellings = self.has_spellings or child.canonical in self.seen
        self.seen.add(child.canonical)
        self.children[name] = child
        child.twins = self.named.setdefault(name.lower(), [])
        child.twins.append(child)

    def elements(self) -> Node:
        """Return the node of this list's elements, which share one column."""
        if self.element is None:
            self.element = Node("", self.type.inner or (self.type if self.type.is_json_schema else ANY), self.depth)
            self.element.whole = object_check(self.element.message, "")
            if self.element.type.words:
                self.element.check = value_check(self.message, "", self.element.type)
        return self.element

    def is_used(self) -> bool:
        """Whether a line of the job has this path."""
        return self.kind is not None or self.null_at is not None or self.stray is not None

    def single(self) -> bool:
        """Whether this is one object where a list of messages is documented."""
        return self.kind is OBJECT and LIST in self.type.kinds


def step(name: str) -> str:
    """Return one step of a JSON path."""
    if _PLAIN.match(name) and len(name) <= _SHOWN:
        return f".{name}"
    return f"[{json.dumps(name if len(name) <= _SHOWN else name[:_SHOWN] + '…')}]"


def _typed(node: Node, name: str) -> tuple[Type, tuple[NameFault, ...]]:
    """Return what the API has under this name, and what is wrong with the name."""
    if node.message == "Line":
        known = {"request": _REQUEST, "key": _KEY}.get(name, ANY)
        return known, _column(name)
    if node.message:
        found = member_type(node.message, name)
        return (found, ()) if found else (ANY, tuple(_unknown(node.message, name)))
    if node.type.is_json_schema and name in _SCHEMA_DATA and node.step != ".properties":
        return ANY, ()
    if node.type.is_json_schema:
        return node.type, tuple(_schema_name(name)) or _column(name)
    return node.type.inner or ANY, _column(name)


def _column(name: str) -> tuple[NameFault, ...]:
    """Judge a name as BigQuery judges a column's."""
    if not name:
        why = "the name is empty"
    elif len(name) > _NAME_LENGTH:
        why = f"the name has {len(name)} characters"
    elif not _PLAIN.match(name):
        why = "the name holds other characters than letters, digits and _, or begins with a digit"
    elif name.lower().startswith(_RESERVED):
        why = "the name begins with a prefix BigQuery keeps for itself"
    else:
        return ()
    return (("field-name", why, "", True),)


def _schema_name(name: str) -> Iterator[NameFault]:
    if name in {"$ref", "$defs"}:
        yield ("schema-ref", f"{name} fails the import", "", True)
    elif name.startswith("$"):
        yield ("schema-dollar", "a name with $ fails the import", "", True)


def _unknown(message: str, name: str) -> Iterator[NameFault]:
    """Say what an unknown member of a known message was probably meant to be."""
    members = set(messages()[message])
    homes = [home for other, home in _HOMES.items() if camel(name) in messages()[other]]
    if newer := NEWER_MEMBERS.get((message, camel(name))):
        yield ("newer-member", f"the API did not know this member on {REVISION_DATE}; {newer} does", "", False)
    elif message == "Schema":
        yield from _unknown_schema(name, members)
    elif message == "GenerateContentRequest" and name == "config":
        yield ("sdk-config", "the SDK's config inside the request", "", True)
    elif homes and len(homes) < 3:  # noqa: PLR2004 - more would be a riddle, not a hint
        yield ("misplaced-member", "the API does not know this member here", f"Move it to {' or '.join(homes)}", True)
    else:
        yield from _not_there(name, members, "the API")


def _unknown_schema(name: str, members: set[str]) -> Iterator[NameFault]:
    dollar = list(_schema_name(name))
    if dollar:
        yield from dollar
    elif name.endswith("_") and camel(name.rstrip("_")) in members:
        yield ("schema-python-name", "a Python attribute name", f"Write {name.rstrip('_')}", True)
    elif name in _KEYWORDS:
        rule = "schema-ref" if name == "definitions" else "schema-keyword"
        yield (rule, "the API's schemas do not know this keyword", _KEYWORDS[name], True)
    else:
        yield from _not_there(name, members, "the API's schemas")


def _not_there(name: str, members: set[str], who: str) -> Iterator[NameFault]:
    """Report a name that the table does not have: a slip of the pen, another API's name, or one that is newer."""
    meant, alias = suggestion(name, members), _ALIASES.get(name, "")
    hint = f"Did you mean {meant}?" if meant else alias
    if (meant and is_near(name, meant)) or alias:
        yield ("unknown-member", f"{who} does not know this member", hint, False)
    else:
        yield ("newer-member", f"{who} did not know this member on {REVISION_DATE}", hint, False)
    yield from _column(name)


def _unsupported(message: str, name: str) -> tuple[NameFault, ...]:
    found = _UNSUPPORTED.get((message, name))
    return ((found[0], found[1], "", False),) if found else ()


def _label_key(name: str) -> tuple[NameFault, ...]:
    fault = label_fault(name, is_key=True)
    return ((fault[1], fault[2], fault[3], True),) if fault else ()
