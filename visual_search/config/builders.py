"""The door for configs: the closed schema, and the only builders that a config may name.

Below this file there are only plain arguments. A config chooses a builder with ``_target_``; it
has to be one of `builders`, and its arguments are checked against the builder's signature. Nothing
else can be instantiated, whatever a file or the command line says.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from visual_search.config.hints import meant
from visual_search.config.plugins import (
    ENTRY_POINTS,
    OWN,
    builders_of_plugins,
    conf_folders,
    how_to_name,
    marked,
)
from visual_search.config.schemas import SCHEMAS

# Parts of other libraries, which bear no mark of ours, and what no plug-in brings.
OTHERS: dict[str, tuple[str, ...]] = {
    "callbacks": tuple(
        f"lightning.pytorch.callbacks.{name}"
        for name in (
            "DeviceStatsMonitor",
            "EarlyStopping",
            "LearningRateMonitor",
            "ModelCheckpoint",
            "StochasticWeightAveraging",
            "Timer",
        )
    ),
    "logger": (
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "lightning.pytorch.loggers.WandbLogger",
        "visual_search.training.tensorboard.RunTensorBoard",
    ),
    "profiler": tuple(
        f"lightning.pytorch.profilers.{name}"
        for name in ("AdvancedProfiler", "PyTorchProfiler", "SimpleProfiler")
    ),
    "trainer": ("visual_search.training.trainer.build_trainer",),
}
GROUPS = tuple(dict.fromkeys([*ENTRY_POINTS, *OTHERS]))

# Arguments that a command passes itself; a config cannot.
SUPPLIED: dict[str, frozenset[str]] = {
    "data": frozenset({"on_progress"}),
    "objective": frozenset({"embedding_dim", "num_labels"}),
    "trainer": frozenset({"folder", "callbacks", "loggers", "profiler", "by_channel"}),
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


def config_folders() -> list[Path]:
    """Returns the folders in which Hydra looks: this package's, then those of plug-ins.

    Raises:
        ConfigError: A plug-in's file has the name of another.
    """
    own = config_folder()
    with told_as_config():
        return [own, *conf_folders(own)]


def builders(group: str) -> tuple[str, ...]:
    """Returns the full names of the builders that a config may name, those of plug-ins last.

    The last part of a name is how people call the builder.

    Args:
        group: One of `GROUPS`.

    Raises:
        ConfigError: A plug-in is not on the path, or marks a builder for no group.
    """
    with told_as_config():
        found = [*marked(OWN, group), *OTHERS.get(group, ()), *builders_of_plugins(group)]
    return tuple(dict.fromkeys(found))


def register_schema(*commands: str) -> None:
    """Makes schemas known to Hydra under the names that the commands' YAML starts with.

    So are the folders of plug-ins.

    Args:
        commands: By default all of them, which takes Hydra forty milliseconds.
    """
    from hydra.core.config_store import ConfigStore

    for command in commands or SCHEMAS:
        ConfigStore.instance().store(name=f"{command}_schema", node=SCHEMAS[command])
    _register_folders()


@functools.cache
def _register_folders() -> None:
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class PluginFolders(SearchPathPlugin):
        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            for folder in config_folders()[1:]:
                search_path.append(folder.parent.name, f"file://{folder}")

    Plugins.instance().register(PluginFolders)


def build(
    group: str, node: Mapping[str, object] | None, *, key: str | None = None, **supplied: object
) -> Any:
    """Builds what a config node names, after checking every argument.

    Args:
        group: One of `GROUPS`.
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
            f"{', '.join(builders(group))}; choose {group}=... from conf/{group}/"
        )
    target = str(node["_target_"])
    check_target(place, group, target)
    module, _, name = target.rpartition(".")
    try:
        builder: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        if module.partition(".")[0] == OWN:
            raise
        raise ConfigError(
            f"{place}._target_={target}: its module cannot be imported ({error}); expected a "
            "plug-in that works here; install what it needs"
        ) from error
    arguments = {str(name): value for name, value in node.items() if name != "_target_"}
    _check_arguments(place, SUPPLIED.get(group, frozenset()), target, builder, arguments)
    return builder, arguments


def check_target(place: str, group: str, target: str) -> None:
    """Refuses a builder that a config may not name.

    Args:
        place: Where it stands, for the message.
        group: One of `GROUPS`.
        target: Its full name.

    Raises:
        ConfigError: It is none of the group's.
    """
    known = builders(group)
    if target in known:
        return
    hint = how_to_name(group, target) or (
        f"; expected one of {', '.join(known)}{nearest(target, known)}"
    )
    raise ConfigError(f"{place}._target_={target!r} is not a builder that a config may name{hint}")


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
        if arguments.get(name, "???" if parameter.default is parameter.empty else None) == "???"
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
