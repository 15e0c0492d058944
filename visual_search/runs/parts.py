"""The parts of a run: what its settings describe, each built once and only when asked for."""

from __future__ import annotations

import dataclasses
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from visual_search.config.builders import ConfigError, bind, build, one_of, told_as_config
from visual_search.config.schemas import Node, TrainSchema
from visual_search.runs.catalogs import (
    build_catalog,
    check_left_out,
    prepare,
    with_splits,
    within_budget,
)
from visual_search.runs.code import code_of
from visual_search.runs.run import PROJECTION, Run

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog
    from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
    from visual_search.models.encoder import Encoder
    from visual_search.models.objectives.objective import Objective
    from visual_search.retrieval.protocol import Protocol
    from visual_search.training.checkpointing import RunCheckpoint
    from visual_search.training.datamodule import CatalogDataModule
    from visual_search.training.floors import Floors
    from visual_search.training.module import EncoderModule, Preprocessing
    from visual_search.training.optimization import Optimization
    from visual_search.training.query_gallery import Sides


class Parts:
    """What settings describe, from the catalogue to the trainer.

    Whatever can be said of the settings without a picture is said by `check_measuring` and
    `check_training`: preparing the pictures takes longer than all of that together.

    Args:
        settings: Of a run, or with what a command replaces of them.
        bound_left_out: Whether to refuse data of which more than a tenth is left out.
    """

    def __init__(self, settings: TrainSchema, *, bound_left_out: bool = False) -> None:
        self.settings = settings
        self.bound_left_out = bound_left_out

    @cached_property
    def whole(self) -> Catalog:
        """The catalogue as read, without splits and budget.

        What its reader found out is a setting from then on: a run keeps it, and reads the same data
        in the same way whatever a later version finds out.

        Raises:
            ValueError: It cannot be read.
        """
        catalog = build_catalog(self.settings.data)
        self.settings.data = {**self.settings.data, **catalog.settings}
        return catalog

    @cached_property
    def split(self) -> Catalog:
        """The catalogue with its splits assigned.

        Raises:
            ValueError: It cannot be read or split, or too much of it is left out.
        """
        settings = self.settings
        if self.bound_left_out:
            check_left_out(settings.data, len(self.whole.refused), len(self.whole))
        return with_splits(self.whole, settings.data, settings.split, settings.outputs)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalogue with its splits assigned, limited to its budget.

        Raises:
            ValueError: It cannot be read or split, or too much of it is left out.
        """
        return within_budget(self.split, self.settings)

    @cached_property
    def cached(self) -> CachedCatalog:
        """The catalogue without what does not decode, and its pictures.

        Raises:
            ValueError: A picture does not decode, or too many do not.
        """
        settings = self.settings
        cached = prepare(self.catalog, settings.data, **vars(settings.pictures))
        if self.bound_left_out:
            broken = len(cached.catalog.refused) - len(self.catalog.refused)
            check_left_out(settings.data, broken, len(cached.catalog))
        return cached

    @cached_property
    def protocol(self) -> Protocol:
        """The rules of the measurement."""
        return new_protocol(self.settings.protocol)

    @cached_property
    def model(self) -> Encoder:
        """The network with the first weights that the seed decides.

        Raises:
            ConfigError: It takes pictures of another size than the config prepares.
        """
        import torch

        settings = self.settings
        torch.manual_seed(settings.seed)  # the weights' first values
        model: Encoder = build("model", settings.model)
        if model.image_size_px != settings.pictures.size_px:
            raise ConfigError(
                f"pictures.size_px={settings.pictures.size_px}, but the network takes pictures "
                f"of {model.image_size_px} px; set pictures.size_px={model.image_size_px}"
            )
        return model

    @property
    def preprocessing(self) -> Preprocessing:
        """What is done to a picture before the network sees it."""
        from visual_search.catalog.images import Fit
        from visual_search.training.module import Preprocessing

        pictures = self.settings.pictures
        return Preprocessing(pictures.size_px, one_of("pictures.fit", pictures.fit, get_args(Fit)))

    def optimization(self) -> Optimization:
        """Returns the optimiser and its schedule.

        Raises:
            ConfigError: A value is wrong.
        """
        from visual_search.training.optimization import Optimization

        names = {field.name for field in dataclasses.fields(Optimization)}
        given = vars(self.settings.training)
        with told_as_config():
            return Optimization(**{name: given[name] for name in names & given.keys()})

    def embedding(self) -> EmbeddingSettings:
        """Returns what of a network is indexed.

        Raises:
            ConfigError: A value is wrong.
        """
        from visual_search.models.embedding import EmbeddingSettings

        with told_as_config():
            return EmbeddingSettings(**vars(self.settings.embedding))

    def head(self, model: Encoder) -> EmbeddingHead:
        """Returns what turns a network's values into what is indexed.

        Raises:
            ConfigError: The network has no such layer, or a value is wrong.
        """
        from visual_search.models.embedding import EmbeddingHead

        with told_as_config():
            return EmbeddingHead(model, self.embedding())

    @cached_property
    def floors(self) -> Floors:
        """What measures the floors: those without a network, and the run's own one untrained."""
        from visual_search.training.floors import Floors
        from visual_search.training.module import EncoderModule

        def first_weights() -> EncoderModule:
            own = Parts(self.settings)  # not the network that is being trained
            return EncoderModule(own.model, own.preprocessing, head=own.head(own.model)).eval()

        settings = self.settings
        learns = settings.trainer.get("max_epochs") != 0 or settings.training.start_from is not None
        return Floors(
            settings.pictures.cache_dir,
            first_weights=first_weights if learns else None,  # they are the run itself
        )

    def objective(self, catalog: Catalog) -> Objective:
        """Returns what the network is trained for, with weights that the seed decides.

        Args:
            catalog: Whose labels it may learn from.

        Raises:
            ConfigError: It cannot train this network, or the catalogue lacks what it learns from.
        """
        import torch

        from visual_search.training.labels import label_values

        torch.manual_seed(self.settings.seed + 1)  # not the numbers that the network began with
        with told_as_config():
            objective: Objective = build(
                "objective",
                self.settings.objective,
                embedding_dim=self.model.embedding_dim,
                num_labels=lambda column: len(label_values(catalog, column)),
            )
            objective.check_encoder(self.model)
        return objective

    @cached_property
    def datamodule(self) -> CatalogDataModule:
        """Lightning's module with the data."""
        from visual_search.training.datamodule import CatalogDataModule

        loader = self.settings.loader
        with told_as_config():
            return CatalogDataModule(
                self.cached.catalog,
                self.cached.pictures,
                batch_size=loader.batch_size,
                num_workers=loader.num_workers,
                seed=self.settings.seed,
                shuffle=loader.shuffle,
                sampling=build("sampler", self.settings.sampler),
            )

    @cached_property
    def module(self) -> EncoderModule:
        """Lightning's module with the network."""
        from visual_search.training.labels import Labels
        from visual_search.training.module import EncoderModule

        settings, catalog = self.settings, self.cached.catalog
        objective = self.objective(catalog)
        augmentation = settings.augmentation
        return EncoderModule(
            self.model,
            self.preprocessing,
            objective=objective,
            head=self.head(self.model),
            augmentation=build("augmentation", augmentation) if augmentation else None,
            labels=Labels.of_catalog(catalog, objective.columns),
            optimization=self.optimization(),
            seed=settings.seed,
            item_ids=list(catalog.table["item_id"]),
            products=catalog.products,
        )

    def sides(self, split: str) -> Sides:
        """Returns who asks and who is searched, the leaks between them found.

        Raises:
            ValueError: The protocol cannot be met.
        """
        from visual_search.training.query_gallery import check_depth, choose_sides
        from visual_search.views.progress import progress_bar

        with progress_bar("Looking for leaks", " pictures") as advance:
            sides = choose_sides(
                self.protocol, self.cached.catalog, self.cached.pictures, split, advance
            )
        check_depth(self.protocol, self.cached.catalog, sides.selection, split)
        return sides

    def check_measuring(self, split: str) -> None:
        """Refuses what cannot be measured on this catalogue, before its pictures are prepared.

        Raises:
            ValueError: A value of the embedding is wrong, a column is missing, a side is empty, or
                no query can find k items.
        """
        from visual_search.training.query_gallery import check_depth

        self.embedding()

        selection = self.protocol.choose(self.catalog.table, split)
        check_depth(self.protocol, self.catalog, selection, split)

    def check_training(self) -> None:
        """Refuses settings that cannot train, before pictures are prepared.

        Raises:
            ConfigError: A part cannot be built, or the parts do not fit each other.
            ValueError: The protocol cannot be met, or there is no item to train or test on.
        """
        from visual_search.training.callbacks.neighbour_positives import check_partners
        from visual_search.training.datamodule import check_loader
        from visual_search.training.labels import Labels
        from visual_search.training.query_gallery import (
            check_enough,
            check_test_items,
            check_train_items,
            expected_of,
        )

        settings, catalog = self.settings, self.catalog
        check_train_items(catalog)
        if settings.augmentation:
            build("augmentation", settings.augmentation)
        head, objective = self.head(self.model), self.objective(catalog)
        with told_as_config():
            check_loader(settings.loader.batch_size, settings.loader.num_workers)
            sampling = build("sampler", settings.sampler).for_batches(settings.loader.batch_size)
            check_partners(settings.partners.source, objective, head)
        self.optimization()
        Labels.of_catalog(catalog, objective.columns)
        check_test_items(catalog)
        rows = catalog.rows_of_split("train")
        categories = catalog.table["category"].to_numpy(dtype=str)[rows]
        sampling.order(rows, categories, settings.seed, 0, {})
        for split in ("val", "test"):
            if len(catalog.rows_of_split(split)):
                self.check_measuring(split)
        if not self.is_cut_short:
            selection = self.protocol.choose(catalog.table, "test")
            if not settings.split.allow_few:
                with told_as_config():
                    check_enough(catalog, selection, "test")
            if said := expected_of(catalog, selection):
                print(f"The test has {said}. visual_search.check says what would help.")

    @property
    def is_cut_short(self) -> bool:
        """Whether less than the whole test is asked for."""
        settings = self.settings
        few = settings.trainer.get("fast_dev_run") or settings.trainer.get("limit_test_batches")
        return settings.loader.max_items_per_category.test is not None or few not in (
            None,
            False,
            1.0,
        )

    def trainer(self, run: Run, keeper: RunCheckpoint) -> Trainer:
        """Returns the Trainer with what always belongs to a run and what the settings add."""
        from lightning.pytorch.callbacks import LambdaCallback

        from visual_search.knn.device import Device
        from visual_search.models.encoder import convolves_by_channel
        from visual_search.training.callbacks.history import History
        from visual_search.training.callbacks.neighbour_positives import NeighbourPartners
        from visual_search.training.callbacks.progress import Progress
        from visual_search.training.callbacks.retrieval import RetrievalEvaluation

        settings = self.settings
        callbacks: list[Callback] = [
            LambdaCallback(on_fit_start=lambda trainer, module: _note_device(run, trainer)),
            History(),  # before the keeper, whose checkpoint is to hold the newest batch's loss
            keeper,
        ]
        with told_as_config():
            callbacks.append(
                RetrievalEvaluation(
                    self.protocol,
                    every_n_epochs=settings.training.evaluate_every_n_epochs,
                    index_device=one_of("index.device", settings.index.device, get_args(Device)),
                    floors=self.floors if settings.floors else None,
                )
            )
            partners = vars(settings.partners)
            of_products = self.catalog.products is not None
            if partners["source"] is not None or (
                of_products and self.objective(self.catalog).num_views > 1
            ):
                scratch_dir = settings.pictures.cache_dir
                callbacks.append(
                    NeighbourPartners(**partners, scratch_dir=scratch_dir, seed=settings.seed)
                )
            callbacks += [
                build("callbacks", node, key=f"callbacks.{name}")
                for name, node in settings.callbacks.items()
                if node
            ]
        if settings.trainer.get("enable_progress_bar", True):
            callbacks.append(Progress())
        loggers = [
            new_logger(name, node, run.folder) for name, node in settings.logger.items() if node
        ]
        profiler = None
        if settings.profiler:
            profiler = build("profiler", settings.profiler, dirpath=str(run.folder))
        return new_trainer(
            settings.trainer,
            folder=run.folder,
            callbacks=callbacks,
            loggers=loggers,
            profiler=profiler,
            by_channel=convolves_by_channel(self.model),
        )


def new_trainer(node: Node, **supplied: Any) -> Trainer:
    """Returns the Trainer of a config's node.

    Raises:
        ConfigError: An argument is wrong, or this machine does not have what is asked for.
    """
    with told_as_config():
        trainer: Trainer = build("trainer", node, **supplied)
    return trainer


def new_protocol(node: Node) -> Protocol:
    """Returns the protocol that a config's node names.

    Raises:
        ConfigError: An argument is unknown, missing or of a wrong type or value.
    """
    with told_as_config():
        protocol: Protocol = build("protocol", node)
    return protocol


def protocol_in_full(node: Node) -> Node:
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


def check_hardware(
    accelerator: Any = "auto",
    devices: Any = 1,
    *,
    precision: Any = "auto",
    strategy: Any = "auto",
    num_nodes: Any = "auto",
    index_device: Any = "auto",
) -> None:
    """Refuses a device or precision that this machine does not have, before any work.

    Raises:
        ConfigError: Names the key, what is expected, and what to set.
    """
    from visual_search.knn.device import check_device
    from visual_search.training.devices import check_hardware

    with told_as_config():
        check_device(index_device)
        check_hardware(
            accelerator, devices, strategy=strategy, precision=precision, num_nodes=num_nodes
        )


def new_logger(name: str, node: Node, folder: Path) -> Logger:
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


def quieten() -> None:
    """Silences what Lightning says that a user can neither use nor change."""
    import logging
    import warnings

    from lightning.fabric.utilities.warnings import PossibleUserWarning

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Lightning's hints to who writes code with it: workers of a loader, a cluster's `srun`, ...
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    for pattern in (
        ".*LeafSpec.*",  # Lightning calls what torch has deprecated
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
    from visual_search.training.checkpointing import load_checkpoint
    from visual_search.training.module import EncoderModule

    parts = Parts(run.settings())
    _tell_changed_code(run, str(parts.settings.model["_target_"]))
    checkpoint = load_checkpoint(run.checkpoint)
    model = build("model", _without_first_weights(parts.settings.model))
    head = parts.head(model)
    module = EncoderModule(model, parts.preprocessing, head=head)
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


def _tell_changed_code(run: Run, target: str) -> None:
    now = code_of(target)
    if run.status().get("code", {}).get("model", now) != now:
        print(
            f"{target.rpartition('.')[2]} has changed since {run.folder} was trained: the weights "
            "are of the network as it was, and what it makes of a picture may differ",
            file=sys.stderr,
        )


def _without_first_weights(model: Node) -> Node:
    """Returns a model's node without what its checkpoint replaces: files, downloads."""
    first: Node = {"weights": None, "pretrained": False}
    return {name: first.get(name, value) for name, value in model.items()}
