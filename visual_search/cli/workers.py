"""Jobs of a multirun, several at a time: one whose process is killed ends no other.

The launcher of Hydra's joblib plugin puts all jobs into one pool, and loky gives up a pool with all
that is at work in it when one of its processes ends. Here every place is a pool of one process:
what is killed in it loses its own job alone, and the next job gets a new process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from visual_search.runs.jobs import RECORD_FILE, STOP_FILE, Job, Record

if TYPE_CHECKING:
    from joblib.externals.loky import Future, ProcessPoolExecutor


class Workers(Launcher):
    """Starts the jobs in so many processes as ``hydra.launcher.n_jobs`` says, and outlives each.

    Args:
        n_jobs: Processes at a time; -1 for as many as there are cores.
        others: What else joblib's pool would take.
    """

    def __init__(self, n_jobs: int, **others: object) -> None:
        self.num_places = n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what each job is started with."""
        self.hydra_context, self.task_function = hydra_context, task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Returns what each job returned, in order; None for one whose process ended."""
        from joblib import effective_n_jobs
        from joblib.externals.loky import FIRST_COMPLETED, BrokenProcessPool, wait

        places: list[ProcessPoolExecutor | None] = [None] * effective_n_jobs(self.num_places)
        waiting = deque(enumerate(job_overrides, initial_job_idx))
        at_work: dict[Future, tuple[int, int]] = {}  # a job's future -> its number and its place
        returned: dict[int, JobReturn] = {}
        try:
            while waiting or at_work:
                for place in set(range(len(places))) - {place for _, place in at_work.values()}:
                    if waiting:
                        number, overrides = waiting.popleft()
                        places[place] = places[place] or _pool_of_one()
                        future = self._submitted(places[place], number, overrides)
                        at_work[future] = number, place
                for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                    number, place = at_work.pop(future)
                    overrides = job_overrides[number - initial_job_idx]
                    try:
                        returned[number] = future.result()
                    except SystemExit as error:  # a signal: to all of the sweep, or to this job
                        if Path(self.config.hydra.sweep.dir, STOP_FILE).exists():
                            raise
                        returned[number] = self._lost(number, overrides, error)
                    except BrokenProcessPool as error:
                        places[place] = None
                        returned[number] = self._lost(number, overrides, error)
        except BaseException:
            for pool in filter(None, places):
                pool.shutdown(wait=False, kill_workers=True)
            raise
        for pool in filter(None, places):
            pool.shutdown()
        return [returned[number] for number in sorted(returned)]

    def _submitted(
        self, pool: ProcessPoolExecutor, number: int, overrides: Sequence[str]
    ) -> Future:
        from hydra_plugins.hydra_joblib_launcher._core import execute_job

        return pool.submit(
            execute_job,
            number,
            overrides,
            self.hydra_context,
            self.config,
            self.task_function,
            Singleton.get_state(),
        )

    def _lost(self, number: int, overrides: Sequence[str], error: BaseException) -> JobReturn:
        """Returns a job whose process ended; names it where it had not begun to record itself."""
        path = Path(str(self.config.hydra.sweep.dir), str(number), RECORD_FILE)
        if not path.is_file():
            reason = " ".join(str(error).split())
            record = Record(number, list(overrides), state="failed", error=reason)
            Job(path, record).save()
        return JobReturn(
            overrides=overrides,
            cfg=self.config,
            task_name=self.config.hydra.job.name,
            status=JobStatus.COMPLETED,  # FAILED would end the sweep: its record says that it did
        )


def _pool_of_one() -> ProcessPoolExecutor:
    from joblib.externals.loky import ProcessPoolExecutor

    return ProcessPoolExecutor(max_workers=1)


def outlive_killed_jobs(launcher: str) -> None:
    """Lets these workers start the jobs that a config gives to another launcher.

    Args:
        launcher: Full name of the class that the config names. Hydra instantiates nothing whose
            name lies outside its own packages, so it keeps the name.
    """
    Plugins.instance().class_name_to_class[launcher] = Workers
