"""What does the installation say where a task says nothing? The ``[vertex_batch]`` section of the Airflow
configuration.

Read when a task runs, never when a DAG file is parsed: options may come from secrets back ends, which cost time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """The options; an empty text means that nothing is set. `provider` documents each for Airflow.

    :param location: of new jobs: a region, ``global``, ``us`` or ``eu``.
    :param staging_uri: ``gs://`` folder for request files and the ledger.
    :param prices_file: JSON price file, local or ``gs://``, whose entries replace the shipped prices by model.
    :param installation: the name of this Airflow, as a label value; one is derived where nothing is set.
    """

    location: str = ""
    staging_uri: str = ""
    prices_file: str = ""
    installation: str = ""

    @classmethod
    def read(cls) -> Settings:
        """Return the options as they are now."""
        from airflow.sdk import conf

        from airflow_vertex_batch.core.purchase import label_value

        found = {each.name: str(conf.get("vertex_batch", each.name, fallback="") or "") for each in fields(cls)}
        found["installation"] = label_value(found["installation"]) or _derived(conf)
        return cls(**found)


def _derived(conf: Any) -> str:
    """Return a name that stays the same for all machines of this Airflow, and differs between Airflows.

    Its address and its encryption key are what the machines of one Airflow share, as far as a worker knows. A hash of
    256 random bits, cut to 40, tells nothing about them.
    """
    known = [str(conf.get(*option, fallback="") or "") for option in (("api", "base_url"), ("core", "fernet_key"))]
    digest = hashlib.sha256("\0".join(("airflow-vertex-batch installation", *known)).encode()).hexdigest()
    return f"airflow-{digest[:10]}"
