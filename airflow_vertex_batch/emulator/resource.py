"""Is this create body acceptable, and how does a job look as a resource?

Validation is shallow on purpose, as the service's is: members, kinds and the model are checked, buckets and tables are
not (F1: missing buckets are accepted and the job fails later).

Invariants: an accepted body is stored in camelCase with ``uris`` as a list; unknown members are refused, as by every
Google API; output-only members in a body are ignored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.core.domain.address import TableId, Uri
from airflow_vertex_batch.core.domain.errors import InputError
from airflow_vertex_batch.core.domain.job import JobState
from airflow_vertex_batch.emulator.wire import ApiError, camel, error_info, invalid, rfc3339

if TYPE_CHECKING:
    from airflow_vertex_batch.emulator.job import Job
    from airflow_vertex_batch.emulator.scenario import Scenario, Switches


#: Members of BatchPredictionJob (API discovery document aiplatform.v1, revision 20261106; ``endpoint`` is v1beta1).
_INPUT_MEMBERS = frozenset(
    {
        "displayName",
        "model",
        "inputConfig",
        "outputConfig",
        "labels",
        "modelParameters",
        "instanceConfig",
        "dedicatedResources",
        "serviceAccount",
        "manualBatchTuningParameters",
        "generateExplanation",
        "explanationSpec",
        "unmanagedContainerModel",
        "encryptionSpec",
        "disableContainerLogging",
        "modelMonitoringConfig",
        "endpoint",
        "modelVersionId",
    }
)
_OUTPUT_MEMBERS = frozenset(
    {
        "name",
        "state",
        "error",
        "partialFailures",
        "completionStats",
        "outputInfo",
        "createTime",
        "startTime",
        "endTime",
        "updateTime",
        "resourcesConsumed",
        "satisfiesPzs",
        "satisfiesPzi",
        "modelMonitoringStatsAnomalies",
        "modelMonitoringStatus",
    }
)
_MODEL = re.compile(
    r"(?:projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)/)?"
    r"(?:publishers/(?P<publisher>[^/]+)/models/(?P<model>[^/]+)|(?P<kind>models|endpoints)/(?P<tuned>[^/]+))"
)
_MODERN = re.compile(r"gemini-([3-9]|\d\d)\b")
#: Labels (same source): at most 64 code points, lowercase letters, digits, ``_`` and ``-``, international ones allowed.
_MAX_NAME, _MAX_LABEL, _MAX_LABELS = 128, 64, 64


def accept(body: Any, location: str, scenario: Scenario, day: str) -> dict[str, Any]:
    """Return the body of a create call as it will be stored.

    :param day: today, ISO: models retire.
    :raises ApiError: 400 when it is malformed, 404 when its model is unknown or not served for batch in `location`.
    """
    if not isinstance(body, dict):
        raise invalid("Invalid JSON payload received. The body must be a BatchPredictionJob object.")
    members = {camel(name): value for name, value in body.items() if value is not None}
    for name in members:
        if name not in _INPUT_MEMBERS | _OUTPUT_MEMBERS:
            raise _unknown(name, "batch_prediction_job")
    kept = {name: value for name, value in members.items() if name in _INPUT_MEMBERS}
    _check_name(kept)
    _check_labels(kept)
    kept["inputConfig"] = _input(kept.get("inputConfig"), scenario.switches)
    kept["outputConfig"] = _output(kept.get("outputConfig"))
    kept["model"] = _model(kept, location, scenario, day)
    kept["modelVersionId"] = "1"
    return kept


def _check_name(members: dict[str, Any]) -> None:
    name = members.get("displayName")
    if not isinstance(name, str) or not name:
        raise invalid("The displayName is required.", field="batch_prediction_job.display_name")
    if len(name) > _MAX_NAME:
        raise invalid(
            f"The displayName has {len(name)} characters; at most {_MAX_NAME} are allowed.",
            field="batch_prediction_job.display_name",
        )


def _check_labels(members: dict[str, Any]) -> None:
    labels = members.get("labels", {})
    if not isinstance(labels, dict) or len(labels) > _MAX_LABELS:
        raise invalid(
            f"The labels must be an object of at most {_MAX_LABELS} members.", field="batch_prediction_job.labels"
        )
    for key, value in labels.items():
        for what, text in (("key", key), ("value", value)):
            if not isinstance(text, str) or not _legal_label(text, needed=what == "key"):
                raise invalid(
                    f"Label {what} {text!r} must have at most {_MAX_LABEL} lowercase letters, digits, '_' and '-'.",
                    field="batch_prediction_job.labels",
                )


def _legal_label(text: str, *, needed: bool) -> bool:
    letters_ok = all(mark in "_-" or (mark.isalnum() and mark == mark.lower()) for mark in text)
    return letters_ok and len(text) <= _MAX_LABEL and (bool(text) or not needed)


def _members(value: Any, where: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"The {camel(where.rpartition('.')[2])} is required.", field=where)
    members = {camel(name): item for name, item in value.items() if item is not None}
    for name in members:
        if name not in known:
            raise _unknown(name, where)
    return members


def _input(value: Any, switches: Switches) -> dict[str, Any]:
    where = "batch_prediction_job.input_config"
    source = _members(value, where, {"instancesFormat", "gcsSource", "bigquerySource", "vertexMultimodalDatasetSource"})
    _one_format(source, "instancesFormat", where)
    match source:
        case {"instancesFormat": "jsonl", "gcsSource": gcs}:
            uris = _members(gcs, f"{where}.gcs_source", {"uris"}).get("uris")
            return {"instancesFormat": "jsonl", "gcsSource": {"uris": _uris(uris, switches)}}
        case {"instancesFormat": "bigquery", "bigquerySource": table}:
            uri = _members(table, f"{where}.bigquery_source", {"inputUri"}).get("inputUri")
            _check_table(uri, f"{where}.bigquery_source.input_uri", parts=3)
            return {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": uri}}
    raise invalid(f"The source does not fit instancesFormat {source['instancesFormat']!r}.", field=where)


def _uris(uris: Any, switches: Switches) -> list[str]:
    field = "batch_prediction_job.input_config.gcs_source.uris"
    if isinstance(uris, str) and switches.scalar_uris == "accepted":
        uris = [uris]
    if not isinstance(uris, list) or not uris:
        raise invalid(f"Invalid value at '{field}' (uris): a list of Cloud Storage URIs is expected.", field=field)
    for uri in uris:
        _check_gcs(uri, field)
    return uris


def _output(value: Any) -> dict[str, Any]:
    where = "batch_prediction_job.output_config"
    sink = _members(
        value,
        where,
        {"predictionsFormat", "gcsDestination", "bigqueryDestination", "vertexMultimodalDatasetDestination"},
    )
    _one_format(sink, "predictionsFormat", where)
    match sink:
        case {"predictionsFormat": "jsonl", "gcsDestination": gcs}:
            prefix = _members(gcs, f"{where}.gcs_destination", {"outputUriPrefix"}).get("outputUriPrefix")
            _check_gcs(prefix, f"{where}.gcs_destination.output_uri_prefix")
            return {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": prefix}}
        case {"predictionsFormat": "bigquery", "bigqueryDestination": table}:
            uri = _members(table, f"{where}.bigquery_destination", {"outputUri"}).get("outputUri")
            _check_table(uri, f"{where}.bigquery_destination.output_uri", parts=1)
            return {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": uri}}
    raise invalid(f"The destination does not fit predictionsFormat {sink['predictionsFormat']!r}.", field=where)


def _one_format(members: dict[str, Any], name: str, where: str) -> None:
    if members.get(name) not in {"jsonl", "bigquery"}:
        raise invalid(f"The {name} must be 'jsonl' or 'bigquery', not {members.get(name)!r}.", field=f"{where}.{name}")


def _check_gcs(uri: Any, field: str) -> None:
    try:
        if isinstance(uri, str) and Uri.parse(uri).scheme == "gs":
            return
    except InputError:
        pass
    raise invalid(f"{uri!r} is not a Cloud Storage URI (gs://bucket/path).", field=field)


def _check_table(uri: Any, field: str, *, parts: int) -> None:
    if not isinstance(uri, str) or not re.fullmatch(rf"bq://[^./]+(\.[^./]+){{{parts - 1},2}}", uri):
        raise invalid(f"{uri!r} is not a BigQuery URI (bq://project.dataset.table).", field=field)


def _model(members: dict[str, Any], location: str, scenario: Scenario, day: str) -> str:
    if "unmanagedContainerModel" in members or "model" not in members:
        raise invalid("The model is required.", field="batch_prediction_job.model")
    path = members["model"]
    match = _MODEL.fullmatch(path) if isinstance(path, str) else None
    if match is None:
        raise invalid(f"{path!r} is not the name of a model.", field="batch_prediction_job.model")
    if match["location"] and match["location"] != location:
        raise invalid(f"The model {path} is not in the job's location {location}.", field="batch_prediction_job.model")
    # Tuned models are never served in global, and those of Gemini 3 and newer nowhere (S1).
    served: bool | None = location != "global" and not _MODERN.match(scenario.switches.tuned_from)
    if match["publisher"]:
        served = scenario.serves(f"{match['publisher']}/{match['model']}", location, day)
    elif not match["project"]:
        served = None
    if served is None:
        raise ApiError(404, f"The PublisherModel {path} does not exist.")
    if not served:
        raise ApiError(
            404,
            f"The model {path} is not supported for batch prediction in {location}.",
            reason="MODEL_NOT_SUPPORTED_FOR_BATCH",
        )
    return str(path)


def _unknown(name: str, where: str) -> ApiError:
    return invalid(
        f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field.", field=where
    )


def table_of(uri: str, stamp: str) -> TableId:
    """Return the table that a ``bq://`` destination means. Missing parts of the name are made from the job's time."""
    parts = uri.removeprefix("bq://").split(".")
    # The dataset the official SDK fills in for a bare project (google-cloud-aiplatform 2.7.0,
    # vertexai/batch_prediction).
    defaults = (parts[0], "gen_ai_batch_prediction", f"predictions_{stamp}")
    return TableId(*parts, *defaults[len(parts) :])


def searchable(job: Job) -> dict[str, Any]:
    """Return the members of a job's resource that a filter may name."""
    return {**job.body, "state": job.state, "createTime": rfc3339(job.created_at)}


def resource_of(job: Job, switches: Switches) -> dict[str, Any]:
    """Return a job as the API shows it."""
    times = {
        "createTime": job.created_at,
        "startTime": job.started_at,
        "endTime": job.ended_at,
        "updateTime": job.updated_at,
    }
    return {
        "name": job.name,
        **job.body,
        "state": job.state,
        **({"error": _error(job, switches)} if job.error_code else {}),
        **({"outputInfo": job.output_info} if _shows_output(job, switches) else {}),
        **({"completionStats": stats} if (stats := _stats(job, switches)) else {}),
        **{name: rfc3339(when) for name, when in times.items() if when is not None},
    }


def _error(job: Job, switches: Switches) -> dict[str, Any]:
    error: dict[str, Any] = {"code": job.error_code, "message": job.error_message}
    if switches.error_details:
        error["details"] = [error_info("BATCH_PREDICTION_JOB_FAILED")]
    return error


def _shows_output(job: Job, switches: Switches) -> bool:
    if job.is_output_unnamed:
        return False
    if job.state == JobState.FAILED and not switches.failed_output_info:
        return False
    if job.state == JobState.CANCELLED and not switches.cancelled_output:
        return False
    return bool(job.output_info)


def _stats(job: Job, switches: Switches) -> dict[str, str]:
    """Counters as JSON strings; zeros and the whole object are left out as captured (F1)."""
    if not job.started_at or not (job.is_over or switches.live_stats):
        return {}
    account = job.account
    successful = account.successful_count + (account.missing if switches.counted == "answers" else 0)
    counts = {
        "successfulCount": successful,
        "failedCount": account.failed,
        "incompleteCount": job.request_count - successful - account.failed,
    }
    return {name: str(count) for name, count in counts.items() if count}


def masked(document: dict[str, Any], mask: str) -> dict[str, Any]:
    """Return the members of `document` that a field mask names (paths in either case; ``*`` or nothing means all)."""
    paths = [[camel(step) for step in path.strip().split(".")] for path in mask.split(",") if path.strip()]
    if not paths or ["*"] in paths:
        return document
    kept: dict[str, Any] = {}
    for path in paths:
        _copy(document, kept, path)
    return kept


def _copy(source: dict[str, Any], target: dict[str, Any], path: list[str]) -> None:
    head, *rest = path
    if head not in source:
        return
    if rest and isinstance(source[head], dict):
        _copy(source[head], target.setdefault(head, {}), rest)
    else:
        target[head] = source[head]


#: The only member of the resource that is an enum, and the spelling protobuf clients ask for with
#: ``enum-encoding=int``.
def with_numbers(document: dict[str, Any]) -> dict[str, Any]:
    """Return a resource with its state as a number; a state that has no number yet stays text."""
    state = document.get("state")
    known = {str(state): state.number for state in JobState}
    return {**document, "state": known.get(str(state), state)} if "state" in document else document
