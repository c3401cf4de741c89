"""How does a request pass through a proxy? On to the server behind it, and its answer's addresses led back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarl import URL

from stack.chaos.effects import Call

if TYPE_CHECKING:
    from aiohttp import ClientSession

#: What a connection says to its next neighbour only, and what a proxy says itself.
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"})
#: Largest body of a request: a test's.
MAX_BYTES = 64 * 1024 * 1024


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def is_good(self) -> bool:
        """Whether it did what it was asked."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own range

    @property
    def is_json(self) -> bool:
        """Whether its body can be read here."""
        return "json" in self.headers.get("Content-Type", "") and not self.headers.get("Content-Encoding")


class Server:
    """One server behind a proxy.

    :param url: its address.
    """

    def __init__(self, session: ClientSession, url: str) -> None:
        self._session, self._url = session, url

    async def forward(self, call: Call, headers: Mapping[str, str]) -> Answer:
        """Pass one request on, and return the answer as it is.

        :raises ClientError: when the server cuts the connection.
        """
        kept = [(name, value) for name, value in headers.items() if name.lower() not in _HOP]
        async with self._session.request(
            call.method, URL(self._url + call.path, encoded=True), headers=kept, data=call.body, allow_redirects=False
        ) as answer:
            found = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return Answer(answer.status, found, await answer.read())

    def led_back(self, answer: Answer, host: str) -> Answer:
        """Return an answer whose addresses lead to the proxy.

        :param host: the proxy's, as the client named it.
        """
        ours = f"http://{host}"
        headers = {name: value.replace(self._url, ours) for name, value in answer.headers.items()}
        body = answer.body.replace(self._url.encode(), ours.encode()) if answer.is_json else answer.body
        return Answer(answer.status, headers, body)
