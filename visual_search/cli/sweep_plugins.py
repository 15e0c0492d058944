"""What may be set of Hydra's own part of a config: which launcher and sweeper, and a few values.

Both are named by a ``_target_`` and could start code, as could callbacks, logging and more of it.
So ``sweep=`` alone chooses them, `SETTINGS` are the values that may be set, and everything else
stays as the package's own files have it, whoever says otherwise: the command line or a file.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from visual_search.config.builders import GROUPS, ConfigError, bind, nearest, told_as_config
from visual_search.launcher import launch

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

EXTRA = "pip install 'visual-search[{}]'"
SWEEPS = {
    "joblib": ("train", "evaluate"),
    "slurm": ("train",),
    "optuna": ("train",),
}  # option -> for which commands
SAMPLERS = ("tpe", "random", "cmaes")  # of Optuna; a grid is what a multirun does without it
SAMPLER = "hydra/sweeper/sampler"
# What Hydra itself writes into its part: it differs from job to job, and nothing is read from it.
_WRITTEN = ("hydra.overrides", "hydra.runtime", "hydra.job.override_dirname")


class Setting(NamedTuple):
    """A plain value that may be changed: whether one is allowed, and what to say if not."""

    allows: Callable[[object], bool]
    expected: str


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _is_space(value: object) -> bool:
    """Returns whether a value maps keys of our own config to text that is read as overrides."""
    return value is None or (
        isinstance(value, dict)
        and all(_is_scalar(text) for text in value.values())
        and not any(str(key).lstrip("+~").startswith("hydra") for key in value)
    )


_COUNT = Setting(_is_count, "a whole number of at least 1")
_PLAIN = Setting(_is_scalar, "a number, a word, true, false or null")
# They stand in lines of a script that SLURM runs.
_WORD = Setting(
    lambda value: value is None or bool(re.fullmatch(r"[\w.,:+/@&|*\[\]=-]+", str(value))),
    "a word as SLURM takes it, without spaces and quotes, or null",
)
_COUNTS_OF_SLURM = ("timeout_min", "signal_delay_s", "array_parallelism", "cpus_per_task")
_WORDS_OF_SLURM = (
    "partition", "account", "qos", "constraint", "exclude", "gres", "gpus_per_node", "mem_gb",
)  # fmt: skip
_PARAMS = "hydra.sweeper.params"
SETTINGS = {
    "hydra.searchpath": Setting(
        lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
        "a list of folders, as in [file:///DIR]",
    ),
    "hydra.sweep.dir": Setting(lambda value: isinstance(value, str), "a folder"),
    "hydra.launcher.n_jobs": Setting(
        lambda value: _is_count(value) or value == -1,
        "a whole number of at least 1, or -1 for as many as there are cores",
    ),
    **{f"hydra.launcher.{name}": _COUNT for name in _COUNTS_OF_SLURM},
    **{f"hydra.launcher.{name}": _WORD for name in _WORDS_OF_SLURM},
    "hydra.sweeper.max_batch_size": Setting(
        lambda value: value is None or _is_count(value), "a whole number of at least 1, or null"
    ),
    "hydra.sweeper.n_trials": _COUNT,
    "hydra.sweeper.n_jobs": _COUNT,
    "hydra.sweeper.max_failure_rate": Setting(
        lambda value: isinstance(value, int | float) and 0 <= value <= 1, "a number from 0 to 1"
    ),
    _PARAMS: Setting(
        _is_space, "keys of the command's config with their ranges, none of Hydra's own"
    ),
}  # of Optuna's sampler every plain value, besides
# Where Lightning tells the processes that it starts to work, and under which name.
LAUNCHED = ("hydra.run.dir", "hydra.job.name", "hydra.output_subdir")
TYPED = [key for key in SETTINGS if key != _PARAMS]


def _is_launched(key: str) -> bool:
    """Returns whether a key is one that this process was started with, to help the first one."""
    return key in LAUNCHED and int(os.environ.get("LOCAL_RANK", "0")) > 0


def is_optuna(config: DictConfig) -> bool:
    """Returns whether Optuna chooses the jobs of a composed config (with its ``hydra`` node)."""
    return _target(config, "sweeper").endswith(".OptunaSweeper")


def is_joblib(config: DictConfig) -> bool:
    """Returns whether joblib starts the jobs of a composed config (with its ``hydra`` node)."""
    return _target(config, "launcher").endswith(".JoblibLauncher")


def is_slurm(config: DictConfig) -> bool:
    """Returns whether SLURM starts the jobs of a composed config (with its ``hydra`` node)."""
    return _target(config, "launcher").endswith(".SlurmLauncher")


def _target(config: DictConfig, part: str) -> str:
    from omegaconf import OmegaConf

    return str(OmegaConf.select(config, f"hydra.{part}._target_", default=""))


def check_hydra_overrides(overrides: Sequence[str]) -> None:
    """Refuses, by its name, an override of Hydra's own part that is not one of `SETTINGS`.

    Raises:
        ConfigError: Names the override, and what may be given.
    """
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if not key.startswith(("hydra.", "hydra/")) and key != "hydra":
            continue
        if key == SAMPLER and value in SAMPLERS:
            continue
        if key == "hydra.searchpath" and re.search(r"(?<!file)://", value):
            raise ConfigError(
                f"{override} could start code: of a package; expected folders; give "
                f"{key}=[file:///DIR]"
            )
        if key in TYPED or key.startswith("hydra.sweeper.sampler.") or _is_launched(key):
            continue
        if key.startswith("hydra/"):
            fix = (
                "a sweep chooses its plug-ins; expected sweep=OPTION "
                f"({', '.join(SWEEPS)}, or Optuna with another one as [optuna,joblib]) and, of "
                f"Optuna, {SAMPLER}=OPTION ({', '.join(SAMPLERS)})"
            )
        elif key.startswith(_PARAMS):
            fix = (
                f"a file may give {_PARAMS}; expected overrides of their own here; give each range "
                "by itself, as in -m seed=0,1,2"
            )
        else:
            fix = (
                f"it could start code that this package does not name; expected one of "
                f"{', '.join(TYPED)}{nearest(key, TYPED)}; leave it out"
            )
        raise ConfigError(f"{override} is not offered here: {fix}")


def check_hydra(
    command: str, config: DictConfig, composed: Callable[[tuple[str, ...]], DictConfig]
) -> None:
    """Refuses what a config has otherwise in Hydra's own part, but for `SETTINGS`.

    Args:
        command: Its sweeps are asked for.
        config: Composed from what the user gave, with Hydra's own node.
        composed: Composes the command's config from overrides, and nothing else of the user's.

    Raises:
        ConfigError: Names the key and what is expected.
    """
    from omegaconf import OmegaConf

    sweeps = ["optuna"] * is_optuna(config) + ["joblib"] * is_joblib(config)
    sweeps += ["slurm"] * is_slurm(config)
    for sweep in sweeps:
        if command not in SWEEPS[sweep]:
            offered = ", ".join(name for name, commands in SWEEPS.items() if command in commands)
            raise ConfigError(
                f"{command} takes no sweep={sweep}; expected one of {offered or '(none)'}, or jobs "
                "one after another; leave it out"
            )
    choices = [f"sweep=[{','.join(sweeps)}]"] if sweeps else []
    sampler = config.hydra.runtime.choices.get(SAMPLER)
    if sampler in SAMPLERS:
        choices.append(f"{SAMPLER}={sampler}")
    given, own = dict(_flat(config)), dict(_flat(composed(tuple(choices))))
    for key, value in [*given.items(), *((key, None) for key in own if key not in given)]:
        if key in given and key in own and value == own[key]:
            continue
        setting = _PLAIN if _is_launched(key) else SETTINGS.get(key)
        if key.startswith("hydra.sweeper.sampler.") and not key.endswith("._target_"):
            setting = _PLAIN
        if setting and key in own:
            resolved = OmegaConf.select(config, key)
            resolved = OmegaConf.to_object(resolved) if OmegaConf.is_config(resolved) else resolved
            if not setting.allows(resolved):
                raise ConfigError(f"{key} is {resolved!r}; expected {setting.expected}")
        else:
            expected = repr(own[key]) if key in own else "no such key"
            raise ConfigError(
                f"{key} is {value!r}; expected {expected}, since it could start code that this "
                "package does not name; leave it out (sweep=OPTION chooses plug-ins; set one of "
                f"{', '.join(SETTINGS)})"
            )


def _flat(config: DictConfig) -> Iterator[tuple[str, object]]:
    """Returns the plain values of Hydra's part by their dotted keys, references as they stand."""
    from omegaconf import OmegaConf

    def walk(node: object, key: str) -> Iterator[tuple[str, object]]:
        if key in _WRITTEN:
            return
        if isinstance(node, Mapping) and node and key not in SETTINGS:
            for name, child in node.items():
                yield from walk(child, f"{key}.{name}")
        else:
            yield key, node

    return walk(OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True), "hydra")


def check_multirun(config: DictConfig) -> None:
    """Refuses a job that a multirun cannot hold, before any of its jobs starts.

    Raises:
        ConfigError: The job asks for several processes of its own, which Lightning would start as
            further sweeps; it never measures what the sweeper maximises; or a part that was typed
            has no such argument, or a value of a wrong type.
    """
    from omegaconf import OmegaConf

    _check_typed_parts(config)

    strategy = str(OmegaConf.select(config, "trainer.strategy", default=""))
    devices = OmegaConf.select(config, "trainer.devices", default=1)
    asked = ""
    with told_as_config():
        launched = launch()
    if launched is not None and launched.num_processes > 1:
        asked = f"{launched.by} with {launched.num_processes} processes"
    elif any(name in strategy for name in ("ddp", "fsdp", "deepspeed")):
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


def _check_typed_parts(config: DictConfig) -> None:
    """Checks the arguments of the parts of which something was typed, each once."""
    from omegaconf import DictConfig, OmegaConf

    typed = OmegaConf.select(config, "hydra.overrides.task", default=())
    for override in typed:
        group, dot, rest = override.lstrip("+~").partition("=")[0].partition(".")
        node = OmegaConf.select(config, group)
        if dot and rest and isinstance(node, DictConfig) and group in GROUPS:
            name = rest.partition(".")[0]
            key, part = (group, node) if "_target_" in node else (f"{group}.{name}", node.get(name))
            if isinstance(part, DictConfig) and "_target_" in part:
                content = OmegaConf.to_container(part, resolve=True, throw_on_missing=False)
                _check_part(group, key, json.dumps(content, sort_keys=True))


@functools.cache
def _check_part(group: str, key: str, node: str) -> None:
    bind(group, json.loads(node), key=key)


def _is_one_device(devices: int | str | Sequence[int]) -> bool:
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
