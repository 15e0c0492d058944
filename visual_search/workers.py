"""Jobs of a multirun, several at a time: one whose process is killed ends no other.

The launcher of Hydra's joblib plugin puts all jobs into one pool, and loky gives up a pool with all
that is at work in it when one of its processes ends. Here every place is a pool of one process:
what is killed in it loses its own job alone, and the next job gets a new process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_joblib_launcher._core import execute_job
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from joblib import effective_n_jobs
from joblib.externals.loky import FIRST_COMPLETED, BrokenProcessPool, ProcessPoolExecutor, wait

from visual_search.jobs import RECORD_FILE, Job, Record


class Workers(JoblibLauncher):  # type: ignore[misc]
    """Starts the jobs in so many processes as ``hydra.launcher.n_jobs`` says, and outlives each."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> list[JobReturn]:
        """Gives what each job returned, in order; None for one whose process ended."""
        places: list[ProcessPoolExecutor | None] = [None] * effective_n_jobs(self.joblib["n_jobs"])
        waiting = deque(enumerate(job_overrides, initial_job_idx))
        at_work: dict[Any, tuple[int, int]] = {}  # a job's future -> its number and its place
        returned: dict[int, JobReturn] = {}
        try:
            while waiting or at_work:
                for place in set(range(len(places))) - {place for _, place in at_work.values()}:
                    if waiting:
                        number, overrides = waiting.popleft()
                        pool = places[place] = places[place] or ProcessPoolExecutor(max_workers=1)
                        at_work[self._submitted(pool, number, overrides)] = number, place
                for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                    number, place = at_work.pop(future)
                    try:
                        returned[number] = future.result()
                    except BrokenProcessPool as error:
                        places[place] = None
                        overrides = job_overrides[number - initial_job_idx]
                        returned[number] = self._lost(number, overrides, error)
        except BaseException:
            for pool in filter(None, places):
                pool.shutdown(wait=False, kill_workers=True)
            raise
        for pool in filter(None, places):
            pool.shutdown()
        return [returned[number] for number in sorted(returned)]

    def _submitted(self, pool: ProcessPoolExecutor, number: int, overrides: Sequence[str]) -> Any:
        return pool.submit(
            execute_job,
            number,
            overrides,
            self.hydra_context,
            self.config,
            self.task_function,
            Singleton.get_state(),
        )

    def _lost(self, number: int, overrides: Sequence[str], error: Exception) -> JobReturn:
        """Gives a job whose process ended, and names it where it had not begun to record itself."""
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


def outlive_killed_jobs() -> None:
    """Lets these workers start the jobs that a config gives to the joblib launcher."""
    # Hydra instantiates nothing whose name lies outside its own packages, so it keeps that name.
    name = f"{JoblibLauncher.__module__}.{JoblibLauncher.__qualname__}"
    Plugins.instance().class_name_to_class[name] = Workers
