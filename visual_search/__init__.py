"""Visual search in fashion: train encoders, index them, measure them honestly, look at them.

A run flows one way, and the folders are named after the stations that it passes::

    catalog  ->  models  ->  training  ->  retrieval  ->  views
    products     networks    Lightning     index, metrics  figures, projection

What a run found goes to work in two more rooms: ``bundle``, a search in a folder, and ``serving``,
the page and the API over it; neither needs torch.

Shapes in docstrings: ``B`` batch, ``C, H, W`` picture, ``S`` side of a square picture, ``D``
embedding width, ``N`` gallery items, ``Q`` queries, ``K`` neighbours.

Importing this package loads nothing heavy.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from visual_search.api.bundles import OpenedBundle, open_bundle
    from visual_search.api.commands import open_catalog, train
    from visual_search.api.measured import evaluate
    from visual_search.api.trained import Report, TrainedRun, open_run

__all__ = [
    "OpenedBundle",
    "Report",
    "TrainedRun",
    "builder",
    "evaluate",
    "open_bundle",
    "open_catalog",
    "open_run",
    "train",
]

__version__ = "0.1.0"

Builder = TypeVar("Builder", bound=Callable[..., object])


def builder(group: str) -> Callable[[Builder], Builder]:
    """Marks a function or a class as a builder that a config may name with ``_target_``.

    The mark alone counts, and where it stands: in this package, or in a plug-in
    (`visual_search.config.plugins`). It is read in the source, on a line of its own.

    Args:
        group: Of the configs: ``model``, ``objective``, ``augmentation``, ``sampler``, ``data``,
            ``callbacks``, ``protocol`` or ``embedder``.

    Returns:
        What gives the builder back as it is.

    Example:
        >>> @builder("model")
        ... def my_variant(width: int = 64) -> object: ...
    """
    return lambda built: built


_PLACES = {
    "bundles": ("OpenedBundle", "open_bundle"),
    "commands": ("open_catalog", "train"),
    "measured": ("evaluate",),
    "trained": ("Report", "TrainedRun", "open_run"),
}


def __getattr__(name: str) -> Any:
    """Loads what `visual_search.api` offers when it is asked for."""
    for file, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"visual_search.api.{file}"), name)
    raise AttributeError(f"module 'visual_search' has no attribute {name!r}")


class _Called(types.ModuleType):
    def __call__(self, *given: Any, **more: Any) -> Any:
        return __getattr__(self.__name__.rpartition(".")[2])(*given, **more)


def called_as_well(module: str) -> None:
    """Lets a command's module be called as what is offered under its name.

    Once ``visual_search.train`` is imported, Python has the module under that name in the package.
    """
    sys.modules[module].__class__ = _Called
