"""Addresses in a DAG file: what is certainly wrong is said when it is read, what a template may mend is not."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.errors import InputError
from airflow_vertex_batch.core.unrendered import check_cloud_address, check_folder, check_location, check_table

#: Whatever is rendered, or comes from another task.
LATER = [None, ("the output", "of a task"), "{{ var.value.place }}", "{% if a %}gs://b{% endif %}"]


class TestAFolder:
    @pytest.mark.parametrize(
        "value",
        [*LATER, "gs://b", "gs://b/a/", "gs://{{ b }}/a", "gs{{ rest }}", "g{{ rest }}", "gs:/{{ rest }}"],
        ids=str,
    )
    def test_that_may_be_one_passes(self, value):
        check_folder(value, "destination_uri")

    @pytest.mark.parametrize(
        "value",
        ["", "my-bucket/answers", "/tmp/answers", "file:///tmp/answers", "s3://b/a", "GS://b/a", " gs://b", "gs:/b/a", "bq://p.d.t",
         "my-bucket/{{ ds }}", "/tmp/{{ ds }}", "file://{{ ds }}", "bq://{{ t }}", "gs:{b}/a"],
    )  # fmt: skip
    def test_elsewhere_is_refused_with_its_argument(self, value):
        with pytest.raises(
            InputError, match=r"destination_uri='.*' is no folder in Cloud Storage\. Write it as destination_uri='gs://"
        ):
            check_folder(value, "destination_uri")

    @pytest.mark.parametrize("value", ["gs://", "gs:///a", "gs://My_Bucket/a", "gs://b\n/a"])
    def test_without_a_right_bucket_is_refused(self, value):
        with pytest.raises(InputError, match=r"names no bucket"):
            check_folder(value, "staging_uri")


class TestWhatAJobReadsOrWrites:
    @pytest.mark.parametrize("value", [*LATER, "gs://b/a", "bq://p.d", "bq://{{ t }}", "b{{ q }}"], ids=str)
    def test_is_in_cloud_storage_or_bigquery(self, value):
        check_cloud_address(value, "output_uri")

    @pytest.mark.parametrize("value", ["", "my-bucket/a", "/tmp/a", "p.d.t", "s{{ 3 }}", "file:///a", "{a}"])
    def test_elsewhere_is_refused_with_its_argument(self, value):
        with pytest.raises(InputError, match=r"output_uri='.*' is an address neither in Cloud Storage nor in BigQuery"):
            check_cloud_address(value, "output_uri")


class TestATable:
    @pytest.mark.parametrize(
        ("value", "project"),
        [*((each, None) for each in LATER),
         ("bq://p.d.t", None), ("p.d.t", ""), ("d.t", None), ("d.t", "p"), ("d.t", "{{ p }}")],
        ids=str,
    )  # fmt: skip
    def test_that_may_be_one_passes(self, value, project):
        check_table(value, "destination_table", project)

    @pytest.mark.parametrize(
        ("value", "project"),
        [
            ("", None),
            ("t", None),
            ("bq://p.d", ""),
            ("gs://b/a", None),
            ("p.d.t$20261122", None),
            ("d.t", "No Project"),
        ],
        ids=str,
    )
    def test_that_is_none_is_refused_with_its_argument(self, value, project):
        with pytest.raises(InputError, match=r"destination_table: '.*' names no BigQuery table\. Write it as bq://"):
            check_table(value, "destination_table", project)


class TestALocation:
    @pytest.mark.parametrize("value", [*LATER, "global", "us", "europe-west4"], ids=str)
    def test_that_may_be_one_passes(self, value):
        check_location(value)

    @pytest.mark.parametrize("value", ["", "US Central", "localhost:19443?", "europe_west4", "us-central1/"])
    def test_that_is_none_is_refused(self, value):
        with pytest.raises(InputError, match=r"'.*' is no location\. Nothing was sent"):
            check_location(value)
