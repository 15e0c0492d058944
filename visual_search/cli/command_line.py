"""Starts a command under Hydra and turns what goes wrong into one readable message."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.cli.explain import explain_error, known_names, told
from visual_search.cli.sweep_plugins import (
    check_hydra,
    check_hydra_overrides,
    check_multirun,
    jobs_to_check,
)
from visual_search.cli.typed_text import as_typed, unpacked
from visual_search.config.builders import (
    ConfigError,
    config_folder,
    config_folders,
    nearest,
    register_schema,
    told_as_config,
)
from visual_search.config.plugins import take_names
from visual_search.config.schemas import SCHEMAS, filled
from visual_search.storage.bucket import StorageError
from visual_search.storage.uris import refuse_secrets

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from visual_search.cli.multirun import Conclude

HYDRA_VERSION_BASE = "1.3"
OF_A_RUN = ("data", "split", "protocol", "embedder")  # groups that may be left to it
MAX_JOBS_CHECKED = 64  # of a multirun, before it starts
BARE = {
    "leaderboard": "outputs",
    "board": "outputs",
    "index": "action",
}  # command -> the key of an argument without one
# What a key is called as well: two of the words that read best are Python's own.
ALSO_CALLED = {"index": {"from": "embeddings", "in": "to"}}
# Options of Hydra's that would go round the checks here; the first unpickles a file.
REFUSED_OPTIONS = ("experimental_rerun", "config_name", "config_path", "config_dir")


def run_command(
    config_name: str, task: Callable[[Any], object], conclude: Conclude | None = None
) -> None:
    """Composes ``conf/<config_name>.yaml`` with ``sys.argv`` and calls ``task`` (once a job).

    A wrong key, group, file or type ends with status 2 and a message that names the key and the
    nearest right one, before anything heavy is loaded. `ConfigError` raised by the task does too.
    What the task returns goes to the sweeper of a multirun, which ``conclude`` sums up.
    """
    register_schema(config_name)
    try:
        with told_as_config():
            sys.argv[1:] = _without_passwords(take_names(sys.argv[1:]))
        sys.argv[1:] = _multirun_first(with_keys(config_name, sys.argv[1:]))
        if help_text := check_overrides(config_name, sys.argv[1:]):
            _print_help(help_text)
            return
        import hydra

        if conclude is not None:
            from visual_search.cli.multirun import conclude_with

            conclude_with(conclude)
        hydra.main(
            version_base=HYDRA_VERSION_BASE,
            config_path=str(config_folder()),
            config_name=config_name,
        )(_readable(lambda config: task(as_settings(config_name, config))))()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BaseException as end:
        from visual_search.cli.multirun import end_early

        end_early(end.code if isinstance(end, SystemExit) else 1)
        raise


def _without_passwords(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments without an address that holds a password, which the environment gets.

    Hydra repeats every argument where something unforeseen goes wrong.

    Raises:
        ValueError: An address of object storage holds a password.
    """
    from visual_search.databases.urls import URL_VARIABLE, secrets_of

    kept = []
    for argument in arguments:
        refuse_secrets(argument)
        key, _, value = argument.partition("=")
        if key == "url" and secrets_of(value):
            os.environ[URL_VARIABLE] = value.strip("\"'")
        else:
            kept.append(argument)
    return kept


def _print_help(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:  # of `--help | head`; Python would flush once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def as_settings(command: str, config: DictConfig) -> Any:
    """Returns a composed config as its schema's dataclass; the nodes of groups are plain dicts.

    Args:
        command: Its schema is in `SCHEMAS`.
        config: As Hydra composed it.
    """
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(
        unpacked(command, config), resolve=True, throw_on_missing=False
    )
    assert isinstance(content, dict)
    return filled(SCHEMAS[command], {str(key): value for key, value in content.items()})


def _readable(task: Callable[[DictConfig], object]) -> Callable[[DictConfig], object]:
    """Keeps Hydra from wrapping an expected error into a hint about stack traces."""

    def guarded(config: DictConfig) -> object:
        try:
            return task(config)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        except ModuleNotFoundError as error:  # where only a bundle's requirements are installed
            if os.environ.get("HYDRA_FULL_ERROR") or "visual_search" in str(error.name):
                raise
            need = "expected it here: pip install . in the package's checkout brings it"
            print(f"error: {error.name} is not installed; {need}", file=sys.stderr)
            raise SystemExit(1) from None
        except (ValueError, OSError, RuntimeError, StorageError) as error:
            if os.environ.get("HYDRA_FULL_ERROR"):
                raise
            print(f"error: {told(error)}\n(HYDRA_FULL_ERROR=1 shows where)", file=sys.stderr)
            raise SystemExit(1) from None

    return guarded


def with_keys(command: str, arguments: Sequence[str]) -> list[str]:
    """Returns the arguments as Hydra is to have them.

    A bare path has a key in front, where the command takes one; text is what was typed. What
    begins with ``/`` or ``.`` is a path, whatever it holds: no key does.

    Raises:
        ConfigError: See `visual_search.cli.typed_text.as_typed`.

    >>> with_keys("leaderboard", ["runs (old)/", "out=1e3"])
    ['outputs="runs (old)/"', 'out="1e3"']
    >>> with_keys("leaderboard", ["./lr=0.1"])
    ['outputs="./lr=0.1"']
    >>> with_keys("index", ["push", "from=embedded", "to=lancedb"])
    ['action=push', 'embeddings=embedded', 'to=lancedb']
    """
    key, names = BARE.get(command), ALSO_CALLED.get(command, {})
    keyed = [
        argument
        if key is None
        or argument[:1] in ("", "-")
        or ("=" in argument and not argument.startswith(("/", ".")))
        else f"{key}={argument}"
        for argument in arguments
    ]
    named = []
    for argument in keyed:
        name, equals, value = argument.partition("=")
        named.append(f"{names.get(name, name)}{equals}{value}")
    return as_typed(command, named)


def _multirun_first(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with -m in front: Hydra refuses it between overrides."""
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return flags[:1] + [argument for argument in arguments if argument not in flags]


def check_overrides(config_name: str, arguments: Sequence[str]) -> str:
    """Composes what the arguments ask for, once a job, and returns the help if they ask for it.

    Raises:
        ConfigError: Composition failed, or would start code that the package does not name; says
            which key it was, and the nearest right one.
    """
    from hydra import initialize_config_dir
    from hydra._internal.utils import get_args_parser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    parsed, unknown = get_args_parser().parse_known_args(list(arguments))
    if unknown:
        raise ConfigError(
            f"unknown option {unknown[0]!r}; expected overrides such as seed=1, or one of --help, "
            "--multirun (-m), --cfg job, --info; drop the leading dashes to set a key"
        )
    for option in REFUSED_OPTIONS:
        if getattr(parsed, option) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')} is not offered here; expected a command and its "
                "overrides; for configs of your own give hydra.searchpath=[file:///DIR]"
            )
    overrides: list[str] = parsed.overrides
    asks = parsed.hydra_help or parsed.info or parsed.cfg
    if parsed.shell_completion or (asks and not overrides):
        return ""
    check_hydra_overrides(overrides)
    with initialize_config_dir(str(config_folder()), version_base=HYDRA_VERSION_BASE):
        _check_groups_chosen(config_name, overrides)
        if not (parsed.multirun or parsed.help) and (chosen := _chosen_sweep(overrides)):
            raise ConfigError(
                f"{chosen} is for several jobs, and this is one; expected -m beside it; add -m, "
                "and what the jobs differ in"
            )
        try:
            if parsed.help:
                return _help_text(config_name, overrides)
            _check_jobs(config_name, overrides, multirun=parsed.multirun)
            return ""
        except ConfigError:
            raise
        except (
            HydraException,
            OmegaConfBaseException,
            YAMLError,
            ValueError,
            AssertionError,
        ) as error:
            known = known_names(config_name, _composed_with_groups(config_name, overrides))
            raise ConfigError(explain_error(error, overrides, known)) from error


def _help_text(command: str, overrides: Sequence[str]) -> str:
    """Returns the help with what the overrides choose, but for those that differ between jobs."""
    from visual_search.cli.help import help_text

    config = _composed(command, _shared(overrides))
    _check_closed(config)
    return help_text(command, config)


def _composed(command: str, overrides: Sequence[str]) -> DictConfig:
    from hydra import compose

    return compose(command, overrides=list(overrides), return_hydra_config=True)


@functools.cache
def _as_it_is(folder: Path, command: str, choices: tuple[str, ...]) -> DictConfig:
    """Returns what the package's own files give, composed once."""
    return _composed(command, choices)


def _shared(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides that are the same in every job of a multirun."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [str(one.input_line) for one in parsed if not one.is_sweep_override()]


def _composed_with_groups(config_name: str, overrides: Sequence[str]) -> DictConfig:
    """Composes the command with those overrides alone that choose a file of a group."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    chosen = []
    for override in overrides:
        group, _, option = override.partition("=")
        if any((folder / group / f"{option}.yaml").is_file() for folder in config_folders()):
            chosen.append(override)
    try:
        return compose(config_name, chosen)
    except (HydraException, OmegaConfBaseException, YAMLError):  # it is this file that is wrong
        return compose(config_name)


def _check_jobs(command: str, overrides: Sequence[str], *, multirun: bool) -> None:
    """Composes every job, and refuses what could start code that the package does not name.

    Raises:
        ConfigError: Names the key, and what is expected.
    """
    as_it_is = functools.partial(_as_it_is, config_folder(), command)
    jobs: Iterable[Sequence[str]] = [overrides]
    if multirun:
        config = _composed(command, _shared(overrides))
        check_hydra(command, config, as_it_is)
        jobs = jobs_to_check(overrides, config, MAX_JOBS_CHECKED)
    places = set()
    for job in jobs:
        config = _composed(command, job)
        check_hydra(command, config, as_it_is)
        _check_closed(config)
        _check_references(config)
        if multirun:
            check_multirun(config)
            places.add(config.get("outputs"))
    if len(places) > 1:
        raise ConfigError(
            f"outputs differs between the jobs ({', '.join(sorted(map(str, places)))}); expected "
            "one folder for a multirun, whose tables lie in it; give outputs=DIR once"
        )


def _chosen_sweep(overrides: Sequence[str]) -> str:
    """Returns the override that chooses how a multirun goes, if there is one."""
    for override in overrides:
        key, _, option = override.lstrip("+").partition("=")
        if key == "sweep" and option not in ("", "null"):
            return override
    return ""


def _check_groups_chosen(config_name: str, overrides: Sequence[str]) -> None:
    """Refuses a key of a group that is left open, of which Hydra says nothing understandable.

    Raises:
        ConfigError: Names the override, and both ways to set it.
    """
    of_a_run = {
        "evaluate": True,
        "embed": True,
        "check": False,
        "download": False,
        "export": True,
        "index": False,
        "mteb": False,
    }.get(config_name)
    if of_a_run is None:
        return
    chosen = {override.partition("=")[0] for override in overrides}
    for override in overrides:
        group, dot, rest = override.partition("=")[0].partition(".")
        if dot and group in (OF_A_RUN if of_a_run else ("data",)):
            if group in chosen:
                continue
            own = (
                f", or +{override} to change that key of the run's own {group} ({rest} as it was "
                "there otherwise)"
            )
            raise ConfigError(
                f"{override} sets a key of {group}, and no {group} is chosen; expected "
                f"{group}=OPTION beside it{own if of_a_run and group != 'embedder' else ''}"
            )


def _check_references(config: DictConfig) -> None:
    """Looks up what ``${...}`` refers to, but in Hydra's own part, which is not complete yet."""
    from omegaconf import OmegaConf

    for key in map(str, config):
        value = None if key == "hydra" or OmegaConf.is_missing(config, key) else config[key]
        if OmegaConf.is_config(value):
            OmegaConf.to_container(value, resolve=True)


def _check_closed(config: DictConfig, prefix: str = "") -> None:
    """Refuses keys that the schema does not name, which ``+key=value`` can add, and passwords.

    A password may stand in an address of a config file, which Hydra copies for a multirun.
    """
    from omegaconf import DictConfig, OmegaConf

    schema = OmegaConf.get_type(config)
    fields: list[str] = []
    if dataclasses.is_dataclass(schema):
        fields = [field.name for field in dataclasses.fields(schema)]
    for key in map(str, config):
        if not prefix and key == "hydra":
            continue  # checks itself
        if fields and key not in fields:
            raise ConfigError(
                f"{prefix}{key} is no setting; expected one of {', '.join(fields)}"
                f"{nearest(key, fields)}"
            )
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            _check_closed(child, f"{prefix}{key}.")
        elif child is not None and isinstance(text := child._value(), str):
            try:
                refuse_secrets(text)
            except ValueError as error:
                raise ConfigError(f"{prefix}{key}: {error}") from None
