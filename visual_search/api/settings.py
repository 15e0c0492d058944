"""Settings as on the command line."""

from __future__ import annotations

from typing import Any


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
