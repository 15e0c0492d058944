"""Commands that are called with settings as on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from visual_search.api.settings import settings_of

if TYPE_CHECKING:
    from visual_search.api.trained import TrainedRun
    from visual_search.catalog.catalog import Catalog


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
