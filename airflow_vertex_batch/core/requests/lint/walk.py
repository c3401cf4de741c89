"""What is wrong with this line, after all lines before it? One walk over the decoded line along the tree of key paths.

Invariants: the tree is the only memory of earlier lines. A conflict between two lines is reported at both. The walk
ends at the importer's depth, so no line can exhaust the stack. With `undo`, a line leaves no trace.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec

from airflow_vertex_batch.core.requests.lint.api import BOOL, LIST, NULL, NUMBER, OBJECT, TEXT, camel, messages
from airflow_vertex_batch.core.requests.lint.lines import is_output
from airflow_vertex_batch.core.requests.lint.models import facts_of, model_faults
from airflow_vertex_batch.core.requests.lint.nodes import Node, Place
from airflow_vertex_batch.core.requests.lint.objects import EMPTY_CURES
from airflow_vertex_batch.core.requests.lint.rules import Limits
from airflow_vertex_batch.core.requests.lint.values import is_retyped, key_fault, member, suggestion

#: Place, JSON path, rule, message, cure.
Found = tuple[Place, str, str, str, str]

_KIND: dict[type, str] = {
    dict: OBJECT, list: LIST, str: TEXT, int: NUMBER, float: NUMBER, bool: BOOL, type(None): NULL,
}  # fmt: skip
_INDEX = tuple(f"[{index}]" for index in range(256))
#: Members of the request to remember; a job has a handful.
_KNOWN = 64
#: More lines than a file has.
FILE = 1 << 40
_INT64 = range(-(2**63), 2**63)
_RESERVED_SIBLINGS = frozenset({"status", "response", "processed_time"})
#: A request that was never wrapped, and other services' batch lines.
_BARE = frozenset({"contents", "generationConfig", "generation_config", "systemInstruction", "system_instruction"})
_encode = msgspec.json.Encoder().encode
_OTHERS = {"body": "This is OpenAI's batch shape", "params": "This is Anthropic's batch shape"}


class Walker:
    """The lines of one job, walked one after the other.

    :param limits: depth, columns, and how many keys to remember.
    :param files: the names of the files so far, for messages; the caller adds to it.
    :param unique_keys: whether the caller knows that no key stands twice.
    :param model: that the job will ask; empty where it is not known.
    """

    def __init__(self, limits: Limits, files: list[str], *, unique_keys: bool = False, model: str = "") -> None:
        self._limits = limits
        self._files, self._facts, self._unique_keys = files, facts_of(model), unique_keys
        self._root = Node.root()
        self._columns, self._is_full = 0, False
        #: Hash of each key → its place, as file * FILE + line. 64 bits: two of 200,000 keys share one in a job of 10^9.
        self.keys: dict[int, int] = {}
        #: Members of the request by content → what a walk found there, its quotation marks, whether it was partial.
        self._known: dict[Any, tuple[list[tuple[str, str, str, str]], int, bool]] = {}
        self._is_lasting, self._is_resumed = True, False
        self._schema: tuple[str, Place] | None = None
        self._steps: list[str] = []
        self._found: list[Found] = []
        self._undo: list[tuple[Any, Any, Any]] = []
        self._here: Place = (0, 0)
        #: Quotation marks the walk has accounted for, and whether it left something out.
        self.quotes = 0
        self.is_partial = False
        #: Whether the last line changed what earlier lines would be told now.
        self.is_outdated = False

    # The door.

    def walk(self, line: Any, here: Place) -> list[Found]:
        """Return what is wrong with one decoded line."""
        self._here, self._found, self._steps, self._undo = here, [], ["$"], []
        self.quotes, self.is_partial, self.is_outdated, self._is_resumed = 0, False, False, False
        if not isinstance(line, dict):
            self._report("not-object", f"the line is {_KIND[type(line)]}")
        elif not line:
            self._report("empty-object", "the line is an empty object")
        else:
            self._line(line)
        return self._found

    def undo(self) -> None:
        """Forget the line just walked: it will not be part of the job."""
        for owner, name, old in reversed(self._undo):
            if isinstance(owner, dict):
                owner.pop(name, None)
            else:
                setattr(owner, name, old)
        self._undo = []

    # The line and what stands beside the request.

    def _line(self, line: dict[str, Any]) -> None:
        self.quotes += 2 * len(line)
        self._is_resumed = is_output(line)
        if self._is_resumed:
            self._report("resume-line", "an output line of an earlier job")
        if "request" not in line:
            self._no_request(line)
        self._key(line)
        for name, value in line.items():
            child = self._root.children.get(name) or self._grow(self._root, name)
            if self._is_resumed and name in _RESERVED_SIBLINGS:
                self.is_partial = True
            elif name == "request" and not isinstance(value, dict):
                self._report("request-not-object", f"request is {_KIND[type(value)]}", at=".request")
                self._stray(child, _KIND[type(value)])
                self.is_partial = True
            elif name == "key":
                self._key_kind(child, value)
            else:
                if name != "request":
                    self._sibling(name, child, value, is_bare="request" not in line)
                self._value(value, child, child.step)
        if self._root.has_spellings:
            self._spellings(line, self._root)

    def _no_request(self, line: dict[str, Any]) -> None:
        meant = suggestion("request", {name for name in line if isinstance(line[name], dict)})
        cure = ""
        if _BARE & line.keys():
            cure = 'The line is the request itself: wrap it as {"key": …, "request": {…}}'
        elif others := _OTHERS.keys() & line.keys():
            cure = f"{_OTHERS[min(others)]}; Vertex AI wants its own GenerateContentRequest under request"
        elif meant:
            cure = f"Did you mean to call {meant!r} request?"
        self._report("no-request", "the line has no request", cure)

    def _key(self, line: dict[str, Any]) -> None:
        key = line.get("key")
        if key is None:
            self._report("key-missing", "the line has no key")
        elif not isinstance(key, str):
            self._report("key-not-string", f"the key is {_KIND[type(key)]}", at=".key")
            self.is_partial = True
        else:
            self.quotes += 2 + key.count('"')
            fault = key_fault(key)
            if fault:
                self._report(*fault[1:], at=".key")
            if self._unique_keys:
                return
            if hash(key) in self.keys:
                first = divmod(self.keys[hash(key)], FILE)
                self._report("key-duplicate", f"the key {key[:64]!r} stands in {self._named(first)} too", at=".key")
            elif len(self.keys) < self._limits.requests:
                self.keys[hash(key)] = self._here[0] * FILE + self._here[1]
                self._undo.append((self.keys, hash(key), None))

    def _key_kind(self, child: Node, value: Any) -> None:
        """Compare the key's kind with other lines'; what is wrong with this one by itself has been said."""
        kind = _KIND[type(value)]
        self._twins(child, child.step)
        if kind is NULL:
            self._null(child, child.step)
        elif kind is OBJECT or kind is LIST:
            self._stray(child, kind)
        elif kind is TEXT and child.kind is None:
            self._first(child, TEXT, child.step)

    def _sibling(self, name: str, child: Node, value: Any, *, is_bare: bool) -> None:
        if name in _RESERVED_SIBLINGS:
            self._report("sibling-reserved", f"the service writes {name} itself", at=child.step)
        elif isinstance(value, dict | list):
            if name == "config":
                self._report("sdk-config", "the SDK's config", "Move it to request.generationConfig", child.step)
            elif is_bare:
                return
            elif camel(name) in messages()["GenerateContentRequest"]:
                cure = f"Move it to request.{camel(name)}"
                self._report("misplaced-member", "stands beside the request", cure, child.step)
            else:
                self._report("sibling-nested", f"{_KIND[type(value)]} beside the request", at=child.step)
        elif isinstance(value, str) and is_retyped(value):
            self._report("sibling-retyped", "looks like a number, date or truth value", at=child.step)

    # The tree.

    def _grow(self, node: Node, name: str) -> Node:
        child = node.child(name)
        if self._columns < self._limits.columns:
            self._columns += 1
            node.keep(name, child)
        elif not self._is_full:
            self._is_full, self._is_lasting = True, False
            self._report("too-many-columns", f"more than {self._limits.columns:,} distinct key paths", at=child.step)
        return child

    def _value(self, value: Any, child: Node, at: str) -> None:
        """Check one value in its place, and what is below it."""
        kind = _KIND[type(value)]
        if child.faults or len(child.twins) > 1:
            self._name_faults(child, kind, at)
        if kind is not child.kind:
            self._admit(child, kind, value, at)
        if kind is TEXT:
            self.quotes += 2 + value.count('"')
        elif kind is NUMBER and type(value) is int and value not in _INT64:
            self._report("number-range", "larger than 64 bits", at=at)
        if child.check is not None:
            fault = child.check(value)
            if fault is not None:
                self._report(fault[1], fault[2], fault[3], at + fault[0])
        if kind is OBJECT or kind is LIST:
            self._steps.append(at)
            if child.is_constant and value and not self._is_resumed:
                self._remembered(value, child)
            elif kind is OBJECT:
                self._object(value, child)
            else:
                self._list(value, child)
            self._steps.pop()

    def _remembered(self, value: Any, node: Node) -> None:
        """Walk below a member of the request, or recall what a walk over the same value found.

        A configuration stands on every line of a job; walking it again finds the same, unless what was found depended
        on this being the first time.
        """
        try:
            content = (node.step, _encode(value))
        except (OverflowError, UnicodeEncodeError):
            content = None
        known = self._known.get(content)
        if known is not None:
            found, quotes, is_partial = known
            self._found += [(self._here, *rest) for rest in found]
            self.quotes += quotes
            self.is_partial = self.is_partial or is_partial
            return
        start, quotes, was_partial = len(self._found), self.quotes, self.is_partial
        self._is_lasting, self.is_partial = True, False
        self._object(value, node) if isinstance(value, dict) else self._list(value, node)
        if content is not None and self._is_lasting and len(self._known) < _KNOWN:
            found = [fault[1:] for fault in self._found[start:] if fault[0] == self._here]
            self._known[content] = (found, self.quotes - quotes, self.is_partial)
            self._undo.append((self._known, content, None))
        self.is_partial = self.is_partial or was_partial

    def _object(self, obj: dict[str, Any], node: Node) -> None:
        if not obj:
            self._report("empty-object", "an object without members", EMPTY_CURES.get(node.message, ""))
            return
        if node.depth >= self._limits.depth:
            self._report("too-deep", f"its members are level {node.depth + 1}, the importer takes {self._limits.depth}")
            self.is_partial = True
            return
        self.quotes += 2 * len(obj)
        children = node.children
        for name, value in obj.items():
            child = children.get(name)
            if child is None:
                child = self._grow(node, name)
            if child.is_plain and child.kind is TEXT and type(value) is str:
                self.quotes += 2 + value.count('"')
            else:
                self._value(value, child, child.step)
        if node.has_spellings:
            self._spellings(obj, node)
        if node.whole is not None:
            for at, rule, message, cure in node.whole(obj):
                self._report(rule, message, cure, at)
        if node.message == "GenerationConfig":
            self._config(obj)

    def _list(self, values: list[Any], node: Node) -> None:
        element = node.elements()
        for index, value in enumerate(values):
            at = _INDEX[index] if index < len(_INDEX) else f"[{index}]"
            if value is None:
                if not self._is_resumed:
                    self._report("null-in-list", "null as an element", at=at)
            elif type(value) is list:
                self._report("nested-list", "a list directly inside a list", at=at)
                self.is_partial = True
            else:
                self._value(value, element, at)

    # Faults.

    def _report(self, rule: str, message: str, cure: str = "", at: str = "", place: Place | None = None) -> None:
        self._found.append((place or self._here, "".join(self._steps) + at, rule, message, cure))

    def _name_faults(self, child: Node, kind: str, at: str) -> None:
        for rule, message, cure, is_always in child.faults:
            if is_always or kind is not NULL:
                self._report(rule, message, cure, at)
        self._twins(child, at)

    def _twins(self, node: Node, at: str) -> None:
        """Report a name that differs from an earlier one in case only."""
        if not node.is_twin and any(other.is_used() and not other.is_twin for other in node.twins if other is not node):
            self._set(node, "is_twin", True)
            self._set(node, "is_plain", False)
        if node.is_twin:
            self._report("field-name-case", "another name of this job differs in case only", at=at)

    def _admit(self, node: Node, kind: str, value: Any, at: str) -> None:
        """Take a kind this path did not hold so far, or report it."""
        documented = node.type.kinds
        if kind is NULL:
            self._null(node, at)
        elif documented and kind not in documented and not (kind is TEXT and self._number_text(node, value, at)):
            self._wrong_type(node, kind, at)
        elif node.kind is None:
            self._first(node, kind, at)
        else:
            self._conflict(node, kind, node.kind, node.place, at)

    def _null(self, node: Node, at: str) -> None:
        if self._is_resumed:
            return
        known = node.stray[0] if node.kind is None and node.stray is not None else node.kind
        if known is LIST or (node.is_list and known is None):
            self._report("null-in-list", "null where a list is expected", at=at)
        if node.null_at is None and known is not LIST:
            self._set(node, "null_at", self._here)

    def _first(self, node: Node, kind: str, at: str) -> None:
        self._set(node, "kind", kind)
        self._set(node, "place", self._here)
        if node.null_at is not None or node.stray is not None:
            # What earlier walks found of nulls and strays no longer holds, and what this one finds is said once.
            self._known.clear()
            self._is_lasting, self.is_outdated = False, True
        if node.single() and node.step != ".parts":
            self._report("object-for-list", "one object where a list is documented", at=at)
        if kind is LIST and node.null_at is not None:
            message = f"null in {self._named(node.null_at)}, a list in {self._named(self._here)}"
            self._report("null-in-list", message, at=at)
            if node.null_at != self._here and not node.is_list:
                self._report("null-in-list", message, at=at, place=node.null_at)
        if node.stray is not None:
            stray, place = node.stray
            self._report("mixed-types", f"{kind} here, {stray} in {self._named(place)}", at=at)

    def _wrong_type(self, node: Node, kind: str, at: str) -> None:
        wanted = " or ".join(sorted(node.type.kinds))
        if node.step == ".type" and kind is LIST and "OBJECT" in node.type.words:
            self._report("schema-type-list", "a list of types", at=at)
        else:
            self._report("wrong-type", f"is {kind}, must be {wanted}", at=at)
        self._stray(node, kind)

    def _stray(self, node: Node, kind: str) -> None:
        """Remember a kind the API does not document here: the first line that has the right one will not fit it."""
        if node.kind is None and node.stray is None and kind is not NULL:
            self._set(node, "stray", (kind, self._here))

    def _number_text(self, node: Node, value: str, at: str) -> bool:
        """Whether a text stands for a number where a number is documented: protobuf's JSON takes that."""
        if node.type.kinds != {NUMBER}:
            return False
        try:
            float(value)
        except ValueError:
            return False
        if node.kind in (None, TEXT):
            self._report("number-as-text", "a number written as text", at=at)
        return True

    def _conflict(self, node: Node, kind: str, first: str, place: Place, at: str) -> None:
        self._report("mixed-types", f"{kind} here, {first} in {self._named(place)}", at=at)
        if place != self._here and not node.is_disputed:
            self._set(node, "is_disputed", True)
            message = f"{first} here, {kind} in {self._named(self._here)}"
            self._report("mixed-types", message, at=at, place=place)

    def _spellings(self, obj: dict[str, Any], node: Node) -> None:
        counts = Counter(node.children[name].canonical for name in obj if name in node.children)
        for name in obj:
            child = node.children.get(name)
            if child is None or counts[child.canonical] < 2:  # noqa: PLR2004
                continue
            if sum(other.lower() == name.lower() for other in obj) == 1:
                self._report("both-spellings", "the name stands twice", at=child.step)

    def _config(self, config: dict[str, Any]) -> None:
        """Compare the settings with what the model takes, and the schema with that of other lines."""
        for at, rule, message, cure in model_faults(config, self._facts):
            self._report(rule, message, cure, at)
        schema = member(config, "responseSchema")
        if schema is None:
            return
        made = json.dumps(schema, sort_keys=True)
        if self._schema is None:
            self._set(self, "_schema", (made, self._here))
        elif made != self._schema[0]:
            self._report("many-schemas", f"another schema than in {self._named(self._schema[1])}", at=".responseSchema")

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def _named(self, place: Place) -> str:
        return f"line {place[1]}" if place[0] == self._here[0] else f"line {place[1]} of {self._files[place[0]]}"
