"""Trains an encoder on a catalogue, builds its index, measures retrieval, draws what it sees.

``python -m visual_search.train experiment=plus_layer``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from visual_search import called_as_well
from visual_search.cli.command_line import run_command
from visual_search.config.schemas import TrainSchema
from visual_search.launcher import is_first_process
from visual_search.reports.sweep_summary import conclude

if TYPE_CHECKING:
    from visual_search.runs.identity import Named
    from visual_search.runs.parts import Parts
    from visual_search.runs.run import Run, State
    from visual_search.training.processes import Processes

# keys of `trainer`
HARDWARE = ("accelerator", "devices", "num_nodes", "strategy", "precision")


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("train", train_command, conclude)


def train_command(settings: TrainSchema) -> float | None:
    """Trains what the composed config describes; in a multirun one of its jobs.

    Returns:
        Within a multirun the headline on the validation queries, which a sweeper maximises.
    """
    from visual_search.cli.multirun import alone, record_job

    with record_job(settings) as job:
        if job.is_look:
            if (run := _finished(settings)) is not None:
                job.opened(run)
        else:
            alone(lambda: train(settings, on_open=job.opened))
    return job.value


def train(settings: TrainSchema, on_open: Callable[[Run], None] | None = None) -> Run:
    """Returns the finished run of a config: found, gone on with, or trained afresh.

    Args:
        settings: The composed ``conf/train.yaml``.
        on_open: Called with the run as it was found, before any work on it.
    """
    from visual_search.runs.parts import check_hardware
    from visual_search.training.processes import joined_processes

    trainer = settings.trainer
    asked = {name: trainer[name] for name in HARDWARE if name in trainer}
    check_hardware(**asked, index_device=settings.index.device)
    settings = _as_launched(settings)
    with joined_processes(trainer.get("accelerator", "auto")) as processes:
        if is_first_process():
            return _lead(settings, processes, on_open)
        return _help(settings, processes)


def _finished(settings: TrainSchema) -> Run | None:
    """Returns the run of a config where it is finished, without asking for a device."""
    _, named = _open(settings)
    if settings.rerun or not _is_done(named.run, settings):
        return None
    print(f"{named.run.folder} is finished; rerun=true trains it again.")
    return named.run


def _as_launched(settings: TrainSchema) -> TrainSchema:
    """Returns a config with the numbers that a launcher told: they are part of what was done."""
    from visual_search.launcher import launch

    if (launched := launch()) is None:
        return settings
    numbers = {"devices": launched.per_node, "num_nodes": launched.num_nodes}
    given = {key: settings.trainer.get(key, "auto") for key in numbers}
    found = {key: numbers[key] if value == "auto" else value for key, value in given.items()}
    return dataclasses.replace(settings, trainer={**settings.trainer, **found})


def _open(settings: TrainSchema) -> tuple[Parts, Named]:
    """Returns the parts of a config, and the run that they name."""
    from visual_search.runs.identity import find_run
    from visual_search.runs.parts import Parts

    parts = Parts(settings, bound_left_out=True)
    name = settings.name or str(settings.model["_target_"]).rpartition(".")[2]
    return parts, find_run(settings.outputs, name, settings, parts.catalog.fingerprint())


def _help(settings: TrainSchema, processes: Processes) -> Run:
    """The work of every process but the first."""
    has_work = processes.wait()
    parts, named = _open(settings)
    if has_work:
        _Training(named, parts).fit_and_test()
    return named.run


def _lead(
    settings: TrainSchema, processes: Processes, on_open: Callable[[Run], None] | None
) -> Run:
    """The work of the first process, or the only one."""
    from visual_search.reports.tables import explains, print_result

    parts, named = _open(settings)
    run = named.run
    is_left = settings.rerun or not _is_done(run, settings)
    training = _Training(named, parts) if is_left else None
    run.lock()
    try:
        if settings.rerun:
            run.clear()
        if on_open is not None:
            on_open(run)
        if named.note and not settings.rerun:
            print(f"{named.note}.")
        if _is_done(run, settings):
            print(f"{run.folder} is finished; rerun=true trains it again.")
        else:
            if not run.checkpoint.is_file():
                print(f"Run {run.folder}")
                if not settings.rerun:
                    _begin(named, parts)
            training = training or _Training(named, parts)  # cleared by another one meanwhile
            _work(training, processes)
    finally:
        run.unlock()
    print_result(run, explain=explains(settings))
    return run


def _begin(named: Named, parts: Parts) -> None:
    """Takes over what a finished run of fewer epochs has, or says why that cannot be."""
    from visual_search.runs.longer import go_on_from, shorter_run
    from visual_search.wording import many

    if found := _by_hash(named, parts):
        print(found)
    shorter = shorter_run(named, parts.settings, parts.catalog.fingerprint())
    if shorter is None:
        return
    epochs = f"{many(shorter.epochs, 'epoch')} of {shorter.run.folder}"
    if shorter.hindrance:
        print(f"It cannot go on from {epochs}: {shorter.hindrance}. It begins at the first epoch.")
    else:
        go_on_from(shorter, named.run)
        print(f"It goes on from {epochs}.")


def _by_hash(named: Named, parts: Parts) -> str:
    """Returns which run is the same but for the split that was drawn by default before."""
    from visual_search.runs.identity import find_run
    from visual_search.runs.parts import Parts

    settings = parts.settings
    experiment = named.run.folder.parent
    if settings.split.method != "stratified" or not any(experiment.glob("*/status.json")):
        return ""
    by_hash = dataclasses.replace(settings.split, method="hash")
    before = Parts(dataclasses.replace(settings, split=by_hash))
    before.whole = parts.whole
    fingerprint = before.catalog.fingerprint()
    run = find_run(settings.outputs, experiment.name, before.settings, fingerprint).run
    if not run.is_there or fingerprint == parts.catalog.fingerprint():
        return ""
    return (
        f"{run.folder} is the same with split=hash, the default of an earlier version: give that "
        "to find it."
    )


def _is_done(run: Run, settings: TrainSchema) -> bool:
    """Returns whether a run is finished, and has the numbers with which one of its settings ends.

    An earlier version left a finished status where it was killed within a clearing.
    """
    trainer = settings.trainer
    without = trainer.get("fast_dev_run") or trainer.get("limit_test_batches", 1.0) != 1.0
    return run.state == "finished" and bool(without or run.summary())


def _work(training: _Training, processes: Processes) -> None:
    """Trains and tests under a status that tells, whatever happens, how it ended."""
    from omegaconf import OmegaConf

    from visual_search.atomic import telling_full_disk, write_text
    from visual_search.catalog.kept_splits import keep_splits

    run, catalog, settings = training.run, training.parts.catalog, training.parts.settings
    facts: dict[str, object] = {
        "catalog": catalog.name,
        "catalog_fingerprint": catalog.fingerprint(),
    }
    if "code" in run.status() or not run.is_there:  # who goes on with unknown code knows no more
        facts |= {"settings_hash": training.named.settings_hash, "code": training.named.code}
    started = time.time()
    elapsed = run.seconds_so_far()
    write_text(run.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(settings)))
    write_text(run.folder / "overrides.yaml", _overrides())
    if settings.split.method == "stratified":
        keep_splits(run.split, training.parts.split)
    run.save_environment()
    state: State = "failed"
    error = ""
    run.set_state("running", seconds=elapsed, **facts)
    try:
        with telling_full_disk(run.folder):
            processes.call()
            training.fit_and_test()
        state = "finished"
    except (SystemExit, KeyboardInterrupt):
        state = "interrupted"
        print(f"\nInterrupted; {_kept(run, settings)}", file=sys.stderr)
        raise
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
        raise
    finally:
        seconds = elapsed + time.time() - started
        run.set_state(state, seconds=seconds, error=error, **facts)


def _kept(run: Run, settings: TrainSchema) -> str:
    """Says what of a run that was stopped is kept, and where the next start goes on."""
    from visual_search.training.checkpointing import position

    if not run.checkpoint.is_file():
        return f"no step was finished; the same command starts anew in {run.folder}"
    where = position(run.checkpoint, settings.trainer["max_epochs"])
    return f"kept {run.checkpoint}; the same command goes on at {where}"


def _overrides() -> str:
    import yaml
    from hydra.core.hydra_config import HydraConfig

    from visual_search.runs.places import override_without_places

    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    shown = [override_without_places(one) for one in given]
    return yaml.safe_dump(shown, allow_unicode=True, default_flow_style=False, width=10_000)


class _Training:
    """What one process trains with: built, and so refused, before the pictures are prepared."""

    def __init__(self, named: Named, parts: Parts) -> None:
        from visual_search.runs.initial_weights import take_weights
        from visual_search.runs.parts import quieten
        from visual_search.training.checkpointing import Interruption, RunCheckpoint
        from visual_search.training.distributed import restore_num_threads

        restore_num_threads()
        quieten()
        self.named, self.run, self.parts = named, named.run, parts
        parts.check_training()
        training = parts.settings.training
        self.taken = ""
        if training.start_from is not None:
            self.taken = take_weights(parts.model, training.start_from)
        self.interruption = Interruption()
        self.keeper = RunCheckpoint(
            self.run.folder / "checkpoints",
            every_n_seconds=training.checkpoint_every_n_seconds,
            interruption=self.interruption,
        )
        self.trainer = parts.trainer(self.run, self.keeper)

    def fit_and_test(self) -> None:
        """The work of one process: pictures, training, test, files."""
        from visual_search.reports.run_page import write_run_report
        from visual_search.runs.results import save_results
        from visual_search.training.checkpointing import position
        from visual_search.training.devices import memory_told
        from visual_search.training.processes import telling_gone

        run, parts, trainer = self.run, self.parts, self.trainer
        with self.interruption:
            module, datamodule = parts.module, parts.datamodule
            checkpoint = run.checkpoint if run.checkpoint.is_file() else None
            if trainer.is_global_zero and checkpoint is None and self.taken:
                print(self.taken)
            if trainer.is_global_zero and checkpoint is not None:
                where = position(checkpoint, trainer.max_epochs or 0)
                print(f"Run {run.folder}: going on at {where}")
            device = trainer.strategy.root_device
            with telling_gone(), memory_told(datamodule.batch_size, device, training=True):
                trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
                tested = trainer.test(module, datamodule, verbose=False)[0]
            if trainer.is_global_zero and module.evaluation is not None:
                save_results(run, parts, trainer, {**self.keeper.metrics, **tested})
                write_run_report(run.folder, parts.cached.catalog, parts.cached.pictures)


if __name__ == "__main__":
    main()
else:
    called_as_well(__name__)
