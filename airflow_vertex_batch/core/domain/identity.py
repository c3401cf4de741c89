"""Whose batch is it? Staging folder, DAG, run, task and map index, and the names that are made from them."""

from __future__ import annotations

import hashlib
import re

from airflow_vertex_batch.core.domain.record import Record


class Identity(Record, frozen=True, kw_only=True):
    """Whose batch it is: a task's in a run, never one try's. The same identity never pays for the same rows twice.

    :param staging: the staging folder whose log names the jobs. Two Airflows with folders of their own run the same
        DAG without finding each other's jobs.
    """

    staging: str = ""
    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1

    @property
    def key(self) -> str:
        """32 hexadecimal digits, legal as a label value and as an object name."""
        staging = self.staging.rstrip("/")
        parts = [staging, self.dag_id, self.task_id, self.run_id, str(self.map_index)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]

    @property
    def path(self) -> str:
        """A readable folder name for this task of this run."""
        parts = [self.dag_id, self.run_id, self.task_id]
        if self.map_index >= 0:
            parts.append(str(self.map_index))
        return "/".join(safe_name(part) for part in parts)


def safe_name(text: str) -> str:
    """Return `text` as one object-name segment: other characters become ``_``; a hash keeps changed names apart."""
    clean = re.sub(r"[^\w.+=@-]", "_", text, flags=re.ASCII).strip(".")
    if clean == text:
        return clean
    return f"{clean}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
