"""Starts a command under Hydra and turns what goes wrong into one readable message."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from visual_search.config import ConfigError, config_folder, register_schema

if TYPE_CHECKING:
    from omegaconf import DictConfig

HYDRA_VERSION_BASE = "1.3"
MAX_JOBS_CHECKED = 64  # of a multirun, before it starts


def run_command(config_name: str, task: Callable[[DictConfig], None]) -> None:
    """Composes ``conf/<config_name>.yaml`` with ``sys.argv`` and calls ``task`` (once a job).

    A wrong key, group, file or type ends with status 2 and a message that names the key and the
    nearest right one, before anything heavy is loaded. `ConfigError` raised by the task does too.
    """
    import hydra

    register_schema()
    sys.argv[1:] = _multirun_first(sys.argv[1:])
    try:
        check_overrides(config_name, sys.argv[1:])
        hydra.main(
            version_base=HYDRA_VERSION_BASE,
            config_path=str(config_folder()),
            config_name=config_name,
        )(_readable(task))()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _multirun_first(arguments: Sequence[str]) -> list[str]:
    """Gives the arguments with -m in front: Hydra refuses it between overrides."""
    flags = [argument for argument in arguments if argument in ("-m", "--multirun")]
    return flags[:1] + [argument for argument in arguments if argument not in flags]


def _readable(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Keeps Hydra from wrapping an expected error into a hint about stack traces."""

    def guarded(config: DictConfig) -> None:
        try:
            task(config)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None

    return guarded


def check_overrides(config_name: str, arguments: Sequence[str]) -> None:
    """Composes what the arguments ask for, once a job, and composes nothing for ``--help``.

    Raises:
        ConfigError: Composition failed; names the key and the nearest right one.
    """
    from hydra import compose, initialize_config_dir
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra._internal.utils import get_args_parser
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    parsed, unknown = get_args_parser().parse_known_args(list(arguments))
    if unknown:
        raise ConfigError(
            f"unknown option {unknown[0]!r}; expected overrides such as seed=1, or one of --help, "
            "--multirun (-m), --cfg job, --info; drop the leading dashes to set a key"
        )
    if parsed.help or parsed.hydra_help or parsed.shell_completion or parsed.info or parsed.cfg:
        return
    overrides: list[str] = parsed.overrides
    with initialize_config_dir(str(config_folder()), version_base=HYDRA_VERSION_BASE):
        jobs = [overrides]
        try:
            if parsed.multirun:
                swept = OverridesParser.create().parse_overrides(overrides)
                jobs = BasicSweeper.split_arguments(swept, None)[0][:MAX_JOBS_CHECKED]
            for job in jobs:
                compose(config_name, overrides=job)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_explain(error, config_name, overrides, compose)) from error


def _explain(
    error: Exception, config_name: str, overrides: Sequence[str], compose: Callable[..., Any]
) -> str:
    from hydra.errors import OverrideParseException

    text = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        text = text.partition(" See https")[0]
        return (
            f"cannot read the override {error.override!r}: {text}; a value with braces, commas or "
            """blanks needs quotes of its own: 'key="value"'"""
        )
    if error.__cause__ is not None:
        text += " " + " ".join(str(error.__cause__).split())
    known = _known_names(compose(config_name))
    for wrong in _named_keys(text, overrides):
        if wrong in known:
            continue
        close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
        if close:
            return f"{text}; did you mean {close[0]!r}?"
    return text


def _named_keys(text: str, overrides: Sequence[str]) -> Iterable[str]:
    """Gives the names that an error of Hydra's complains about, the most telling first."""
    yield from re.findall(r"full_key: ([\w./-]+)", text)
    yield from re.findall(r"Could not (?:override|find) '([^']+)'", text)
    yield from re.findall(r"Key '([^']+)'", text)
    for override in overrides:
        yield override.lstrip("+~").partition("=")[0]


def _known_names(config: DictConfig) -> list[str]:
    """Gives every dotted key of the config, and every ``group/option`` of the YAML files."""
    from omegaconf import DictConfig

    names: list[str] = []

    def walk(node: DictConfig, prefix: str) -> None:
        for key in map(str, node):
            names.append(f"{prefix}{key}")
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                walk(child, f"{prefix}{key}.")

    walk(config, "")
    root = config_folder()
    for path in root.rglob("*.yaml"):
        name = path.relative_to(root).with_suffix("").as_posix()
        names += [name, name.rpartition("/")[0]]
    return sorted({name for name in names if name})
