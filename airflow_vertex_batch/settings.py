"""Which values hold when a task does not give its own? The ``[vertex_batch]`` section of the Airflow configuration.

The whole section is read when a task runs. When a DAG file is read, only the options that the task does not give are
read, one by one (`Settings.option`), because an option may come from a secrets backend, which takes time.
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
    :param installation: the name of this Airflow, as a label value. If it is not set, a name is derived.
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
    """Return a name that is the same on all machines of this Airflow, and differs between Airflows.

    It is made from the address and the encryption key of Airflow, because all machines of one Airflow share these two
    and a worker knows them. The key has 256 random bits and the hash is cut to 40, so the name reveals nothing about
    the key.
    """
    known = [str(conf.get(*option, fallback="") or "") for option in (("api", "base_url"), ("core", "fernet_key"))]
    digest = hashlib.sha256("\0".join(("airflow-vertex-batch installation", *known)).encode()).hexdigest()
    return f"airflow-{digest[:10]}"
