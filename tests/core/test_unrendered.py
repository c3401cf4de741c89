"""Addresses in a DAG file: what is certainly wrong is said when it is read, what a template may correct is not."""

from __future__ import annotations

import pytest

from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.unrendered import (
    check_cloud_address,
    check_folder,
    check_location,
    check_output,
    check_table,
)

#: Whatever is rendered, or comes from another task.
LATER = [None, ("the output", "of a task"), "{{ var.value.place }}", "{% if a %}gs://b{% endif %}"]


class TestAFolder:
    @pytest.mark.parametrize(
        "value",
        [*LATER, "gs://b", "gs://b/a/", "gs://{{ b }}/a", "gs{{ rest }}", "g{{ rest }}", "gs:/{{ rest }}"],
        ids=str,
    )
    def test_that_may_be_one_passes(self, value):
        check_folder(value, "harvest_uri")

    @pytest.mark.parametrize(
        "value",
        ["", "my-bucket/answers", "/tmp/answers", "file:///tmp/answers", "s3://b/a", "GS://b/a", " gs://b", "gs:/b/a", "bq://p.d.t",
         "my-bucket/{{ ds }}", "/tmp/{{ ds }}", "file://{{ ds }}", "bq://{{ t }}", "gs:{b}/a"],
    )  # fmt: skip
    def test_elsewhere_is_refused_with_its_argument(self, value):
        with pytest.raises(
            InputError, match=r"harvest_uri='.*' is no folder in Cloud Storage\. Write it as harvest_uri='gs://"
        ):
            check_folder(value, "harvest_uri")

    @pytest.mark.parametrize("value", ["gs://", "gs:///a", "gs://My_Bucket/a", "gs://b\n/a"])
    def test_without_a_right_bucket_is_refused(self, value):
        with pytest.raises(InputError, match=r"names no bucket"):
            check_folder(value, "staging_uri")

    @pytest.mark.parametrize(
        ("value", "marks"),
        [("gs://b/a*", r"\*"), ("gs://b/a?/", r"\?"), ("gs://b/[a]/c", r"\["), ("gs://b/{{ ds }}/*?", r"\* and \?"),
         ("gs://b/{% if a %}x{% endif %}[", r"\[")],
    )  # fmt: skip
    def test_whose_name_is_a_pattern_is_refused(self, value, marks):
        with pytest.raises(InputError, match=rf"harvest_uri='.*' has {marks} in its name.*without it"):
            check_folder(value, "harvest_uri")

    @pytest.mark.parametrize("value", ["gs://b//a", "gs://b/a//c", "gs://b/a//"])
    def test_with_a_folder_that_has_no_name_is_refused(self, value):
        with pytest.raises(InputError, match=r"harvest_uri='.*' has a folder without a name.*with single slashes"):
            check_folder(value, "harvest_uri")

    def test_whose_template_may_be_empty_passes(self):
        check_folder("gs://b/{{ ds }}/a", "staging_uri")

    def test_whose_template_has_a_bracket_passes(self):
        check_folder("gs://b/{{ params['x'] * 2 }}/{# why? #}{% if a[0] %}{% endif %}", "staging_uri")


class TestWhatAJobWrites:
    @pytest.mark.parametrize("value", ["gs://b/*", "gs://b/a[1]/", "gs://{{ b }}/a?"])
    def test_is_no_pattern(self, value):
        check_cloud_address(value, "input_uri")
        with pytest.raises(InputError, match=r"output_uri='.*' has .* in its name"):
            check_output(value, "output_uri")

    @pytest.mark.parametrize("value", [*LATER, "gs://b/a", "bq://p.d"], ids=str)
    def test_that_may_be_right_passes(self, value):
        check_output(value, "output_uri")


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
        check_table(value, "dead_letters", project)

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
        with pytest.raises(InputError, match=r"dead_letters: '.*' names no BigQuery table\. Write it as bq://"):
            check_table(value, "dead_letters", project)


class TestALocation:
    @pytest.mark.parametrize("value", [*LATER, "global", "us", "europe-west4"], ids=str)
    def test_that_may_be_one_passes(self, value):
        check_location(value)

    @pytest.mark.parametrize("value", ["", "US Central", "localhost:19443?", "europe_west4", "us-central1/"])
    def test_that_is_none_is_refused(self, value):
        with pytest.raises(InputError, match=r"'.*' is no location\. Nothing was sent"):
            check_location(value)
