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

from collections.abc import Callable
from typing import TypeVar

__version__ = "0.1.0"

Builder = TypeVar("Builder", bound=Callable[..., object])


def builder(group: str) -> Callable[[Builder], Builder]:
    """Marks a function or a class as a builder that a config may name with ``_target_``.

    The mark alone counts, and where it stands: in this package, or in a plug-in
    (`visual_search.config.plugins`). It is read in the source, on a line of its own.

    Args:
        group: Of the configs: ``model``, ``objective``, ``augmentation``, ``sampler``, ``data``,
            ``callbacks`` or ``protocol``.

    Returns:
        What gives the builder back as it is.

    Example:
        >>> @builder("model")
        ... def my_variant(width: int = 64) -> object: ...
    """
    return lambda built: built
