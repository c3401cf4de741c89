"""How is one process made ready for batches? Its clock first, then the addresses, then everything else.

`start` is called once in each process of the pool, `go` for each case.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from stack.faults.clock import Clock
from stack.laptop import PROJECT

if TYPE_CHECKING:
    from stack.faults.batch import Outcome


class Case(NamedTuple):
    """One batch to go through.

    :param to_table: whether it reads and writes tables, instead of files.
    :param kind: a name of `kinds.KINDS`; empty for a run without faults.
    :param at: the title of the call to which it happens.
    """

    to_table: bool
    kind: str = ""
    at: str = ""


_here: dict[str, Any] = {}


def start(urls: Mapping[str, str]) -> None:
    """Make this process ready.

    :param urls: service → address of the server behind the gateway.
    """
    clock = Clock()
    clock.install()
    logging.disable(logging.CRITICAL)
    # A task's log goes to stdout here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.environ |= _environment()
    from stack.faults.cloud import Cloud
    from stack.faults.gateway import Gateway

    cloud, gateway = Cloud(urls), Gateway(clock, urls)
    gateway.__enter__()
    os.environ |= gateway.env
    _here.update(clock=clock, cloud=cloud, gateway=gateway)


def _environment() -> dict[str, str]:
    connection = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": PROJECT}}
    return {
        "AIRFLOW_HOME": tempfile.mkdtemp(prefix="avb-faults-"),
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": json.dumps(connection),
        "GOOGLE_CLOUD_PROJECT": PROJECT,
    }


def go(case: Case) -> Outcome:
    """Go through one batch."""
    from stack.faults.batch import Batch
    from stack.faults.kinds import KINDS

    batch = Batch(_here["clock"], _here["gateway"], _here["cloud"], to_table=case.to_table)
    return batch.go(KINDS.get(case.kind), case.at)
