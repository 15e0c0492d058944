"""Embeddings that learn nothing, or nothing from labels or by gradient: the floors of a result.

A score means little until one knows what chance, colour and a classic descriptor reach on the same
gallery and queries. Whatever is fitted (PCA) is fitted on the gallery alone.

Shapes: ``N`` gallery items, ``Q`` queries, ``n`` items of a block, ``D`` embedding width, ``S``
side of a picture in pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from visual_search.models.descriptors import (
    HISTOGRAM_DIM,
    HOG_DIM,
    RANDOM_DIM,
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
    ItemCounter,
    OnProgress,
)
from visual_search.models.principal_components import project, unit_length


@dataclass(frozen=True)
class FloorModel:
    """An embedding to read a result against.

    Attributes:
        name: As in files and settings.
        title: As in tables and charts.
        dim: Width of a description.
        definition: What a number of it means, in one sentence.
        describe: Describes each picture by itself; None takes random numbers that an item's id
            decides, and looks at no picture.
        num_components: The most principal components of the gallery's descriptions to keep; None
            takes the descriptions as they are.
        unit: Whether embeddings are scaled to length 1.
    """

    name: str
    title: str
    dim: int
    definition: str
    describe: Describe | None = None
    num_components: int | None = None
    unit: bool = False


def embed_floors(
    floors: Sequence[FloorModel],
    gallery: FloorItems,
    queries: FloorItems,
    *,
    seed: int = 0,
    scratch_dir: Path,
    on_progress: OnProgress | None = None,
) -> Generator[tuple[str, FloorEmbeddings], None, None]:
    """Returns one floor after the other, computing what several of them need once.

    The same arguments give the same embeddings, and an item's does not depend on the queries.
    Pictures are described once for all floors that start from the same description, and PCA is
    fitted once for a floor and its variant of unit length. Descriptions lie in a scratch file that
    is mapped into memory, so that memory has to hold no more than the sample that PCA is fitted on
    and a projection.

    The file has no name: its space is free again as soon as nobody holds the iterator or an
    embedding that came from it, also after an error or when the process is killed.

    Args:
        floors: In the order in which they are wanted.
        gallery: N items.
        queries: Q items.
        seed: Of random numbers, and of the items that PCA of a large gallery is fitted on.
        scratch_dir: A folder with room for ``4 * D * (N + Q)`` bytes of each description that is
            in use at a time: 115 MB of ``hog`` for 12,225 pictures.
        on_progress: Called with (done, total) items; an item counts once a description and once a
            projection.

    Yields:
        Name and embeddings; the arrays are read-only.

    Raises:
        TypeError: A block of pictures is not uint8.
        ValueError: It is not ``[n, 3, S, S]``, or is described by something else than said.
        FileNotFoundError: ``scratch_dir`` is no folder.
        OSError: The disk lacks the space.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> pictures = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8)
        >>> items = FloorItems(["a", "b", "c"], pictures)
        >>> floors = [FLOORS["pixels_32"], FLOORS["pixels_32_pca_64"]]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, found in embed_floors(floors, items, items, scratch_dir=Path(folder)):
        ...         print(name, found.gallery.shape)
        pixels_32 (3, 3072)
        pixels_32_pca_64 (3, 2)
    """
    if not scratch_dir.is_dir():
        raise FileNotFoundError(
            f"scratch_dir is {scratch_dir}, which is no folder; expected one for a temporary file: "
            "make it, or pass another"
        )
    num_items = len(gallery) + len(queries)
    described_by = {floor.describe for floor in floors if floor.describe}
    projections = {(floor.describe, floor.num_components) for floor in floors}
    num_passes = len(described_by) + sum(num is not None for _, num in projections)
    num_passes += sum(floor.describe is None for floor in floors)
    progress = ItemCounter(num_passes * num_items, on_progress)
    described: dict[Describe, tuple[Described, Described]] = {}  # the gallery's, the queries'
    unscaled: dict[tuple[Describe, int | None], FloorEmbeddings] = {}
    for number, floor in enumerate(floors):
        describe, num = floor.describe, floor.num_components
        if describe is None:
            found = FloorEmbeddings(
                *(random_embeddings(side.item_ids, seed) for side in (gallery, queries))
            )
            progress.add(num_items)
        else:
            if describe not in described:
                described[describe] = (
                    Described(gallery, describe, floor.dim, scratch_dir, progress),
                    Described(queries, describe, floor.dim, scratch_dir, progress),
                )
            if (describe, num) not in unscaled:
                sides = described[describe]
                unscaled[describe, num] = (
                    FloorEmbeddings(*(side.all_rows() for side in sides))
                    if num is None
                    else project(*sides, num, seed)
                )
            found = unscaled[describe, num]
            if floor.unit:
                found = unit_length(found)
        for embeddings in (found.gallery, found.queries):
            embeddings.flags.writeable = False  # they may be what the next floor is made from
        yield floor.name, found
        del found
        later = {(floor.describe, floor.num_components) for floor in floors[number + 1 :]}
        for made in unscaled.keys() - later:
            del unscaled[made]
        for made_by in described.keys() - {describe for describe, _ in later}:
            del described[made_by]


_pixels_8 = partial(resized_pixels, size_px=8)
_pixels_32 = partial(resized_pixels, size_px=32)
_HISTOGRAM = "Share of pixels in each of 16 bins of red, green and blue."
_HOG = "Histograms of oriented gradients (64 px, 8 x 8 px cells, 12 bins, 2 x 2 blocks)"
_ON_64 = "on the first 64 principal components of the gallery"
_ON_256 = "on the first 256 principal components of the gallery"

FLOORS: dict[str, FloorModel] = {
    floor.name: floor
    for floor in (
        FloorModel("random", "random", RANDOM_DIM, "Random numbers that the item's id decides."),
        FloorModel(
            "colour_histogram", "colour histogram", HISTOGRAM_DIM, _HISTOGRAM, colour_histogram
        ),
        FloorModel("pixels_8", "pixels 8 x 8", 192, "The pixels at 8 x 8.", _pixels_8),
        FloorModel("pixels_32", "pixels 32 x 32", 3072, "The pixels at 32 x 32.", _pixels_32),
        FloorModel(
            "pixels_32_pca_64",
            "PCA-64 of pixels",
            3072,
            f"The pixels at 32 x 32, {_ON_64}.",
            _pixels_32,
            64,
        ),
        FloorModel("hog", "HOG", HOG_DIM, f"{_HOG}.", hog),
        FloorModel("hog_pca_256", "HOG + PCA-256", HOG_DIM, f"{_HOG}, {_ON_256}.", hog, 256),
        FloorModel(
            "hog_pca_256_unit",
            "HOG + PCA-256 + unit length",
            HOG_DIM,
            f"{_HOG}, {_ON_256}, scaled to unit length.",
            hog,
            256,
            unit=True,
        ),
    )
}
"""In the order of a report's table."""
