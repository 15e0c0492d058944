"""Sweeps on SLURM: what submits, asks and cancels is a pretended cluster of this machine.

It runs a job's script as SLURM would, with the variables that SLURM sets, and knows neither queues
nor limits. On a real one (22.05, two nodes) the same was tried by hand; docs/scale.md says what.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import Command
from tests.small_runs import run_here, small
from visual_search.runs.jobs import read_records
from visual_search.runs.run import Run

pytest.importorskip(
    "hydra_plugins.hydra_submitit_launcher", reason="needs pip install 'visual-search[slurm]'"
)
pytestmark = pytest.mark.slow

SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
here, script = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[-1]).read_text()
(here / "submitted").open("a").write(script)
if "--partition=nowhere" in script:
    sys.exit("sbatch: error: invalid partition specified: nowhere")
array = re.search(r"--array=0-(\\d+)", script)
for task in range(int(array[1]) + 1) if array else [None]:
    name = "7" if task is None else f"7_{{task}}"
    own = re.sub("%A_%a|%j|%A", name, script).replace("%t", "0")
    ids = {{"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(task)}}
    ids = ids if array else {{"SLURM_JOB_ID": "7"}}
    told = {{"SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "1",
             "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
             "SLURM_STEP_ID": "0", "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_NUM_NODES": "1",
             "SLURM_JOB_NAME": "visual_search"}}
    with (here / "said").open("ab") as said:
        job = subprocess.Popen(["bash", "-c", own], env={{**os.environ, **ids, **told}},
                               stdout=said, stderr=said, start_new_session=True)
    (here / f"job-{{name}}").write_text(str(job.pid))
print("Submitted batch job 7")
"""
SRUN = """#!/bin/sh
while [ "$1" != "{python}" ]; do shift; done
exec "$@"
"""
SQUEUE = """#!/bin/sh
cd {folder}
for job in job-*; do kill -0 -$(cat "$job") 2>/dev/null && echo "${{job#job-}}"; done
exit 0
"""
SCANCEL = """#!/bin/sh
cd {folder}
for job in "$@"; do [ -f "job-$job" ] && kill -TERM -$(cat "job-$job"); done
exit 0
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cluster"
    folder.mkdir()
    for name, text in (
        ("sbatch", SBATCH),
        ("srun", SRUN),
        ("squeue", SQUEUE),
        ("scancel", SCANCEL),
    ):
        program = folder / name
        program.write_text(text.format(python=sys.executable, folder=folder))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def sweep(folder: Path, *more: str) -> list[str]:
    return ["-m", "sweep=slurm", *small(folder, *more)]


def records_of(folder: Path) -> list[tuple[str, str]]:
    (swept,) = (folder / "outputs" / ".sweeps").iterdir()
    return [(record.state, record.began) for record in read_records(swept)]


def test_finished_runs_are_not_submitted_and_a_job_that_slurm_ends_is_lost_alone(
    cluster: Path, tmp_path: Path
) -> None:
    finished = run_here(tmp_path, "seed=1")
    sweeping = Command("train", sweep(tmp_path, "seed=1,2,3"))
    job = cluster / "job-7_0"
    while not job.is_file():
        assert sweeping.is_running(), sweeping.end()
        time.sleep(0.05)
    os.killpg(int(job.read_text()), signal.SIGKILL)  # as its node's power would
    status, out, error = sweeping.end()
    assert status == 1, error
    assert f"{finished.folder} is finished" in out
    assert "SLURM has 2 of the sweep's jobs" in out
    assert re.search(r"SLURM ended job 7_0 .* the\s+same command goes on with it", out + error)
    found = [("finished", "finished"), ("failed", "new"), ("finished", "new")]
    assert records_of(tmp_path) == found


def test_what_slurm_refuses_is_said_in_its_own_words(cluster: Path, tmp_path: Path) -> None:
    asked = sweep(tmp_path, "seed=2,3", "hydra.launcher.partition=nowhere")
    status, _, error = Command("train", asked).end()
    assert status != 0
    assert "invalid partition specified: nowhere" in error
    assert "hydra.launcher.partition" in error
    assert "Traceback" not in error


def test_a_sweep_that_is_stopped_takes_its_jobs_from_the_cluster(
    cluster: Path, tmp_path: Path
) -> None:
    asked = sweep(tmp_path, "seed=2,3", "trainer.max_epochs=2000")
    sweeping = Command("train", asked)
    while not list((tmp_path / "outputs").glob("*/*/checkpoints")):
        assert sweeping.is_running(), sweeping.end()
        time.sleep(0.05)
    sweeping.send(signal.SIGTERM)
    assert sweeping.end()[0] == 143
    left = subprocess.run([cluster / "squeue"], capture_output=True, text=True, check=True)
    assert left.stdout.split() == []
    states = {
        Run(path.parent).status()["state"] for path in tmp_path.glob("outputs/*/*/status.json")
    }
    assert states == {"interrupted"}
