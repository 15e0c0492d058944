"""The parts of a run, built from its settings: catalogue, pictures, network, trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.config import ConfigError, bind, build

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog
    from visual_search.models.autoencoder import Autoencoder
    from visual_search.runs import Run
    from visual_search.training.checkpointing import RunCheckpoint
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.module import AutoencoderModule


def read_catalog(settings: dict[str, Any]) -> Catalog:
    """Gives the catalogue that a config names, its splits assigned, limited to its budget."""
    from visual_search.catalog.splits import assign_splits, limit_items

    with _bar("Reading the catalogue", " files") as advance:
        catalog: Catalog = build("data", settings["data"], on_progress=advance)
    catalog = assign_splits(catalog, **settings["split"])
    limits = settings["loader"]["max_items_per_category"]
    if any(limit is not None for limit in limits.values()):
        catalog = limit_items(catalog, limits, seed=settings["split"]["seed"])
    return catalog


def check_builders(settings: dict[str, Any]) -> None:
    """Refuses wrong arguments of anything that will be built, before the work begins.

    Raises:
        ConfigError: Names the key and what is expected.
    """
    bind("model", settings["model"])
    bind("trainer", settings["trainer"])
    if settings["profiler"]:
        bind("profiler", settings["profiler"])
    for group in ("callbacks", "logger"):
        for name, node in settings[group].items():
            if node:
                bind(group, node, key=f"{group}.{name}")


@contextlib.contextmanager
def _bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what to call with (done, total); a bar appears if it takes longer than a second."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, leave=False, delay=1.0) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def cache(settings: dict[str, Any], catalog: Catalog) -> CachedCatalog:
    """Gives the catalogue with its pictures decoded, under a progress bar."""
    from visual_search.catalog.cache import cache_pictures

    with _bar("Preparing pictures", " pictures") as advance:
        return cache_pictures(
            catalog,
            size_px=settings["pictures"]["size_px"],
            fit=settings["pictures"]["fit"],
            cache_dir=settings["pictures"]["cache_dir"],
            on_bad_item=settings["data"].get("on_bad_item", "error"),
            on_progress=advance,
        )


def new_model(settings: dict[str, Any]) -> Autoencoder:
    """Gives the network with the first weights that the seed decides.

    Raises:
        ConfigError: It takes pictures of another size than the config prepares.
    """
    import torch

    torch.manual_seed(settings["seed"])  # the weights' first values
    model: Autoencoder = build("model", settings["model"])
    if model.image_size_px != settings["pictures"]["size_px"]:
        raise ConfigError(
            f"pictures.size_px={settings['pictures']['size_px']}, but the network takes pictures "
            f"of {model.image_size_px} px; set pictures.size_px={model.image_size_px}"
        )
    return model


def new_modules(
    settings: dict[str, Any], cached: CachedCatalog, model: Autoencoder
) -> tuple[CatalogDataModule, AutoencoderModule]:
    """Gives Lightning's two modules: the one with the data and the one with the network."""
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
    module = AutoencoderModule(
        model,
        Preprocessing(settings["pictures"]["size_px"], settings["pictures"]["fit"]),
        learning_rate=settings["training"]["learning_rate"],
        seed=settings["seed"],
        item_ids=list(cached.catalog.table["item_id"]),
    )
    return datamodule, module


def new_trainer(run: Run, settings: dict[str, Any], keeper: RunCheckpoint) -> Trainer:
    """Gives the Trainer with what always belongs to a run and what the config adds."""
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
    callbacks += [
        build("callbacks", node, key=f"callbacks.{name}")
        for name, node in settings["callbacks"].items()
        if node
    ]
    if settings["trainer"].get("enable_progress_bar", True):
        callbacks.append(Progress())
    loggers: list[Logger] = [
        new_logger(name, node, run.folder) for name, node in settings["logger"].items() if node
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


def new_logger(name: str, node: dict[str, Any], folder: Path) -> Logger:
    """Gives a logger that writes under ``<folder>/<name>``.

    Raises:
        ConfigError: It needs a package that is not installed.
    """
    try:
        logger: Logger = build("logger", node, key=f"logger.{name}", save_dir=str(folder / name))
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"logger.{name} needs a package that is not installed ({error}); expected the extra of "
            f"that name; run: pip install 'visual-search[{name}]'"
        ) from error
    return logger
