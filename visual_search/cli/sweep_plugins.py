"""Which of Hydra's launchers and sweepers may be chosen, and what may be set of them.

Both are named by a ``_target_`` and could start code, so a config may only choose among those here
and set the plain values that are listed; all else stays as the plugin has it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from visual_search.config.builders import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

EXTRA = "pip install 'visual-search[sweeps]'"
SWEPT_COMMANDS = ("train", "evaluate")  # those that record their jobs


@dataclass(frozen=True)
class Setting:
    """A plain value that may be changed: whether one is allowed, and what to say if not."""

    allows: Callable[[Any], bool]
    expected: str


@dataclass(frozen=True)
class Part:
    """A launcher or sweeper: its option, what may be changed of it, and for which commands.

    Attributes:
        commands: None: for every command.
    """

    option: str
    settings: Mapping[str, Setting]
    commands: tuple[str, ...] | None = SWEPT_COMMANDS

    def is_for(self, command: str) -> bool:
        """Returns whether a command may choose it."""
        return self.commands is None or command in self.commands


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _is_space(value: Any) -> bool:
    """Returns whether a value maps keys of our own config to text that is read as overrides."""
    return value is None or (
        isinstance(value, dict)
        and all(_is_scalar(text) for text in value.values())
        and not any(str(key).lstrip("+~").startswith("hydra") for key in value)
    )


_COUNT = Setting(_is_count, "a whole number of at least 1")
_SPACE = Setting(_is_space, "keys of the command's config with their ranges, none of Hydra's own")
_PLAIN = Setting(_is_scalar, "a number, a word, true, false or null")

LAUNCHERS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher": Part("basic", {}, None),
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher": Part(
        "joblib",
        {
            "n_jobs": Setting(
                lambda value: _is_count(value) or value == -1,
                "a whole number of at least 1, or -1 for as many as there are cores",
            ),
        },
    ),
}
SWEEPERS = {
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": Part(
        "basic",
        {
            "max_batch_size": Setting(
                lambda value: value is None or _is_count(value), "a whole number or null"
            ),
            "params": _SPACE,
        },
        None,
    ),
    "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper": Part(
        "optuna",
        {
            "n_trials": _COUNT,
            "n_jobs": _COUNT,
            "params": _SPACE,
            "direction": Setting(
                lambda value: value == "maximize",
                "maximize, since a higher value on the validation queries is better (sweep=optuna "
                "sets it)",
            ),
            "max_failure_rate": Setting(
                lambda value: isinstance(value, int | float) and 0 <= value <= 1,
                "a number from 0 to 1",
            ),
        },
        ("train",),
    ),
}
SAMPLERS = {
    "optuna.samplers.TPESampler": "tpe",
    "optuna.samplers.RandomSampler": "random",
    "optuna.samplers.CmaEsSampler": "cmaes",
}  # every point of a grid is what a multirun does without Optuna


def is_optuna(config: DictConfig) -> bool:
    """Returns whether Optuna chooses the jobs of a composed config (with its ``hydra`` node)."""
    return _chosen(config, "sweeper").endswith(".OptunaSweeper")


def is_joblib(config: DictConfig) -> bool:
    """Returns whether joblib starts the jobs of a composed config (with its ``hydra`` node)."""
    return _chosen(config, "launcher").endswith(".JoblibLauncher")


def _chosen(config: DictConfig, part: str) -> str:
    from omegaconf import OmegaConf

    return str(OmegaConf.select(config, f"hydra.{part}._target_", default=""))


def check_sweeper(
    command: str, config: DictConfig, composed: Callable[[tuple[str, ...]], DictConfig]
) -> None:
    """Refuses a launcher, sweeper or setting of theirs that is not on the lists here.

    Args:
        command: Its launchers and sweepers are asked for.
        config: Composed from what the user gave, with Hydra's own node.
        composed: Composes the command's config from overrides, and nothing else of the user's.

    Raises:
        ConfigError: Names the key and what is expected.
    """
    for part, parts in (("launcher", LAUNCHERS), ("sweeper", SWEEPERS)):
        target = _chosen(config, part)
        options = ", ".join(one.option for one in parts.values() if one.is_for(command))
        if target not in parts or not parts[target].is_for(command):
            raise ConfigError(
                f"hydra.{part}._target_ is {target!r}; expected what one of these names for "
                f"{command}: {options}; choose it with hydra/{part}=OPTION"
            )
        chosen = parts[target]
        choices: tuple[str, ...] = ()
        if chosen.option != "basic":
            choices = (f"hydra/{part}={chosen.option}",)
        given = _plain(config, part)
        if "sampler" in given:
            choices += (f"hydra/sweeper/sampler={_sampler_option(given['sampler'])}",)
        own = _plain(composed(choices), part)
        if "sampler" in given:
            sampler, own_sampler = given.pop("sampler"), own.pop("sampler")
            settings = {key: _PLAIN for key in own_sampler if key != "_target_"}
            _check_settings("hydra.sweeper.sampler", sampler, own_sampler, settings)
        _check_settings(f"hydra.{part}", given, own, chosen.settings)


def _plain(config: DictConfig, part: str) -> dict[str, Any]:
    from omegaconf import OmegaConf

    node = OmegaConf.to_container(config.hydra[part], resolve=True, enum_to_str=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def _sampler_option(node: Any) -> str:
    target = str(node.get("_target_")) if isinstance(node, dict) else repr(node)
    if target not in SAMPLERS:
        raise ConfigError(
            f"hydra.sweeper.sampler._target_ is {target!r}; expected one of {', '.join(SAMPLERS)}; "
            f"choose one of {', '.join(SAMPLERS.values())} with hydra/sweeper/sampler=OPTION"
        )
    return SAMPLERS[target]


def _check_settings(
    place: str,
    given: Mapping[str, Any],
    own: Mapping[str, Any],
    settings: Mapping[str, Setting],
) -> None:
    offered = ", ".join(settings) or "(none)"
    for key in [*given, *(key for key in own if key not in given)]:
        if key in settings:
            if not settings[key].allows(given.get(key)):
                raise ConfigError(
                    f"{place}.{key} is {given.get(key)!r}; expected {settings[key].expected}"
                )
        elif key not in given or key not in own or given[key] != own[key]:
            expected = repr(own[key]) if key in own else "no such key"
            raise ConfigError(
                f"{place}.{key} is {given.get(key)!r}; expected {expected}, since it could start "
                f"code that this package does not name; of {place} set one of {offered}"
            )


def check_multirun(config: DictConfig) -> None:
    """Refuses a job that a multirun cannot hold, before any of its jobs starts.

    Raises:
        ConfigError: The job asks for several processes of its own, which Lightning would start as
            further sweeps; or it never measures what the sweeper maximises.
    """
    from omegaconf import OmegaConf

    strategy = str(OmegaConf.select(config, "trainer.strategy", default=""))
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    asked = ""
    if any(name in strategy for name in ("ddp", "fsdp", "deepspeed")):
        asked = f"trainer.strategy={strategy}"
    elif not _is_one_device(devices):
        asked = f"trainer.devices={devices}"
    if asked:
        raise ConfigError(
            f"{asked} within a multirun would start the sweep again in every process; expected "
            "one process a job (trainer.devices=1); run the jobs one by one, each without -m"
        )
    if not is_optuna(config):
        return
    every = OmegaConf.select(config, "training.evaluate_every_n_epochs")
    epochs = OmegaConf.select(config, "trainer.max_epochs")
    if 0 <= epochs < every:
        raise ConfigError(
            f"training.evaluate_every_n_epochs={every} and trainer.max_epochs={epochs}: the "
            "validation queries, by which the sweeper chooses, would never be measured; expected "
            f"a measurement at least; set training.evaluate_every_n_epochs={max(epochs, 1)}"
        )


def _is_one_device(devices: Any) -> bool:
    """Returns whether Lightning would use one device: ``1``, ``"1"``, or a list of one as ``"0,"``.

    >>> [_is_one_device(devices) for devices in (1, "1", "0,", [3], 2, "auto", -1, "0,1")]
    [True, True, True, True, False, False, False, False]
    """
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()]) == 1
    if isinstance(devices, int | str):
        return str(devices) == "1"
    return len(devices) == 1


def jobs_to_check(
    arguments: Sequence[str], config: DictConfig, most: int
) -> Iterator[tuple[str, ...]]:
    """Returns the overrides of the first jobs that a multirun may start; of a range both its ends.

    Args:
        arguments: Overrides as typed.
        config: Composed from those of them that are not swept over.
        most: So many jobs.

    Raises:
        ConfigError: The sweeper cannot search what it is given, or has nothing to search.
    """
    lists: dict[str, list[str]] = {}
    optuna = is_optuna(config)
    searched = False
    for override in _space(arguments, config):
        lists[override.get_key_element()] = _values(override, optuna)
        searched |= override.is_sweep_override()
    if optuna and not searched:
        raise ConfigError(
            "hydra/sweeper=optuna has nothing to search; expected a key with its values or its "
            "range, such as 'training.learning_rate=tag(log,interval(1e-5,1e-2))'"
        )
    return itertools.islice(itertools.product(*lists.values()), most)


def planned_jobs(config: DictConfig) -> list[tuple[str, ...]]:
    """Returns each job's overrides, in order; empty for those that Optuna chooses as it goes."""
    if is_optuna(config):
        return [()] * int(config.hydra.sweeper.n_trials)
    lists = {
        override.get_key_element(): _values(override, False)
        for override in _space(list(config.hydra.overrides.task), config)
    }
    return list(itertools.product(*lists.values()))


def swept_keys(config: DictConfig) -> list[str]:
    """Returns the keys in which a multirun's jobs may differ."""
    space = _space(list(config.hydra.overrides.task), config)
    return [override.get_key_element() for override in space if override.is_sweep_override()]


def _space(arguments: Sequence[str], config: DictConfig) -> list[Override]:
    """Returns the sweeper's own ranges, then those that were typed, which win."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = config.hydra.sweeper.get("params") or {}
    given = [f"{key}={value}" for key, value in params.items()]
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides([*given, *arguments])


def _values(override: Override, optuna: bool) -> list[str]:
    from hydra.core.override_parser.types import Glob

    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if optuna and isinstance(override.value(), Glob):
        raise ConfigError(
            f"cannot search {override.input_line!r} with hydra/sweeper=optuna; expected values "
            f"({key}=a,b), range(...) or interval(...)"
        )
    if override.is_interval_sweep():
        if not optuna:
            raise ConfigError(
                f"{override.input_line!r} is a range without steps, of which nothing can be "
                f"listed; expected values ({key}=a,b) or range(...), or sweep=optuna to search it"
            )
        ends: Any = override.value()
        return [f"{key}={ends.start}", f"{key}={ends.end}"]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
