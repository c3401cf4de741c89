"""Which operation is this call, and what is its answer? The REST surface, without any HTTP library.

``handle`` takes a `Call` and returns a `Reply` (or raises `DroppedError`), so that the same surface serves a socket
and a test in the same process. Served as v1 and v1beta1: create, get, list, cancel, delete and its operation; for a
preflight also the look at a model and one online request; besides these, the emulator's own ``/healthz`` and
``/emulator/…``.

Invariants: every call of the API is counted once in the books, whatever its result. Faults are applied around the
operation, after the token check of `ExpireToken`. An error is always Google's JSON envelope.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.emulator.faults import Call, CallContext, CallFault, DroppedError, Operation, Reply
from airflow_vertex_batch.emulator.resource import with_numbers
from airflow_vertex_batch.emulator.scenario import Scenario
from airflow_vertex_batch.emulator.service import Emulator
from airflow_vertex_batch.emulator.wire import ApiError, camel, invalid

_PARENT = r"/(?P<version>v1|v1beta1)/projects/(?P<project>[^/]+)/locations/(?P<location>[a-z0-9-]+)"
_JOB = rf"{_PARENT}/batchPredictionJobs/(?P<item>[^/:]+)"
_PUBLISHED = r"publishers/(?P<publisher>[^/]+)/models/(?P<model>[^/:]+)"
_ROUTES: tuple[tuple[Operation, str, re.Pattern[str]], ...] = (
    ("create", "POST", re.compile(rf"{_PARENT}/batchPredictionJobs")),
    ("list", "GET", re.compile(rf"{_PARENT}/batchPredictionJobs")),
    ("get", "GET", re.compile(_JOB)),
    ("cancel", "POST", re.compile(rf"{_JOB}:cancel")),
    ("delete", "DELETE", re.compile(_JOB)),
    # google-cloud-aiplatform's REST client polls operations below /ui (seen, 2.7.0).
    ("operation", "GET", re.compile(rf"{_PARENT.replace('|v1beta1', '|v1beta1|ui')}/operations/(?P<item>[^/:]+)")),
    ("model", "GET", re.compile(rf"/(?P<version>v1|v1beta1)/{_PUBLISHED}")),
    ("model", "GET", re.compile(rf"{_PARENT}/(models|endpoints)/(?P<item>[^/:]+)")),
    ("generate", "POST", re.compile(rf"{_PARENT}/{_PUBLISHED}:generateContent")),
)
OPERATIONS: tuple[str, ...] = get_args(Operation)
#: What protobuf clients add to every call to get enums as numbers (seen from google-cloud-aiplatform's REST transport).
_INT_ENUMS = "enum-encoding=int"


class _Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which held jobs are meant."""

    job: str = "*"
    labels: dict[str, str] = {}


class Rest:
    """The surface over one emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def handle(self, call: Call) -> Reply:
        """Answer one call.

        :raises DroppedError: when the connection is to be cut without an answer.
        """
        if call.path == "/healthz" or call.path.startswith("/emulator/"):
            return self._own(call)
        for operation, method, pattern in _ROUTES:
            if call.method == method and (match := pattern.fullmatch(call.path)):
                return self._counted(operation, call, match.groupdict())
        return Reply.of(ApiError(404, f"{call.method} {call.path} is no method of this API."))

    # The API ----------------------------------------------------------------------------------------------------------

    def _counted(self, operation: Operation, call: Call, names: dict[str, str]) -> Reply:
        try:
            reply = self._around(operation, call, names)
        except DroppedError:
            self._emulator.count(operation, "dropped")
            raise
        self._emulator.count(operation, str(reply.status))
        return reply

    def _around(self, operation: Operation, call: Call, names: dict[str, str]) -> Reply:
        def proceed(changed: Call) -> Reply:
            try:
                self._check_caller(changed)
                is_online = operation in {"model", "generate"}
                document = self._online(changed) if is_online else self._perform(operation, changed, names)
            except ApiError as error:
                return Reply.of(error)
            return Reply(200, _encoded(document, changed))

        script = self._emulator.script
        display_name, labels = self._subject(operation, call, names)
        fault = script.take(CallFault, lambda one: one.on == operation and one.concerns(display_name, labels))
        if fault is None:
            return proceed(call)
        return fault.around(call, CallContext(proceed, self._emulator.clock, script.refused_tokens))

    def _check_caller(self, call: Call) -> None:
        """Refuse API keys, as the service does, and tokens that a scenario has made expire. Any other caller is
        accepted.
        """
        if not call.token and ("x-goog-api-key" in call.headers or "key" in call.query):
            raise invalid("API keys are not supported by this API. Expected OAuth2 access token.")
        if call.token in self._emulator.script.refused_tokens:
            raise ApiError(401, "Request had invalid authentication credentials. Expected OAuth 2 access token.")

    def _subject(self, operation: Operation, call: Call, names: dict[str, str]) -> tuple[str, dict[str, str]]:
        if operation == "create":
            try:
                body = _json(call.body)
            except ApiError:
                return "", {}
            name, labels = body.get("displayName", body.get("display_name")), body.get("labels")
            return str(name or ""), labels if isinstance(labels, dict) else {}
        if "item" in names and operation not in {"operation", "model"}:
            return self._emulator.subject(names["project"], names["location"], names["item"])
        return "", {}

    def _perform(self, operation: Operation, call: Call, names: dict[str, str]) -> dict[str, Any]:
        emulator, project, location, item = self._emulator, names["project"], names["location"], names.get("item", "")
        match operation:
            case "create":
                return emulator.create(project, location, _json(call.body))
            case "get":
                return emulator.get(project, location, item)
            case "list":
                return emulator.list(
                    project, location, {camel(name): value for name, value in call.query.items()}, call.hidden_s
                )
            case "cancel":
                _json(call.body)
                return emulator.cancel(project, location, item)
            case "delete":
                return emulator.delete(project, location, item, names["version"])
            case _:
                return emulator.operation(project, location, item, names["version"].replace("ui", "v1"))

    def _online(self, call: Call) -> dict[str, Any]:
        """A model, looked at or asked."""
        path, _, asked = call.path.split("/", 2)[2].partition(":")
        online = self._emulator.online
        return online.generate(path, _json(call.body)) if asked else online.model(path)

    # The emulator's own -----------------------------------------------------------------------------------------------

    def _own(self, call: Call) -> Reply:
        handlers: dict[tuple[str, str], Callable[[Call], Reply]] = {
            ("GET", "/healthz"): lambda _: Reply(200, {"status": "ok"}),
            ("GET", "/emulator/books"): lambda call: Reply(
                200, self._emulator.books(rows=call.query.get("rows") == "1")
            ),
            ("GET", "/emulator/scenario"): lambda _: Reply(200, self._scenario()),
            ("PUT", "/emulator/scenario"): self._put_scenario,
            ("DELETE", "/emulator/scenario"): lambda _: self._delete_scenario(),
            ("POST", "/emulator/release"): self._release,
            ("POST", "/emulator/reset"): lambda _: self._reset(),
        }
        handler = handlers.get((call.method, call.path))
        return handler(call) if handler else Reply.of(ApiError(404, f"{call.method} {call.path} is not known."))

    def _scenario(self) -> dict[str, Any]:
        script = self._emulator.script
        return script.scenario.as_dict() | {"faults": script.faults(), "unused": script.unused()}

    def _put_scenario(self, call: Call) -> Reply:
        try:
            self._emulator.set_scenario(Scenario.parse(call.body))
        except InputError as error:
            return Reply.of(invalid(str(error)))
        return Reply(200, self._scenario())

    def _delete_scenario(self) -> Reply:
        """Back to the plain scenario; the answer names the faults that were not met."""
        return Reply(200, {"unused": self._emulator.set_scenario(Scenario()).unused()})

    def _release(self, call: Call) -> Reply:
        """Release held jobs; 404 if none was held, because the caller expects one."""
        try:
            meant = msgspec.convert(_json(call.body), _Held)
        except (ApiError, msgspec.ValidationError) as error:
            return Reply.of(invalid(str(error)))
        names = self._emulator.release(job=meant.job, labels=meant.labels)
        return Reply(200, {"released": names}) if names else Reply.of(ApiError(404, "No such job is held."))

    def _reset(self) -> Reply:
        self._emulator.reset()
        return Reply(200, {})


def _json(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    if not isinstance(document, dict):
        raise invalid("Invalid JSON payload received. The body must be an object.")
    return document


def _encoded(document: dict[str, Any], call: Call) -> dict[str, Any]:
    """Give enums as numbers to clients that ask for them."""
    if _INT_ENUMS not in call.query.get("$alt", ""):
        return document
    if "batchPredictionJobs" in document:
        return document | {"batchPredictionJobs": [with_numbers(job) for job in document["batchPredictionJobs"]]}
    return with_numbers(document)
