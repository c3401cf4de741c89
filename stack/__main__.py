"""``make up``: all local servers and an Airflow with the DAGs of ``dags/``, until Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from stack.laptop import Ports, Stack
from stack.process import StackError
from stack.servers import LOCAL

ROOT = LOCAL.parent
#: The ports their makers use, so that examples in other people's documentation work. 8080 is Airflow's own.
USUAL = {"storage": 4443, "bigquery": 9050, "bigquery_grpc": 9060, "vertex": 8090, "airflow": 8080}


#: What breaks a night on purpose.
BAD_NIGHT = {
    "faults": [
        {"do": "finish", "reason": "SAFETY", "ratio": 0.5},
        {"do": "http", "on": "create", "status": 503, "times": 1},
    ]
}


def main() -> int:
    """Start everything, say where it is, wait, stop everything."""
    # `kill` and a closed terminal end as gently as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ports = Ports.from_environment(**USUAL)
        model = os.environ.get("MODEL") or "deterministic"
        with Stack(LOCAL / "up", dags=ROOT / "dags", ports=ports, model=model, fresh=False, say=print) as stack:
            print(_help(stack), flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("\nstopped.")
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def _help(stack: Stack) -> str:
    return f"""
Airflow's UI    {stack.airflow.url}   (no password)
Logs            {stack.state / "logs"}
{elsewhere(stack, "BUCKET")}
Ctrl-C stops everything; the data stays in {stack.state} until `make clean`."""


def elsewhere(stack: Stack, bucket: str) -> str:
    """Return what can be done from another terminal.

    :param bucket: the name of a bucket.
    """
    upload = f"$STORAGE_EMULATOR_HOST/upload/storage/v1/b/{bucket}/o?uploadType=media&name=requests/mine.jsonl"
    return f"""
In another terminal, variables first (clients of Google, this package and Airflow then know these servers):
  . {stack.variables}
Upload a file   curl -X POST --data-binary @requests.jsonl "{upload}"
Run a DAG       airflow dags unpause DAG_ID; airflow dags trigger DAG_ID
Jobs            curl "$VERTEX_BATCH_EMULATOR_HOST/emulator/books"
Break it        curl -X PUT "$VERTEX_BATCH_EMULATOR_HOST/emulator/scenario" -d '{json.dumps(BAD_NIGHT)}'
                Half of the rows of the next jobs are then blocked, and the next create call meets an error: its task
                looks for the job for up to 90 s, then sends it again. Repair it with -d '{{}}'."""


if __name__ == "__main__":
    sys.exit(main())
