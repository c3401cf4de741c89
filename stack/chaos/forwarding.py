"""What does a proxy do with an answer? It replaces server addresses by its own, and removes headers that are only for
one connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

#: What a connection says to its next neighbour only, and what a proxy says itself.
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"})
#: Largest body of a request: a test's.
MAX_BYTES = 64 * 1024 * 1024


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_good(self) -> bool:
        """Whether it did what it was asked."""
        return 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own range

    @property
    def is_json(self) -> bool:
        """Whether its body can be read here."""
        return "json" in self.headers.get("Content-Type", "") and not self.headers.get("Content-Encoding")

    def led_back(self, server: str, proxy: str) -> Answer:
        """Return the answer with addresses that lead to the proxy.

        :param server: address of the server that gave it.
        :param proxy: address by which the client knows the proxy.
        """
        headers = {name: value.replace(server, proxy) for name, value in self.headers.items()}
        body = self.body.replace(server.encode(), proxy.encode()) if self.is_json else self.body
        return Answer(self.status, headers, body)


def passed_on(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the headers that a proxy passes on."""
    return {name: value for name, value in headers if name.lower() not in _HOP}
