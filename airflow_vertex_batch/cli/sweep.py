"""How does a person sweep from a shell? ``airflow-vertex-batch sweep``: which jobs nobody owns, and what they cost."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from airflow_vertex_batch.cli.terminal import CLI_OUTAGE_SECONDS, not_empty, not_negative
from airflow_vertex_batch.cli.terminal import store as terminal_store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from airflow_vertex_batch.core.domain.identity import Identity
    from airflow_vertex_batch.core.upkeep.sweep_decision import Owner


def add_sweep(commands: Any) -> None:
    """Add the command to the others."""
    sweep = commands.add_parser(
        "sweep", help="which of our jobs were left behind, and what do they cost?", description=_sweep.__doc__
    )
    sweep.add_argument("--project", required=True, help="project of the jobs")
    sweep.add_argument(
        "--location", required=True, action="append", help="location of the jobs; give it again for another one"
    )
    sweep.add_argument(
        "--staging", type=not_empty, required=True, metavar="URI", help="the tasks' staging folder: its logs are read"
    )
    sweep.add_argument("--apply", action="store_true", help="do it; without this, only say what would be done")
    _add_ages(sweep)
    sweep.add_argument(
        "--harvest-to",
        type=not_empty,
        default=None,
        metavar="URI",
        help="folder for rows of finished jobs that no task lands",
    )
    sweep.add_argument(
        "--prices",
        type=not_empty,
        default=None,
        metavar="FILE",
        help="price file, local or gs://: its entries replace the shipped ones",
    )
    sweep.add_argument("--format", choices=("text", "json"), default="text")
    _add_airflow(sweep)
    sweep.set_defaults(run=_sweep)


def _add_ages(sweep: argparse.ArgumentParser) -> None:
    """Add the options for the ages of jobs."""
    sweep.add_argument(
        "--older-than",
        type=not_negative,
        default=1.0,
        metavar="HOURS",
        help="leave younger jobs alone: their tasks may be starting (default: %(default)s)",
    )
    sweep.add_argument(
        "--owner-timeout",
        type=not_negative,
        default=98.0,
        metavar="HOURS",
        help="cancel running jobs of this age although they are their task's own (default: %(default)s)",
    )
    sweep.add_argument(
        "--lookback",
        type=not_negative,
        default=7.0,
        metavar="DAYS",
        help="leave jobs alone that ended longer ago (default: %(default)s)",
    )


def _add_airflow(sweep: argparse.ArgumentParser) -> None:
    """Add the options for the Airflow that is asked about the runs of jobs."""
    asked = sweep.add_mutually_exclusive_group()
    asked.add_argument(
        "--airflow-url",
        default=os.environ.get("VERTEX_BATCH_AIRFLOW_URL", ""),
        metavar="URL",
        help="ask this Airflow over its REST API what became of runs (default: $VERTEX_BATCH_AIRFLOW_URL); its token "
        "is in $VERTEX_BATCH_AIRFLOW_TOKEN",
    )
    asked.add_argument(
        "--airflow-here",
        action="store_true",
        help="ask the Airflow that this machine belongs to, in its metadata database: for a scheduler or API server",
    )
    sweep.add_argument(
        "--airflow-user",
        default=os.environ.get("VERTEX_BATCH_AIRFLOW_USER", ""),
        metavar="NAME",
        help="take a token for this user, whose password is in $VERTEX_BATCH_AIRFLOW_PASSWORD",
    )
    sweep.add_argument(
        "--installation",
        default="",
        metavar="NAME",
        help="name of the Airflow that is asked, as in its jobs' label avb-installation: jobs that another one bought "
        "are left to it",
    )


def _sweep(options: argparse.Namespace) -> int:
    """List jobs that carry our labels and that no task owns, with their cost. Say what should be done, or do it.

    A job that was replaced according to its log is cancelled while it runs, and harvested when it has ended. The same
    happens to a job whose run failed or was deleted, if an Airflow is named that can say so. A job that its task wanted
    to buy and has not recorded is adopted. A running job that no log names is only reported: only a person may cancel
    it.

    Exit status: 0 no job was left behind; 1 a job was left behind; 2 something could not be judged or done; 3 there may
    be more jobs, because the state of some runs is not known, or because no job carries the name of the installation.
    """
    from itertools import chain

    from airflow_vertex_batch.core.domain.address import cloud_folder, refuse_wildcards
    from airflow_vertex_batch.core.money.prices import PriceTable
    from airflow_vertex_batch.core.upkeep.sweep import Sweeper
    from airflow_vertex_batch.core.upkeep.sweep_decision import SweepPolicy
    from airflow_vertex_batch.core.upkeep.sweep_report import SweepReport
    from airflow_vertex_batch.gcp.bigquery import BigQueryWarehouse
    from airflow_vertex_batch.gcp.environment import job_service

    for name in ("staging", "harvest_to"):
        refuse_wildcards(getattr(options, name) or "", f"--{name.replace('_', '-')}")
    store, warehouse, staging = terminal_store(), BigQueryWarehouse(), cloud_folder(options.staging, "staging")
    policy = SweepPolicy(
        older_than=options.older_than * 3600,
        owner_timeout=options.owner_timeout * 3600,
        lookback=options.lookback * 24 * 3600,
    )
    prices = PriceTable.load(store, options.prices)
    harvest = cloud_folder(options.harvest_to, "harvest-to") if options.harvest_to is not None else None
    asked, installation, ask = _runs(options)
    sweepers = (
        Sweeper(
            job_service(options.project, location, CLI_OUTAGE_SECONDS), store, warehouse, staging, policy,
            prices=prices, harvest=harvest, ask=ask, installation=installation,
        )
        for location in options.location
    )  # fmt: skip
    found = chain.from_iterable(each.sweep(dry_run=not options.apply) for each in sweepers)
    swept = SweepReport.of(found, is_dry_run=not options.apply, asked=asked, installation=installation or "")
    if options.format == "json":
        print(swept.headline, file=sys.stderr)
    print(json.dumps(swept.as_dict(), indent=2) if options.format == "json" else swept.text())
    return swept.status


def _runs(options: argparse.Namespace) -> tuple[str, str | None, Callable[[Identity], Owner]]:
    """Return the Airflow that is asked, its installation's name, and a function for the state of a job's run."""
    from airflow_vertex_batch.core.domain.errors import InputError
    from airflow_vertex_batch.core.purchase.buyer import label_value
    from airflow_vertex_batch.core.upkeep.sweep_decision import Owner as Known
    from airflow_vertex_batch.edge.runs import RestRuns, runs_here

    # Jobs carry the name as a label value, so capitals and dots of the option are changed in the same way.
    given = label_value(options.installation)
    if options.airflow_here:
        from airflow_vertex_batch.settings import Settings

        state, installation = runs_here(), given or Settings.read().installation
        return f"the Airflow of this machine ({installation})", installation, lambda owner: Known.of_run(state(owner))
    if not options.airflow_url:
        return "", given or None, lambda _owner: Known.UNKNOWN
    if not given:
        raise InputError(
            "--airflow-url without --installation",
            why="A run that is absent there may be alive in another Airflow with the same staging folder",
            left="Nothing was touched",
            todo="Give the name in the label avb-installation of that Airflow's jobs",
        )
    runs = RestRuns(options.airflow_url, options.airflow_user)
    asked = f"{runs.name} ({given})"
    return asked, given, lambda owner: Known.of_run(runs.state(owner))
