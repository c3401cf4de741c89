"""``make up``: all local servers and an Airflow with the DAGs of ``dags/``, until Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading

from stack.laptop import Ports, Stack
from stack.process import StackError
from stack.servers import LOCAL

ROOT = LOCAL.parent
#: The ports their makers use, so that examples in other people's documentation work. 8080 is Airflow's own.
USUAL = {"storage": 4443, "bigquery": 9050, "bigquery_grpc": 9060, "vertex": 8090, "airflow": 8080}


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
    exports = "\n".join(f"  export {name}={shlex.quote(value)}" for name, value in stack.env.items())
    return f"""
Airflow's UI    {stack.airflow.url}
Logs            {stack.state / "logs"}
For a client in another terminal:
{exports}
Ctrl-C stops everything; the data stays in {stack.state} until `make clean`."""


if __name__ == "__main__":
    sys.exit(main())
