"""Composes a command's config as its command line would."""

from __future__ import annotations

import dataclasses
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from visual_search.cli.command_line import HYDRA_VERSION_BASE, as_settings
from visual_search.cli.typed_text import as_typed
from visual_search.config.builders import config_folder, register_schema


def composed(command: str, *overrides: str) -> DictConfig:
    """Returns the config of ``conf/<command>.yaml`` with these overrides, as Hydra has it."""
    register_schema(command)
    with initialize_config_dir(str(config_folder()), version_base=HYDRA_VERSION_BASE):
        return compose(command, overrides=as_typed(command, overrides))


def typed(command: str, *overrides: str) -> Any:
    """Returns the same as the command receives it: its schema's dataclass."""
    return as_settings(command, composed(command, *overrides))


def settings_of(command: str, *overrides: str) -> dict[str, Any]:
    """Returns the same as plain containers."""
    return dataclasses.asdict(typed(command, *overrides))
