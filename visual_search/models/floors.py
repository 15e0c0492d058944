"""Embeddings that learn nothing, or nothing from labels or by gradient: the floors of a result.

A score means little until one knows what chance, colour and a classic descriptor reach on the same
gallery and queries. Whatever is fitted (PCA) is fitted on the gallery alone.

Shapes: ``N`` gallery items, ``Q`` queries, ``n`` items of a block, ``D`` embedding width, ``S``
side of a picture in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from visual_search.models.descriptors import (
    HISTOGRAM_DIM,
    HOG_DIM,
    RANDOM_DIM,
    Floats,
    colour_histogram,
    hog,
    random_embeddings,
    resized_pixels,
)
from visual_search.models.floor_items import (
    Describe,
    Described,
    FloorEmbeddings,
    FloorItems,
    InPassing,
    ItemCounter,
    OnDisk,
    OnProgress,
    PictureRows,
)
from visual_search.models.principal_components import project, unit_length

__all__ = [
    "FLOORS",
    "HISTOGRAM_DIM",
    "HOG_DIM",
    "NOT_ADAPTED",
    "RANDOM_DIM",
    "UNTRAINED",
    "FloorEmbeddings",
    "FloorItems",
    "FloorModel",
    "PictureRows",
    "colour_histogram",
    "embed_floors",
    "hog",
    "random_embeddings",
    "resized_pixels",
    "untrained",
]

EmbedPictures = Callable[[nn.Module, NDArray[np.uint8]], Floats]
Embed = Callable[[FloorItems, FloorItems, int, OnProgress | None], FloorEmbeddings]

UNTRAINED = "untrained"  # the floors that are not in FLOORS, since they need a network
NOT_ADAPTED = "not_adapted"


@dataclass(frozen=True)
class FloorModel:
    """An embedding to read a result against.

    Attributes:
        name: As in files and settings.
        title: As in tables and charts.
        dim: Embedding width D; for PCA the most that it can be.
        definition: What a number of it means, in one sentence.
        embed: ``(gallery, queries, seed, on_progress) -> FloorEmbeddings``. A pure function: the
            same arguments give the same embeddings, and an item's does not depend on the queries.
            ``on_progress`` is called with (items done, N + Q). ``TypeError`` or ``ValueError``
            where a block of pictures is not ``[n, 3, S, S] uint8``.
    """

    name: str
    title: str
    dim: int
    definition: str
    embed: Embed


def untrained(
    network: nn.Module, embed_pictures: EmbedPictures, dim: int, *, pretrained: bool = False
) -> FloorModel:
    """Returns the floor that a run's own network is before its first step.

    Args:
        network: The network with its first random weights; it is left as it is.
        embed_pictures: Gives ``[n, D] float32`` of the network and ``[n, 3, S, S] uint8``, each
            picture by itself; called in evaluation mode, without gradients.
        dim: D.
        pretrained: The first weights are not random but learned from other pictures; the floor
            has another name and title then.

    Raises:
        ValueError: From ``embed``: ``embed_pictures`` gave another shape or dtype.
    """

    def describe(pictures: NDArray[np.uint8]) -> Floats:
        modes = {module: module.training for module in network.modules()}
        network.eval()
        try:
            with torch.inference_mode():
                found = embed_pictures(network, pictures)
        finally:
            for module, mode in modes.items():
                module.training = mode
        if found.shape != (len(pictures), dim) or found.dtype != np.float32:
            raise ValueError(
                f"embed_pictures gave {found.dtype} of shape {found.shape}; expected float32 of "
                f"shape {(len(pictures), dim)}: check dim, and convert to NumPy as float32"
            )
        return found

    recipe = _Recipe(describe, dim)
    if pretrained:
        definition = "The run's own network as pretrained on other pictures, before this training."
        return FloorModel(NOT_ADAPTED, "own network, not adapted", dim, definition, recipe)
    definition = "The run's own network with its first random weights, before any training."
    return FloorModel(UNTRAINED, "own network, untrained", dim, definition, recipe)


def embed_floors(
    names: Sequence[str],
    gallery: FloorItems,
    queries: FloorItems,
    *,
    seed: int = 0,
    scratch_dir: Path,
    on_progress: OnProgress | None = None,
) -> Generator[tuple[str, FloorEmbeddings], None, None]:
    """Returns one floor after the other, computing what several of them need once.

    The embeddings are to the bit those of `FloorModel.embed`. Pictures are described once for all
    floors that start from the same description, and PCA is fitted once for a floor and its
    variant of unit length. Descriptions lie in a scratch file that is mapped into memory, so that
    memory has to hold no more than the sample that PCA is fitted on and a projection.

    The file has no name: its space is free again as soon as nobody holds the iterator or an
    embedding that came from it, also after an error or when the process is killed.

    Args:
        names: Of `FLOORS`, in the order in which they are wanted.
        gallery: N items.
        queries: Q items.
        seed: As in `FloorModel.embed`.
        scratch_dir: A folder with room for ``4 * D * (N + Q)`` bytes of each description that is
            in use at a time: 115 MB of ``hog`` for 12,225 pictures.
        on_progress: Called with (done, total) items; an item counts once a description and once a
            projection.

    Yields:
        Name and embeddings; the arrays are read-only.

    Raises:
        ValueError: A name is not in `FLOORS` (at the call), or as `FloorModel.embed`.
        TypeError: As `FloorModel.embed`.
        FileNotFoundError: ``scratch_dir`` is no folder (at the call).
        OSError: The disk lacks the space.

    Example:
        >>> import tempfile
        >>> pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
        >>> items = FloorItems(["a", "b", "c"], pictures)
        >>> names = ["pixels_32", "pixels_32_pca_64"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, found in embed_floors(names, items, items, scratch_dir=Path(folder)):
        ...         print(name, found.gallery.shape)
        pixels_32 (3, 3072)
        pixels_32_pca_64 (3, 2)
    """
    unknown = [name for name in names if name not in FLOORS]
    if unknown:
        raise ValueError(
            f"names holds {unknown[0]!r}; expected names among {list(FLOORS)}: correct it, or "
            f"make {UNTRAINED!r} with untrained() and call its embed"
        )
    if not scratch_dir.is_dir():
        raise FileNotFoundError(
            f"scratch_dir is {scratch_dir}, which is no folder; expected one for a temporary file: "
            "make it, or pass another"
        )
    floors = [FLOORS[name] for name in names]
    return _in_turn(floors, gallery, queries, seed, scratch_dir, on_progress)


@dataclass(frozen=True)
class _Recipe:
    """Embeds by what describes each picture by itself, kept or projected.

    Attributes:
        describe: Describes pictures.
        described_dim: Width of a description.
        num_components: The most that PCA keeps; None keeps the description instead.
        unit: Whether the projection is scaled to unit length.
    """

    describe: Describe
    described_dim: int
    num_components: int | None = None
    unit: bool = False

    def __call__(
        self,
        gallery: FloorItems,
        queries: FloorItems,
        seed: int,
        on_progress: OnProgress | None,
    ) -> FloorEmbeddings:
        progress = ItemCounter(len(gallery) + len(queries), on_progress)
        found = self.before_scaling(
            self.described(gallery, progress), self.described(queries, progress), seed
        )
        return unit_length(found) if self.unit else found

    def described(self, side: FloorItems, progress: ItemCounter) -> InPassing:
        return InPassing(side, self.describe, self.described_dim, progress)

    def before_scaling(self, gallery: Described, queries: Described, seed: int) -> FloorEmbeddings:
        if self.num_components is None:
            return FloorEmbeddings(gallery.all_rows(), queries.all_rows())
        return project(gallery, queries, self.num_components, seed)


def _in_turn(
    floors: Sequence[FloorModel],
    gallery: FloorItems,
    queries: FloorItems,
    seed: int,
    scratch_dir: Path,
    on_progress: OnProgress | None,
) -> Generator[tuple[str, FloorEmbeddings], None, None]:
    num_items = len(gallery) + len(queries)
    progress = ItemCounter(_num_passes(floors) * num_items, on_progress)
    described: dict[Describe, tuple[OnDisk, OnDisk]] = {}  # the gallery's, the queries'
    unscaled: dict[_Recipe, FloorEmbeddings] = {}
    for number, floor in enumerate(floors):
        recipe = floor.embed
        if isinstance(recipe, _Recipe):
            if recipe.describe not in described:
                described[recipe.describe] = (
                    OnDisk(recipe.described(gallery, progress), scratch_dir, progress),
                    OnDisk(recipe.described(queries, progress), scratch_dir, progress),
                )
            plain = replace(recipe, unit=False)
            if plain not in unscaled:
                unscaled[plain] = plain.before_scaling(*described[recipe.describe], seed)
            found = unit_length(unscaled[plain]) if recipe.unit else unscaled[plain]
        else:
            found = recipe(gallery, queries, seed, None)
            progress.add(num_items)
        for embeddings in (found.gallery, found.queries):
            embeddings.flags.writeable = False  # they may be what the next floor is made from
        yield floor.name, found
        del found
        later = _recipes(floors[number + 1 :])
        for describe in described.keys() - {recipe.describe for recipe in later}:
            del described[describe]
        for plain in unscaled.keys() - {replace(recipe, unit=False) for recipe in later}:
            del unscaled[plain]


def _num_passes(floors: Sequence[FloorModel]) -> int:
    """Returns how often all items are gone through: to be described, to be projected."""
    recipes = _recipes(floors)
    projections = {replace(recipe, unit=False) for recipe in recipes if recipe.num_components}
    others = len(floors) - len(recipes)
    return len({recipe.describe for recipe in recipes}) + len(projections) + others


def _recipes(floors: Sequence[FloorModel]) -> list[_Recipe]:
    return [floor.embed for floor in floors if isinstance(floor.embed, _Recipe)]


def _random(
    gallery: FloorItems, queries: FloorItems, seed: int, on_progress: OnProgress | None
) -> FloorEmbeddings:
    """Embeds by item id; the pictures are not looked at."""
    found = [random_embeddings(side.item_ids, seed) for side in (gallery, queries)]
    ItemCounter(len(gallery) + len(queries), on_progress).add(len(gallery) + len(queries))
    return FloorEmbeddings(*found)


_pixels_8 = partial(resized_pixels, size_px=8)
_pixels_32 = partial(resized_pixels, size_px=32)
_HISTOGRAM = "Share of pixels in each of 16 bins of red, green and blue."
_HOG = "Histograms of oriented gradients (64 px, 8 x 8 px cells, 12 bins, 2 x 2 blocks)"
_ON_64 = "on the first 64 principal components of the gallery"
_ON_256 = "on the first 256 principal components of the gallery"

_TABLE = (
    FloorModel(
        "random", "random", RANDOM_DIM, "Random numbers that the item's id decides.", _random
    ),
    FloorModel(
        "colour_histogram",
        "colour histogram",
        HISTOGRAM_DIM,
        _HISTOGRAM,
        _Recipe(colour_histogram, HISTOGRAM_DIM),
    ),
    FloorModel("pixels_8", "pixels 8 x 8", 192, "The pixels at 8 x 8.", _Recipe(_pixels_8, 192)),
    FloorModel(
        "pixels_32", "pixels 32 x 32", 3072, "The pixels at 32 x 32.", _Recipe(_pixels_32, 3072)
    ),
    FloorModel(
        "pixels_32_pca_64",
        "PCA-64 of pixels",
        64,
        f"The pixels at 32 x 32, {_ON_64}.",
        _Recipe(_pixels_32, 3072, 64),
    ),
    FloorModel("hog", "HOG", HOG_DIM, f"{_HOG}.", _Recipe(hog, HOG_DIM)),
    FloorModel(
        "hog_pca_256", "HOG + PCA-256", 256, f"{_HOG}, {_ON_256}.", _Recipe(hog, HOG_DIM, 256)
    ),
    FloorModel(
        "hog_pca_256_unit",
        "HOG + PCA-256 + unit length",
        256,
        f"{_HOG}, {_ON_256}, scaled to unit length.",
        _Recipe(hog, HOG_DIM, 256, unit=True),
    ),
)
FLOORS: dict[str, FloorModel] = {floor.name: floor for floor in _TABLE}
"""In the order of a report's table; `untrained` makes the one that needs a network."""
