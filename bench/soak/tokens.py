"""Whose tokens can expire? Those of a service account: its key, and the server that turns it into tokens.

Google's clients never refresh anonymous credentials, so an emulator that refuses a token needs an account beside it.
google-auth also asks iamcredentials.googleapis.com where such an account may be used, in a thread; without a network
that fails, and nobody waits for it.
"""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class TokenServer:
    """Gives a new token to whoever asks, as ``oauth2.googleapis.com/token`` does. Use it as a context manager."""

    def __enter__(self) -> Self:
        self.given = itertools.count()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def key(self) -> dict[str, str]:
        """Return a service account's key file, made for this server."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "demo",
            "private_key_id": "1",
            "private_key": private.decode(),
            "client_email": "soak@demo.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"http://127.0.0.1:{self._server.server_port}/token",
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        numbers = self.given

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = {"access_token": f"token-{next(numbers)}", "expires_in": 3600, "token_type": "Bearer"}
                body = json.dumps(token).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        return Handler
