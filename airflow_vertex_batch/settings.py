"""What does the installation say where a task says nothing? The ``[vertex_batch]`` section of the Airflow
configuration.

Read when a task runs, never when a DAG file is parsed: options may come from secrets back ends, which cost time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Settings:
    """The options; an empty text means that nothing is set. `provider` documents each for Airflow.

    :param location: of new jobs: a region, ``global``, ``us`` or ``eu``.
    :param staging_uri: ``gs://`` folder for request files and the ledger.
    :param prices_file: JSON price file, local or ``gs://``, whose entries replace the shipped prices by model.
    """

    location: str = ""
    staging_uri: str = ""
    prices_file: str = ""

    @classmethod
    def read(cls) -> Settings:
        """Return the options as they are now."""
        from airflow.sdk import conf

        return cls(**{each.name: str(conf.get("vertex_batch", each.name, fallback="") or "") for each in fields(cls)})
