"""The parts of a run, built from its settings: catalogue, pictures, network, trainer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from visual_search.config.builders import ConfigError, bind, build, one_of
from visual_search.config.schemas import (
    EmbeddingConfig,
    PicturesConfig,
    TrainingConfig,
    TrainSchema,
)
from visual_search.runs.run import PROJECTION, Run

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog
    from visual_search.models.embedding import EmbeddingSettings
    from visual_search.models.encoder import Encoder
    from visual_search.models.objectives.objective import Objective
    from visual_search.retrieval.protocol import Protocol
    from visual_search.training.checkpointing import RunCheckpoint
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.floors import Floors
    from visual_search.training.module import EncoderModule, Preprocessing
    from visual_search.training.optimization import Optimization

Built = TypeVar("Built")


def read_catalog(settings: TrainSchema, *, bound_left_out: bool = False) -> Catalog:
    """Returns the catalogue that a config names, its splits assigned, limited to its budget.

    Args:
        settings: A composed config.
        bound_left_out: Whether to refuse a catalogue of which more than a tenth is left out.

    Raises:
        ValueError: It cannot be read or split, or too much of it is left out.
    """
    catalog = build_catalog(settings.data)
    if bound_left_out:
        check_left_out(settings.data, len(catalog.refused), len(catalog))
    return within_budget(catalog, settings)


def within_budget(catalog: Catalog, settings: TrainSchema) -> Catalog:
    """Returns a config's catalogue with its splits, limited to its budget."""
    from visual_search.catalog.splits import assign_splits, limit_items

    catalog = assign_splits(catalog, **vars(settings.split))
    limits = vars(settings.loader.max_items_per_category)
    if any(limit is not None for limit in limits.values()):
        catalog = limit_items(catalog, limits, seed=settings.split.seed)
    return catalog


def build_catalog(node: Mapping[str, Any]) -> Catalog:
    """Returns the catalogue of a data node, and prints what its reader chose by itself.

    Raises:
        ConfigError: The node is wrong.
        ValueError: The data cannot be read.
    """
    with progress_bar("Reading the catalogue", " files") as advance:
        catalog: Catalog = build("data", node, on_progress=advance)
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:  # not the helpers of the first process
        for choice in catalog.choices:
            print(f"{catalog.name}: {choice}")
    return catalog


def check_left_out(node: Mapping[str, Any], num_left_out: int, num_items: int) -> None:
    """Refuses data of which more than a tenth is left out, unless its config allows it.

    Args:
        node: The data's.
        num_left_out: Refused rows or pictures.
        num_items: The others.

    Raises:
        ValueError: Names the share, and how to allow it.
    """
    from visual_search.catalog.checks import MAX_LEFT_OUT, left_out

    if node.get("on_bad_item") != "skip_any" and num_left_out > MAX_LEFT_OUT * (
        num_items + num_left_out
    ):
        raise ValueError(
            f"{left_out(num_left_out, num_items)}; expected at most {MAX_LEFT_OUT:.0%}: mend them "
            "(visual_search.check names every one), or allow it by data.on_bad_item=skip_any"
        )


def check_builders(settings: TrainSchema) -> None:
    """Refuses wrong arguments of anything that will be built, before the work begins.

    Raises:
        ConfigError: Names the key and what is expected.
    """
    bind("model", settings.model)
    bind("objective", settings.objective)
    try:
        build("sampler", settings.sampler).for_batches(settings.loader.batch_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if settings.augmentation:
        bind("augmentation", settings.augmentation)
    embedding_settings(settings.embedding)
    optimization(settings.training)
    new_protocol(settings.protocol)
    bind("trainer", settings.trainer)
    if settings.profiler:
        bind("profiler", settings.profiler)
    for group in ("callbacks", "logger"):
        for name, node in getattr(settings, group).items():
            if node:
                bind(group, node, key=f"{group}.{name}")


def check_hardware(
    accelerator: Any = "auto",
    devices: Any = 1,
    *,
    precision: Any = "auto",
    strategy: Any = "auto",
    index_device: Any = "auto",
) -> None:
    """Refuses a device or precision that this machine does not have, before any work.

    Raises:
        ConfigError: Names the key, what is expected, and what to set.
    """
    from visual_search.knn.device import check_device
    from visual_search.training.devices import check_hardware

    try:
        check_device(index_device)
        check_hardware(accelerator, devices, strategy=strategy, precision=precision)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def build_trainer(node: Mapping[str, Any], **supplied: Any) -> Trainer:
    """Returns the Trainer of a config's node.

    Raises:
        ConfigError: An argument is wrong, or this machine does not have what is asked for.
    """
    try:
        trainer: Trainer = build("trainer", node, **supplied)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return trainer


@contextlib.contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what to call with (done, total); a bar appears if it takes longer than a second."""
    from tqdm import tqdm

    with tqdm(desc=title, unit=unit, leave=False, delay=1.0) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


def cache(
    catalog: Catalog, node: Mapping[str, Any], *, size_px: int, fit: str, cache_dir: str
) -> CachedCatalog:
    """Returns the catalogue with its pictures decoded, under a progress bar.

    Args:
        catalog: Read already.
        node: Its data node, which says what becomes of a broken picture.
        size_px: What the network sees.
        fit: As `visual_search.catalog.images.Fit`.
        cache_dir: Where decoded pictures are kept.

    Raises:
        ConfigError: There is no such fit.
    """
    from visual_search.catalog.cache import cache_pictures
    from visual_search.catalog.images import Fit

    with progress_bar("Preparing pictures", " pictures") as advance:
        return cache_pictures(
            catalog,
            size_px=size_px,
            fit=one_of("pictures.fit", fit, get_args(Fit)),
            cache_dir=cache_dir,
            on_bad_item=node.get("on_bad_item", "error"),
            on_progress=advance,
        )


def new_model(settings: TrainSchema) -> Encoder:
    """Returns the network with the first weights that the seed decides.

    Raises:
        ConfigError: It takes pictures of another size than the config prepares.
    """
    import torch

    torch.manual_seed(settings.seed)  # the weights' first values
    model: Encoder = build("model", settings.model)
    if model.image_size_px != settings.pictures.size_px:
        raise ConfigError(
            f"pictures.size_px={settings.pictures.size_px}, but the network takes pictures "
            f"of {model.image_size_px} px; set pictures.size_px={model.image_size_px}"
        )
    return model


def new_protocol(node: Mapping[str, Any]) -> Protocol:
    """Returns the protocol that a config's node names.

    Raises:
        ConfigError: An argument is unknown, missing or of a wrong type or value.
    """
    try:
        protocol: Protocol = build("protocol", node)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return protocol


def protocol_in_full(node: dict[str, Any]) -> dict[str, Any]:
    """Returns a protocol's config with the arguments that were left to their defaults.

    The same rules are then the same config, however much of it was written. A node of an older
    run, which names no builder, is given back as it is.

    Raises:
        ConfigError: An argument is unknown, missing or of a wrong type.
    """
    import inspect

    if "_target_" not in node:
        return node
    builder, given = bind("protocol", node)
    parameters = inspect.signature(builder).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    held = {name: list(v) if isinstance(v, tuple) else v for name, v in defaults.items()}
    return {"_target_": node["_target_"], **held, **given}


def new_floors(settings: TrainSchema) -> Floors:
    """Returns what measures a run's floors: those without a network, and its own one untrained."""
    from visual_search.models.embedding import EmbeddingHead
    from visual_search.training.floors import Floors
    from visual_search.training.module import EncoderModule

    def first_weights() -> EncoderModule:
        model = new_model(settings)
        head = EmbeddingHead(model, embedding_settings(settings.embedding))
        return EncoderModule(model, preprocessing(settings.pictures), head=head).eval()

    return Floors(settings.pictures.cache_dir, first_weights=first_weights)


def preprocessing(pictures: PicturesConfig) -> Preprocessing:
    """Returns what a config does to a picture before the network sees it."""
    from visual_search.catalog.images import Fit
    from visual_search.training.module import Preprocessing

    return Preprocessing(pictures.size_px, one_of("pictures.fit", pictures.fit, get_args(Fit)))


def embedding_settings(embedding: EmbeddingConfig) -> EmbeddingSettings:
    """Returns what of a network a config indexes.

    Raises:
        ConfigError: A value is wrong.
    """
    from visual_search.models.embedding import EmbeddingSettings

    return _plain(EmbeddingSettings, vars(embedding))


def optimization(training: TrainingConfig) -> Optimization:
    """Returns the optimiser and schedule of a config.

    Raises:
        ConfigError: A value is wrong.
    """
    import dataclasses

    from visual_search.training.optimization import Optimization

    names = {field.name for field in dataclasses.fields(Optimization)}
    given = {name: value for name, value in vars(training).items() if name in names}
    return _plain(Optimization, given)


def _plain(kind: Callable[..., Built], arguments: Mapping[str, Any]) -> Built:
    try:
        return kind(**arguments)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def new_objective(settings: TrainSchema, model: Encoder, catalog: Catalog) -> Objective:
    """Returns what a network is trained for, its own parts with weights that the seed decides.

    Raises:
        ConfigError: It cannot train this network, or the catalogue lacks what it learns from.
    """
    import torch

    from visual_search.training.labels import label_values

    torch.manual_seed(settings.seed + 1)  # not the numbers that the network began with
    try:
        objective: Objective = build(
            "objective",
            settings.objective,
            embedding_dim=model.embedding_dim,
            num_labels=lambda column: len(label_values(catalog, column)),
        )
        objective.check_encoder(model)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return objective


def new_modules(
    settings: TrainSchema, cached: CachedCatalog, model: Encoder
) -> tuple[CatalogDataModule, EncoderModule]:
    """Returns Lightning's two modules: the one with the data and the one with the network."""
    from visual_search.models.embedding import EmbeddingHead
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.labels import Labels
    from visual_search.training.module import EncoderModule

    loader = settings.loader
    datamodule = CatalogDataModule(
        cached.catalog,
        cached.pictures,
        batch_size=loader.batch_size,
        num_workers=loader.num_workers,
        seed=settings.seed,
        shuffle=loader.shuffle,
        sampling=build("sampler", settings.sampler),
    )
    objective = new_objective(settings, model, cached.catalog)
    augmentation = settings.augmentation
    module = EncoderModule(
        model,
        preprocessing(settings.pictures),
        objective=objective,
        head=EmbeddingHead(model, embedding_settings(settings.embedding)),
        augmentation=build("augmentation", augmentation) if augmentation else None,
        labels=Labels.of_catalog(cached.catalog, objective.columns),
        optimization=optimization(settings.training),
        seed=settings.seed,
        item_ids=list(cached.catalog.table["item_id"]),
    )
    return datamodule, module


def new_trainer(run: Run, settings: TrainSchema, keeper: RunCheckpoint) -> Trainer:
    """Returns the Trainer with what always belongs to a run and what the config adds."""
    from lightning.pytorch.callbacks import LambdaCallback

    from visual_search.knn.device import Device
    from visual_search.training.callbacks.history import History
    from visual_search.training.callbacks.neighbour_positives import NeighbourPartners
    from visual_search.training.callbacks.progress import Progress
    from visual_search.training.callbacks.retrieval import RetrievalEvaluation

    callbacks: list[Callback] = [
        LambdaCallback(on_fit_start=lambda trainer, module: _note_device(run, trainer)),
        History(),  # before the keeper, whose checkpoint is to hold the newest batch's loss
        keeper,
        RetrievalEvaluation(
            new_protocol(settings.protocol),
            every_n_epochs=settings.training.evaluate_every_n_epochs,
            index_device=one_of("index.device", settings.index.device, get_args(Device)),
            floors=new_floors(settings) if settings.floors else None,
        ),
    ]
    partners = settings.partners
    if partners.source is not None:
        callbacks.append(
            NeighbourPartners(
                partners.source,
                num_neighbours=partners.num_neighbours,
                own_probability=partners.own_probability,
                refresh_every_n_epochs=partners.refresh_every_n_epochs,
                scratch_dir=settings.pictures.cache_dir,
                seed=settings.seed,
            )
        )
    callbacks += [
        build("callbacks", node, key=f"callbacks.{name}")
        for name, node in settings.callbacks.items()
        if node
    ]
    if settings.trainer.get("enable_progress_bar", True):
        callbacks.append(Progress())
    loggers: list[Logger] = [
        new_logger(name, node, run.folder) for name, node in settings.logger.items() if node
    ]
    profiler = None
    if settings.profiler:
        profiler = build("profiler", settings.profiler, dirpath=str(run.folder))
    return build_trainer(
        settings.trainer,
        folder=run.folder,
        callbacks=callbacks,
        loggers=loggers,
        profiler=profiler,
    )


def _note_device(run: Run, trainer: Trainer) -> None:
    """Writes what computes a run, once its processes have settled how many threads each has."""
    from visual_search.runs.machine import device_facts, device_sentence

    if not trainer.is_global_zero:
        return
    before = run.computed_on()
    run.save_environment(device_facts(trainer))
    devices = run.computed_on()
    if before and len(devices) > len(before):
        was, now = map(device_sentence, devices[-2:])
        print(f"So far it ran on {was}; now it runs on {now}: its numbers are of both.")


def new_logger(name: str, node: dict[str, Any], folder: Path) -> Logger:
    """Returns a logger that writes under ``<folder>/<name>``.

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


def quieten() -> None:
    """Silences what Lightning says that a user can neither use nor change."""
    import logging
    import warnings

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for pattern in (
        ".*LeafSpec.*",  # Lightning calls what torch has deprecated
        ".*does not have many workers.*",  # reading the cache takes 3 ms a batch
        ".*smaller than the logging interval.*",
        ".*find_unused_parameters=True was specified.*",  # not every objective leaves some unused
        ".*dataloader is not resumable.*",  # ours goes on at the trainer's global step
        ".*sync_dist=True.*",  # every process logs the same number, gathered from all
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*could be decompression bomb.*",  # Pillow's; ours refuses the picture by name
    ):
        warnings.filterwarnings("ignore", message=pattern)


def load_module(run: Run) -> EncoderModule:
    """Returns a run's trained module, rebuilt from its own config and checkpoint.

    The config is data: it can name nothing but the builders of `config.builders`, and the
    checkpoint holds tensors and plain values.

    Raises:
        FileNotFoundError: The config or the checkpoint is missing.
        ConfigError: The config names something else than a model of this package.
        ValueError: The checkpoint is damaged or belongs to other preprocessing.
        RuntimeError: The weights do not fit the network.
    """
    from visual_search.models.embedding import EmbeddingHead
    from visual_search.training.checkpointing import load_checkpoint
    from visual_search.training.module import EncoderModule

    settings = run.settings()
    checkpoint = load_checkpoint(run.checkpoint)
    model = build("model", _without_first_weights(settings.model))
    head = EmbeddingHead(model, embedding_settings(settings.embedding))
    module = EncoderModule(model, preprocessing(settings.pictures), head=head)
    module.on_load_checkpoint(checkpoint)
    # What only training needs, such as a classifier, stays in the checkpoint.
    own = {
        name.removeprefix("model."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("model.")
    }
    model.load_state_dict(own, strict=True)
    head.load(run.folder / PROJECTION)
    return module.eval()


def _without_first_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model's node without what its checkpoint replaces: files, downloads."""
    first: dict[str, Any] = {"weights": None, "pretrained": False}
    return {name: first.get(name, value) for name, value in model.items()}
