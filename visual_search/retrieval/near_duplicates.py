"""Pairs of a query and a gallery item that are likely one picture: counted, listed and shown.

Another crop, size or compression of a picture has other pixels, so that `leaks.py` does not see
it. The measures here, a perceptual hash and the distance of embeddings, may err in both
directions: what they find is to be looked at, and is no error by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.retrieval.leaks import check_max_listed, check_once, rows_of

# Set by looking at the closest pairs of 1,196 queries and 11,029 gallery items, product crops from
# collage boards (Complete the Look, 128 px). The same picture was shown by 2 of 2 pairs at 0 bits,
# 4 of 6 at 2 bits, 3 of 12 at 4 bits and 4 of 24 at 6 bits: products on white share outlines. Of
# Fashion-MNIST, which is outlines of 28 px, even most pairs at 0 bits are different products.
MAX_BITS = 2
# How near two pictures lie depends on the network. Of a trained network's pairs (4,096 values), 4
# of 4 up to 0.001 and 11 of 14 up to 0.005 were the same picture; of another's (512 values), for
# which all faint necklaces are alike, 3 of 4 up to 0.0003 and 6 of the first 24, up to 0.0007.
# Where both agree, wider limits do: with 10 bits and 0.005, 9 of the 10 and 14 of the 16 pairs
# found by ``both`` were the same picture.
MAX_RELATIVE_DISTANCE = 0.0003

NUM_RANDOM_PAIRS = 10_000
_BLOCK_VALUES = 2**21  # float64 differences at a time, 16 MB
_QUERIES_BETWEEN_CALLS = 256
_COLUMNS = ["query_id", "gallery_id", "hash_bits", "relative_squared_distance", "by"]

Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EmbeddedPictures:
    """Embeddings of both sides, and the nearest gallery items that a search found for each query.

    Attributes:
        gallery: ``[N, D] float32``, in the order of the gallery's ids.
        queries: ``[Q, D] float32``, in the order of the queries' ids.
        neighbour_ids: Q sequences of gallery ids, of any lengths.
        neighbour_squared_distances: Q sequences of squared Euclidean distances, as long as these.

    Raises:
        ValueError: The embeddings are not two-dimensional and equally wide, or the neighbours are
            not those of Q queries.
    """

    gallery: NDArray[np.float32]
    queries: NDArray[np.float32]
    neighbour_ids: Sequence[Sequence[str]]
    neighbour_squared_distances: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        shapes = (self.gallery.shape, self.queries.shape)
        if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
            raise ValueError(
                f"the embeddings have the shapes {shapes[0]} and {shapes[1]}; expected [N, D] and "
                "[Q, D]: embed both sides with one model"
            )
        found = [len(ids) for ids in self.neighbour_ids]
        measured = [len(distances) for distances in self.neighbour_squared_distances]
        if len(found) != shapes[1][0] or found != measured:
            raise ValueError(
                f"{shapes[1][0]} query embeddings have {len(found)} lists of {sum(found)} "
                f"neighbours and {len(measured)} lists of {sum(measured)} distances; expected one "
                "list of each a query, equally long: take them from one search"
            )


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of a query and a gallery item that are likely the same picture.

    Attributes:
        table: One row a pair, the closest first, at most ``max_listed``: ``query_id``,
            ``gallery_id``; ``hash_bits`` (int64), the bits that differ, -1 where more than
            ``max_bits`` do or a picture has no hash; ``relative_squared_distance`` (float64), the
            squared distance of the embeddings in units of ``median_squared_distance``, NaN
            without embeddings; ``by``: ``both``, ``hash`` or ``embedding``, what found it.
        num_pairs: All pairs by what found them: ``both``, ``hash`` (alone), ``embedding`` (alone).
        query_ids: The queries of all these pairs, sorted.
        max_bits: The most bits that may differ.
        max_relative_distance: The largest relative distance.
        median_squared_distance: Of random pairs of a query and a gallery item; NaN without
            embeddings or pairs. Where it is 0, the embeddings have collapsed and find nothing.
        definition: One sentence that says what is counted.
    """

    table: pd.DataFrame
    num_pairs: dict[str, int]
    query_ids: tuple[str, ...]
    max_bits: int
    max_relative_distance: float
    median_squared_distance: float
    definition: str


def near_duplicates(
    gallery_ids: Sequence[str],
    gallery_hashes: NDArray[np.uint64],
    query_ids: Sequence[str],
    query_hashes: NDArray[np.uint64],
    *,
    embedded: EmbeddedPictures | None = None,
    max_bits: int = MAX_BITS,
    max_relative_distance: float = MAX_RELATIVE_DISTANCE,
    max_listed: int = 1000,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> NearDuplicates:
    """Looks for pairs of a query and a gallery item that are likely the same picture.

    A pair is found by its hashes, where these differ in at most ``max_bits`` bits, and by its
    embeddings, where the gallery item is among the query's neighbours and their squared distance
    is at most ``max_relative_distance`` times the median of random pairs. An item is no duplicate
    of itself. Exact copies of the pixels appear with 0 bits; `find_leaks` tells them apart.

    Args:
        gallery_ids: N item ids, each once.
        gallery_hashes: ``[N] uint64``, of `visual_search.catalog.duplicates.perceptual_hashes`; a
            hash of 0 is none, and matches nothing.
        query_ids: Q item ids, each once.
        query_hashes: ``[Q] uint64``.
        embedded: Embeddings and search result, in the same orders; None looks at hashes alone.
        max_bits: From 0 to 64. Perceptual hashes differ in even numbers of bits.
        max_relative_distance: At least 0, below 1.
        max_listed: Pairs to list; all are counted.
        seed: Which random pairs make the median.
        on_progress: Called with (done, Q) queries.

    Returns:
        The same for every order of gallery and queries. The pairs are sorted by the smaller of
        bits / (max_bits + 1) and relative distance / max_relative_distance, then by their ids.

    Raises:
        TypeError: Hashes are no uint64 array.
        ValueError: Lengths differ, an id stands twice on its side, a neighbour is not in the
            gallery, or a limit is out of range.

    Example:
        >>> hashes = np.array([0b1111, 0b111100000000, 0], dtype=np.uint64)
        >>> asked = np.array([0b11011, 0], dtype=np.uint64)
        >>> found = near_duplicates(["a", "b", "plain"], hashes, ["q", "white"], asked)
        >>> found.table[["query_id", "gallery_id", "hash_bits", "by"]].values.tolist()
        [['q', 'a', 2, 'hash']]
        >>> found.num_pairs
        {'both': 0, 'hash': 1, 'embedding': 0}
    """
    if not 0 <= max_bits <= 64 or not 0 <= max_relative_distance < 1:
        raise ValueError(
            f"max_bits is {max_bits} and max_relative_distance {max_relative_distance}; expected "
            f"0 to 64 and 0 <= distance < 1: leave them out for {MAX_BITS} and "
            f"{MAX_RELATIVE_DISTANCE}"
        )
    check_max_listed(max_listed)
    of_gallery, of_queries = (
        (None, None) if embedded is None else (embedded.gallery, embedded.queries)
    )
    gallery = _Side("gallery", gallery_ids, gallery_hashes, of_gallery)
    queries = _Side("query", query_ids, query_hashes, of_queries)
    itself = rows_of(gallery.ids, queries.ids)

    pairs, num_by_hash, concerned = _pairs_by_hash(
        gallery.hashes, queries.hashes, itself, max_bits, max_listed, on_progress
    )
    num_both, scale = 0, float("nan")
    relative = np.full(len(pairs), np.nan)
    by_embedding = np.zeros(len(pairs), dtype=np.bool_)
    if embedded is not None:
        scale = _median_of_random_pairs(gallery, queries, itself, seed)
        close, distances = _pairs_by_embedding(
            embedded, gallery, queries, itself, scale * max_relative_distance
        )
        bits = _bits(gallery, queries, close)
        num_both = int((bits <= max_bits).sum())
        concerned[close[:, 0]] = True
        # a pair that both found stands in both lists, unless hashes found too many to list
        codes, close_codes = (p[:, 0] * len(gallery.ids) + p[:, 1] for p in (pairs, close))
        only = pairs[~np.isin(codes, close_codes)]
        with np.errstate(divide="ignore", invalid="ignore"):  # collapsed embeddings: 0 / 0
            relative = np.concatenate([distances, _squared_distances(gallery, queries, only)])
            relative = relative / scale
        pairs = np.concatenate([close, only])
        by_embedding = np.arange(len(pairs)) < len(close)
    num_embedded = int(by_embedding.sum())
    return NearDuplicates(
        table=_listed(
            gallery, queries, pairs, relative, by_embedding, max_bits, max_relative_distance
        ).head(max_listed),
        num_pairs={
            "both": num_both,
            "hash": num_by_hash - num_both,
            "embedding": num_embedded - num_both,
        },
        query_ids=tuple(queries.ids[concerned]),
        max_bits=max_bits,
        max_relative_distance=max_relative_distance,
        median_squared_distance=scale,
        definition=_definition(max_bits, max_relative_distance, embedded is not None),
    )


class _Side:
    """Gallery or queries in the order of their ids."""

    def __init__(
        self,
        name: str,
        ids: Sequence[str],
        hashes: NDArray[np.uint64],
        embeddings: NDArray[np.float32] | None,
    ) -> None:
        if not isinstance(hashes, np.ndarray) or hashes.dtype != np.uint64:
            kind = getattr(hashes, "dtype", type(hashes).__name__)
            raise TypeError(
                f"the {name} hashes are {kind}; expected a NumPy array of uint64: take what "
                "catalog.duplicates.perceptual_hashes gives"
            )
        num_embeddings = len(ids) if embeddings is None else len(embeddings)
        if hashes.shape != (len(ids),) or num_embeddings != len(ids):
            raise ValueError(
                f"{len(ids)} {name} ids have hashes of shape {list(hashes.shape)} and "
                f"{num_embeddings} embeddings; expected one of each an id: take them from the "
                "same rows"
            )
        check_once(ids, name)
        given = np.array([*ids, None], dtype=object)[:-1]
        self._order = np.argsort(given, kind="stable")
        self.ids, self.hashes = given[self._order], hashes[self._order]
        self._embeddings = embeddings

    def given_rows(self, rows: Rows) -> Rows:
        """Returns where these rows stand in what the caller gave."""
        return np.asarray(self._order[rows], dtype=np.int64)

    def embeddings(self, rows: Rows) -> Floats:
        assert self._embeddings is not None
        return self._embeddings[self.given_rows(rows)].astype(np.float64)


def _pairs_by_hash(
    gallery: NDArray[np.uint64],
    queries: NDArray[np.uint64],
    itself: Rows,
    max_bits: int,
    max_listed: int,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[Rows, int, NDArray[np.bool_]]:
    """Returns closest pairs (``[n, 2]`` rows), the number of all, the queries that have some."""
    hashed = np.flatnonzero(gallery)  # 0 is no hash
    hashes = gallery[hashed]
    concerned = np.zeros(len(queries), dtype=np.bool_)
    num_pairs = 0
    kept = np.empty((0, 3), dtype=np.int64)  # bits, query row, gallery row
    waiting: list[Rows] = []
    num_waiting = 0

    def closest() -> Rows:
        merged = np.concatenate([kept, *waiting])  # by query, then gallery item: so stay ties
        return merged[np.argsort(merged[:, 0], kind="stable")[:max_listed]]

    for query, value in enumerate(queries):
        if value:
            bits = np.bitwise_count(hashes ^ value)  # [n] uint8
            found = np.flatnonzero(bits <= max_bits)
            rows = hashed[found]
            found, rows = found[rows != itself[query]], rows[rows != itself[query]]
            num_pairs += len(rows)
            concerned[query] = len(rows) > 0
            if len(rows):
                waiting.append(np.stack([bits[found], np.full(len(rows), query), rows], axis=1))
                num_waiting += len(rows)
            if num_waiting > max(max_listed, 2**20):  # 24 MB: then the farthest are let go
                kept, waiting, num_waiting = closest(), [], 0
        done = query + 1
        if on_progress is not None and (done % _QUERIES_BETWEEN_CALLS == 0 or done == len(queries)):
            on_progress(done, len(queries))
    return closest()[:, 1:], num_pairs, concerned


def _pairs_by_embedding(
    embedded: EmbeddedPictures,
    gallery: _Side,
    queries: _Side,
    itself: Rows,
    largest: float,
) -> tuple[Rows, Floats]:
    """Returns neighbours not beyond ``largest``: pairs ``[n, 2]``, squared distances ``[n]``."""
    row_of_id = {item_id: row for row, item_id in enumerate(gallery.ids)}
    pairs: list[tuple[int, int]] = []
    distances: list[float] = []
    for query, given in enumerate(queries.given_rows(np.arange(len(queries.ids)))):
        for item_id, distance in zip(
            embedded.neighbour_ids[given], embedded.neighbour_squared_distances[given], strict=True
        ):
            if item_id not in row_of_id:
                raise ValueError(
                    f"neighbour {item_id!r} of query {queries.ids[query]!r} is not among the "
                    f"{len(gallery.ids)} gallery ids; expected ids of this gallery: take gallery "
                    "and search result from one run"
                )
            row = row_of_id[item_id]
            # a scale of 0 or NaN says nothing about what is close
            if largest > 0 and distance <= largest and row != itself[query]:
                pairs.append((query, row))
                distances.append(float(distance))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(distances, dtype=np.float64)


def _median_of_random_pairs(gallery: _Side, queries: _Side, itself: Rows, seed: int) -> float:
    """Returns the median squared distance of random pairs, NaN where there are none."""
    if not len(gallery.ids) or not len(queries.ids):
        return float("nan")
    rng = np.random.default_rng(seed)
    pairs = np.stack(
        [rng.integers(0, len(side.ids), NUM_RANDOM_PAIRS) for side in (queries, gallery)], axis=1
    )
    pairs = pairs[pairs[:, 1] != itself[pairs[:, 0]]]  # [n, 2]
    return float(np.median(_squared_distances(gallery, queries, pairs))) if len(pairs) else np.nan


def _squared_distances(gallery: _Side, queries: _Side, pairs: Rows) -> Floats:
    """Returns the squared Euclidean distance of each pair: ``[n, 2] -> [n]``."""
    distances = np.empty(len(pairs), dtype=np.float64)
    width = queries.embeddings(np.arange(0)).shape[1]
    step = max(1, _BLOCK_VALUES // max(1, width))
    for start in range(0, len(pairs), step):
        block = pairs[start : start + step]
        difference = queries.embeddings(block[:, 0]) - gallery.embeddings(block[:, 1])  # [n, D]
        distances[start : start + step] = np.square(difference, out=difference).sum(axis=1)
    return distances


def _bits(gallery: _Side, queries: _Side, pairs: Rows) -> Rows:
    """Returns the bits that differ in each pair, 65 where a picture has no hash: ``[n] int64``."""
    first, second = queries.hashes[pairs[:, 0]], gallery.hashes[pairs[:, 1]]
    bits = np.bitwise_count(first ^ second).astype(np.int64)
    return np.where((first == 0) | (second == 0), 65, bits)


def _listed(
    gallery: _Side,
    queries: _Side,
    pairs: Rows,
    relative: Floats,
    by_embedding: NDArray[np.bool_],
    max_bits: int,
    max_relative_distance: float,
) -> pd.DataFrame:
    """Returns the table of the pairs, the closest first."""
    bits = _bits(gallery, queries, pairs)
    by_hash = bits <= max_bits
    closeness = np.where(by_hash, bits / (max_bits + 1), np.inf)
    share = np.where(by_embedding, relative, np.inf) / max(max_relative_distance, 1e-300)
    closeness = np.minimum(closeness, share)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], closeness))
    found_by = np.where(by_hash, np.where(by_embedding, "both", "hash"), "embedding")
    columns = (
        queries.ids[pairs[order, 0]],
        gallery.ids[pairs[order, 1]],
        np.where(by_hash, bits, -1)[order],
        relative[order],
        found_by[order].astype(object),
    )
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))


def _definition(max_bits: int, max_relative_distance: float, embedded: bool) -> str:
    text = (
        "A near duplicate is a query and another item of the gallery whose pictures' 64-bit "
        f"perceptual hashes (pHash) differ in at most {max_bits} bits"
    )
    if embedded:
        text += (
            ", or that are among the query's neighbours at a squared distance of at most "
            f"{max_relative_distance:g} times the median of random pairs of a query and a gallery "
            "item"
        )
    return f"{text}."
