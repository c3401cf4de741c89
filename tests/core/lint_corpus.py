# ruff: noqa: E501 - a case is a line
"""Bad request lines and files, and what lint must say about each.

`BAD`: name → (the lines of one file, the set of (line, rule) that lint must find, no more and no less).
"""

from __future__ import annotations

import json
from typing import Any

Lines = list[bytes]

SEED = {
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "What is the relation between the following video and image samples?"},
                {
                    "fileData": {
                        "fileUri": "gs://cloud-samples-data/generative-ai/video/animals.mp4",
                        "mimeType": "video/mp4",
                    }
                },
                {
                    "fileData": {
                        "fileUri": "gs://cloud-samples-data/generative-ai/image/cricket.jpeg",
                        "mimeType": "image/jpeg",
                    }
                },
            ],
        }
    ],
    "generationConfig": {"temperature": 0.9, "topP": 1, "maxOutputTokens": 256},
}
HELLO = [{"role": "user", "parts": [{"text": "Hello"}]}]
MOOD = {"type": "OBJECT", "properties": {"mood": {"type": "STRING"}}, "required": ["mood"]}


def dump(value: Any) -> bytes:
    """Encode compactly, as most writers do, one line with its line end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def line(request: Any = None, key: Any = "row-1", **siblings: Any) -> bytes:
    """Return a request line; `key` None leaves the key out."""
    body = {"contents": HELLO} if request is None else request
    return dump({**({} if key is None else {"key": key}), "request": body, **siblings})


def asks(key: str = "row-1", **members: Any) -> bytes:
    """Return a line whose request has further members."""
    return line({"contents": HELLO, **members}, key)


def says(*parts: Any, key: str = "row-1") -> bytes:
    """Return a line whose one content has these parts."""
    return line({"contents": [{"role": "user", "parts": list(parts)}]}, key)


def content(value: Any, key: str = "row-1") -> bytes:
    """Return a line with one content."""
    return line({"contents": [value]}, key)


def config(key: str = "row-1", **members: Any) -> bytes:
    """Return a line with a generationConfig."""
    return asks(key, generationConfig=members)


def schema(value: Any, key: str = "row-1") -> bytes:
    """Return a line with a response schema."""
    return config(key, responseMimeType="application/json", responseSchema=value)


def prop(value: Any, key: str = "row-1") -> bytes:
    """Return a line whose response schema has one property."""
    return schema({"type": "OBJECT", "properties": {"a": value}}, key)


def tool(*tools: Any, key: str = "row-1") -> bytes:
    """Return a line with tools."""
    return asks(key, tools=list(tools))


def calls(args: Any, key: str = "row-1") -> bytes:
    """Return a line whose history holds a function call: the place for free-form members."""
    return line(
        {"contents": [*HELLO, {"role": "model", "parts": [{"functionCall": {"name": "f", "args": args}}]}]}, key
    )


def deep(levels: int) -> Any:
    """Return objects nested that deep, with one text at the bottom."""
    return {"a": deep(levels - 1)} if levels > 1 else {"a": "x"}


def raw(text: str) -> bytes:
    """Return a line as it is written."""
    return text.encode() + b"\n"


def one(rule: str, *lines: bytes) -> tuple[Lines, set[tuple[int, str]]]:
    """Expect one finding, on the last of the lines."""
    return list(lines), {(len(lines), rule)}


def at(lines: Lines, *expected: tuple[int, str]) -> tuple[Lines, set[tuple[int, str]]]:
    """Expect these findings."""
    return lines, set(expected)


GOOD_LINE = line()
OTHER = line(key="row-2")

_BYTES = {
    "bom": one("bom", b"\xef\xbb\xbf" + GOOD_LINE),
    "bom before a later line, as in joined files": one("bom", GOOD_LINE, b"\xef\xbb\xbf" + OTHER),
    "cr lf": one("crlf", GOOD_LINE.replace(b"\n", b"\r\n")),
    "cr lf is said once": at([GOOD_LINE.replace(b"\n", b"\r\n"), OTHER.replace(b"\n", b"\r\n")], (1, "crlf")),
    "cr at the end of the file": one("crlf", GOOD_LINE.rstrip(b"\n") + b"\r"),
    "empty line between": at([GOOD_LINE, b"\n", OTHER], (2, "blank-line")),
    "empty line at the end": one("blank-line", GOOD_LINE, b"\n"),
    "line of blanks": one("blank-line", GOOD_LINE, b" \t \n"),
    "nul byte": one("nul", GOOD_LINE[:20] + b"\0" + GOOD_LINE[20:]),
    "nul byte after the object": one("nul", GOOD_LINE.rstrip(b"\n") + b"\0\n"),
    "escaped nul in a text": one("nul", raw(r'{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"a\u0000b"}]}]}}')),
    "escaped nul in a key": one("nul", raw(r'{"key":"row\u0000","request":{"contents":[{"role":"user","parts":[{"text":"a"}]}]}}')),
    "latin-1": one("not-utf8", line().replace(b"Hello", "Grüße".encode("latin-1"))),
    "latin-1 in a name": one("not-utf8", line(größe=1).decode().encode("latin-1")),
    "surrogates encoded as utf-8": one("not-utf8", line().replace(b"Hello", b"\xed\xa0\xbd\xed\xb8\x80")),
    "utf-8 cut in the middle": one("not-utf8", line().replace(b"Hello", b"\xe2\x82")),
    "utf-16": one("not-utf8", GOOD_LINE.decode().encode("utf-16")),
    "gzip": one("not-utf8", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\n"),
    "high surrogate alone": one("lone-surrogate", raw(r'{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"\ud83d"}]}]}}')),
    "low surrogate alone": one("lone-surrogate", raw(r'{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"a \ude00 b"}]}]}}')),
    "surrogates in the wrong order": one("lone-surrogate", raw(r'{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"\ude00\ud83d"}]}]}}')),
    "surrogate in a key": one("lone-surrogate", raw(r'{"key":"row\ud800","request":{"contents":[{"role":"user","parts":[{"text":"a"}]}]}}')),
    "line break inside the line": one("not-json", GOOD_LINE.replace(b',"request"', b',\n"request"')),
}  # fmt: skip

_JSON = {
    "plain text": one("not-json", b"hello\n"),
    "python's repr": one("not-json", b"{'key': 'row-1', 'request': {}}\n"),
    "comma before the brace": one("not-json", GOOD_LINE.replace(b"}]}]}}", b"}]}],}}")),
    "comma missing": one("not-json", GOOD_LINE.replace(b',"request"', b' "request"')),
    "nan": one("not-json", config(temperature=float("nan"))),
    "infinity": one("not-json", config(topK=float("inf"))),
    "tab inside a text": one("not-json", GOOD_LINE.replace(b"Hello", b"Hel\tlo")),
    "unknown escape": one("not-json", GOOD_LINE.replace(b"Hello", rb"Hel\lo")),
    "leading zero": one("not-json", config(seed=7).replace(b":7", b":07")),
    "comment": one("not-json", b"// requests\n"),
    "csv": one("not-json", b"key,prompt\n"),
    "two objects on a line": one("trailing-garbage", GOOD_LINE.rstrip(b"\n") + OTHER),
    "comma after the object": one("trailing-garbage", GOOD_LINE.rstrip(b"\n") + b",\n"),
    "brace too many": one("trailing-garbage", GOOD_LINE.rstrip(b"\n") + b"}\n"),
    "last line cut inside a text": one("truncated-line", GOOD_LINE, OTHER[:60]),
    "last line cut between members": one("truncated-line", GOOD_LINE, OTHER[:15]),
    "last line without its last brace": one("truncated-line", GOOD_LINE, OTHER[:-2]),
    "last line cut inside a word": one("truncated-line", b'{"key":nul'),
    "pretty-printed": at([b"{\n", b'  "key": "row-1"\n', b"}\n"], (1, "truncated-line"), (2, "not-json"), (3, "not-json")),
    "list of requests": one("not-object", b"[" + GOOD_LINE.rstrip(b"\n") + b"]\n"),
    "text": one("not-object", b'"row-1"\n'),
    "number": one("not-object", b"42\n"),
    "null": one("not-object", b"null\n"),
    "empty object": one("empty-object", b"{}\n"),
    "number without end": one("number-range", raw('{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"a"}]}]},"n":1e999}')),
    "integer of 5000 digits": one("number-range", raw('{"key":"row-1","n":' + "1" * 5000 + ',"request":{"contents":[{"role":"user","parts":[{"text":"a"}]}]}}')),
    "integer of 65 bits": one("number-range", line(n=2**64)),
    "nested beyond any decoder": one("too-deep", b"[" * 200_000 + b"]" * 200_000 + b"\n"),
    "key twice": one("duplicate-member", raw('{"key":"row-1","key":"row-2","request":{"contents":[{"role":"user","parts":[{"text":"a"}]}]}}')),
    "request twice": one("duplicate-member", GOOD_LINE.replace(b"}\n", b',"request":{"contents":[{"role":"user","parts":[{"text":"b"}]}]}}\n')),
    "text twice in a part": one("duplicate-member", raw('{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"a","text":"b"}]}]}}')),
    "twice and escaped quotes to hide it": one("duplicate-member", raw(r'{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"1","text":"\u0022\u0022\u0022\u0022"}]}]}}')),
    "name twice, once escaped": one("duplicate-member", raw(r'{"key":"row-1","k\u0065y":"row-2","request":{"contents":[{"role":"user","parts":[{"text":"a"}]}]}}')),
    "temperature twice": one("duplicate-member", raw('{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"a"}]}],"generationConfig":{"temperature":1,"temperature":0}}}')),
}  # fmt: skip

_LINE = {
    "no request": one("no-request", dump({"key": "row-1"})),
    "bare request": one("no-request", dump({"key": "row-1", "contents": HELLO})),
    "request misspelled": one("no-request", dump({"key": "row-1", "Request": {"contents": HELLO}})),
    "openai's shape": at(
        [dump({"custom_id": "a", "method": "POST", "url": "/v1/chat", "body": {"messages": HELLO}})],
        (1, "no-request"), (1, "key-missing"),
    ),
    "anthropic's shape": at([dump({"custom_id": "a", "params": {"messages": HELLO}})], (1, "no-request"), (1, "key-missing")),
    "request as a text": one("request-not-object", line(json.dumps({"contents": HELLO}))),
    "request as a list": one("request-not-object", line([{"contents": HELLO}])),
    "request null": one("request-not-object", dump({"key": "row-1", "request": None})),
    "request empty": one("empty-object", line({})),
    "sdk's config beside the contents": at([dump({"key": "row-1", "contents": HELLO, "config": {"temperature": 1}})], (1, "no-request"), (1, "sdk-config")),
    "sdk's config beside the request": one("sdk-config", line(config={"temperature": 1})),
    "sdk's config in the request": one("sdk-config", asks(config={"temperature": 1})),
    "generationConfig beside the request": one("misplaced-member", line(generationConfig={"temperature": 1})),
    "tools beside the request": one("misplaced-member", line(tools=[{"functionDeclarations": [{"name": "f"}]}])),
    "sibling status": one("sibling-reserved", line(status="new")),
    "sibling response": one("sibling-reserved", line(response="x")),
    "sibling processed_time": one("sibling-reserved", line(processed_time="x")),
    "sibling list": one("sibling-nested", line(tags=["a", "b"])),
    "sibling object": one("sibling-nested", line(meta={"a": 1})),
    "sibling empty object": at([line(meta={})], (1, "sibling-nested"), (1, "empty-object")),
    "sibling numeric text": one("sibling-retyped", line(zip="01234")),
    "sibling date": one("sibling-retyped", line(day="2026-11-23")),
    "sibling with a hyphen in its name": one("field-name", line(**{"row-id": 7})),
    "sibling with a blank in its name": one("field-name", line(**{"row id": 7})),
    "sibling that begins with a digit": one("field-name", line(**{"1st": 7})),
    "sibling with an umlaut": one("field-name", line(größe=7)),
    "sibling without a name": one("field-name", line(**{"": 7})),
    "sibling with a dot": one("field-name", line(**{"a.b": 7})),
    "sibling with 301 characters": one("field-name", line(**{"a" * 301: 7})),
    "sibling _PARTITIONTIME": one("field-name", line(_PARTITIONTIME="x")),
    "sibling _table_suffix": one("field-name", line(_table_suffix="x")),
    "sibling _File_name": one("field-name", line(_File_name="x")),
    "siblings that differ in case": one("field-name-case", line(id=1, ID=2)),
    "sibling Key beside key": one("field-name-case", line(Key="x")),
    "sibling that changes its type": at([line(n=1), line(key="row-2", n="one")], (1, "mixed-types"), (2, "mixed-types")),
}  # fmt: skip

_KEYS = {
    "key missing": one("key-missing", line(key=None)),
    "key null": one("key-missing", dump({"key": None, "request": {"contents": HELLO}})),
    "key empty": one("key-missing", line(key="")),
    "key blank": one("key-missing", line(key="  ")),
    "key missing is said once": at([line(key=None), line(key=None)], (1, "key-missing")),
    "key a number": one("key-not-string", line(key=7)),
    "key true": one("key-not-string", line(key=True)),
    "key a list": one("key-not-string", line(key=["a"])),
    "key an object": one("key-not-string", line(key={"a": 1})),
    "key 000123": one("key-retyped", line(key="000123")),
    "key 42": one("key-retyped", line(key="42")),
    "key -1": one("key-retyped", line(key="-1")),
    "key 1.50": one("key-retyped", line(key="1.50")),
    "key 1e5": one("key-retyped", line(key="1e5")),
    "key .5": one("key-retyped", line(key=".5")),
    "key with blanks around a number": one("key-retyped", line(key=" 7 ")),
    "key true as text": one("key-retyped", line(key="true")),
    "key False": one("key-retyped", line(key="False")),
    "key null as text": one("key-retyped", line(key="null")),
    "key NaN": one("key-retyped", line(key="NaN")),
    "key -Infinity": one("key-retyped", line(key="-Infinity")),
    "key a date": one("key-retyped", line(key="2024-01-01")),
    "key a timestamp": one("key-retyped", line(key="2024-01-01T10:00:00Z")),
    "key a time": one("key-retyped", line(key="10:30")),
    "key 7a": one("key-first-letter", line(key="7a")),
    "key with an underscore first": one("key-first-letter", line(key="_a")),
    "key of hexadecimal digits": one("key-first-letter", line(key="0f3a")),
    "key twice": one("key-duplicate", line(), line()),
    "key twice, far apart": at([line(), line(key="b"), line(key="c"), line()], (4, "key-duplicate")),
    "key three times": at([line(), line(), line()], (2, "key-duplicate"), (3, "key-duplicate")),
}

_IMPORTER = {
    "googleSearch {}": one("empty-object", tool({"googleSearch": {}})),
    "google_search {}": one("empty-object", tool({"google_search": {}})),
    "urlContext {}": one("empty-object", tool({"urlContext": {}})),
    "codeExecution {}": one("empty-object", tool({"codeExecution": {}})),
    "generationConfig {}": one("empty-object", asks(generationConfig={})),
    "labels {}": one("empty-object", asks(labels={})),
    "part {}": one("empty-object", says({"text": "a"}, {})),
    "content {}": one("empty-object", content({})),
    "args {}": one("empty-object", calls({})),
    "args with an empty object": one("empty-object", calls({"a": {}})),
    "properties {}": one("empty-object", tool({"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {}}}]})),
    "empty object in a list of args": one("empty-object", calls({"a": [{"b": 1}, {}]})),
    "empty object on the second line only": one("empty-object", line(), tool({"googleSearch": {}}, key="row-2")),
    "text here, list there": at([calls({"a": "x"}), calls({"a": ["x"]}, "row-2")], (1, "mixed-types"), (2, "mixed-types")),
    "list here, text there": at([calls({"a": ["x"]}), calls({"a": "x"}, "row-2")], (1, "mixed-types"), (2, "mixed-types")),
    "object here, text there": at([calls({"a": {"b": 1}}), calls({"a": "x"}, "row-2")], (1, "mixed-types"), (2, "mixed-types")),
    "number here, text there": at([calls({"a": 1}), calls({"a": "1"}, "row-2")], (1, "mixed-types"), (2, "mixed-types")),
    "true here, number there": at([calls({"a": True}), calls({"a": 1}, "row-2")], (1, "mixed-types"), (2, "mixed-types")),
    "types mixed within a list": one("mixed-types", calls({"a": ["x", 1]})),
    "types mixed between elements": one("mixed-types", calls({"a": [{"b": 1}, {"b": "x"}]})),
    "every later line that disagrees": at(
        [calls({"a": 1}), calls({"a": "x"}, "row-2"), calls({"a": 2}, "row-3"), calls({"a": "y"}, "row-4")],
        (1, "mixed-types"), (2, "mixed-types"), (4, "mixed-types"),
    ),
    "parts a list here, an object there": at(
        [line(), content({"role": "user", "parts": {"text": "a"}}, "row-2")], (1, "mixed-types"), (2, "mixed-types")
    ),
    "enum values of two types": at([prop({"type": "STRING", "enum": ["a", 1]})], (1, "wrong-type")),
    "maxItems as number and as text": at(
        [prop({"type": "ARRAY", "items": {"type": "STRING"}, "maxItems": 3}), prop({"type": "ARRAY", "items": {"type": "STRING"}, "maxItems": "3"}, "row-2")],
        (1, "mixed-types"), (2, "mixed-types"), (2, "many-schemas"),
    ),
    "additionalProperties false here, a schema there": at(
        [schema({**MOOD, "additionalProperties": False}), schema({**MOOD, "additionalProperties": {"type": "STRING"}}, "row-2")],
        (1, "schema-additional"), (1, "mixed-types"), (2, "mixed-types"), (2, "many-schemas"),
    ),
    "null among elements": one("null-in-list", calls({"a": ["x", None]})),
    "null where a list was": one("null-in-list", calls({"a": ["x"]}), calls({"a": None}, "row-2")),
    "null before the list": at([calls({"a": None}), calls({"a": ["x"]}, "row-2")], (1, "null-in-list"), (2, "null-in-list")),
    "null before the list, again after it": at(
        [calls({"a": None}), calls({"a": ["x"]}, "row-2"), calls({"a": None}, "row-3")],
        (1, "null-in-list"), (2, "null-in-list"), (3, "null-in-list"),
    ),
    "null and list in one line": one("null-in-list", calls({"a": [{"b": None}, {"b": [1]}]})),
    "stopSequences null": one("null-in-list", config(stopSequences=None)),
    "tools null": one("null-in-list", asks(tools=None)),
    "enum null": one("null-in-list", prop({"type": "STRING", "enum": None})),
    "enum with null": one("null-in-list", prop({"type": "STRING", "enum": ["a", None]})),
    "list of lists": one("nested-list", calls({"a": [[1, 2], [3]]})),
    "16 levels": one("too-deep", calls(deep(11))),
    "30 levels": one("too-deep", calls(deep(25))),
    "16 levels beside the request": at([line(a=deep(15))], (1, "sibling-nested"), (1, "too-deep")),
    "16 levels of schema": one("too-deep", prop({"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "ARRAY", "items": {"type": "STRING"}}}}}}}}}}})),
    "a name with $ in args": one("field-name", calls({"$a": 1})),
    "a name with a blank in args": one("field-name", calls({"a b": 1})),
    "a property named freely": one("field-name", schema({"type": "OBJECT", "properties": {"full name": {"type": "STRING"}}})),
    "a property named in Greek": one("field-name", schema({"type": "OBJECT", "properties": {"όνομα": {"type": "STRING"}}})),
    "properties that differ in case": one("field-name-case", schema({"type": "OBJECT", "properties": {"a": {"type": "STRING"}, "A": {"type": "STRING"}}})),
    "a label that is no column": one("field-name", asks(labels={"my-team": "x"})),
    "reserved prefix in args": one("field-name", calls({"_TABLE_x": 1})),
}  # fmt: skip

_API = {
    "temperature in the request": one("misplaced-member", asks(temperature=0.5)),
    "responseSchema in the request": one("misplaced-member", asks(responseSchema=MOOD)),
    "safetySettings in generationConfig": one("misplaced-member", config(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}])),
    "thinkingBudget in generationConfig": one("misplaced-member", config(thinkingBudget=0)),
    "thinking_config in the request": one("misplaced-member", asks(thinking_config={"thinkingBudget": 0})),
    "fileUri in a part": one("misplaced-member", says({"fileUri": "gs://b/o.png"})),
    "mimeType in a part": one("misplaced-member", says({"text": "a", "mimeType": "text/plain"})),
    "parts in the request": one("misplaced-member", asks(parts=[{"text": "a"}])),
    "functionDeclarations in the request": one("misplaced-member", asks(functionDeclarations=[{"name": "f"}])),
    "googleSearch in the request": one("misplaced-member", asks(googleSearch={"excludeDomains": ["a.example"]})),
    "content for contents": at([line({"content": HELLO})], (1, "unknown-member"), (1, "no-contents")),
    "generationConfigs": one("unknown-member", asks(generationConfigs={"temperature": 1})),
    "max_tokens": one("unknown-member", config(max_tokens=5)),
    "model in the request": one("unknown-member", asks(model="gemini-2.5-flash")),
    "messages": at([line({"messages": HELLO})], (1, "unknown-member"), (1, "no-contents")),
    "name of a content": one("unknown-member", content({"role": "user", "parts": [{"text": "a"}], "author": "x"})),
    "type of a part": one("unknown-member", says({"kind": "text", "text": "a"})),
    "uri in fileData": at([says({"fileData": {"uri": "gs://b/o.png", "mimeType": "image/png"}})], (1, "unknown-member"), (1, "no-file-uri")),
    "unknown with a blank": at([asks(**{"my note": "x"})], (1, "unknown-member"), (1, "field-name")),
    "unknown in safetySettings": one("unknown-member", asks(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF", "level": 1}])),
    "fileData and file_data": one("both-spellings", says({"fileData": {"fileUri": "gs://b/o.png", "mimeType": "image/png"}, "file_data": None})),
    "topP and top_p": one("both-spellings", config(topP=1, top_p=1)),
    "systemInstruction a text": one("wrong-type", asks(systemInstruction="Be brief")),
    "contents a text": one("wrong-type", line({"contents": "Hello"})),
    "contents a list of texts": one("wrong-type", line({"contents": ["Hello"]})),
    "parts a text": one("wrong-type", content({"role": "user", "parts": "Hello"})),
    "parts a list of texts": one("wrong-type", says("Hello")),
    "text a list": one("wrong-type", says({"text": ["Hello"]})),
    "text a number": one("wrong-type", says({"text": 5})),
    "role a list": one("wrong-type", content({"role": ["user"], "parts": [{"text": "a"}]})),
    "temperature a word": one("wrong-type", config(temperature="high")),
    "temperature true": one("wrong-type", config(temperature=True)),
    "maxOutputTokens 1.5": one("wrong-type", config(maxOutputTokens=1.5)),
    "seed of 40 bits": one("wrong-type", config(seed=2**40)),
    "stopSequences a text": one("wrong-type", config(stopSequences="END")),
    "stopSequences a text, then a list": at([config(stopSequences="END"), config("row-2", stopSequences=["END"])], (1, "wrong-type"), (2, "mixed-types")),
    "generationConfig a list": one("wrong-type", asks(generationConfig=[{"temperature": 1}])),
    "audioTimestamp a text": one("wrong-type", config(audioTimestamp="yes")),
    "properties a list": one("wrong-type", schema({"type": "OBJECT", "properties": ["a"]})),
    "unknown category": one("unknown-value", asks(safetySettings=[{"category": "HARM_CATEGORY_RUDE", "threshold": "OFF"}])),
    "unknown threshold": one("unknown-value", asks(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_SOME"}])),
    "unknown mediaResolution": one("unknown-value", config(mediaResolution="HIGHEST")),
    "unknown modality": one("unknown-value", config(responseModalities=["SMELL"])),
    "unknown thinkingLevel": one("unknown-value", config(thinkingConfig={"thinkingLevel": "EXTREME"})),
    "unknown mode of functions": one("unknown-value", asks(toolConfig={"functionCallingConfig": {"mode": "REQUIRED"}})),
    "temperature -1": one("out-of-range", config(temperature=-1)),
    "temperature 2.5": one("out-of-range", config(temperature=2.5)),
    "topP 1.2": one("out-of-range", config(topP=1.2)),
    "top_p -0.1": one("out-of-range", config(top_p=-0.1)),
    "topK 0": one("out-of-range", config(topK=0)),
    "candidateCount 0": one("out-of-range", config(candidateCount=0)),
    "maxOutputTokens 0": one("out-of-range", config(maxOutputTokens=0)),
    "presencePenalty 3": one("out-of-range", config(presencePenalty=3)),
    "thinkingBudget -2": one("out-of-range", config(thinkingConfig={"thinkingBudget": -2})),
    "candidateCount 9": one("out-of-range", config(candidateCount=9)),
    "maxOutputTokens 65537": one("out-of-range", config(maxOutputTokens=65_537)),
    "logprobs 21": one("out-of-range", config(logprobs=21)),
    "frequencyPenalty -2.1": one("out-of-range", config(frequencyPenalty=-2.1)),
    "fps 0": one("out-of-range", says({"fileData": {"fileUri": "gs://b/o.mp4", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 0}})),
    "fps 25": one("out-of-range", says({"fileData": {"fileUri": "gs://b/o.mp4", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 25}})),
    "temperature 3 as text": at([config(temperature="3")], (1, "number-as-text"), (1, "out-of-range")),
    "temperature NaN as text": at([config(temperature="NaN")], (1, "number-as-text"), (1, "out-of-range")),
    "candidateCount 1.5 as text": at([config(candidateCount="1.5")], (1, "number-as-text"), (1, "wrong-type")),
    "six stop sequences": one("list-length", config(stopSequences=list("abcdef"))),
    "513 functions": one("list-length", tool({"functionDeclarations": [{"name": f"f{i}"} for i in range(513)]})),
    "one speaker of two": one("list-length", config(speechConfig={"multiSpeakerVoiceConfig": {"speakerVoiceConfigs": [{"speaker": "a", "voiceConfig": {"voice": "x"}}]}})),
    "temperature as text": one("number-as-text", config(temperature="0.5")),
    "temperature as text, then as number": at([config(temperature="0.5"), config("row-2", temperature=0.5)], (1, "number-as-text"), (1, "mixed-types"), (2, "mixed-types")),
    "no contents": one("no-contents", line({"generationConfig": {"temperature": 1}})),
    "contents []": one("no-contents", line({"contents": []})),
    "contents null": at([line({"contents": None})], (1, "no-contents"), (1, "null-in-list")),
    "contents an object": one("object-for-list", line({"contents": HELLO[0]})),
    "tools an object": one("object-for-list", asks(tools={"functionDeclarations": [{"name": "f"}]})),
    "role system": one("role", content({"role": "system", "parts": [{"text": "a"}]})),
    "role assistant": one("role", content({"role": "assistant", "parts": [{"text": "a"}]})),
    "role tester, as on the service's page": one("role", content({"role": "tester", "parts": [{"text": "a"}]})),
    "role User": one("role", content({"role": "User", "parts": [{"text": "a"}]})),
    "role empty": one("role", content({"role": "", "parts": [{"text": "a"}]})),
    "role function": one("role", content({"role": "function", "parts": [{"functionResponse": {"name": "f", "response": {"a": 1}}}]})),
    "role missing": one("role-missing", content({"parts": [{"text": "a"}]})),
    "no parts": one("no-parts", content({"role": "user"})),
    "parts []": one("no-parts", content({"role": "user", "parts": []})),
    "system instruction without parts": one("no-parts", asks(systemInstruction={"role": "system"})),
    "text empty": one("empty-part", says({"text": ""})),
    "text null": one("empty-part", says({"text": None})),
    "only a thought": one("empty-part", says({"thought": True})),
    "text and file in one part": one("part-union", says({"text": "a", "fileData": {"fileUri": "gs://b/o.png", "mimeType": "image/png"}})),
    "no fileUri": one("no-file-uri", says({"fileData": {"mimeType": "image/png"}})),
    "fileUri empty": at([says({"fileData": {"fileUri": "", "mimeType": "image/png"}})], (1, "no-file-uri"), (1, "file-uri")),
    "no mimeType": one("no-mime-type", says({"fileData": {"fileUri": "gs://b/o.png"}})),
    "no mime_type in file_data": one("no-mime-type", says({"file_data": {"file_uri": "gs://b/o.png"}})),
    "mimeType png": one("mime-type", says({"fileData": {"fileUri": "gs://b/o.png", "mimeType": "png"}})),
    "fileUri a path": one("file-uri", says({"fileData": {"fileUri": "/tmp/o.png", "mimeType": "image/png"}})),
    "fileUri s3": one("file-uri", says({"fileData": {"fileUri": "s3://b/o.png", "mimeType": "image/png"}})),
    "fileUri file": one("file-uri", says({"fileData": {"fileUri": "file:///o.png", "mimeType": "image/png"}})),
    "fileUri a bucket": one("file-uri", says({"fileData": {"fileUri": "gs://bucket", "mimeType": "image/png"}})),
    "fileUri without a bucket": one("file-uri", says({"fileData": {"fileUri": "gs:///o.png", "mimeType": "image/png"}})),
    "fileUri of the Files API": one("file-uri", says({"fileData": {"fileUri": "files/abc", "mimeType": "image/png"}})),
    "fileUri http": one("file-uri", says({"fileData": {"fileUri": "http://a.example/o.png", "mimeType": "image/png"}})),
    "fileUri https": one("file-uri-https", says({"fileData": {"fileUri": "https://a.example/o.png", "mimeType": "image/png"}})),
    "inlineData without mimeType": one("no-mime-type", says({"inlineData": {"data": "aGk="}})),
    "inlineData without data": one("no-data", says({"inlineData": {"mimeType": "image/png"}})),
    "data not base64": one("base64", says({"inlineData": {"mimeType": "image/png", "data": "not base64!"}})),
    "data a data: URL": one("base64", says({"inlineData": {"mimeType": "image/png", "data": "data:image/png;base64,aGk="}})),
    "data with line breaks": one("base64", says({"inlineData": {"mimeType": "image/png", "data": "aGk=\naGk="}})),
    "function without a name": one("function-name", tool({"functionDeclarations": [{"description": "x"}]})),
    "function with a blank in its name": one("function-name", tool({"functionDeclarations": [{"name": "get weather"}]})),
    "function with a digit first": one("function-name", tool({"functionDeclarations": [{"name": "1st"}]})),
    "function of 129 characters": one("function-name", tool({"functionDeclarations": [{"name": "f" * 129}]})),
    "call without a name": one("function-name", says({"functionCall": {"args": {"a": 1}}})),
    "label in capitals": one("label", asks(labels={"Team": "x"})),
    "label value in capitals": one("label", asks(labels={"team": "Red"})),
    "label value with a blank": one("label", asks(labels={"team": "red ones"})),
    "label value of 64": one("label", asks(labels={"team": "x" * 64})),
    "label key of 64": one("label", asks(labels={"x" * 64: "a"})),
    "label key with a digit first": at([asks(labels={"1team": "x"})], (1, "label"), (1, "field-name")),
    "label key with an underscore first": one("label", asks(labels={"_team": "x"})),
    "label value a number": one("wrong-type", asks(labels={"team": 7})),
    "65 labels": one("label", asks(labels={f"l{i}": "x" for i in range(65)})),
    "cachedContent": one("cached-content", asks(cachedContent="projects/p/locations/l/cachedContents/1")),
    "cached_content": one("cached-content", asks(cached_content="projects/p/locations/l/cachedContents/1")),
    "rag store": one("rag-tool", tool({"retrieval": {"vertexRagStore": {"similarityTopK": 3}}})),
}  # fmt: skip

_SCHEMAS = {
    "$ref": one("schema-ref", prop({"$ref": "#/$defs/Mood"})),
    "$defs": one("schema-ref", schema({**MOOD, "$defs": {"Mood": {"type": "STRING"}}})),
    "definitions": one("schema-ref", schema({**MOOD, "definitions": {"Mood": {"type": "STRING"}}})),
    "$schema": one("schema-dollar", schema({**MOOD, "$schema": "https://json-schema.org/draft/2020-12/schema"})),
    "$id": one("schema-dollar", schema({**MOOD, "$id": "mood"})),
    "$ref in function parameters": one("schema-ref", tool({"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJECT", "properties": {"a": {"$ref": "#/$defs/A"}}}}]})),
    "type_": at([prop({"type_": "STRING"})], (1, "schema-python-name"), (1, "schema-no-type")),
    "any_of_": at([prop({"type": "STRING", "format_": "date"})], (1, "schema-python-name")),
    "oneOf": one("schema-keyword", prop({"type": "STRING", "oneOf": [{"type": "STRING"}]})),
    "allOf": one("schema-keyword", prop({"type": "STRING", "allOf": [{"type": "STRING"}]})),
    "const": one("schema-keyword", prop({"type": "STRING", "const": "a"})),
    "exclusiveMinimum": one("schema-keyword", prop({"type": "NUMBER", "exclusiveMinimum": 0})),
    "patternProperties": one("schema-keyword", schema({**MOOD, "patternProperties": {"a": {"type": "STRING"}}})),
    "uniqueItems": one("schema-keyword", prop({"type": "ARRAY", "items": {"type": "STRING"}, "uniqueItems": True})),
    "descripton": one("unknown-member", prop({"type": "STRING", "descripton": "x"})),
    "type list": at([prop({"type": ["STRING", "NULL"]})], (1, "schema-type-list")),
    "type list here, word there": at(
        [prop({"type": "STRING"}), prop({"type": ["STRING", "NULL"]}, "row-2")], (2, "schema-type-list"), (2, "many-schemas")
    ),
    "unknown type": one("unknown-value", prop({"type": "str"})),
    "no type": one("schema-no-type", prop({"description": "anything"})),
    "required names nothing": one("schema-required", schema({**MOOD, "required": ["mood", "tone"]})),
    "array without items": one("schema-items", prop({"type": "ARRAY"})),
    "schema without MIME type": one("schema-mime-type", config(responseSchema=MOOD)),
    "schema with text/plain": one("schema-mime-type", config(responseSchema=MOOD, responseMimeType="text/plain")),
    "response_schema without MIME type": one("schema-mime-type", config(response_schema=MOOD)),
    "both schemas": at(
        [config(responseSchema=MOOD, responseJsonSchema={"type": "object"}, responseMimeType="application/json")],
        (1, "two-schemas"), (1, "json-schema"),
    ),
    "responseJsonSchema": one("json-schema", config(responseJsonSchema={"type": "object"}, responseMimeType="application/json")),
    "responseJsonSchema with $defs": at(
        [config(responseJsonSchema={"type": "object", "$defs": {"a": {"type": "string"}}}, responseMimeType="application/json")],
        (1, "json-schema"), (1, "schema-ref"),
    ),
    "responseJsonSchema with types of two kinds": at(
        [config(responseJsonSchema={"type": "object", "properties": {"a": {"enum": ["x", 1]}}}, responseMimeType="application/json")],
        (1, "json-schema"), (1, "mixed-types"),
    ),
    "additionalProperties": one("schema-additional", schema({**MOOD, "additionalProperties": False})),
    "two schemas in one job": one("many-schemas", schema(MOOD), schema({"type": "OBJECT", "properties": {"tone": {"type": "STRING"}}}, "row-2")),
    "schema a text": one("wrong-type", schema(json.dumps(MOOD))),
    "nested default of two types": at(
        [prop({"type": "STRING", "default": "x"}), prop({"type": "STRING", "default": 1}, "row-2")],
        (1, "mixed-types"), (2, "mixed-types"), (2, "many-schemas"),
    ),
}  # fmt: skip

_FILES = {
    "empty file": ([], {(1, "no-requests")}),
    "file of blank lines": ([b"\n", b"\n"], {(1, "blank-line"), (2, "blank-line"), (1, "no-requests")}),
    "one bad line among many": at([line(key=f"r{i}") for i in range(50)] + [b"{\n"] + [line(key=f"s{i}") for i in range(50)], (51, "truncated-line")),
    "several faults on one line": at(
        [line({"contents": [{"role": "bot", "parts": []}], "generationConfig": {"topP": 9}}, key="7")],
        (1, "key-retyped"), (1, "role"), (1, "no-parts"), (1, "out-of-range"),
    ),
}  # fmt: skip

BAD: dict[str, tuple[Lines, set[tuple[int, str]]]] = {
    f"{group}: {name}": case
    for group, cases in (
        ("bytes", _BYTES), ("json", _JSON), ("line", _LINE), ("key", _KEYS), ("importer", _IMPORTER), ("api", _API),
        ("schema", _SCHEMAS), ("file", _FILES),
    )
    for name, case in cases.items()
}  # fmt: skip
