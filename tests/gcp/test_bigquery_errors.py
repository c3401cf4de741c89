"""Which of BigQuery's refusals may pass by themselves?"""

from __future__ import annotations

import pytest
from google.api_core.exceptions import BadRequest

from airflow_vertex_batch.core.errors import InputError, ServiceError
from airflow_vertex_batch.gcp.bigquery_errors import translated


@pytest.mark.parametrize(
    "message",
    [
        "Could not serialize access to table p:d.t due to concurrent update",
        'Catalog write-write conflict on create with "gcs_emulator"',
    ],
)
def test_statements_that_met_on_one_table_may_be_tried_again(message):
    with pytest.raises(ServiceError, match=r"busy with p\.d\.t") as raised, translated("p.d.t"):
        raise BadRequest(message)
    assert raised.value.retryable


def test_a_mistake_in_a_statement_is_not_tried_again():
    with pytest.raises(InputError, match=r"refused p\.d\.t"), translated("p.d.t"):
        raise BadRequest("Syntax error: Unexpected keyword WHERE")
