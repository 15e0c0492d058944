"""Jobs of a multirun on a SLURM cluster, by submitit: found finished, gone on with, or failed.

Hydra's submitit plugin submits whatever it is given and ends the sweep with the first job that
fails. Here runs that are finished are not submitted, a job that is lost loses nothing but itself,
and one whose time is over saves what it has, is queued again and goes on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from visual_search.runs.jobs import (
    LOOK,
    RECORD_FILE,
    Job,
    LeftToDoError,
    Record,
    line_of,
    read_records,
)

if TYPE_CHECKING:
    import submitit

LOOK_FOR_RESULT_SECONDS = 1.0
ASK_SLURM_SECONDS = 15.0  # how often the cluster is asked which jobs it still has
WAIT_FOR_CANCELLED_SECONDS = 60.0  # to end a step and save it


class SlurmJobs(Launcher):
    """Submits the jobs as one array, and outlives each.

    Args:
        params: What submitit takes, as ``conf/sweep/slurm.yaml`` has it.
    """

    def __init__(self, **params: object) -> None:
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what each job is started with."""
        self.hydra_context, self.task_function = hydra_context, task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Returns what each job returned, in order; nothing for one that SLURM ended.

        Raises:
            SystemExit: There is no SLURM here, or it refuses the jobs.
        """
        returned: dict[int, JobReturn] = {}
        left: dict[int, Sequence[str]] = {}
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            found = self._found(number, overrides)
            if found is None:
                left[number] = overrides
            else:
                returned[number] = found
        if left:
            returned |= self._waited_for(left, self._submitted(left))
        return [returned[number] for number in sorted(returned)]

    def _found(self, number: int, overrides: Sequence[str]) -> JobReturn | None:
        """Returns the job if its run is finished; whatever else there is to say, the job says."""
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher

        here = BasicLauncher()
        here.setup(
            hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
        )
        os.environ[LOOK] = "1"
        try:
            (found,) = here.launch([list(overrides)], number)
        except SystemExit:  # an error that it has told: the job will, and be recorded
            return None
        finally:
            del os.environ[LOOK]
        return None if isinstance(found._return_value, LeftToDoError) else found

    def _submitted(self, left: dict[int, Sequence[str]]) -> dict[int, submitit.Job[JobReturn]]:
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        given = dict(self.params)
        folder, num_times = str(given.pop("submitit_folder")), given.pop("max_num_timeout")
        shared = set(OmegaConf.structured(BaseQueueConf).keys())
        try:
            executor = submitit.AutoExecutor(
                folder, cluster="slurm", slurm_max_num_timeout=num_times
            )
            executor.update_parameters(
                **{k if k in shared else f"slurm_{k}": value for k, value in given.items()}
            )
            jobs = executor.map_array(
                _job_on_cluster(self),
                [list(overrides) for overrides in left.values()],
                ["hydra.sweep.dir"] * len(left),
                list(left),
                [f"job_id_for_{number}" for number in left],
                [Singleton.get_state()] * len(left),
            )
        except (RuntimeError, submitit.core.utils.FailedJobError) as error:
            words = " ".join(str(error).split())
            print(  # Hydra would show where in its code it came from
                f"error: sweep=slurm could not submit its jobs: {words}; expected a machine from "
                "which sbatch reaches a cluster that takes them; set hydra.launcher.partition and "
                "its like as the cluster wants, or sweep=joblib to stay on this machine",
                file=sys.stderr,
            )
            raise SystemExit(2) from None
        print(f"SLURM has {len(jobs)} of the sweep's jobs: {jobs[0].job_id} to {jobs[-1].job_id}")
        return dict(zip(left, jobs, strict=True))

    def _waited_for(
        self, left: dict[int, Sequence[str]], jobs: dict[int, submitit.Job[JobReturn]]
    ) -> dict[int, JobReturn]:
        returned: dict[int, JobReturn] = {}
        asked = time.monotonic()
        gone: set[int] = set()  # not on the cluster any more, when it was last asked
        try:
            while len(returned) < len(jobs):
                time.sleep(LOOK_FOR_RESULT_SECONDS)
                for number in jobs.keys() - returned.keys():
                    if jobs[number].paths.result_pickle.exists():
                        returned[number] = self._returned(number, left[number], jobs[number])
                if time.monotonic() - asked < ASK_SLURM_SECONDS:
                    continue
                asked = time.monotonic()
                there = _jobs_of_slurm(jobs.values())
                for number in jobs.keys() - returned.keys():
                    if jobs[number].job_id in there:
                        gone.discard(number)
                    elif number in gone:  # the second time: its result may have come late
                        returned[number] = self._lost(number, left[number], jobs[number])
                    else:
                        gone.add(number)
        except BaseException:
            self._cancel([jobs[number] for number in jobs.keys() - returned.keys()])
            raise
        return returned

    def _returned(
        self, number: int, overrides: Sequence[str], job: submitit.Job[JobReturn]
    ) -> JobReturn:
        """Returns what a job that ended by itself left."""
        error = job.exception()
        if error is not None:
            return self._lost(number, overrides, job, " ".join(str(error).split())[-200:])
        found: JobReturn = job.result()
        for record in read_records(self._folder):
            if record.number == number:
                print(line_of(record), flush=True)
        return found

    def _lost(
        self,
        number: int,
        overrides: Sequence[str],
        job: submitit.Job[JobReturn],
        words: str = "no result is there",
    ) -> JobReturn:
        """Returns a job that SLURM ended, recorded with where its last words are."""
        path = self._folder / str(number) / RECORD_FILE
        known = {record.number: record for record in read_records(self._folder)}
        record = known.get(number) or Record(number, list(overrides))
        record.state = "failed"
        record.error = (
            f"SLURM ended job {job.job_id} ({words}); {job.paths.stderr} has its last words; the "
            "same command goes on with it"
        )
        Job(path, record).save()
        print(line_of(record), flush=True)
        return JobReturn(
            overrides=overrides,
            cfg=self.config,
            task_name=self.config.hydra.job.name,
            status=JobStatus.COMPLETED,  # FAILED would end the sweep: its record says that it did
        )

    def _cancel(self, jobs: Sequence[submitit.Job[JobReturn]]) -> None:
        """Takes the jobs from the cluster, each of which saves what it has first."""
        for job in jobs:
            job.cancel(check=False)
        deadline = time.monotonic() + WAIT_FOR_CANCELLED_SECONDS
        while _jobs_of_slurm(jobs) and time.monotonic() < deadline:
            time.sleep(LOOK_FOR_RESULT_SECONDS)

    @property
    def _folder(self) -> Path:
        return Path(str(self.config.hydra.sweep.dir))


class _JobOnCluster:
    """What a job does in its own process on the cluster.

    SLURM announces the end of a job's time by a signal. submitit would queue it again there and
    then; here it first ends its step and saves it, as at any other signal.

    Args:
        launcher: Hydra's, for submitit, set up.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def __call__(self, *given: object) -> JobReturn:
        """Returns what Hydra's launcher returns, whose arguments are given."""
        sign = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
        queue_again = signal.getsignal(sign)
        told: list[int] = []

        def end_orderly(signum: int, frame: object) -> None:
            told.append(signum)
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(sign, end_orderly)
        try:
            job: JobReturn = self._launcher(*given)  # type: ignore[operator]
        except SystemExit:
            if not told or not callable(queue_again):
                raise
            queue_again(told[0], None)
            raise
        return job

    def checkpoint(self, *given: object) -> object:
        """Returns what submitit queues again: the same job."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *given)


def _job_on_cluster(jobs: SlurmJobs) -> _JobOnCluster:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    launcher = SlurmLauncher(**jobs.params)
    launcher.setup(
        hydra_context=jobs.hydra_context, task_function=jobs.task_function, config=jobs.config
    )
    return _JobOnCluster(launcher)


def _jobs_of_slurm(jobs: Collection[submitit.Job[JobReturn]]) -> set[str]:
    """Returns which of the jobs the cluster still has; all where it does not answer."""
    ids = sorted({job.job_id.partition("_")[0] for job in jobs})
    if not ids:
        return set()
    asked = subprocess.run(
        ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(ids)}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0 and "invalid job id" not in asked.stderr.lower():
        return {job.job_id for job in jobs}
    return set(asked.stdout.split())


def submit_jobs(launcher: str) -> None:
    """Lets these jobs be what a config gives to another launcher.

    Args:
        launcher: Full name of the class that the config names. Hydra instantiates nothing whose
            name lies outside its own packages, so it keeps the name.
    """
    Plugins.instance().class_name_to_class[launcher] = SlurmJobs
