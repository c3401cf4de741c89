"""Where do the Google provider's clients go instead of to Google? To the emulator: nothing else about them is changed.

Airflow imports this in each of its processes. The scheduler's tasks are forked from it, with these modules loaded.
"""

# ruff: noqa: F401 - loaded for others

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

_URL, _PROJECT, _REGION = os.environ["VERTEX_BATCH_EMULATOR_HOST"], os.environ["VERTEX_BATCH_PROJECT"], "us-central1"


def _redirect_vertex_ai() -> None:
    """The SDK by its own settings; the asynchronous client, which has no REST, by the synchronous one in a thread."""
    from airflow.providers.google.cloud.hooks.vertex_ai.batch_prediction_job import BatchPredictionJobAsyncHook
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform
    from google.cloud.aiplatform_v1 import JobServiceClient

    aiplatform.init(project=_PROJECT, location=_REGION, api_endpoint=_URL, api_transport="rest")

    class Client:
        """As much of `JobServiceAsyncClient` as the trigger uses."""

        batch_prediction_job_path = staticmethod(JobServiceClient.batch_prediction_job_path)

        def __init__(self) -> None:
            self._client = JobServiceClient(
                credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
                transport="rest",
                client_options={"api_endpoint": _URL},
            )

        async def get_batch_prediction_job(self, **arguments: Any) -> Any:
            """Ask about a job."""
            arguments.pop("retry")
            return await asyncio.to_thread(self._client.get_batch_prediction_job, **arguments)

    async def client(_self: Any, region: str | None = None) -> Client:  # noqa: ARG001 - the hook's signature
        return await asyncio.to_thread(Client)

    BatchPredictionJobAsyncHook.get_job_service_client = client


def _redirect_gen_ai() -> None:
    """The same calls, of the API that the emulator speaks."""
    from airflow.providers.google.cloud.hooks.gen_ai import GenAIGeminiAPIAsyncHook, GenAIGeminiAPIHook
    from google import genai
    from google.oauth2.credentials import Credentials

    def client(_self: Any) -> Any:
        credentials = Credentials(token="emulator")  # type: ignore[no-untyped-call]
        options = {"base_url": _URL}
        return genai.Client(
            vertexai=True, project=_PROJECT, location=_REGION, credentials=credentials, http_options=options
        )

    async def async_client(self: Any) -> Any:
        return client(self).aio

    GenAIGeminiAPIHook.get_genai_client = client
    GenAIGeminiAPIAsyncHook.get_async_client = async_client


if {"scheduler", "triggerer"} & set(sys.argv):
    import google.cloud.bigquery
    import google.cloud.storage

    import airflow_vertex_batch.core.batch
    import airflow_vertex_batch.hooks
    import airflow_vertex_batch.operators

    _redirect_vertex_ai()
    _redirect_gen_ai()
