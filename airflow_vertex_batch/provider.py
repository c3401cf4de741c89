"""What does this package add to Airflow? This dictionary says it to Airflow. If it were invalid, every Airflow command
would fail.
"""

from __future__ import annotations

from typing import Any

_INTEGRATION = "Vertex AI Gemini batch"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata in the form of Airflow's `provider_info.schema.json`."""
    from airflow_vertex_batch import __version__

    def modules(*names: str) -> list[dict[str, Any]]:
        return [
            {"integration-name": _INTEGRATION, "python-modules": [f"airflow_vertex_batch.{name}" for name in names]}
        ]

    return {
        "package-name": "airflow-vertex-batch",
        "name": "Vertex AI batch",
        "description": "Nightly Gemini batches on Vertex AI: prepare, create, wait, repair, export.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/batch-prediction-gemini",
                "tags": ["gcp"],
            }
        ],
        "operators": modules("operators"),
        "sensors": modules("sensors"),
        "hooks": modules("hooks"),
        "triggers": modules("triggers"),
        "extra-links": [
            f"airflow_vertex_batch.links.{name}"
            for name in ("VertexBatchJobLink", "VertexBatchOutputLink", "VertexBatchTableLink")
        ],
        "task-decorators": [
            {"name": "vertex_batch", "class-name": "airflow_vertex_batch.decorators.vertex_batch_task"}
        ],
        "config": {"vertex_batch": _section()},
    }


def _section() -> dict[str, Any]:
    """Return the options of the ``[vertex_batch]`` section; `settings` reads them."""
    options = {
        "location": _option(
            "Location of new jobs where a task names none: a region, `global`, `us` or `eu`.", "global"
        ),
        "staging_uri": _option(
            "Cloud Storage folder for request files and logs, where a task names none.",
            "gs://my-bucket/vertex-batch",
        ),
        "prices_file": _option(
            "JSON price file, local or in Cloud Storage, whose entries replace the shipped ones by model; its "
            "cached_discount, replaces or adds, says what cached tokens cost in a batch.",
            "gs://my-bucket/prices.json",
        ),
        "installation": _option(
            "Name of this Airflow, the same on all its machines: stamped on jobs (label `avb-installation`) and on the "
            "log, so that two Airflows never take each other's jobs for their own. Derived from `[api] base_url` "
            "and `[core] fernet_key` where not set. Set it where machines of one Airflow differ in those, or where the "
            "key will be changed. Lower-case letters, digits, `_` and `-`, at most 63.",
            "airflow-production",
        ),
    }
    return {"description": "Defaults of the Vertex AI batch provider.", "options": options}


def _option(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "version_added": "0.1.0", "type": "string", "example": example, "default": ""}
