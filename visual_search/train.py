"""Trains an encoder on a catalogue, builds its index, measures retrieval, draws what it sees.

``python -m visual_search.train experiment=plus_layer``; ``--help`` lists what can be set.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.command_line import run_command
from visual_search.config import ConfigError, bind, build

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger
    from omegaconf import DictConfig

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog
    from visual_search.runs import Run
    from visual_search.training.checkpointing import RunCheckpoint
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.module import AutoencoderModule


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("train", train_command)


def train_command(config: DictConfig) -> None:
    """Trains what the composed config describes; in a multirun one of its jobs."""
    from visual_search.sweeps import record_job

    with record_job(config) as job:
        job.run = train(config)


def train(config: DictConfig) -> Run:
    """Gives the finished run of a config: found, gone on with, or trained afresh."""
    from omegaconf import OmegaConf

    from visual_search.results import print_result
    from visual_search.runs import open_run, run_hash

    settings: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
        config, resolve=True, throw_on_missing=False
    )
    bind("trainer", settings["trainer"])  # a wrong setting shows before the data is read
    catalog = read_catalog(settings)
    name = settings["name"] or str(settings["model"]["_target_"]).rpartition(".")[2]
    run = open_run(settings["outputs"], name, run_hash(settings, catalog.fingerprint()))
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:  # started by the first process, to help it
        _fit_and_test(run, settings, catalog)
        return run
    run.lock()
    try:
        if settings["rerun"]:
            run.clear()
        if run.state == "finished":
            print(f"{run.folder} is finished; rerun=true trains it again.")
        else:
            print(f"Run {run.folder}")
            _work(run, settings, catalog, config)
    finally:
        run.unlock()
    print_result(run)
    return run


def read_catalog(settings: dict[str, Any]) -> Catalog:
    """Gives the catalogue that a config names, its splits assigned, limited to its budget."""
    from visual_search.catalog.splits import assign_splits, limit_items

    catalog: Catalog = build("data", settings["data"])
    catalog = assign_splits(catalog, **settings["split"])
    limits = settings["loader"]["max_items_per_category"]
    if any(limit is not None for limit in limits.values()):
        catalog = limit_items(catalog, limits, seed=settings["split"]["seed"])
    return catalog


def _work(run: Run, settings: dict[str, Any], catalog: Catalog, config: DictConfig) -> None:
    """Trains and tests under a status that tells, whatever happens, how it ended."""
    from omegaconf import OmegaConf

    from visual_search.atomic import write_text
    from visual_search.runs import environment, write_json

    facts = {"catalog": catalog.name, "catalog_fingerprint": catalog.fingerprint()}
    started = time.time()
    elapsed = float(run.status().get("seconds", 0.0))
    write_text(run.folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    write_text(run.folder / "overrides.yaml", _overrides())
    write_json(run.folder / "environment.json", environment())
    state: Any = "failed"
    error = ""
    run.set_state("running", seconds=elapsed, **facts)
    try:
        _fit_and_test(run, settings, catalog)
        state = "finished"
    except (SystemExit, KeyboardInterrupt):
        state = "interrupted"
        print(f"\nInterrupted; the same command goes on in {run.folder}", file=sys.stderr)
        raise
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
        raise
    finally:
        seconds = elapsed + time.time() - started
        run.set_state(state, seconds=seconds, error=error, **facts)


def _overrides() -> str:
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return "[]\n"
    return "".join(f"- {override}\n" for override in HydraConfig.get().overrides.task) or "[]\n"


def _fit_and_test(run: Run, settings: dict[str, Any], catalog: Catalog) -> None:
    """The work of one process: pictures, network, training, test, files."""
    from visual_search.training.checkpointing import Interruption, RunCheckpoint

    _quieten()
    interruption = Interruption()
    interruption.install()
    cached = _cache(settings, catalog)
    datamodule, module = _modules(settings, cached)
    keeper = RunCheckpoint(
        run.folder / "checkpoints",
        every_n_seconds=settings["training"]["checkpoint_every_n_seconds"],
        interruption=interruption,
    )
    trainer = _trainer(run, settings, keeper)
    checkpoint = run.checkpoint if run.checkpoint.is_file() else None
    if checkpoint is not None and trainer.is_global_zero:
        print(f"Going on from {checkpoint}")
    trainer.fit(module, datamodule, ckpt_path=checkpoint, weights_only=True)
    interruption.deferred = False
    tested = trainer.test(module, datamodule, verbose=False)[0]
    if trainer.is_global_zero and module.evaluation is not None:
        logged = {**keeper.metrics, **tested}
        _save(run, settings, cached, datamodule, module, trainer, logged)


def _quieten() -> None:
    """Silences what Lightning says that a user can neither use nor change."""
    import logging
    import warnings

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*LeafSpec.*",  # Lightning calls what torch has deprecated
        ".*does not have many workers.*",  # reading the cache takes 3 ms a batch
        ".*smaller than the logging interval.*",
        ".*dataloader is not resumable.*",  # ours goes on at the trainer's global step
        ".*sync_dist=True.*",  # every process logs the same number, gathered from all
        ".*Checkpoint directory.*exists and is not empty.*",
    ):
        warnings.filterwarnings("ignore", message=pattern)


def _cache(settings: dict[str, Any], catalog: Catalog) -> CachedCatalog:
    from tqdm import tqdm

    from visual_search.catalog.cache import cache_pictures

    with tqdm(desc="Preparing pictures", unit=" pictures", leave=False, delay=1.0) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return cache_pictures(
            catalog,
            size_px=settings["pictures"]["size_px"],
            fit=settings["pictures"]["fit"],
            cache_dir=settings["pictures"]["cache_dir"],
            on_bad_item=settings["data"].get("on_bad_item", "error"),
            on_progress=advance,
        )


def _modules(
    settings: dict[str, Any], cached: CachedCatalog
) -> tuple[CatalogDataModule, AutoencoderModule]:
    import torch

    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.module import AutoencoderModule, Preprocessing

    loader = settings["loader"]
    datamodule = CatalogDataModule(
        cached.catalog,
        cached.pictures,
        batch_size=loader["batch_size"],
        num_workers=loader["num_workers"],
        seed=settings["seed"],
        shuffle=loader["shuffle"],
    )
    torch.manual_seed(settings["seed"])  # the weights' first values
    model = build("model", settings["model"])
    if model.image_size_px != settings["pictures"]["size_px"]:
        raise ConfigError(
            f"pictures.size_px={settings['pictures']['size_px']}, but the network takes pictures "
            f"of {model.image_size_px} px; set pictures.size_px={model.image_size_px}"
        )
    module = AutoencoderModule(
        model,
        Preprocessing(settings["pictures"]["size_px"], settings["pictures"]["fit"]),
        learning_rate=settings["training"]["learning_rate"],
        seed=settings["seed"],
        item_ids=list(cached.catalog.table["item_id"]),
    )
    return datamodule, module


def _trainer(run: Run, settings: dict[str, Any], keeper: RunCheckpoint) -> Trainer:
    from visual_search.training.callbacks.progress import Progress
    from visual_search.training.callbacks.retrieval import RetrievalEvaluation

    protocol = settings["protocol"]
    callbacks: list[Callback] = [
        keeper,
        RetrievalEvaluation(
            k=protocol["k"],
            gallery=protocol["gallery"],
            every_n_epochs=settings["training"]["evaluate_every_n_epochs"],
            index_device=protocol["index_device"],
        ),
    ]
    callbacks += [build("callbacks", node) for node in settings["callbacks"].values() if node]
    if settings["trainer"].get("enable_progress_bar", True):
        callbacks.append(Progress())
    loggers: list[Logger] = [
        build("logger", node, **_logger_places(name, run.folder))
        for name, node in settings["logger"].items()
        if node
    ]
    profiler = None
    if settings["profiler"]:
        profiler = build("profiler", settings["profiler"], dirpath=str(run.folder))
    trainer: Trainer = build(
        "trainer",
        settings["trainer"],
        folder=run.folder,
        callbacks=callbacks,
        loggers=loggers,
        profiler=profiler,
    )
    return trainer


def _logger_places(name: str, folder: Path) -> dict[str, str]:
    return {"save_dir": str(folder / name)}


def _save(
    run: Run,
    settings: dict[str, Any],
    cached: CachedCatalog,
    datamodule: CatalogDataModule,
    module: AutoencoderModule,
    trainer: Trainer,
    logged: Mapping[str, float],
) -> None:
    """Writes embeddings, index and numbers, and the settings with the numbers to the loggers."""
    from visual_search.results import summarise
    from visual_search.retrieval.report import save_report
    from visual_search.runs import write_json
    from visual_search.training.evaluation import save_embeddings
    from visual_search.training.module import weights_fingerprint

    evaluation = module.evaluation
    assert evaluation is not None
    save_embeddings(evaluation, datamodule.catalog, run.folder / "embeddings")
    manifest = evaluation.index.save(
        run.folder / "index",
        model_hash=weights_fingerprint(module.model),
        preprocessing_hash=module.preprocessing.fingerprint(),
    )
    save_report(evaluation.report, run.folder / "metrics")
    summary = summarise(
        evaluation.report.summary,
        val_loss=logged.get("val/loss"),
        test_loss=logged.get("test/loss"),
        index={"bytes": manifest.num_bytes, "bytes_per_item": manifest.bytes_per_item},
        embedding_dim=module.model.embedding_dim,
        num_parameters=sum(p.numel() for p in module.parameters()),
        epochs=trainer.current_epoch,
        embedding_ms_per_item=1000 * evaluation.seconds_per_item,
        refused=[vars(item) for item in cached.catalog.refused],
        num_training=len(datamodule.rows("train")),
        device=str(module.device),
        precision=str(trainer.precision),
    )
    write_json(run.folder / "metrics" / "summary.json", summary)
    k = summary["k"]
    finals = {
        f"final/{name}": logged[name]
        for name in (f"test/map_at_{k}", f"test/macro_map_at_{k}", f"test/precision_at_{k}",
                     "test/loss", "val/loss")
        if name in logged
    }  # fmt: skip
    for logger in trainer.loggers:
        _log_settings(logger, _choices(settings, summary), finals)
        logger.save()


def _choices(settings: dict[str, Any], summary: dict[str, Any]) -> dict[str, Any]:
    """Gives what one compares runs by; the whole config lies in the run's folder."""
    return {
        "model": str(settings["model"]["_target_"]).rpartition(".")[2],
        "data": str(settings["data"]["_target_"]).rpartition(".")[2],
        "seed": settings["seed"],
        "epochs": summary["epochs"],
        "batch_size": settings["loader"]["batch_size"],
        "learning_rate": settings["training"]["learning_rate"],
        "training_pictures": summary["num_training"],
        "embedding_dim": summary["embedding_dim"],
        "precision": summary["precision"],
        "fit": settings["pictures"]["fit"],
    }


def _log_settings(logger: Any, choices: dict[str, Any], finals: dict[str, float]) -> None:
    from lightning.pytorch.loggers import TensorBoardLogger

    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(choices, finals)  # shows in TensorBoard's HParams tab
    else:
        logger.log_hyperparams(choices)
        logger.log_metrics(finals)


if __name__ == "__main__":
    main()
