"""What does a batch without Airflow run on? Cloud Storage, BigQuery and Vertex AI of one account: the environment's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.outage import OUTAGE_SECONDS
from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
from airflow_vertex_batch.gcp.environment import job_service, own_project
from airflow_vertex_batch.gcp.storage import GcsStore

if TYPE_CHECKING:
    from airflow_vertex_batch.gcp.vertex import VertexClient


class EnvironmentCloud:
    """Google Cloud with the application default credentials, or the local servers that the environment names.

    :param project: of the jobs; that of the credentials where empty.
    :param location: of new jobs.
    :raises InputError: when nobody names a project.
    """

    def __init__(self, project: str, location: str) -> None:
        self.project = project or self._own_project()
        self.location, self.store, self.warehouse = location, GcsStore(), BigQueryWarehouse(project=self.project)

    def service(self, location: str) -> VertexClient:
        """Return the jobs of a location."""
        return job_service(self.project, location, OUTAGE_SECONDS)

    def check_destination(self, uri: str) -> None:
        """Ask whether answers can land there.

        :raises InputError: when they cannot.
        """
        from airflow_vertex_batch.core.upkeep.preflight import check_destination
        from airflow_vertex_batch.gcp.doctor import GoogleCloud, Hosts, environment_credentials

        hosts = Hosts.from_environment()
        cloud = GoogleCloud(lambda: environment_credentials(hosts), self.project, self.location, hosts)
        check_destination(uri, cloud, project=self.project, location=self.location)

    @staticmethod
    def _own_project() -> str:
        project = own_project()
        if not project:
            todo = "Set project_id in the spec, or GOOGLE_CLOUD_PROJECT"
            raise InputError("Nothing says in which project the jobs are created", todo=todo)
        return project
