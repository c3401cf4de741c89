# ruff: noqa: E501 - a case is a line
"""Good request lines and files, and those that break a limit or deserve a word.

`GOOD`: name → lines without any finding. `LIMITED`: files over a limit. `WARNED`: legal lines with a warning at most.
"""

from __future__ import annotations

import json

from .lint_corpus_lines import (
    GOOD_LINE,
    HELLO,
    MOOD,
    OTHER,
    SEED,
    Lines,
    asks,
    calls,
    config,
    content,
    deep,
    dump,
    line,
    prop,
    raw,
    says,
    schema,
    tool,
)  # fmt: skip

FUNCTION = {
    "name": "get_weather",
    "description": "x",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

GOOD: dict[str, Lines] = {
    "any video of YouTube": [says({"fileData": {"fileUri": "https://youtu.be/abc", "mimeType": "video/*"}}, {"text": "x"})],
    "the seed page's request": [line(SEED)],
    "the seed page's request, written with blanks": [json.dumps({"key": "row-1", "request": SEED}).encode() + b"\n"],
    "no line end after the last line": [GOOD_LINE, OTHER.rstrip(b"\n")],
    "key last": [dump({"request": {"contents": HELLO}, "key": "row-1"})],
    "snake case": [says({"file_data": {"file_uri": "gs://bucket/o.png", "mime_type": "image/png"}})],
    "snake case config": [line({"contents": HELLO, "generation_config": {"max_output_tokens": 5}, "system_instruction": {"parts": [{"text": "a"}]}})],
    "parts as an object": [content({"role": "user", "parts": {"text": "a"}}), content({"role": "user", "parts": {"text": "b"}}, "row-2")],
    "several turns": [line({"contents": [*HELLO, {"role": "model", "parts": [{"text": "Hi"}]}, *HELLO]})],
    "the service's echo, padded with nulls": [says({"fileData": None, "text": "a"}, {"fileData": {"fileUri": "gs://bucket/o.png", "mimeType": "image/png"}, "text": None})],
    "types by their numbers": [schema({"type": 5, "items": {"type": 6, "properties": {"a": {"type": 1}}}})],
    "a word that only a newer client has": [config(thinkingConfig={"thinkingLevel": "XHIGH"})],
    "whole and broken numbers": [config(temperature=1), config("row-2", temperature=0.5)],
    "a null here, a text there": [calls({"a": None}), calls({"a": "x"}, "row-2")],
    "a text here, a null there": [calls({"a": "x"}), calls({"a": None}, "row-2")],
    "an object here, a null there": [content({"role": "user", "parts": {"functionResponse": {"name": "f", "response": {"a": 1}}}}), content({"role": "user", "parts": {"text": "a", "functionResponse": None}}, "row-2")],
    "empty lists": [calls({"a": []}), calls({"a": ["x"]}, "row-2")],
    "15 levels": [calls(deep(10))],
    "scripts and emoji": [says({"text": "Grüße, 你好, שלום, 😀"}), says({"text": "ß"}, key="größe")],
    "escaped emoji": [json.dumps({"key": "row-1", "request": {"contents": [{"role": "user", "parts": [{"text": '😀 " \\ \n'}]}]}}).encode() + b"\n"],
    "a text that holds JSON": [says({"text": '{"key":"x","key":"y","$defs":{}}'})],
    "a text that looks like a number": [says({"text": "42"})],
    "escaped quotes": [raw(r'{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"say \u0022hi\u0022"}]}]}}')],
    "a backslash before \\u0000 as text": [raw(r'{"key":"row-1","request":{"contents":[{"role":"user","parts":[{"text":"\\u0000"}]}]}}')],
    "line separator in a text": [says({"text": "a\u2028b"})],
    "schema, upper case types": [schema(MOOD), schema(MOOD, "row-2")],
    "schema, lower case types": [schema({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "integer"}}}})],
    "schema with everything": [prop({"type": "STRING", "enum": ["a", "b"], "description": "x", "nullable": True, "format": "enum", "title": "A", "maxLength": "9"})],
    "schema, ordered": [schema({**MOOD, "propertyOrdering": ["mood"]}), schema({**MOOD, "propertyOrdering": ["mood"]}, "row-2")],
    "an image of 1K": [config(responseModalities=["TEXT", "IMAGE"], imageConfig={"imageSize": "1K"})],
    "schema, anyOf": [prop({"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}]})],
    "schema, a property named type": [schema({"type": "OBJECT", "properties": {"type": {"type": "STRING"}, "text": {"type": "STRING"}}})],
    "schema for one word": [config(responseMimeType="text/x.enum", responseSchema={"type": "STRING", "enum": ["a", "b"]})],
    "responseFormat": [config(responseFormat=[{"text": {"mimeType": "APPLICATION_JSON", "schema": {"type": "object"}}}])],
    "functions": [tool({"functionDeclarations": [FUNCTION]})],
    "search with a harmless member": [tool({"googleSearch": {"excludeDomains": ["example.invalid"]}})],
    "a call and its answer": [line({"contents": [*HELLO, {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "aGk="}]}, {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": 2}}}]}]})],
    "an empty text with its signature": [line({"contents": [*HELLO, {"role": "model", "parts": [{"text": "", "thoughtSignature": "aGk="}]}, *HELLO]})],
    "inline data": [says({"text": "a"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}})],
    "a clip of a video": [says({"fileData": {"fileUri": "gs://bucket/a b.mp4", "mimeType": "video/mp4"}, "videoMetadata": {"startOffset": "1s", "fps": 0.5}})],
    "YouTube": [says({"fileData": {"fileUri": "https://www.youtube.com/watch?v=x", "mimeType": "video/mp4"}}), says({"fileData": {"fileUri": "https://youtu.be/x", "mimeType": "video/mp4"}}, key="row-2")],
    "labels": [asks(labels={"team": "red_1", "empty": "", "city": "köln-1"})],
    "safety settings": [asks(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}])],
    "thinking": [config(thinkingConfig={"thinkingBudget": -1, "includeThoughts": False})],
    "system instruction with any role": [asks(systemInstruction={"role": "system", "parts": [{"text": "a"}]})],
    "tool config": [asks(toolConfig={"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [FUNCTION["name"]]}}, tools=[{"functionDeclarations": [FUNCTION]}])],
    "every sampling parameter": [config(temperature=0, topP=0.95, topK=40, candidateCount=1, maxOutputTokens=65536, seed=1, presencePenalty=-2, frequencyPenalty=2, stopSequences=["END"], logprobs=5, responseLogprobs=True)],
    "plain siblings": [line(user="Ann", age=7, ok=True, note=None), line(key="row-2", user="Bob", age=7.5, ok=False, note="x")],
    "siblings called like members, as texts": [line(labels="red", tools="none")],
    "keys of many kinds": [line(key=key) for key in ("a", "row-1", "r_1", "éa", "nanny", "trues", "inf1", "f3a9c1", "x" * 300)],
    "names that say nothing": [calls({"text": "", "key": "", "data": "!", "fileUri": "x", "role": "bot", "type": "z"})],
}  # fmt: skip

#: Files that break a limit, with limits small enough to write down: name → (limits, lines, findings).
LIMITED: dict[str, tuple[dict[str, int], Lines, set[tuple[int, str]]]] = {
    "one request too many": ({"requests": 2}, [line(key=f"r{i}") for i in range(3)], {(3, "too-many-requests")}),
    "many requests too many are said once": (
        {"requests": 2}, [line(key=f"r{i}") for i in range(6)], {(3, "too-many-requests")}
    ),
    "blank lines are no requests": (
        {"requests": 1}, [line(), b"\n", line(key="row-2")], {(2, "blank-line"), (3, "too-many-requests")}
    ),
    "one byte too many": (
        {"job_bytes": 3 * len(GOOD_LINE) - 1}, [line(key=f"row-{i}") for i in range(4)], {(3, "too-many-bytes")}
    ),
    "a line longer than a row": ({"line_bytes": 100}, [line(), says({"text": "x" * 100}, key="row-2")], {(2, "line-too-long")}),
    "more columns than a table has": (
        {"columns": 12}, [line(), *(calls({f"a{i}": 1}, key=f"r{i}") for i in range(9))], {(5, "too-many-columns")}
    ),
}  # fmt: skip

#: Legal lines that deserve a word: name → (lines, rules of the warnings).
WARNED: dict[str, tuple[Lines, set[str]]] = {
    "the seed page's line, without a key": ([dump({"request": SEED})], {"key-missing"}),
    "output of an earlier job, answered": (
        [
            dump({"status": "", "processed_time": "2024-11-01T18:13:16.826+00:00", "key": "row-1", "request": {"contents": HELLO}, "response": {"candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "finishReason": "STOP"}], "usageMetadata": {}}}),
            dump({"status": "Bad Request: {}", "processed_time": "2025-07-09T19:57:43.558+00:00", "key": "row-2", "request": {"contents": HELLO}, "response": {}}),
            dump({"status": "", "key": "row-3", "request": {"contents": HELLO, "tools": None}, "response": None}),
        ],
        {"resume-line"},
    ),
}  # fmt: skip
