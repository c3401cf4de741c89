"""Which form do documents have in Google's API? Error envelopes, timestamps, member names, project numbers.

Invariants: every error that the server sends is built here. Member names are compared in camelCase, also if they were
sent in snake_case.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: HTTP status → (status word, gRPC code). Source: google/rpc/code.proto, read 2026-11-22.
RPC = {
    400: ("INVALID_ARGUMENT", 3),
    401: ("UNAUTHENTICATED", 16),
    403: ("PERMISSION_DENIED", 7),
    404: ("NOT_FOUND", 5),
    408: ("DEADLINE_EXCEEDED", 4),
    409: ("ABORTED", 10),
    412: ("FAILED_PRECONDITION", 9),
    429: ("RESOURCE_EXHAUSTED", 8),
    499: ("CANCELLED", 1),
    500: ("INTERNAL", 13),
    501: ("UNIMPLEMENTED", 12),
    502: ("UNAVAILABLE", 14),
    503: ("UNAVAILABLE", 14),
    504: ("DEADLINE_EXCEEDED", 4),
}
#: Codes that Google uses and `http` does not know.
_PHRASES = {499: "Client Closed Request"}


class ApiError(Exception):
    """An error answer of the API.

    :param code: the HTTP status.
    :param status: Google's status word; the usual one of `code` by default.
    :param reason: the ``ErrorInfo`` reason, when the service gives one.
    :param details: further ``google.rpc`` detail documents.
    """

    def __init__(
        self, code: int, message: str, *, status: str = "", reason: str = "", details: Sequence[dict[str, Any]] = ()
    ) -> None:
        self.code, self.message = code, message
        self.status = status or RPC.get(code, ("UNKNOWN", 2))[0]
        self.details = [*details, *([error_info(reason)] if reason else [])]
        super().__init__(message)

    def document(self) -> dict[str, Any]:
        """Return the error envelope."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "status": self.status}
        if self.details:
            error["details"] = self.details
        return {"error": error}


def invalid(message: str, *, field: str = "") -> ApiError:
    """Return a 400 INVALID_ARGUMENT, naming the field when it is known."""
    details = []
    if field:
        violation = {"field": field, "description": message}
        details = [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]}]
    return ApiError(400, message, details=details)


def failed_precondition(message: str) -> ApiError:
    """Return a 400 FAILED_PRECONDITION: the resource is not in a state for this."""
    return ApiError(400, message, status="FAILED_PRECONDITION")


def error_info(reason: str, domain: str = "aiplatform.googleapis.com") -> dict[str, Any]:
    """Return a ``google.rpc.ErrorInfo`` document."""
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": domain}


def row_status(code: int, message: str, status: str = "") -> str:
    """Return the ``status`` text of a failed output line: the HTTP phrase, a colon, then the error as JSON."""
    phrase = _PHRASES.get(code) or HTTPStatus(code).phrase
    error = {"code": code, "message": message, "status": status or RPC.get(code, ("UNKNOWN", 2))[0]}
    return f"{phrase}: {json.dumps({'error': error})}"


def rfc3339(when: datetime) -> str:
    """Return a UTC timestamp with microseconds and ``Z``, as resources carry it."""
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def camel(name: str) -> str:
    """Return a snake_case member name in camelCase; other names unchanged."""
    return re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda match: match[1].upper(), name)


def project_number(project: str) -> str:
    """Return the number behind a project id: what the service puts into the names it returns."""
    if project.isdigit():
        return project
    return str(10**11 + int.from_bytes(hashlib.sha256(project.encode()).digest()[:6]) % (9 * 10**11))
