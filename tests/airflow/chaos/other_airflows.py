"""What do another Airflow, and both sweeps, do to a batch of the chaos table?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from stack.chaos import second_airflow
from stack.chaos.night import Scene

#: The other Airflow's name.
SECOND = "airflow-second"
#: Seconds: the youngest job that a sweep may touch is 90 s old.
_OLD_ENOUGH_S = 95.0


def second_airflow_runs(*, shared: bool, same_input: bool, ends: int, says: str) -> Callable[[Scene], None]:
    """Return what lets another Airflow run the same task of the same run, while the job of the first is queued.

    :param shared: whether both have one staging folder.
    :param ends: how its attempt must end (`stack.chaos.second_airflow`).
    :param says: what it must say.
    """

    def run(scene: Scene) -> None:
        task = scene.until_waiting()
        if not same_input:
            first = scene.night.bucket.blob(f"input/{scene.place}.jsonl").download_as_text()
            scene.night.bucket.blob(f"input/{scene.place}-second.jsonl").upload_from_string(
                first.replace("row", "line")
            )
        status, said = second_airflow.play(
            scene.night.env,
            name=SECOND,
            dag_id=scene.case.dag_id,
            task_id=task["task_id"],
            run_id=scene.run_id,
            staging=scene.staging if shared else f"{scene.staging}/second",
            files=f"gs://{scene.night.bucket.name}/input/{scene.place}{'' if same_input else '-second'}.jsonl",
        )
        scene.release()
        if status != ends or says not in said:
            raise RuntimeError(f"the second Airflow ended with {status}: {said[-2000:]}")

    return run


def swept_after_its_run_was_deleted(sweep: Callable[[Scene, str], str]) -> Callable[[Scene], None]:
    """Return what marks a run failed, deletes it, and sweeps once its job may be touched."""

    def run(scene: Scene) -> None:
        scene.until_waiting()
        scene.airflow.set_run_state(scene.case.dag_id, scene.run_id, "failed")
        scene.until_ended()
        scene.delete()
        job = scene.until_aged(_OLD_ENOUGH_S)
        said = sweep(scene, job["labels"]["avb-installation"])
        if "its run was deleted" not in said:
            raise RuntimeError(f"the sweep said: {said[-2000:]}")

    return run


def by_operator(scene: Scene, _installation: str) -> str:
    """Sweep by the operator, and return its log."""
    run_id = f"sweep-{scene.place}"
    scene.airflow.wait_for_dag("chaos_sweep")
    scene.airflow.unpause("chaos_sweep")
    with scene.night.triggering:
        scene.airflow.trigger("chaos_sweep", dag_run_id=run_id, conf={"staging": scene.staging})
    scene.airflow.wait_for_run("chaos_sweep", run_id)
    return scene.airflow.log("chaos_sweep", run_id, "sweep")


def by_command(scene: Scene, installation: str) -> str:
    """Sweep by the command, which asks Airflow over its REST API, and return what it printed."""
    arguments = [
        *("sweep", "--project", "demo", "--location", "us-central1", "--staging", scene.staging, "--apply"),
        *("--older-than", "0.026", "--airflow-url", scene.airflow.url, "--installation", installation),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "airflow_vertex_batch", *arguments],
        env={**os.environ, **scene.night.env},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    return done.stdout + done.stderr
