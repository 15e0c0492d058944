"""Settings as on the command line, and the commands that are called with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visual_search.api.trained import TrainedRun
    from visual_search.catalog.catalog import Catalog


def settings_of(command: str, *overrides: str) -> Any:
    """Returns a command's settings, its schema's dataclass.

    Args:
        command: ``train``, ``evaluate``, ...
        overrides: As they stand behind the command, ``plugins=[my_lab]`` included.

    Raises:
        ConfigError: One is wrong; says which, and what is expected.
    """
    from hydra import compose, initialize_config_dir

    from visual_search.cli.command_line import (
        HYDRA_VERSION_BASE,
        as_settings,
        check_overrides,
        with_keys,
    )
    from visual_search.config.builders import config_folder, register_schema, told_as_config
    from visual_search.config.plugins import take_names

    register_schema(command)
    with told_as_config():
        given = with_keys(command, take_names(overrides))
    check_overrides(command, given)
    with initialize_config_dir(str(config_folder()), version_base=HYDRA_VERSION_BASE):
        return as_settings(command, compose(command, overrides=given))


def train(*overrides: str) -> TrainedRun:
    """Trains a run, goes on with it, or finds it finished, as the command does.

    Args:
        overrides: As behind ``python -m visual_search.train``.

    Raises:
        ConfigError: A setting is wrong.

    Example:
        ``vs.train("experiment=plus_layer", "budget=demo")``
    """
    from visual_search.api.trained import TrainedRun
    from visual_search.train import train as train_run

    return TrainedRun(train_run(settings_of("train", *overrides)).folder)


def open_catalog(*overrides: str) -> Catalog:
    """Returns a catalogue with its splits, as training has it; no picture is decoded.

    Args:
        overrides: As behind ``python -m visual_search.train``, such as ``data=folder``,
            ``data.root=pictures``, ``split.test_fraction=0.2``.

    Raises:
        ConfigError: A setting is wrong.
        ValueError: The data cannot be read.
    """
    from visual_search.runs.parts import Parts

    return Parts(settings_of("train", *overrides), bound_left_out=True).catalog
