"""What do Google's newest clients say of the API? Their messages and enumerations, read from their source.

The wheels come from the package index that this machine is set up for, by name, into a folder that is removed
afterwards. Nothing of them is installed, imported or run: classes are read from the text of their modules, and the
API's discovery document from the client that carries it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from airflow_vertex_batch.core.requests.lint.api import camel

_UV = Path(__file__).resolve().parent.parent / ".local" / "uv" / "bin" / "uv"
#: What google-genai says of members that Vertex AI, by its old name or its new one, does not have.
_ELSEWHERE = re.compile(r"not supported in (Vertex AI|Gemini Enterprise Agent Platform)")


class Member(msgspec.Struct, frozen=True):
    """A member of a message, or a word of an enumeration.

    :param refers: the class or enumeration that it holds, by its name in `Client`; empty for a scalar.
    :param is_elsewhere: whether the client says that Vertex AI does not have it.
    """

    refers: str = ""
    is_elsewhere: bool = False


class Client(msgspec.Struct, frozen=True):
    """What one client knows.

    :param messages: members by message, named in camelCase; messages inside messages as the API's document names them.
    :param words: words by enumeration.
    """

    name: str
    messages: dict[str, dict[str, Member]] = {}
    words: dict[str, dict[str, Member]] = {}


def fetch(packages: Sequence[str], folder: Path) -> Path:
    """Unpack the newest releases of some packages into `folder`, and return it.

    :raises subprocess.CalledProcessError: when one cannot be had.
    """
    uv = str(_UV) if _UV.exists() else "uv"
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--refresh", "--target", str(folder)]
    subprocess.run([*command, "--python", sys.executable, *packages], check=True)
    return folder


def version(folder: Path, package: str) -> str:
    """Return which release of a package is unpacked in `folder`.

    :raises OSError: when there is none.
    """
    for info in folder.glob(f"{package.replace('-', '_')}-*.dist-info"):
        return info.name.removesuffix(".dist-info").rpartition("-")[2]
    raise FileNotFoundError(f"no {package} in {folder}")


def genai(folder: Path, release: str) -> Client:
    """Read google-genai's types."""
    read = Client(f"google-genai {release}")
    for node in ast.parse((folder / "google/genai/types.py").read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        if "BaseModel" in bases:
            read.messages[node.name] = dict(_fields(node))
        elif "CaseInSensitiveEnum" in bases:
            read.words[node.name] = dict(_enumerated(node))
    return read


def aiplatform(folder: Path, api: str, release: str) -> Client:
    """Read google-cloud-aiplatform's protos.

    :param api: ``v1`` or ``v1beta1``.
    """
    read = Client(f"google-cloud-aiplatform {release} {api}")
    for path in sorted((folder / f"google/cloud/aiplatform_{api}/types").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                _proto(node, "", read)
    return read


def discovery(folder: Path, api: str) -> Client:
    """Read the API's discovery document, as google-api-python-client carries it.

    :param api: ``v1`` or ``v1beta1``.
    """
    path = folder / f"googleapiclient/discovery_cache/documents/aiplatform.{api}.json"
    document = json.loads(path.read_bytes())
    read, prefix = (
        Client(f"discovery document {api} {document['revision']}"),
        f"GoogleCloudAiplatform{api.capitalize()}",
    )
    for full, schema in document["schemas"].items():
        message = full.removeprefix(prefix)
        read.messages[message] = members = {}
        for name, described in schema.get("properties", {}).items():
            kind = _innermost(described)
            refers = kind.get("$ref", "").removeprefix(prefix)
            if "enum" in kind:
                refers = f"{message}.{name}"
                read.words[refers] = {word: Member() for word in kind["enum"]}
            members[name] = Member(refers)
    return read


def _innermost(kind: dict[str, Any]) -> dict[str, Any]:
    """Return what stands at the end of a list of lists, or of a map."""
    while isinstance(inner := kind.get("items") or kind.get("additionalProperties"), dict):
        kind = inner
    return kind


# google-genai: one class a message, no class inside another.


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, Member]]:
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id[0] != "_":
            text = ast.unparse(field.value) if field.value is not None else ""
            yield _alias(field.value) or camel(field.target.id), Member(_named(field.annotation), _is_elsewhere(text))


def _alias(value: ast.expr | None) -> str:
    """Return the name under which a member is sent, where that is not its own."""
    given = {each.arg: each.value for each in value.keywords} if isinstance(value, ast.Call) else {}
    return str(ast.literal_eval(given["alias"])) if "alias" in given else ""


def _named(annotation: ast.expr) -> str:
    """Return the class in ``Optional[list['Content']]``; nothing for ``Optional[str]`` and for a choice of several."""
    names = [part.id for part in ast.walk(annotation) if isinstance(part, ast.Name)]
    names += [str(part.value) for part in ast.walk(annotation) if isinstance(part, ast.Constant) and part.value]
    classes = [name for name in names if name[:1].isupper() and name not in {"Optional", "Any", "Union", "Literal"}]
    return classes[0].removesuffix("Union") if len(classes) == 1 else ""


def _enumerated(node: ast.ClassDef) -> Iterator[tuple[str, Member]]:
    """Yield the words of an enumeration; the text below a word describes it."""
    for word, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(word, ast.Assign) and isinstance(word.value, ast.Constant):
            said = ast.unparse(below) if isinstance(below, ast.Expr) else ""
            yield str(word.value.value), Member(is_elsewhere=_is_elsewhere(said))


def _is_elsewhere(text: str) -> bool:
    return _ELSEWHERE.search(" ".join(text.replace("\\n", " ").split())) is not None


# google-cloud-aiplatform: classes inside classes.


def _proto(node: ast.ClassDef, outer: str, into: Client) -> None:
    name = outer + node.name
    bases = {ast.unparse(base) for base in node.bases}
    if "proto.Enum" in bases:
        into.words[name] = {word: Member() for word in _assigned(node)}
    if "proto.Message" not in bases:
        return
    into.messages[name] = members = {}
    own = {inner.name for inner in node.body if isinstance(inner, ast.ClassDef)}
    for inner in node.body:
        if isinstance(inner, ast.ClassDef):
            _proto(inner, name, into)
        elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            refers = _referred(inner.value)
            members[camel(inner.target.id.rstrip("_"))] = Member(name + refers if refers in own else refers)


def _assigned(node: ast.ClassDef) -> Iterator[str]:
    for word in node.body:
        if isinstance(word, ast.Assign) and isinstance(word.targets[0], ast.Name):
            yield word.targets[0].id


def _referred(value: ast.expr | None) -> str:
    """Return the class in ``proto.Field(proto.MESSAGE, message="Part.MediaResolution")``, written as one word."""
    if not isinstance(value, ast.Call):
        return ""
    for argument in value.keywords:
        if argument.arg in {"message", "enum"}:
            text = ast.unparse(argument.value).strip("'\"")
            return "".join(part for part in text.split(".") if part[:1].isupper())
    return ""
