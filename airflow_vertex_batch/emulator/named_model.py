"""Which model answers? The one of that name."""

from __future__ import annotations

from airflow_vertex_batch.emulator.models import DeterministicModel, Model


def load_model(name: str) -> Model:
    """Return the model of that name: ``deterministic`` or ``smollm2``.

    :raises InputError: when the name is unknown or its packages are not installed.
    """
    if name == "deterministic":
        return DeterministicModel()
    from airflow_vertex_batch.emulator.local_model import LocalModel

    return LocalModel.load(name)
