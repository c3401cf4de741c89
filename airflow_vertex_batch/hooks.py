"""How does an Airflow connection become clients? `VertexBatchHook` gives credentials, project, location and endpoint to
`gcp`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

from airflow_vertex_batch.core.domain.errors import TO_DO, InputError
from airflow_vertex_batch.gcp.environment import ENDPOINT_VARIABLE, local_server
from airflow_vertex_batch.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_vertex_batch.core.domain.address import JobName
    from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
    from airflow_vertex_batch.gcp.doctor import GoogleCloud
    from airflow_vertex_batch.gcp.storage import GcsStore
    from airflow_vertex_batch.gcp.vertex import AsyncVertexClient, VertexClient

#: Connection extra that replaces the Vertex AI host. It wins over the environment variable.
ENDPOINT_EXTRA = "vertex_batch_endpoint"


class VertexBatchHook(GoogleBaseHook):
    """Google Cloud clients of one connection.

    Uses the Google provider's connection type ``google_cloud_platform``. The extra ``vertex_batch_endpoint``, or the
    environment variable ``VERTEX_BATCH_EMULATOR_HOST``, replaces the Vertex AI host.

    :param gcp_conn_id: the Airflow connection.
    :param impersonation_chain: service account to impersonate, or the chain of them.
    :param project_id: the project of the jobs; the project of the connection if not given.
    :param location: ``us-central1`` and other regions, ``global``, ``us`` or ``eu``; ``[vertex_batch] location`` if not
        given.
    :raises AirflowNotFoundException: when Airflow has no such connection.
    """

    def __init__(
        self,
        gcp_conn_id: str = "google_cloud_default",
        impersonation_chain: str | Sequence[str] | None = None,
        project_id: str | None = None,
        location: str | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            super().__init__(gcp_conn_id=gcp_conn_id, impersonation_chain=impersonation_chain, **kwargs)
        except AirflowNotFoundException as error:
            # Airflow's own exception, which is retried: a secrets backend that does not answer looks the same.
            raise AirflowNotFoundException(
                f"{error}.\n{TO_DO}Correct gcp_conn_id={gcp_conn_id!r}, or make the connection: "
                f"airflow connections add {gcp_conn_id} --conn-type google_cloud_platform."
            ) from None
        self._jobs_project: str | None = project_id
        self._jobs_location: str | None = location
        self._clients: dict[tuple[str, str], VertexClient] = {}

    @property
    def project(self) -> str:
        """The project of the jobs.

        :raises InputError: when neither the task nor the connection names one.
        """
        project = self._jobs_project or self.project_id
        if not project:
            raise InputError(
                f"Connection {self.gcp_conn_id!r} names no project",
                todo="Set project_id on the task or in the connection",
            )
        return project

    @property
    def location(self) -> str:
        """The location of new jobs.

        :raises InputError: when no location is set. There is no default, because the location decides which models are
            served, and at what price.
        """
        location = self._jobs_location or Settings.read().location
        if not location:
            raise InputError(
                "No location is set",
                todo="Set location='global' (newer Gemini models) or a region, or [vertex_batch] location",
            )
        return location

    @property
    def endpoint(self) -> str:
        """The address that replaces Google's, or an empty text."""
        return str(self._get_field(ENDPOINT_EXTRA) or local_server(ENDPOINT_VARIABLE))

    def store(self) -> GcsStore:
        """Return Cloud Storage as the engine's object store."""
        from airflow_vertex_batch.gcp.storage import GcsStore

        return GcsStore.of(self.project, self.get_credentials())

    def warehouse(self) -> BigQueryWarehouse:
        """Return BigQuery as the engine's warehouse."""
        from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse

        return BigQueryWarehouse.of(self.project, self.get_credentials())

    def jobs(self, of: JobName | None = None) -> VertexClient:
        """Return the job service, for new jobs or for the project and location of an existing one.

        There is one service for each project and location. It remembers an outage, so that many jobs do not each wait
        for its end.
        """
        from airflow_vertex_batch.gcp.vertex import VertexClient

        place = self._place(of)
        if place not in self._clients:
            self._clients[place] = VertexClient(self.get_credentials(), *place, self.endpoint)
        return self._clients[place]

    def async_jobs(self, of: JobName) -> AsyncVertexClient:
        """Return the asynchronous job service of an existing job's project and location."""
        from airflow_vertex_batch.gcp.vertex import AsyncVertexClient

        return AsyncVertexClient(self.get_credentials(), *self._place(of), self.endpoint)

    def doctor(self) -> GoogleCloud:
        """Return the client with which a preflight asks Google."""
        from airflow_vertex_batch.gcp.doctor import GoogleCloud, Hosts

        return GoogleCloud(self.get_credentials, self.project, self.location, Hosts.from_environment(self.endpoint))

    def _place(self, of: JobName | None) -> tuple[str, str]:
        return (of.project, of.location) if of else (self.project, self.location)
