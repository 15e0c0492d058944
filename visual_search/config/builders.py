"""The door for configs: the closed schema, and the only builders that a config may name.

Below this file there are only plain arguments. A config chooses a builder with ``_target_``; it
is looked up in `BUILDERS` and its arguments are checked against the builder's signature. Nothing
else can be instantiated, whatever a file or the command line says.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visual_search.config.hints import meant
from visual_search.config.schemas import SCHEMAS

# One tuple a config group; the last part of the name is how people call the builder.
BUILDERS: dict[str, tuple[str, ...]] = {
    "model": (
        "visual_search.models.variants.baseline",
        "visual_search.models.variants.plus_layer",
        "visual_search.models.backbones.backbone",
        "visual_search.models.plain.plain_encoder",
        "visual_search.models.residual.residual",
        "visual_search.models.residual.residual_encoder",
        "visual_search.models.variational.variational",
    ),
    "objective": tuple(
        f"visual_search.models.objectives.{name}"
        for name in (
            "reconstruction.mse",
            "reconstruction.denoising",
            "reconstruction.sparse",
            "reconstruction.variational",
            "reconstruction.ssim",
            "reconstruction.mixed",
            "reconstruction.masked",
            "contrastive.simclr",
            "contrastive.vicreg",
            "contrastive.reconstruction_contrastive",
            "supervised.cross_entropy",
            "supervised.cosine_softmax",
            "supervised.multi_head",
            "supervised.supcon",
            "supervised.arcface",
            "supervised.proxy_anchor",
        )
    ),
    "augmentation": ("visual_search.training.augmentation.Augmentation",),
    "sampler": tuple(
        f"visual_search.training.sampling.{name}"
        for name in ("shuffled", "balanced", "weak_categories", "per_category")
    ),
    "data": (
        "visual_search.catalog.readers.complete_the_look.complete_the_look",
        "visual_search.catalog.readers.deepfashion_inshop.deepfashion_inshop",
        "visual_search.catalog.readers.fashion_mnist.fashion_mnist",
        "visual_search.catalog.readers.fashion_product_images.fashion_product_images",
        "visual_search.catalog.readers.folder.folder",
        "visual_search.catalog.readers.hm.hm",
        "visual_search.catalog.readers.open_metric_learning.open_metric_learning",
        "visual_search.catalog.readers.parquet.parquet",
        "visual_search.catalog.readers.shop_the_look.shop_the_look",
        "visual_search.catalog.readers.table.table",
        "visual_search.catalog.readers.webdataset.webdataset",
        "visual_search.catalog.synthetic.synthetic",
    ),
    "callbacks": (
        "visual_search.training.callbacks.charts.CategoryChart",
        "visual_search.training.callbacks.charts.ClassDistribution",
        "visual_search.training.callbacks.charts.FloorChart",
        "visual_search.training.callbacks.feature_maps.FeatureMaps",
        "visual_search.training.callbacks.projection.EmbeddingProjection",
        "visual_search.training.callbacks.reconstructions.Reconstructions",
        "visual_search.training.callbacks.search_results.SearchResults",
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.callbacks.LearningRateMonitor",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "lightning.pytorch.callbacks.StochasticWeightAveraging",
        "lightning.pytorch.callbacks.Timer",
    ),
    "logger": (
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "lightning.pytorch.loggers.WandbLogger",
        "visual_search.training.tensorboard.RunTensorBoard",
    ),
    "protocol": tuple(
        f"visual_search.retrieval.protocols.{name}"
        for name in (
            "gallery_query",
            "leave_one_out",
            "cold_start",
            "category_restricted",
            "cross_domain",
            "published",
            "reference_2023",
        )
    ),
    "profiler": (
        "lightning.pytorch.profilers.AdvancedProfiler",
        "lightning.pytorch.profilers.PyTorchProfiler",
        "lightning.pytorch.profilers.SimpleProfiler",
    ),
    "trainer": ("visual_search.training.trainer.build_trainer",),
}

# Arguments that a command passes itself; a config cannot.
SUPPLIED: dict[str, frozenset[str]] = {
    "data": frozenset({"on_progress"}),
    "objective": frozenset({"embedding_dim", "num_labels"}),
    "trainer": frozenset({"folder", "callbacks", "loggers", "profiler"}),
    "logger": frozenset({"save_dir", "root_dir"}),
}


Choice = TypeVar("Choice", bound=str)


class ConfigError(ValueError):
    """A config or an override is wrong; the message names the key and the way out."""


def config_folder() -> Path:
    """Returns the folder of the YAML files: inside an installed wheel, or beside the package."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no conf/train.yaml in {package} or {package.parent}; expected one of them; install the "
        "package anew"
    )


def register_schema(*commands: str) -> None:
    """Makes schemas known to Hydra under the names that the commands' YAML starts with.

    Args:
        commands: By default all of them, which takes Hydra forty milliseconds.
    """
    from hydra.core.config_store import ConfigStore

    for command in commands or SCHEMAS:
        ConfigStore.instance().store(name=f"{command}_schema", node=SCHEMAS[command])


def build(
    group: str, node: Mapping[str, object] | None, *, key: str | None = None, **supplied: object
) -> Any:
    """Builds what a config node names, after checking every argument.

    Args:
        group: Key of `BUILDERS`.
        node: ``_target_`` and plain arguments.
        key: Where the node stands in the config, for messages; the group by default.
        supplied: Arguments that the command adds.

    Raises:
        ConfigError: The target is not on the group's list, an argument is unknown, missing or of
            a wrong type, or the builder refuses its value.
        ValueError: Data cannot be read.
    """
    builder, arguments = bind(group, node, key=key)
    parameters = inspect.signature(builder).parameters
    extra = {name: value for name, value in supplied.items() if name in parameters}
    # What data holds is no setting.
    with contextlib.nullcontext() if group == "data" else told_as_config():
        return builder(**arguments, **extra)


def bind(
    group: str, node: Mapping[str, object] | None, *, key: str | None = None
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Returns the builder that a node names and its checked arguments, building nothing.

    Raises:
        ConfigError: See `build`.
    """
    place = key or group
    if not node or "_target_" not in node:
        raise ConfigError(
            f"{place} names no builder ({dict(node or {})!r}); expected a _target_ out of "
            f"{', '.join(BUILDERS[group])}; choose {group}=... from conf/{group}/"
        )
    target = str(node["_target_"])
    if target not in BUILDERS[group]:
        raise ConfigError(
            f"{place}._target_={target!r} is not a builder that a config may name; expected one of "
            f"{', '.join(BUILDERS[group])}{nearest(target, BUILDERS[group])}"
        )
    module, _, name = target.rpartition(".")
    builder: Callable[..., Any] = getattr(importlib.import_module(module), name)
    arguments = {str(name): value for name, value in node.items() if name != "_target_"}
    _check_arguments(place, SUPPLIED.get(group, frozenset()), target, builder, arguments)
    return builder, arguments


def _check_arguments(
    place: str,
    supplied: frozenset[str],
    target: str,
    builder: Callable[..., Any],
    arguments: Mapping[str, object],
) -> None:
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(builder).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in supplied
    }
    for name in arguments:
        if name not in parameters:
            raise ConfigError(
                f"{place}.{name} is no argument of {target}; expected one of "
                f"{', '.join(parameters) or '(it has none)'}{nearest(name, list(parameters))}"
            )
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and arguments.get(name, "???") == "???"
    ]
    if missing:
        raise ConfigError(
            f"{place}.{missing[0]} is not set, and {target} needs it; give "
            f"{place}.{missing[0]}=VALUE on the command line or in the config"
        )
    hints = _type_hints(builder)
    for name, value in arguments.items():
        if name in hints:
            _check_type(f"{place}.{name}", value, hints[name])


def _type_hints(builder: Callable[..., Any]) -> dict[str, object]:
    function = builder.__init__ if inspect.isclass(builder) else builder
    try:
        return typing.get_type_hints(function)
    except NameError:  # a third-party annotation that exists only for type checkers
        return {}


def _check_type(key: str, value: object, hint: Any) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        wanted = str(hint).replace("typing.", "") if not isinstance(hint, type) else hint.__name__
        raise ConfigError(
            f"{key}={value!r} is of a wrong type ({type(value).__name__}); expected {wanted}: "
            f"{error.errors()[0]['msg']}"
        ) from error


@contextlib.contextmanager
def told_as_config() -> Iterator[None]:
    """Turns a part's own ValueError, which names the key and the fix, into a `ConfigError`."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def one_of(key: str, value: str, choices: Sequence[Choice]) -> Choice:
    """Returns a setting that is one of a few words.

    Args:
        key: Where it stands in the config, for the message.
        value: As it was given.
        choices: What it may be, the usual one first.

    Raises:
        ConfigError: It is none of them.
    """
    for choice in choices:
        if value == choice:
            return choice
    raise ConfigError(
        f"{key}={value}; expected one of {', '.join(choices)}: set {key}={choices[0]}"
    )


def nearest(word: str, choices: Sequence[str]) -> str:
    """Returns the hint at the choice that a word or a dotted key means, or nothing."""
    found = meant(word, choices)
    return f"; did you mean {found!r}?" if found else ""
