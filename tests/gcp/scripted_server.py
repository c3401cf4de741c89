"""A tiny HTTP server that answers what a test scripted, and notes what it was asked; credentials by script, too."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from google.auth.credentials import Credentials


@dataclass
class Answer:
    """One answer.

    :param body: JSON, or bytes as they are.
    :param fate: "answer"; "drop" closes the connection after reading the request; "cut" does in the middle of the body;
        "hang" answers only when the server is stopped; "drip" sends its body, and "drip head" all of it, a byte at a
        time, and never comes to an end; "stall" stops in the middle of the body.
    """

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    fate: str = "answer"


def refused(status: int, word: str = "", message: str = "No.", **headers: str) -> Answer:
    """An error as Google's API writes it."""
    error = {"error": {"code": status, "message": message, "status": word}}
    return Answer(status, error, {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str
    range: str = ""
    content_range: str = ""


class ScriptedServer:
    """Answers in the scripted order; a request beyond the script is answered with 500 and noted all the same.

    :param route: answers by request instead, for clients that ask several things at once.
    """

    def __init__(self, *answers: Answer, route: Callable[[Asked], Answer] | None = None) -> None:
        self.answers, self._route, self.asked = list(answers), route, list[Asked]()
        self._lock, self.stopped = threading.Lock(), threading.Event()
        #: Set when the first request is there: a client that gives up soon may be sooner than that.
        self.heard = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def _next(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            self.heard.set()
            if self._route is not None:
                return self._route(asked)
            return self.answers.pop(0) if self.answers else refused(500, "INTERNAL", "the script is over")

    def _handler(self) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - a handler and its fates
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body go out as two packets; the second would wait 40 ms for the first one's receipt.
            disable_nagle_algorithm = True

            def _serve(self) -> None:
                parts = urlsplit(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                is_json = self.headers.get("Content-Type", "").startswith("application/json")
                is_part = "Content-Range" in self.headers
                body = json.loads(raw) if raw and is_json and not is_part else raw or None
                asked = Asked(
                    self.command, parts.path, dict(parse_qsl(parts.query)), body,
                    self.headers.get("Authorization", ""), self.headers.get("Range", ""),
                    self.headers.get("Content-Range", ""),
                )  # fmt: skip
                self._send(server._next(asked))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815

            def _send(self, answer: Answer) -> None:
                if answer.fate == "hang":
                    server.stopped.wait()
                if answer.fate in {"drop", "hang"}:
                    self.close_connection = True
                    return
                data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
                if answer.fate == "drip head":
                    self._drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 60_000)
                    return
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if answer.fate == "drip":
                    self._drip(data)
                    return
                if answer.fate == "stall":
                    self.wfile.write(data[: len(data) // 2])
                    server.stopped.wait()
                    self.close_connection = True
                    return
                if answer.fate == "cut":
                    data, self.close_connection = data[: len(data) // 2], True
                self.wfile.write(data)

            def _drip(self, data: bytes) -> None:
                self.close_connection = True
                with contextlib.suppress(OSError):  # the client may go away
                    for byte in data:
                        if server.stopped.wait(0.01):
                            return
                        self.wfile.write(bytes([byte]))

            def log_message(self, *_arguments: object) -> None:
                """Stay quiet."""

        return Handler


class Refreshing(Credentials):
    """Credentials without a token, whose token server does as scripted."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self._errors, self.refreshed = list(errors), 0

    def refresh(self, request):
        self.refreshed += 1
        if self._errors:
            raise self._errors.pop(0)
        self.token = f"token-{self.refreshed}"
