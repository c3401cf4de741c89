"""What the environment says of local servers: an address, or an error that names the variable."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.address import Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
from airflow_vertex_batch.gcp.doctor import Hosts
from airflow_vertex_batch.gcp.environment import job_service, local_server
from airflow_vertex_batch.gcp.storage import GcsStore

USES = {
    "VERTEX_BATCH_EMULATOR_HOST": lambda: job_service("demo", "global", 5.0),
    "STORAGE_EMULATOR_HOST": lambda: GcsStore().read(Uri.parse("gs://b/x")),
    "BIGQUERY_EMULATOR_HOST": lambda: BigQueryWarehouse().client,
}


class TestALocalServer:
    @pytest.mark.parametrize("address", ["http://localhost:9000", "https://[::1]:9000", "http://h/path"])
    def test_is_named_by_its_address(self, monkeypatch, address):
        monkeypatch.setenv("SOME_HOST", f"{address}/")
        assert local_server("SOME_HOST") == address

    @pytest.mark.parametrize("set_to", [None, ""], ids=["unset", "empty"])
    def test_is_none_where_nothing_is_said(self, monkeypatch, set_to):
        monkeypatch.delenv("SOME_HOST", raising=False) if set_to is None else monkeypatch.setenv("SOME_HOST", set_to)
        assert local_server("SOME_HOST") == ""

    @pytest.mark.parametrize("use", [*USES, "the doctor"])
    @pytest.mark.parametrize("text", ["http://[::1", "localhost:9000", "htp://h", "http://", "http://h:port", "x"])
    def test_that_is_no_address_is_named_with_its_variable(self, monkeypatch, use, text):
        variable = use if use in USES else "STORAGE_EMULATOR_HOST"
        monkeypatch.setenv(variable, text)
        with pytest.raises(InputError, match=rf"{variable} is .*no address.*{variable}=http://"):
            USES.get(use, Hosts.from_environment)()
