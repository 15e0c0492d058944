"""Composes a command's config as its command line would."""

from __future__ import annotations

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from visual_search.cli.command_line import HYDRA_VERSION_BASE
from visual_search.cli.typed_text import as_typed, unpacked
from visual_search.config.builders import config_folder, register_schema


def composed(command: str, *overrides: str) -> DictConfig:
    """Returns the config of ``conf/<command>.yaml`` with these overrides."""
    register_schema()
    with initialize_config_dir(str(config_folder()), version_base=HYDRA_VERSION_BASE):
        return unpacked(command, compose(command, overrides=as_typed(command, overrides)))


def settings_of(command: str, *overrides: str) -> dict[str, Any]:
    """Returns the same as plain containers, as the command passes them on."""
    config = composed(command, *overrides)
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}
