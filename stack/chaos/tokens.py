"""What happens if a connection takes long to begin? A slow token server, and a connection that needs its tokens.

Google's metadata server, a token service and a secrets backend may each take seconds, and a client's first call waits
for them.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from stack.laptop import PROJECT
from stack.process import free_port
from stack.servers import HOST

#: The connection's name in the DAGs.
CONNECTION = "slow_google"


class SlowTokens:
    """The server, in a thread of its own. Every token is good.

    :param seconds: what each token takes.
    """

    def __init__(self, seconds: float) -> None:
        stopped = self._stopped = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                stopped.wait(seconds)
                body = json.dumps({"access_token": "slow", "expires_in": 3600, "token_type": "Bearer"}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((HOST, free_port()), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def env(self) -> dict[str, str]:
        """The variable that makes the connection known to Airflow."""
        key = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": _private_key(),
            "client_email": f"slow@{PROJECT}.example",
            "token_uri": f"http://{HOST}:{self._server.server_port}/token",
        }
        extra = {"keyfile_dict": json.dumps(key), "project": PROJECT}
        connection = {"conn_type": "google_cloud_platform", "extra": extra}
        return {f"AIRFLOW_CONN_{CONNECTION.upper()}": json.dumps(connection)}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)


def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text.decode()
