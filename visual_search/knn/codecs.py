"""Smaller galleries: how embeddings can be stored, and what comes back when they are read.

A codec keeps all D numbers of an embedding with fewer bits each, or fewer numbers: the first
principal components, or simply the first ones. It is trained on the gallery alone. Queries stay
float32, so a distance is asymmetric: exact query against approximate item. It is that to the
decoded item, hence an exact search over the decoded gallery gives the same neighbours as a search
over the codes, with all the rules of a protocol.

Sizes: ``bytes_per_item`` is what FAISS stores an item (``sa_code_size``), ids apart. What is stored
once for all items (codebooks, ranges, axes) is ``shared_bytes``, and weighs more the smaller the
gallery is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from visual_search.knn.embeddings import MAX_LENGTH, check_array
from visual_search.knn.exact import row_lengths
from visual_search.knn.principal_axes import (
    PrincipalAxes,
    blocks,
    principal_axes,
    shared_out,
)

Family: TypeAlias = Literal["flat", "half", "scalar", "product", "pca", "truncated"]
Floats: TypeAlias = NDArray[np.float32]

SUB_VECTORS = (128, 64, 32, 16, 8)  # of product quantisation: about so many, what divides D
# Points a centroid below which FAISS warns: with fewer a codebook learns the gallery by heart.
POINTS_PER_CENTROID = 39
CODE_BITS = (8, 6, 4)
MIN_DIMS = 16  # the fewest components or first numbers that are kept
MAX_ROTATED_DIM = 1024  # above, the rotation's own D x D numbers outweigh the codes
UNIT_TOLERANCE = 1e-3  # of a length of 1: what half precision may have rounded


class CannotEncodeError(ValueError):
    """A codec does not fit these embeddings; the message says why."""


@dataclass(frozen=True)
class Codec:
    """One way to store an embedding.

    Attributes:
        name: Short and unique, close to FAISS's: ``PCA128,SQ8``.
        title: The same in words.
        family: ``flat``, ``half``, ``scalar``, ``product``, ``pca`` or ``truncated``.
        series: Codecs of the family that differ in size alone, such as ``PCA, 8 bit``.
        definition: What is stored, in one sentence.
        factory: FAISS's factory string for the ``num_dims`` numbers that are stored.
        num_dims: D, or how many components (``pca``) or first numbers (``truncated``) are kept.
        bytes_per_item: FAISS's ``sa_code_size``; ids and what is shared apart.
        shared_bytes: Stored once for all items: codebooks, ranges, axes.
        on_axes: What is stored are coordinates on the gallery's principal axes.
        num_parts: Sub-vectors that axes are shared out to; 1 keeps their order.

    Raises:
        ValueError: The family is none of those, or a size is below its least.
    """

    name: str
    title: str
    family: Family
    series: str
    definition: str
    factory: str
    num_dims: int
    bytes_per_item: int
    shared_bytes: int = 0
    on_axes: bool = False
    num_parts: int = 1

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            raise ValueError(
                f"the codec {self.name!r} has the family {self.family!r}; expected one of "
                f"{', '.join(get_args(Family))}: choose one"
            )
        for name, least in (
            ("num_dims", 1),
            ("bytes_per_item", 1),
            ("shared_bytes", 0),
            ("num_parts", 1),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"the codec {self.name!r} has {name} {getattr(self, name)}; expected at least "
                    f"{least}: count what is stored"
                )


def codecs_for(dim: int, num_gallery: int) -> tuple[tuple[Codec, ...], dict[str, str]]:
    """Returns the codecs that fit, flat float32 first, and why others were left out.

    Product quantisation needs `POINTS_PER_CENTROID` items for each of its 2^bits centroids: 8 bits
    a sub-vector from 9,984 items on, 6 from 2,496, 4 from 624. It splits an embedding into equal
    sub-vectors of two numbers or more, as many as divide D and come close to `SUB_VECTORS`.

    Args:
        dim: Embedding width D.
        num_gallery: Items that the codecs would be trained on, N.

    Returns:
        The codecs, and family or codec -> the reason.

    Raises:
        ValueError: ``dim`` or ``num_gallery`` is below 1.

    Example:
        >>> found, left_out = codecs_for(64, 1000)
        >>> [codec.name for codec in found][:6]
        ['Flat', 'SQfp16', 'SQ8', 'SQ6', 'SQ4', 'PQ32x4']
        >>> [(codec.name, codec.bytes_per_item) for codec in found if codec.family == "pca"][:2]
        [('PCA32', 128), ('PCA32,SQfp16', 64)]
        >>> "PQ" in codecs_for(64, 100)[1]
        True
    """
    for name, value in (("dim", dim), ("num_gallery", num_gallery)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1: give a gallery's shape")
    left_out: dict[str, str] = {}
    found = [
        Codec("Flat", "float32", "flat", "float32", "All numbers as float32.", "Flat", dim,
              _code_size(dim, "Flat"))
    ]  # fmt: skip
    found += _scalar(dim)
    found += _product(dim, num_gallery, left_out)
    found += _fewer_dims(dim, num_gallery, left_out)
    return tuple(found), left_out


def decoded_gallery(gallery: Floats, codec: Codec, axes: PrincipalAxes | None = None) -> Floats:
    """Trains a codec on a gallery, and gives the gallery as it is read back.

    Deterministic: FAISS's clustering draws from a fixed seed. Where all embeddings have length 1,
    the decoded ones are scaled to length 1 again, so that the order stays that of the cosine;
    without it, items that a codec shortens would come nearer to every query. Of principal
    components the mean is added again, and of first numbers the rest is 0: distances differ from
    those in the smaller space by the same amount for every item.

    Args:
        gallery: ``[N, D] float32``.
        codec: One of `codecs_for`'s.
        axes: The gallery's own, where they were computed before; used where a codec is ``on_axes``.

    Returns:
        ``[N, D] float32``; for ``flat`` the gallery itself.

    Raises:
        TypeError: The gallery is no float32 array.
        ValueError: Its shape is wrong, or the codec keeps more numbers than it has.
        CannotEncodeError: The gallery varies in fewer directions than the codec keeps, has too few
            items, or numbers that the codec cannot hold.
    """
    check_array(gallery, "gallery")
    if codec.num_dims > gallery.shape[1]:
        raise ValueError(
            f"the codec {codec.name!r} keeps {codec.num_dims} numbers, and the embeddings have "
            f"{gallery.shape[1]}; expected no more: list the codecs with codecs_for"
        )
    if codec.family == "flat":
        return gallery
    if codec.on_axes:
        axes = axes or principal_axes(gallery)
        if len(axes.axes) < codec.num_dims and codec.num_parts == 1:
            raise CannotEncodeError(
                f"the gallery varies in {len(axes.axes)} direction(s), fewer than "
                f"{codec.num_dims}; expected as many: keep fewer components"
            )
        kept = shared_out(axes, codec.num_dims, codec.num_parts)  # [d, D]
        mean = axes.mean.astype(np.float32)  # [D]
        stored = np.empty((len(gallery), codec.num_dims), dtype=np.float32)
        for rows in blocks(len(gallery)):
            stored[rows] = (gallery[rows] - mean) @ kept.T  # [n, d]
        numbers = _there_and_back(stored, codec)
        decoded = np.empty_like(gallery)
        for rows in blocks(len(gallery)):
            decoded[rows] = numbers[rows] @ kept + mean  # [n, D]
    else:
        numbers = _there_and_back(np.ascontiguousarray(gallery[:, : codec.num_dims]), codec)
        decoded = np.zeros_like(gallery)
        decoded[:, : codec.num_dims] = numbers
    lengths = row_lengths(decoded)  # [N]
    if not (lengths <= MAX_LENGTH).all():
        raise CannotEncodeError(
            f"{int((~(lengths <= MAX_LENGTH)).sum())} item(s) do not come back as finite numbers; "
            f"expected values that {codec.title} can hold: scale the embeddings down"
        )
    if is_unit_length(gallery):
        decoded /= np.where(lengths > 0, lengths, 1)[:, None].astype(np.float32)
    return decoded


def is_unit_length(embeddings: Floats) -> bool:
    """Returns whether every embedding has length 1, so that distances order as cosines do.

    Example:
        >>> is_unit_length(np.float32([[0, 1], [0.6, 0.8]])), is_unit_length(np.float32([[2, 0]]))
        (True, False)
    """
    return bool((np.abs(row_lengths(embeddings) - 1) <= UNIT_TOLERANCE).all())


def _scalar(dim: int) -> list[Codec]:
    found = [
        Codec("SQfp16", "float16", "half", "fewer bits", "All numbers as float16.", "SQfp16", dim,
              _code_size(dim, "SQfp16"))
    ]  # fmt: skip
    return found + [
        Codec(
            f"SQ{bits}", f"{bits} bit", "scalar", "fewer bits",
            f"Every number as one of {2**bits} even steps of its range in the gallery.",
            f"SQ{bits}", dim, _code_size(dim, f"SQ{bits}"), shared_bytes=8 * dim,
        )
        for bits in (8, 6, 4)
    ]  # fmt: skip


def _product(dim: int, num_gallery: int, left_out: dict[str, str]) -> list[Codec]:
    counts = _divisors(dim, SUB_VECTORS)
    if not counts:
        left_out["PQ"] = f"{dim} numbers do not split into 4 or more equal parts of 2 or more"
        return []
    fit = [bits for bits in CODE_BITS if num_gallery >= POINTS_PER_CENTROID * 2**bits]
    if not fit:
        left_out["PQ"] = (
            f"{num_gallery:,} items are fewer than {POINTS_PER_CENTROID * 16:,}, "
            f"{POINTS_PER_CENTROID} for each of 16 centroids"
        )
        return []
    bits = fit[0]
    if bits < CODE_BITS[0]:
        left_out[f"PQ of {CODE_BITS[0]} bits"] = (
            f"{num_gallery:,} items are fewer than {POINTS_PER_CENTROID * 2 ** CODE_BITS[0]:,}, "
            f"{POINTS_PER_CENTROID} for each of {2 ** CODE_BITS[0]} centroids; {bits} bits instead"
        )
    if dim > MAX_ROTATED_DIM:
        left_out["OPQ"] = (
            f"a rotation of {dim:,} x {dim:,} numbers, {4 * dim * dim:,} bytes, would outweigh the "
            f"codes; the widest that is rotated is {MAX_ROTATED_DIM:,}"
        )
    suffix = "" if bits == 8 else f"x{bits}"
    parts = f"each as one of {2**bits} learned ones"
    shared = 4 * 2**bits * dim
    found = []
    for number in counts:
        # np: no polysemous training. It renumbers centroids, which changes nothing here, and takes
        # most of the time: PQ64 on 11,029 crops had not ended after 110 s, and takes 21 without.
        factory = f"PQ{number}x{bits}np"
        found.append(
            Codec(
                f"PQ{number}{suffix}", f"PQ {number} x {bits} bit", "product", "PQ",
                f"{number} sub-vectors of {dim // number} numbers, {parts}.",
                factory, dim, _code_size(dim, factory), shared,
            )
        )  # fmt: skip
    for number in counts if dim <= MAX_ROTATED_DIM else ():
        factory = f"PQ{number}x{bits}np"
        found.append(
            Codec(
                f"OPQ{number}{suffix}", f"OPQ {number} x {bits} bit", "product", "OPQ",
                f"Principal components, shared out evenly to {number} sub-vectors of "
                f"{dim // number} numbers, {parts}.",
                factory, dim, _code_size(dim, factory), shared + 4 * (dim + 1) * dim,
                on_axes=True, num_parts=number,
            )
        )  # fmt: skip
    return found


def _fewer_dims(dim: int, num_gallery: int, left_out: dict[str, str]) -> list[Codec]:
    sizes = []
    size = dim // 2
    while size >= MIN_DIMS:
        sizes.append(size)
        size //= 2
    if not sizes:
        left_out["PCA and first numbers"] = (
            f"{dim} numbers are fewer than {2 * MIN_DIMS}; half of them are fewer than {MIN_DIMS}"
        )
    found = []
    for size in sizes:
        if size >= num_gallery:
            left_out[f"PCA {size}"] = (
                f"{num_gallery:,} items differ in at most {num_gallery - 1:,} direction(s)"
            )
            continue
        for kind, factory in (("float32", "Flat"), ("float16", "SQfp16"), ("8 bit", "SQ8")):
            axes, ranges = 4 * (size + 1) * dim, 8 * size if factory == "SQ8" else 0
            found.append(
                Codec(
                    f"PCA{size}" if factory == "Flat" else f"PCA{size},{factory}",
                    f"PCA {size}, {kind}", "pca", f"PCA, {kind}",
                    f"The first {size} principal components of the gallery as {kind}.",
                    factory, size, _code_size(size, factory), axes + ranges, on_axes=True,
                )
            )  # fmt: skip
    return found + [
        Codec(
            f"First{size}", f"first {size}", "truncated", "first numbers",
            f"The first {size} of {dim} numbers as float32, the others dropped.",
            "Flat", size, _code_size(size, "Flat"),
        )
        for size in sizes
    ]  # fmt: skip


def _divisors(dim: int, wanted: tuple[int, ...]) -> list[int]:
    """Returns for each wanted number the largest divisor of ``dim`` up to it; 4 at least.

    >>> _divisors(512, (128, 64)), _divisors(100, (128, 64, 32)), _divisors(7, (8,))
    ([128, 64], [50, 25], [])
    """
    fit = [number for number in range(4, dim // 2 + 1) if dim % number == 0]
    largest = [max((number for number in fit if number <= most), default=0) for most in wanted]
    return [number for number in dict.fromkeys(largest) if number]


def _code_size(dim: int, factory: str) -> int:
    import faiss

    return int(faiss.index_factory(dim, factory).sa_code_size())


def _there_and_back(numbers: Floats, codec: Codec) -> Floats:
    """Trains the codec on ``[N, d] float32``, encodes them, and gives them decoded."""
    import faiss

    if codec.factory == "Flat":
        return numbers
    index = faiss.index_factory(codec.num_dims, codec.factory)
    index.train(numbers)
    decoded: Floats = index.sa_decode(index.sa_encode(numbers))
    return decoded
