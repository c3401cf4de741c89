"""What does a model say outside of jobs? Its resource, and the answer to one request: what a preflight asks.

Invariants: a model is known where any line of the scenario's table of models names it, wherever its batches run: online
calls to a model work in places that refuse its batches (four field reports, 2026-11-22). An online answer comes from
the same model as a row's, and is in no job's bill: the books count the call.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_vertex_batch.emulator.rowcheck import canonical, problem_of
from airflow_vertex_batch.emulator.rows import response_of
from airflow_vertex_batch.emulator.wire import ApiError, invalid

if TYPE_CHECKING:
    from airflow_vertex_batch.emulator.tools import Tools

_PUBLISHED = re.compile(r".*?publishers/(?P<publisher>[^/]+)/models/(?P<model>[^/]+)")
#: Where a tuned model says what it was made from (google-cloud-aiplatform, `vertexai/language_models`).
_BASE_LABEL = "google-vertex-llm-tuning-base-model-id"


class Online:
    """Models of one emulator."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def model(self, path: str) -> dict[str, Any]:
        """Return a model's resource; every tuned one exists. :raises ApiError: 404."""
        if "publishers/" not in path:
            base = self._tools.script.scenario.switches.tuned_from
            return {"name": path, "labels": {_BASE_LABEL: base.replace(".", "-")}}
        return {"name": path, "versionId": self._version(path), "launchStage": "GA"}

    def generate(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return a ``GenerateContentResponse``. :raises ApiError: 404 for the model, 400 for the request."""
        version, asked = self._version(path), canonical(request)
        # Media are not looked up: what may be read online is the caller's to know.
        takes_contested = self._tools.script.scenario.switches.contested_settings == "taken"
        if problem := problem_of(asked, lambda _uri: True, model=version, takes_contested=takes_contested):
            raise invalid(problem)
        digest = hashlib.blake2b(msgspec.json.encode(request, order="sorted"), digest_size=16).digest()
        return response_of(self._tools.model.answer(asked), version, digest, self._tools.clock.now())

    def _version(self, path: str) -> str:
        match = _PUBLISHED.fullmatch(path)
        scenario, day = self._tools.script.scenario, self._tools.clock.now().date().isoformat()
        if match is None or scenario.serves(f"{match['publisher']}/{match['model']}", "", day) is None:
            raise ApiError(404, f"Publisher Model `{path}` was not found or your project does not have access to it.")
        return match["model"]
