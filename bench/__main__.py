"""Run every measurement, or those named: ``python -m bench imports prepare export poller``. The long ones only by name:
``python -m bench deferred soak``.
"""

from __future__ import annotations

import sys

from tabulate import tabulate

from bench import chaos, check, deferred, export, imports, lines, poller, prepare, soak, storage

_ALL = {
    "imports": imports.measure,
    "prepare": prepare.throughput,
    "export": export.export_rows,
    "check": check.measure,
    "storage": storage.rates,
    "prepare-memory": prepare.memory,
    "export-memory": export.memory,
    "lines": lines.memory,
    "poller": poller.measure,
    "chaos": chaos.measure,
}
#: Not part of all: they start a real Airflow, and take minutes or an hour.
_LONG = {"deferred": deferred.measure, "soak": soak.measure}


def main() -> int:
    """Print one table for each measurement."""
    for name in sys.argv[1:] or list(_ALL):
        headers, rows = (_ALL | _LONG)[name]()
        print(f"\n{name}\n{tabulate(rows, headers=headers)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
