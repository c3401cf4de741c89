"""What does a DAG file pay for importing us? CPU seconds in fresh interpreters, the candidates taking turns."""

from __future__ import annotations

import statistics
import subprocess
import sys

_ROUNDS = 3
_PLAIN = "from airflow.sdk import DAG, BaseOperator"
_CANDIDATES = {
    "airflow.sdk alone": _PLAIN,
    "ours: operators and sensors": f"{_PLAIN}\nimport airflow_vertex_batch.operators, airflow_vertex_batch.sensors",
    "ours: the TaskGroup": f"{_PLAIN}\nfrom airflow_vertex_batch import vertex_batch",
    "Google provider's batch operator": (
        f"{_PLAIN}\nfrom airflow.providers.google.cloud.operators.vertex_ai import batch_prediction_job"
    ),
}
_BARE = {"import airflow_vertex_batch": "import airflow_vertex_batch"}


def measure() -> tuple[list[str], list[list[object]]]:
    """Return CPU seconds and their ratio to Airflow's SDK alone."""
    candidates = {**_CANDIDATES, **_BARE}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    modules = {}
    for _ in range(_ROUNDS):
        for name, code in candidates.items():
            cpu, count, airflow, google = _import(code)
            seconds[name].append(cpu)
            modules[name] = (count, "yes" if airflow else "no", "yes" if google else "no")
    base = statistics.median(seconds["airflow.sdk alone"])
    rows = [
        [name, f"{statistics.median(spent):.2f}", f"{statistics.median(spent) / base:.2f}", *modules[name]]
        for name, spent in seconds.items()
    ]
    return ["import", "CPU s (median)", "ratio", "modules", "loads airflow", "loads google"], rows


def _import(code: str) -> tuple[float, int, int, int]:
    probe = (
        "import sys, time\nbefore = set(sys.modules)\nbegan = time.process_time()\n"
        f"{code}\nspent = time.process_time() - began\n"
        "new = set(sys.modules) - before\n"
        "print(spent, len(sys.modules), int('airflow' in new), int(any(name.startswith('google.') for name in new)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    spent, count, airflow, google = done.stdout.split()[-4:]
    return float(spent), int(count), int(airflow), int(google)
