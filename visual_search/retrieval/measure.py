"""From embeddings to numbers under a protocol: who is found, and what that is worth.

Two steps, so that one search can be scored by several relevance rules: `find_neighbours` needs
embeddings, `score` only what was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.knn.embeddings import check_array
from visual_search.knn.gallery_index import EmbeddingIndex, NearestItems
from visual_search.reading import Identity
from visual_search.retrieval.equality import count_equal, equal_codes
from visual_search.retrieval.protocol import Protocol, Rows, Selection, fingerprint, labels
from visual_search.retrieval.report import Answers, RetrievalReport, build_report

Embeddings = NDArray[np.float32]
EXCLUDED_BY: dict[str, tuple[str, ...]] = {"item": ("item_id",), "group": ("group",), "nothing": ()}
BATCH_PAIRS = 2**21  # candidates at a time: about 100 MB of rows, distances and ids


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The first k of every query that its protocol admits, the nearest first; ties by id.

    k is the protocol's, or `search_depth`. Where fewer than k are admitted, ``num_found`` says how
    many; the places after them hold position 0 and an infinite distance.

    Attributes:
        positions: ``[Q, k] int64``: places in `Selection.gallery_rows`.
        squared_distances: ``[Q, k] float64``, squared Euclidean.
        num_found: ``[Q] int64``, 0..k.
    """

    positions: NDArray[np.int64]
    squared_distances: NDArray[np.float64]
    num_found: NDArray[np.int64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which places hold an answer, ``[Q, k] bool``."""
        return np.arange(self.positions.shape[1]) < self.num_found[:, None]

    def first(self, k: int) -> Neighbours:
        """Returns the first k of every query, of a search that went deeper."""
        return Neighbours(
            self.positions[:, :k], self.squared_distances[:, :k], np.minimum(self.num_found, k)
        )


def search_depth(table: pd.DataFrame, protocol: Protocol, selection: Selection) -> int:
    """Returns how many answers of each query are looked at: k, or the largest R where mAP@R asks.

    Args:
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
    """
    if not protocol.to_r:
        return protocol.k
    relevant = count_admitted(table, protocol, selection, protocol.relevance)
    return max(protocol.k, int(relevant.max(initial=0)))


def find_neighbours(
    index: EmbeddingIndex,
    table: pd.DataFrame,
    protocol: Protocol,
    selection: Selection,
    query_embeddings: Embeddings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Neighbours:
    """Searches as the protocol says.

    A query is given its k and as many candidates more as its rule leaves out, so that one large
    group costs only those who belong to it. An empty value of a column that the search is
    restricted to is a value like any other.

    Args:
        index: Its row i is ``selection.gallery_rows[i]``.
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        query_embeddings: ``[Q, D] float32``, in the order of ``selection.query_rows``.
        on_progress: Called with (queries answered, Q).

    Raises:
        TypeError: The embeddings are no float32 array.
        ValueError: They are not Q, of another width or not finite, the index holds other items
            than the gallery, or no query can be given k neighbours.
    """
    check_array(query_embeddings, "query", dim=index.dim)
    gallery, queries = selection.gallery_rows, selection.query_rows
    ids = table["item_id"].to_numpy(dtype=object)
    if index.item_ids.tolist() != ids[gallery].tolist():
        raise ValueError(
            f"the index holds {len(index)} item(s) that are not the gallery's {len(gallery)}, in "
            "its order; expected the same: build the index over selection.gallery_rows"
        )
    if len(query_embeddings) != len(queries):
        raise ValueError(
            f"got {len(query_embeddings)} query embeddings for {len(queries)} queries; expected "
            "one a query: embed selection.query_rows"
        )
    looked_at = search_depth(table, protocol, selection)
    excluded_by = EXCLUDED_BY[protocol.exclude]
    keys = equal_codes(table, np.concatenate([gallery, queries]), excluded_by)
    held, own = keys[: len(gallery)], keys[len(gallery) :]  # an item is left out where they equal
    if not excluded_by:
        own = own - 1
    found = Neighbours(
        np.zeros((len(queries), looked_at), dtype=np.int64),
        np.full((len(queries), looked_at), np.inf),
        np.zeros(len(queries), dtype=np.int64),
    )
    done = 0

    def progress(answered: int, _: int) -> None:
        if on_progress is not None:
            on_progress(done + answered, len(queries))

    for part, members in _parts(table, protocol, selection):
        places = np.arange(len(gallery)) if part is None else part
        searched = index if part is None or not len(part) else _sub_index(index, part)
        for depth, batch in _batches(members, held[places], own, looked_at):
            if depth:
                result = searched.search(
                    query_embeddings[batch],
                    depth,
                    query_ids=ids[queries[batch]].tolist(),
                    on_progress=progress,
                )
                _keep_admitted(found, result, batch, places, held, own)
            else:  # nothing to search in
                progress(len(batch), len(batch))
            done += len(batch)
    if not (found.num_found >= protocol.k).any():
        raise ValueError(
            f"protocol.k is {protocol.k}, but no query finds more than "
            f"{int(found.num_found.max(initial=0))} item(s) in this gallery of {len(gallery)}; "
            "lower protocol.k or enlarge the gallery"
        )
    return found


def score(
    table: pd.DataFrame, protocol: Protocol, selection: Selection, neighbours: Neighbours
) -> RetrievalReport:
    """Returns the numbers of what was found.

    Relevance is the protocol's: all its columns equal, none empty. R counts the gallery items that
    are relevant and admitted: within the restriction, without the query or its group.

    Args:
        table: The catalogue's table.
        protocol: The rules; those that decide the search as for `find_neighbours`.
        selection: The sides.
        neighbours: From `find_neighbours`, on the same sides.

    Raises:
        ValueError: The neighbours are of another number of queries or another k.
    """
    gallery, queries = selection.gallery_rows, selection.query_rows
    both = np.concatenate([gallery, queries])
    num, k = len(gallery), protocol.k
    expected = len(queries), search_depth(table, protocol, selection)
    if neighbours.positions.shape != expected:
        raise ValueError(
            f"the neighbours are {neighbours.positions.shape}; expected [Q, k] = {expected}: find "
            "them with this selection and protocol.k"
        )
    found = neighbours.found

    def matches(columns: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Which answers are equal in these columns, and how many admitted items are."""
        codes = equal_codes(table, both, columns, empty_is_none=True)
        same = codes[:num][neighbours.positions] == codes[num:, None]  # [Q, k]
        same &= found & (codes[num:] >= 0)[:, None]
        return same, count_admitted(table, protocol, selection, columns)

    relevance, num_relevant = matches(protocol.relevance)
    admitted = count_admitted(table, protocol, selection)  # [Q]
    levels = [
        matches(protocol.hierarchy[: depth + 1]) for depth in range(len(protocol.hierarchy))
    ] or [(relevance, num_relevant)]
    ids = table["item_id"].to_numpy(dtype=object)
    shown = labels(table, both, protocol.report_by)
    gallery_categories = shown[:num]
    lists = {
        "neighbour_ids": ids[gallery][neighbours.positions],
        "neighbour_categories": gallery_categories[neighbours.positions],
        "neighbour_squared_distances": neighbours.squared_distances,
        "neighbour_relevant": relevance,
    }
    gains: NDArray[np.int64] = np.stack([same for same, _ in levels]).sum(axis=0, dtype=np.int64)
    in_lists = np.minimum(neighbours.num_found, k)
    answers = Answers(
        query_ids=ids[queries].tolist(),
        categories=shown[num:].tolist(),
        groups=table["group"].to_numpy(dtype=object)[queries].tolist(),
        relevance=relevance,
        num_relevant=num_relevant,
        gains=gains[:, :k],
        num_matching=np.stack([count for _, count in levels], axis=1),
        lists={
            name: [row[:count].tolist() for row, count in zip(values, in_lists, strict=True)]
            for name, values in lists.items()
        },
    )
    return build_report(
        answers,
        gallery_categories.tolist(),
        k=k,
        rules=protocol.sentences(),
        counts_the_query=protocol.counts_the_query,
        to_r=protocol.to_r,
        all_relevant=bool(admitted.any() and (num_relevant == admitted).all()),
    )


def count_admitted(
    table: pd.DataFrame, protocol: Protocol, selection: Selection, columns: Sequence[str] = ()
) -> NDArray[np.int64]:
    """Counts what a query may find: within the restriction, without itself or its group.

    Args:
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        columns: Of these only items that are equal in all of them, none of them empty, as
            ``protocol.relevance`` asks; without one all count.

    Returns:
        ``[Q] int64``.
    """
    num = len(selection.gallery_rows)
    both = np.concatenate([selection.gallery_rows, selection.query_rows])
    codes = equal_codes(table, both, columns, empty_is_none=True)
    within = equal_codes(table, both, protocol.restrict_to)
    count = count_equal(num, codes, within)
    if not protocol.counts_the_query:
        own = equal_codes(table, both, EXCLUDED_BY[protocol.exclude])
        count = count - count_equal(num, codes, within, own)
    return np.where(codes[num:] >= 0, count, 0)


def identity(
    table: pd.DataFrame,
    protocol: Protocol,
    selection: Selection,
    content_keys: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> Identity:
    """Returns what two measurements must share before their numbers may be compared.

    Args:
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        content_keys: Gives the pictures' content keys of ``image`` names; without it, pictures are
            not looked at.

    Returns:
        ``gallery``, ``queries``, ``protocol``: SHA-256 (hex) of items (id, pictures and the
        columns that the rules look at) and of the rules; ``protocol_name``, ``protocol_title``,
        ``rules``, ``num_gallery``, ``num_queries``.
    """

    def side(rows: Rows) -> str:
        part = table.iloc[rows].sort_values("item_id")
        columns = ["item_id", "group", *protocol.columns]
        values = [part[column].tolist() for column in dict.fromkeys(columns)]
        pictures = list(content_keys(part["image"].tolist())) if content_keys else []
        return fingerprint(*values, pictures)

    rules = protocol.rules()
    return {
        "gallery": side(selection.gallery_rows),
        "queries": side(selection.query_rows),
        "protocol": fingerprint([f"{name}={value}" for name, value in rules.items()]),
        "protocol_name": protocol.name,
        "protocol_title": protocol.title,
        "rules": rules,
        "num_gallery": len(selection.gallery_rows),
        "num_queries": len(selection.query_rows),
    }


def _parts(
    table: pd.DataFrame, protocol: Protocol, selection: Selection
) -> list[tuple[NDArray[np.int64] | None, NDArray[np.int64]]]:
    """Returns (places of the gallery that are searched, or None for all; queries that search)."""
    num = len(selection.gallery_rows)
    everyone = np.arange(len(selection.query_rows))
    if not protocol.restrict_to:
        return [(None, everyone)]
    both = np.concatenate([selection.gallery_rows, selection.query_rows])
    codes = equal_codes(table, both, protocol.restrict_to)
    return [
        (np.flatnonzero(codes[:num] == code), np.flatnonzero(codes[num:] == code))
        for code in np.unique(codes[num:])
    ]


def _sub_index(index: EmbeddingIndex, places: NDArray[np.int64]) -> EmbeddingIndex:
    embeddings = np.ascontiguousarray(index.embeddings[places])
    return EmbeddingIndex.build(embeddings, index.item_ids[places].tolist(), device="cpu")


def _batches(
    members: NDArray[np.int64], held: NDArray[np.int64], own: NDArray[np.int64], k: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Returns (how deep to search, the queries that do), few enough at a time for memory.

    The depth is k and the gallery items that a query loses, rounded up to a power of two so that
    few depths differ.
    """
    counts = np.bincount(held, minlength=int(own.max(initial=0)) + 1)
    lost = np.where(own >= 0, counts[own], 0)[members]
    wide = np.where(lost > 0, 2 ** np.ceil(np.log2(np.maximum(lost, 1))), 0).astype(np.int64)
    for width in np.unique(wide).tolist():
        depth = min(len(held), k + width)
        asking, step = members[wide == width], max(1, BATCH_PAIRS // max(1, depth))
        for start in range(0, len(asking), step):
            yield depth, asking[start : start + step]


def _keep_admitted(
    found: Neighbours,
    result: NearestItems,
    members: NDArray[np.int64],
    places: NDArray[np.int64],
    held: NDArray[np.int64],
    own: NDArray[np.int64],
) -> None:
    """Writes the first k of each query that are not excluded into ``found``."""
    positions = places[result.rows]  # [q, depth]
    admitted = held[positions] != own[members][:, None]
    first = np.argsort(~admitted, axis=1, kind="stable")[:, : found.positions.shape[1]]  # [q, k]
    depth = first.shape[1]
    count = np.minimum(admitted.sum(axis=1), depth)
    kept = np.arange(depth) < count[:, None]
    found.positions[members, :depth] = np.where(
        kept, np.take_along_axis(positions, first, axis=1), 0
    )
    found.squared_distances[members, :depth] = np.where(
        kept, np.take_along_axis(result.squared_distances, first, axis=1), np.inf
    )
    found.num_found[members] = count
