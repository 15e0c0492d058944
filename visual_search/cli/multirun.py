"""Multiruns: every job is recorded, a failed one stops no other, and one table ends it all.

A sweep keeps no list of its own that could disagree with the runs. Started again, the same command
names the same runs, and each of them knows whether it is finished.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from hydra.experimental.callback import Callback

from visual_search.atomic import new_folder, write_text
from visual_search.cli.cards import CARDS, SEAT, take_a_card, visible_cards
from visual_search.cli.explain import told
from visual_search.cli.sweep_plugins import (
    check_multirun,
    is_joblib,
    is_optuna,
    is_slurm,
    planned_jobs,
    swept_keys,
)
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import EvaluateSchema, EvaluationTrainer, TrainSchema
from visual_search.runs.jobs import (
    LOOK,
    OUTPUT_FILE,
    RECORD_FILE,
    STOP_FILE,
    SWEPT_KEYS,
    Job,
    LeftToDoError,
    Record,
    line_of,
    read_records,
)

if TYPE_CHECKING:
    from omegaconf import DictConfig

Result = TypeVar("Result")
# Prints how a sweep ended, of its folder, jobs and whether it was stopped: are all finished?
Conclude = Callable[[Path, Sequence[Sequence[str]], bool], bool]
SWEEP_PID = "VISUAL_SEARCH_SWEEP_PID"  # what the sweep's own process tells its workers
WAIT_FOR_WORKERS_SECONDS = 60.0  # to end a step and save it
LOOK_FOR_PARENT_SECONDS = 0.5


@contextlib.contextmanager
def record_job(config: TrainSchema | EvaluateSchema) -> Iterator[Job]:
    """Yields the job to fill in; within a multirun it is recorded, and its failure kept.

    Raises:
        ConfigError: A multirun asks for several processes a job: Lightning would start the whole
            sweep again in each.
        SystemExit: The sweep was stopped before this job began.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        yield Job()
        return
    check_multirun(OmegaConf.structured(config))
    hydra = HydraConfig.get()
    sweep, number = Path(hydra.sweep.dir), int(hydra.job.num)
    folder = sweep / str(number)
    in_worker = os.environ.get(SWEEP_PID) not in (None, str(os.getpid()))
    with _as_worker(config, folder) if in_worker else contextlib.nullcontext():
        if (sweep / STOP_FILE).exists():
            raise SystemExit(128 + signal.SIGTERM)
        job = Job(folder / RECORD_FILE, Record(number, list(hydra.overrides.task)))
        job.is_look = LOOK in os.environ
        if not job.is_look:
            job.save()
        try:
            yield job
            if job.is_look and job.record.began != "finished":
                raise LeftToDoError
            job.finish(needs_value=is_optuna(HydraConfig.instance().cfg))  # type: ignore[arg-type]
        except LeftToDoError:
            job.path = None
            raise
        except Exception as error:
            if job.is_look:  # whoever does the work says so, and is recorded
                job.path = None
                raise LeftToDoError from error
            job.record.state = "failed"
            job.record.error = told(error)
            expected = isinstance(error, ValueError | OSError | RuntimeError)  # as of a single run
            if os.environ.get("HYDRA_FULL_ERROR") or not expected:
                traceback.print_exc()
            elif all(other.error != job.record.error for other in read_records(sweep)):
                print(f"error: {job.record.error}", file=sys.stderr)  # once for all that share it
        except BaseException:
            job.record.state = "interrupted"
            raise
        finally:
            job.save()
    if in_worker:
        print(line_of(job.record), flush=True)


def alone(work: Callable[[], Result]) -> Result:
    """Does a job's work; in a worker it waits while another job is in the same run's folder.

    Jobs that differ in nothing that could change the result share a run: the second finds it
    finished.

    Raises:
        RunLockedError: Another process is in the folder, and this is no worker of a sweep.
    """
    from visual_search.runs.run import RunLockedError

    while True:
        try:
            return work()
        except RunLockedError:
            if os.environ.get(SWEEP_PID) in (None, str(os.getpid())):
                raise
            time.sleep(1.0)


@contextlib.contextmanager
def _as_worker(config: TrainSchema | EvaluateSchema, folder: Path) -> Iterator[None]:
    """Makes a launcher's process one that ends orderly, and is quiet beside the others.

    What it prints goes into a file: that of several jobs at a time nobody could read.
    """
    trainer = config.trainer
    _settle_in()
    if isinstance(trainer, EvaluationTrainer):
        take_a_card(folder.parent, trainer.devices)
    else:
        take_a_card(folder.parent, trainer.get("devices", 1))
        if trainer.get("enable_progress_bar") is not None:
            trainer["enable_progress_bar"] = False
    folder.mkdir(parents=True, exist_ok=True)
    _AT_WORK.set()
    try:
        with (
            _signals(_end_at_once),
            (folder / OUTPUT_FILE).open("w", encoding="utf-8", buffering=1) as output,
            contextlib.redirect_stdout(output),
        ):
            yield
    finally:
        _AT_WORK.clear()


_WATCHED, _AT_WORK = threading.Event(), threading.Event()  # in a worker


def _settle_in() -> None:
    """Makes a worker, once, a process that can train, and that ends only with its sweep.

    Ctrl-C reaches every process of a terminal's group; passed on by the sweep as well, it would be
    the second signal, which waits for nothing.
    """
    if _WATCHED.is_set():
        return
    _WATCHED.set()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    # joblib leaves its own way to start processes, with which a DataLoader can start none.
    multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_FOR_PARENT_SECONDS)
        if _AT_WORK.is_set():  # the job saves what it has, as at any signal
            os.kill(os.getpid(), signal.SIGTERM)
        while _AT_WORK.is_set():
            time.sleep(LOOK_FOR_PARENT_SECONDS)
        os._exit(128 + signal.SIGTERM)  # otherwise it would wait for work of nobody's

    threading.Thread(target=watch, daemon=True, name="watch the sweep").start()


def _end_at_once(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles SIGTERM and Ctrl-C so while it is open; training itself takes them over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, handler) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


class Sweep:
    """A multirun under way, in the process that was started for it.

    Args:
        config: Hydra's, with its own node.
    """

    def __init__(self, config: DictConfig) -> None:
        self._stopping = False
        self._left = contextlib.ExitStack()
        self.jobs = planned_jobs(config)
        self.folder = self._folder_of_its_own(config)
        self._left.enter_context(_signals(self._stop))
        self._left.enter_context(_environment(self._for_workers(config)))
        if is_optuna(config):
            _quieten_optuna()
        self._is_elsewhere = is_slurm(config)  # process numbers in records are of other machines
        if is_joblib(config):
            from visual_search.cli.workers import outlive_killed_jobs

            outlive_killed_jobs(config.hydra.launcher._target_)
        if self._is_elsewhere:
            from visual_search.cli.slurm_jobs import submit_jobs

            submit_jobs(config.hydra.launcher._target_)

    def _folder_of_its_own(self, config: DictConfig) -> Path:
        """Returns a folder that no other sweep works in, and tells the jobs of it.

        Its usual name holds the second, in which another may start as well. One that was named by
        ``hydra.sweep.dir`` is used again, without the records that it holds.
        """
        from hydra.core.override_parser.types import Quote, QuotedString

        from visual_search.runs.run import Run, RunLockedError

        named = Path(config.hydra.sweep.dir)
        if any(one.startswith("hydra.sweep.dir=") for one in config.hydra.overrides.hydra):
            held = Run(named)
            try:
                held.lock()
            except RunLockedError as error:
                raise ConfigError(
                    f"hydra.sweep.dir={named} is in use by another sweep; expected a folder of "
                    "this one's own; wait for the other, or name another folder"
                ) from error
            self._left.callback(held.unlock)
            for old in [*named.glob(f"*/{RECORD_FILE}"), named / STOP_FILE]:
                old.unlink(missing_ok=True)
            return named
        folder = new_folder(named)
        config.hydra.sweep.dir = str(folder)
        text = QuotedString(str(folder), Quote.double).with_quotes()
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={text}")
        return folder

    def close(self) -> None:
        """Returns signals and environment back."""
        self._left.close()
        for seat in self.folder.glob(SEAT.format("*")):
            seat.unlink(missing_ok=True)

    def _for_workers(self, config: DictConfig) -> dict[str, str]:
        from omegaconf import OmegaConf

        values = {SWEEP_PID: str(os.getpid()), SWEPT_KEYS: " ".join(swept_keys(config))}
        if is_joblib(config):
            values |= worker_threads(config.hydra.launcher.n_jobs)
            values["TQDM_DISABLE"] = "1"
            if (
                OmegaConf.select(config, "trainer.accelerator") != "cpu"
            ):  # torch takes seconds to load
                values[CARDS] = visible_cards()
        return values

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        """Ends the workers first: joblib would kill them, and with them what is not saved."""
        again, self._stopping = self._stopping, True
        if not again:
            write_text(self.folder / STOP_FILE, "")
            if not self._is_elsewhere:
                self._stop_workers()
        raise SystemExit(128 + signum)

    def _stop_workers(self) -> None:
        told: set[int] = set()
        deadline = time.monotonic() + WAIT_FOR_WORKERS_SECONDS
        while time.monotonic() < deadline:
            running = {record.pid for record in read_records(self.folder) if _is_at_work(record)}
            running.discard(os.getpid())
            if not running:
                return
            for pid in running - told:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            told |= running
            time.sleep(0.1)


def _is_at_work(record: Record) -> bool:
    if record.state != "running":
        return False
    try:
        os.kill(record.pid, 0)
    except ProcessLookupError:
        return False
    return True


def worker_threads(num_workers: int) -> dict[str, str]:
    """Returns the environment in which so many workers share the cores instead of each taking all.

    Args:
        num_workers: At once; -1 for as many as there are cores.

    Returns:
        ``OMP_NUM_THREADS`` and its kin. A lower number of the user's own stays.
    """
    from joblib import cpu_count, effective_n_jobs

    share = max(1, cpu_count() // effective_n_jobs(num_workers))
    names = ("OMP", "MKL", "OPENBLAS", "BLIS", "NUMBA", "NUMEXPR")
    given = {f"{name}_NUM_THREADS": os.environ.get(f"{name}_NUM_THREADS", "") for name in names}
    return {
        name: str(min(share, int(value)) if value.isdigit() and int(value) else share)
        for name, value in given.items()
    }


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _quieten_optuna() -> None:
    """Silences what repeats the table at the end: each trial's value, each failure."""
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    logging.getLogger("hydra_plugins").setLevel(logging.ERROR)


# One at most: Hydra's callbacks and the command meet here.
_UNDER_WAY: list[Sweep] = []
_CONCLUDE: list[Conclude] = []


def conclude_with(conclude: Conclude) -> None:
    """Notes what sums up a sweep of the command that is starting."""
    _CONCLUDE[:] = [conclude]


class TableAtEnd(Callback):
    """Ends a multirun with its jobs side by side, and with status 1 if one failed."""

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Makes ready for the jobs: a folder, records, signals, threads."""
        with _not_swallowed():
            _UNDER_WAY[:] = [Sweep(config)]

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Prints the tables and the failures."""
        sweep = _UNDER_WAY.pop()
        with _not_swallowed():
            sweep.close()
            if not _CONCLUDE[0](sweep.folder, sweep.jobs, False):
                raise SystemExit(1)


@contextlib.contextmanager
def _not_swallowed() -> Iterator[None]:
    """Ends with a message what Hydra would make a warning with status 0: it calls its callbacks so.

    Raises:
        SystemExit: 2 for a wrong config, 1 for anything else.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            traceback.print_exc()
        print(f"error: {told(error)}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error


def end_early(status: object) -> None:
    """Says what a sweep has done when a signal or an error of the sweeper's ends it.

    Args:
        status: What the command ends with.
    """
    if not _UNDER_WAY:
        return
    sweep = _UNDER_WAY.pop()
    sweep.close()
    stopped = status in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    _CONCLUDE[0](sweep.folder, sweep.jobs, stopped)
