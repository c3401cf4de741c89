"""Which faults does lint know, how bad is each, and what cures it? One table, `RULES`.

*error*: if it is sent like this, the whole job fails at import, or this request fails. *warning*: it works, with a cost
that the author should know. The facts come from the service's documentation and from published captures of its
importer. The importer loads a request file as BigQuery loads JSON: types are inferred over all files of the job, and
one bad line fails the whole job.

Invariants: names are stable, because people ignore rules by name. No message carries prompt text, only names, places
and keys.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["error", "warning"]


class Rule(msgspec.Struct, frozen=True):
    """One kind of fault.

    :param name: stable kebab-case name.
    :param severity: ``error`` or ``warning``.
    :param what: what is wrong and what the service does about it.
    :param cure: what to do, when the finding itself knows nothing better.
    """

    name: str
    severity: Severity
    what: str
    cure: str


class Finding(msgspec.Struct, frozen=True):
    """One fault at one place.

    :param file: the name the caller gave the file.
    :param line: 1-based.
    :param rule: a name in `RULES`.
    :param path: JSON path of the member, such as ``$.request.contents[0].parts``.
    """

    file: str
    line: int
    rule: str
    severity: Severity
    path: str
    message: str
    cure: str

    def as_dict(self) -> dict[str, str | int]:
        """Return the members for JSON output."""
        return msgspec.structs.asdict(self)

    def __str__(self) -> str:
        """Read as one line of a compiler's output."""
        end = "" if self.cure.endswith("?") else "."
        return (
            f"{self.file}:{self.line}: {self.severity}: {self.message} [{self.rule}] at {self.path}. {self.cure}{end}"
        )


class Limits(msgspec.Struct, frozen=True):
    """What one job may weigh; smaller ones are for tests."""

    #: Requests per job (docs.cloud.google.com, "batch inference", 2026-11-22).
    requests: int = 200_000
    #: Input bytes. The page says "1 GB" and not whether per file or per job: the smaller reading of both, 10^9 per job.
    job_bytes: int = 10**9
    #: Bytes of one line: BigQuery's limit for a JSON row (cloud.google.com/bigquery/quotas, 2026-11-22).
    line_bytes: int = 100_000_000
    #: Levels of member names, the innermost included (captured: "Schema nested too deeply, at least 16"; that BigQuery
    #: counts the innermost: github.com/bxparks/bigquery-schema-generator/issues/51, 2026-11-24).
    depth: int = 15
    #: Distinct key paths, each a column (cloud.google.com/bigquery/quotas, 2026-11-22). Also bounds lint's own memory.
    columns: int = 10_000


LIMITS = Limits()

_ERRORS: tuple[tuple[str, str, str], ...] = (
    # The bytes of a line.
    ("bom", "a byte order mark stands before the first brace: a JSON reader refuses it", "Save as UTF-8 without BOM"),
    ("blank-line", "a line without a request", "Remove the line"),
    ("nul", "a NUL character: BigQuery's columns refuse it", "Remove it from the text"),
    ("not-utf8", "bytes that are not UTF-8", "Save the file as UTF-8, uncompressed"),
    ("not-json", "not JSON: the import fails, and with it the whole job", "Write one JSON object per line"),
    ("truncated-line", "the line ends in the middle of a value", "Write the file again; one request is one line"),
    ("trailing-garbage", "something follows the object", "Put the rest on its own line, or remove it"),
    ("lone-surrogate", "half of a surrogate pair: no text in UTF-8", "Cut texts between characters, not inside one"),
    ("line-too-long", "more bytes than BigQuery takes as one row", "Pass media as fileData instead of inline"),
    ("number-range", "a number no column can hold", "Write a smaller number, or a text"),
    ("duplicate-member", "one name twice in one object: which one counts is chance", "Keep one of the two"),
    # The line as an object.
    ("not-object", "the line is JSON, yet no object", 'Write {"key": …, "request": {…}}'),
    ("no-request", "no member `request`", 'Wrap the request: {"key": …, "request": {…}}'),
    ("request-not-object", "`request` is no object", "Write the request itself, not a text that holds it"),
    ("sibling-reserved", "a name the service writes itself in the output", "Rename the member"),
    ("sdk-config", "`config` is the SDK's flattened shape, unknown to the API", "Rename it to generationConfig"),
    ("key-not-string", "the key is no text", 'Write it as text that begins with a letter, such as "row-1"'),
    ("key-duplicate", "the key stands on two lines: their answers cannot be told apart", "Make keys unique in the job"),
    ("key-retyped", "the key looks like a number, date or truth value: it comes back changed", 'Prefix it: "row-…"'),
    # What the importer refuses: BigQuery's rules, one bad line fails the job.
    ("empty-object", "an object without members cannot be stored", "Leave the member out"),
    ("mixed-types", "one key path holds different types in one job", "Use one type, or send the lines as two jobs"),
    ("null-in-list", "null where a list, or an element of one, is expected", "Leave it out"),
    ("nested-list", "a list directly inside a list cannot be stored", "Wrap the inner list in an object"),
    ("too-deep", "members nested in more than 15 levels", "Flatten it"),
    ("field-name", "a name BigQuery refuses", "Use letters, digits and _; begin with a letter or _; at most 300"),
    ("field-name-case", "two names in one place differ in case only: one column", "Use one spelling in the whole job"),
    ("too-many-columns", "more than 10,000 distinct key paths in the job", "Keep data in values, not in member names"),
    # What the API refuses: this request fails.
    ("both-spellings", "one member in camelCase and in snake_case in one object", "Keep one spelling"),
    ("unknown-member", "a member the API does not know", "Remove it"),
    ("misplaced-member", "a member of another part of the request", "Move it"),
    ("wrong-type", "a member that holds the wrong type", "Write the type the API documents"),
    ("unknown-value", "a misspelt word of the API", "Use one of the documented words"),
    ("out-of-range", "a number outside its documented range", "Choose a value within the range"),
    ("list-length", "a list longer or shorter than documented", "Leave out, or add, elements"),
    ("no-contents", "a request without contents", 'Add "contents": [{"role": "user", "parts": [{"text": …}]}]'),
    ("role", "the role must be user or model", 'Write "user" or "model"'),
    ("no-parts", "a content without parts", 'Add "parts": [{"text": …}]'),
    ("empty-part", "a part without content", "Fill it, or leave the part out"),
    ("part-union", "a part with two kinds of content", "Give each its own part"),
    ("no-file-uri", "fileData without fileUri", "Name the object: gs://bucket/name"),
    ("no-mime-type", "media without its MIME type", 'Add "mimeType", such as "image/png"'),
    ("mime-type", "no MIME type", 'Write type and subtype, such as "image/png"'),
    ("file-uri", "a fileUri batch cannot read", "Use gs://bucket/object or a YouTube URL"),
    ("no-data", "inlineData without data", "Add the bytes in base64"),
    ("base64", "bytes that are not base64", "Encode the bytes as base64, without prefix or line breaks"),
    ("function-twice", "two functions of one name", "Give each function a name of its own"),
    ("function-parameters", "parameters that are no OBJECT", 'Write "type": "OBJECT" with a property for each'),
    (
        "function-mode",
        "functions are wanted that the request does not declare",
        "Declare them in tools, or leave it out",
    ),
    ("search-retrieval", "googleSearchRetrieval: refused by every model since Gemini 2.0", "Use googleSearch"),
    ("thinking-twice", "thinkingBudget and thinkingLevel exclude each other", "Keep one of the two"),
    ("model-refuses", "a setting that this model refuses: every row fails", "Leave it out"),
    ("function-name", "a function without a valid name", "A letter or _, then letters, digits, _ . : -; at most 128"),
    ("label", "a label outside the service's alphabet", "At most 63 of a-z, 0-9, _ and -; at most 64 labels"),
    ("cached-content", "explicit caching does not exist in batch", "Remove cachedContent; implicit caching is on"),
    ("rag-tool", "RAG retrieval does not exist in batch", "Retrieve first and put the passages into the prompt"),
    # Schemas for the answer.
    ("schema-ref", "references in a schema: names with $ fail the import", "Inline the definition"),
    ("schema-dollar", "a schema member with $: the import fails", "Remove it"),
    ("schema-python-name", "a Python attribute name in a schema", "Remove the trailing underscore"),
    ("schema-keyword", "a JSON Schema keyword the API does not know", "Remove it and check the answer afterwards"),
    ("schema-type-list", "a list of types: one path, a word here and a list there", 'Use "nullable" or "anyOf"'),
    ("schema-required", "`required` names a property that does not exist", "Name existing properties only"),
    ("schema-ordering", "`propertyOrdering` names a property that does not exist", "Name existing properties only"),
    ("schema-items", "an array without items", 'Add "items"'),
    ("schema-no-type", "a schema node without type: every row is refused", 'Add "type"'),
    (
        "schema-empty-object",
        "an object without properties: every row is refused, or answers {}",
        "Name its properties, or make it a string that holds JSON",
    ),
    ("schema-foreign-member", "a schema member that belongs to another type", "Remove it, or change the type"),
    ("schema-empty-word", "an enum with an empty word, or without any", "Remove the word, or add some"),
    (
        "schema-crowded-choice",
        "anyOf beside other members in a function: every row is refused",
        "Move the others into each choice",
    ),
    ("schema-mime-type", "responseSchema without responseMimeType", 'Add "responseMimeType": "application/json"'),
    ("two-schemas", "two schemas of one thing, such as responseSchema and responseJsonSchema", "Keep one of them"),
    # The whole job.
    ("no-requests", "no request at all", "Write at least one line"),
    ("too-many-requests", "more than 200,000 requests in one job", "Split the file over several jobs"),
    ("too-many-bytes", "more than 1 GB (10^9 bytes) of input in one job", "Split the file over several jobs"),
)

_WARNINGS: tuple[tuple[str, str, str], ...] = (
    ("packed-file", "a .gz file: not documented that batch unpacks it", "Send it unpacked"),
    ("crlf", "the line ends in CR LF: not documented to work", "Use LF line ends"),
    ("key-missing", "no key: answers come in any order and must be joined back by content", 'Add "key": "row-1"'),
    ("key-first-letter", "the key does not begin with a letter: it may come back re-typed", 'Prefix it: "row-…"'),
    ("sibling-nested", "a list or object beside the request: may come back empty", "Join it back by key instead"),
    ("sibling-retyped", "a text beside the request that may come back as a number", "Join it back by key instead"),
    ("resume-line", "an output line of an earlier job: answered rows are skipped", "Nothing, if you mean to resume"),
    ("role-missing", "no role: the reference says user is assumed, users report a refusal", 'Add "role": "user"'),
    ("file-uri-https", "a web address: not documented for batch", "Copy the file to gs://"),
    ("object-for-list", "one object where a list is documented: taken, if every line does the same", "Write a list"),
    ("number-as-text", "a number written as text: taken, if every line does the same", "Write a number"),
    (
        "newer-member",
        "a member that lint's table of the API does not have",
        "Check its name; a newer one works all the same",
    ),
    ("newer-value", "a word that our table of the API lacks", "Check the word: a newer one works all the same"),
    (
        "model-may-refuse",
        "a setting that this model ignores, or was seen to refuse",
        "Leave it out",
    ),
    ("image-size", "batch makes images of at most 1K", 'Write "1K", or leave it out'),
    ("schema-additional", "additionalProperties: not enforced, and one type everywhere or refused", "Leave it out"),
    ("json-schema", "a free-form JSON Schema: each name in it is a column", "Prefer responseSchema or parameters"),
    ("many-schemas", "several response schemas in one job share one table", "Send one schema per job"),
)

#: Every rule by name. Errors are reported on every line they stand on, warnings once per job and key path.
RULES: dict[str, Rule] = {name: Rule(name, "error", what, cure) for name, what, cure in _ERRORS}
RULES |= {name: Rule(name, "warning", what, cure) for name, what, cure in _WARNINGS}
