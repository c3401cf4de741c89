"""How do our tables of the API differ from Google's newest clients, and is each difference explained?

Run by ``make api``. Compares lint's table (`core/requests/lint/api.py`), message by message from the request down, and
the words and members that are known elsewhere (finish reasons, job states, tokens, parts of an answer) with the types
of google-genai, the protos of google-cloud-aiplatform and the API's discovery document. Messages are matched by their
place and not by name, because the clients name them differently.

Explanations are lines of `tools/known_api_differences.json`, each with reason and date. If a client itself says that
something is not supported in Vertex AI, no line is needed.

Exit status: 0 every difference is explained, 1 one is not, 2 a client could not be had.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from tabulate import tabulate

from airflow_vertex_batch.cli.escapes import printed
from airflow_vertex_batch.core.answers.classify import ANSWER_MEMBERS, FINISH_REASONS
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.core.domain.row import USAGE_MEMBERS
from airflow_vertex_batch.core.requests.lint.api import NEWER_MEMBERS, NEWER_WORDS, Type, member_type, messages
from tools.clients import Client, Member, aiplatform, discovery, fetch, genai, version
from tools.known import idle, reason_of

KNOWN = Path(__file__).with_name("known_api_differences.json")
_PACKAGES = ("google-genai", "google-cloud-aiplatform", "google-api-python-client")
_REQUEST = "GenerateContentRequest"
#: What our table was read from.
_DOCUMENT = "discovery document v1 "
#: Where the walk begins: our message and theirs. google-genai has no message for a request: its pieces are begun with.
_ROOTS = {
    "google-genai": {
        _REQUEST: "GenerateContentConfig",
        "Content": "Content",
        "GenerationConfig": "GenerationConfig",
    },
    "google-cloud-aiplatform": {_REQUEST: _REQUEST},
    "discovery document": {_REQUEST: _REQUEST},
}
#: What is compared beside the request: our words, and the enumerations of theirs that have them, by any of their names.
_WORDS: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "finish reason": (frozenset(FINISH_REASONS), ("FinishReason", "CandidateFinishReason", "Candidate.finishReason")),
    "job state": (frozenset(JobState), ("JobState", "BatchPredictionJob.state")),
}
#: The same for members of what comes back.
_MEMBERS: dict[str, tuple[frozenset[str], tuple[str, ...]]] = {
    "usage": (USAGE_MEMBERS, ("GenerateContentResponseUsageMetadata", "UsageMetadata")),
    "answer part": (ANSWER_MEMBERS, ("Part",)),
}


class Difference(msgspec.Struct, frozen=True, order=True):
    """One member or word that only one of us knows.

    :param place: the message, a member of a message, or a vocabulary.
    :param side: ``ours`` or ``theirs``.
    :param is_elsewhere: whether they say that Vertex AI does not have it.
    """

    place: str
    name: str
    side: str
    client: str
    is_elsewhere: bool = False


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a difference is right.

    :param place: a glob over `Difference.place`.
    :param name: a glob over `Difference.name`.
    :param side: ``ours`` or ``theirs``.
    :param client: a glob over `Difference.client`, which ends in a version.
    """

    place: str
    name: str
    side: str
    client: str
    reason: str
    date: str

    def explains(self, found: Difference) -> bool:
        """Whether this is about that difference."""
        return self.side == found.side and all(
            fnmatchcase(getattr(found, name), getattr(self, name)) for name in ("place", "name", "client")
        )


def differences(client: Client) -> list[Difference]:
    """Return what our tables and one client do not both know, each once."""
    found = list(_request(client))
    for place, (ours, names) in _WORDS.items():
        found += _apart(place, ours, _first(client.words, names), client)
    for place, (ours, names) in _MEMBERS.items():
        found += _apart(place, ours, _first(client.messages, names), client)
    return sorted(dict.fromkeys(found))


def explain(found: Difference, known: Iterable[Known]) -> str:
    """Return why a difference is right; nothing when nobody has said so."""
    if found.is_elsewhere:
        return "the client says itself that Vertex AI does not have it"
    return reason_of(found, known)


def _request(client: Client) -> Iterator[Difference]:
    """Walk our messages and theirs side by side, as far as both have a message in one place."""
    pending = list(next(roots for name, roots in _ROOTS.items() if client.name.startswith(name)).items())
    reached: set[tuple[str, str]] = set()
    while pending:
        ours, theirs = pending.pop()
        if (ours, theirs) in reached:
            continue
        reached.add((ours, theirs))
        members, known = messages()[ours], _members(ours, theirs, client)
        newer = {name for message, name in NEWER_MEMBERS if message == ours}
        yield from _apart(ours, frozenset(members), known, client, newer)
        for name in members.keys() & known.keys():
            kind, refers = _innermost(member_type(ours, name)), known[name].refers
            if kind.message and refers in client.messages:
                pending.append((kind.message, refers))
            elif refers in client.words:
                newer = {*NEWER_WORDS.get((ours, name), {})}
                yield from _apart(f"{ours}.{name}", kind.words, client.words[refers], client, newer)


def _members(ours: str, theirs: str, client: Client) -> Mapping[str, Member]:
    """Return what they have; google-genai's settings of a call hold those of the generation as well, flat."""
    known = client.messages.get(theirs, {})
    if ours != _REQUEST or theirs == ours:
        return known
    beside = {"contents": Member("Content"), "generationConfig": Member("GenerationConfig")}
    return beside | {name: what for name, what in known.items() if name not in client.messages["GenerationConfig"]}


def _innermost(kind: Type | None) -> Type:
    """Return what stands at the end of a list of lists, or of a map."""
    while kind is not None and kind.inner is not None:
        kind = kind.inner
    return kind or Type()


def _first(named: Mapping[str, Mapping[str, Member]], names: Iterable[str]) -> Mapping[str, Member]:
    """Return the first that is there.

    :raises LookupError: when none is, for then nothing would be compared.
    """
    for name in names:
        if name in named:
            return named[name]
    raise LookupError(f"The client has none of {', '.join(names)}: has it been renamed? See tools/api.py")


def _apart(
    place: str, ours: frozenset[str], theirs: Mapping[str, Member], client: Client, newer: Iterable[str] = ()
) -> Iterator[Difference]:
    """Yield what one of us lacks.

    :param newer: what we know to be newer than the document that our table was read from: only there it is news.
    """
    for name in ours - theirs.keys():
        yield Difference(place, name, "ours", client.name)
    for name, what in theirs.items():
        if name not in ours and (name not in newer or client.name.startswith(_DOCUMENT)):
            yield Difference(place, name, "theirs", client.name, what.is_elsewhere)


def read(folder: Path) -> list[Client]:
    """Return the clients that are unpacked in a folder.

    :raises OSError: when one is not there.
    """
    platform = version(folder, "google-cloud-aiplatform")
    protos = [aiplatform(folder, api, platform) for api in ("v1", "v1beta1")]
    documents = [discovery(folder, api) for api in ("v1", "v1beta1")]
    return [genai(folder, version(folder, "google-genai")), *protos, *documents]


def report(found: Sequence[tuple[Difference, str]], clients: Sequence[Client]) -> str:
    """Return the differences for people, those without an explanation first."""
    beside: dict[tuple[str, str, str, str], list[str]] = {}
    for each, why in sorted(found, key=lambda pair: (bool(pair[1]), pair[0])):
        beside.setdefault((each.place, each.name, f"{each.side} only", why or "NOT EXPLAINED"), []).append(each.client)
    rows = [(*row[:3], "\n".join(names), row[3]) for row, names in beside.items()]
    headers = ("where", "name", "known", "beside", "why")
    table = tabulate(rows, headers, maxcolwidths=[None, None, None, None, 60], disable_numparse=True)
    open_count = sum(1 for _, why in found if not why)
    names = ", ".join(client.name for client in clients)
    return f"{table}\n\n{len(found)} differences to {names}; {open_count} of them not explained"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, metavar="DIR", help="clients that are unpacked here (default: get them)")
    parser.add_argument("--known", type=Path, default=KNOWN, metavar="FILE", help="the explanations")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory() as folder:
            clients = read(options.folder or fetch(_PACKAGES, Path(folder)))
        all_found = [each for client in clients for each in differences(client)]
    except (OSError, ValueError, LookupError, subprocess.CalledProcessError) as error:
        print(f"The clients could not be had: {error}", file=sys.stderr)
        return 2
    known = msgspec.json.decode(options.known.read_bytes(), type=list[Known])
    found = [(each, explain(each, known)) for each in all_found]
    print(report(found, clients))
    for each in idle(all_found, known):
        print(f"No longer needed in {options.known.name}: {each.place}, {each.name}, {each.side}")
    return 1 if any(not why for _, why in found) else 0


if __name__ == "__main__":
    with printed():
        status = main()
    sys.exit(status)
