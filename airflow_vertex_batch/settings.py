"""What does the installation say where a task says nothing? The ``[vertex_batch]`` section of the Airflow
configuration.

All of it is read when a task runs. When a DAG file is read, a single option is (`Settings.option`), where the task does
not give it: others may come from secrets back ends, which cost time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """The options; an empty text means that nothing is set. `provider` documents each for Airflow.

    :param location: of new jobs: a region, ``global``, ``us`` or ``eu``.
    :param staging_uri: ``gs://`` folder for request files and logs.
    :param prices_file: JSON price file, local or ``gs://``, whose entries replace the shipped prices by model.
    :param installation: the name of this Airflow, as a label value; one is derived where nothing is set.
    """

    location: str = ""
    staging_uri: str = ""
    prices_file: str = ""
    installation: str = ""

    @staticmethod
    def option(name: str) -> str:
        """Return one option as it is now."""
        from airflow.providers.common.compat.sdk import conf

        return str(conf.get("vertex_batch", name, fallback="") or "")

    @classmethod
    def read(cls) -> Settings:
        """Return the options as they are now."""
        from airflow.providers.common.compat.sdk import conf

        from airflow_vertex_batch.core.purchase.buyer import label_value

        found = {each.name: cls.option(each.name) for each in fields(cls)}
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
