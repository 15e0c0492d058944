"""Multiruns: every job is recorded, a failed one stops no other, and one table ends it all."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from visual_search.config import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from visual_search.measurements import Measured
    from visual_search.runs import Run


@dataclass
class Job:
    """One job of a multirun: its overrides, and what it gave or the error that ended it."""

    overrides: list[str] = field(default_factory=list)
    run: Run | None = None
    measured: Measured | None = None
    error: str = ""


_JOBS: list[Job] = []  # of this process's multirun, in order


@contextlib.contextmanager
def record_job(config: DictConfig) -> Iterator[Job]:
    """Yields the job to fill in; within a multirun its failure is kept for the end.

    Raises:
        ConfigError: A multirun asks for several processes a job: Lightning would start the whole
            sweep again in each.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        yield Job()
        return
    if "ddp" in str(OmegaConf.select(config, "trainer.strategy", default="")):
        raise ConfigError(
            f"trainer.strategy={config.trainer.strategy} within a multirun would start the sweep "
            "again in every process; run the jobs one by one, each without -m"
        )
    job = Job(overrides=list(HydraConfig.get().overrides.task))
    _JOBS.append(job)
    try:
        yield job
    except Exception as error:
        job.error = f"{type(error).__name__}: {error}"
        traceback.print_exc()


class TableAtEnd(Callback):
    """Ends a multirun with its jobs side by side, and with status 1 if one failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Prints the table and the failures."""
        from rich.console import Console

        from visual_search.tables import runs_table

        jobs, _JOBS[:] = list(_JOBS), []
        runs = [job.run for job in jobs if job.run is not None]
        if runs:
            Console(highlight=False).print(runs_table(runs))
        measured = [job.measured for job in jobs if job.measured is not None]
        if measured:
            from visual_search.overviews import conclude

            conclude(measured)
        failed = [job for job in jobs if job.error]
        for job in failed:
            print(f"failed: {' '.join(job.overrides)}: {job.error}", file=sys.stderr)
        if failed:
            raise SystemExit(1)
