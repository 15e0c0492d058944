"""The index over a gallery's embeddings: exact neighbours, by id, on top of FAISS."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.atomic import atomic_path
from visual_search.knn.device import Device, place
from visual_search.knn.embeddings import check_array, check_k, check_texts, check_values
from visual_search.knn.exact import common_offset, row_lengths
from visual_search.knn.exact_gallery import Gallery, RoundedSearcher, copies_before, nearest
from visual_search.knn.manifest import (
    INDEX_FILE,
    ITEMS_FILE,
    IndexManifest,
    check_expected,
    check_files,
    read_manifest,
    write_manifest,
)
from visual_search.reading import record_file

MANY_COPIES = 256  # from here on, copies that cannot be among the neighbours are left aside


@dataclass(frozen=True, eq=False)
class NearestItems:
    """The nearest items of each query, in the order in which the queries were asked.

    Attributes:
        query_ids: ``[Q] object`` of str.
        item_ids: ``[Q, K] object`` of str, the nearest first; ties in the order of their ids.
        rows: ``[Q, K] int64``, the items' rows in the index; never -1.
        squared_distances: ``[Q, K] float64``, squared Euclidean, never below 0.

    Raises:
        ValueError: The shapes do not fit together, or a row is negative.
    """

    query_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
    rows: NDArray[np.int64]
    squared_distances: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = (self.item_ids.shape, self.rows.shape, self.squared_distances.shape)
        if len(set(shapes)) > 1 or self.rows.ndim != 2 or self.query_ids.shape != shapes[0][:1]:
            raise ValueError(
                f"query_ids has shape {self.query_ids.shape}, and item_ids, rows and "
                f"squared_distances have {shapes}; expected [Q] and three times [Q, K]: keep the "
                "fields of one search together"
            )
        if self.rows.size and self.rows.min() < 0:
            raise ValueError(
                f"rows holds {int(self.rows.min())}; expected rows of the index, 0 or above: drop "
                "FAISS's padding before it gets here"
            )

    def __len__(self) -> int:
        return len(self.query_ids)

    @property
    def k(self) -> int:
        """Neighbours a query, K."""
        return int(self.rows.shape[1])


class EmbeddingIndex:
    """Finds the nearest items of a gallery; made by `build` or `load`.

    Answers are exact and depend on nothing but the embeddings and ids: not on the gallery's order,
    the other queries of the batch, the number of threads or the device.

    Attributes:
        metric: ``l2``: the nearest has the smallest squared Euclidean distance.
        items: One row an item, ``item_id`` first, then the further columns; row i is row i of the
            gallery.
        device: ``cpu`` or ``gpu``: who answers.
        device_reason: Why.
        gpu_failed: A GPU was wanted, and could not be used.
        manifest: What was written with it, once it was saved or loaded; else None.

    Example:
        >>> gallery = np.array([[0, 0], [3, 4], [0, 1]], dtype=np.float32)
        >>> index = EmbeddingIndex.build(gallery, ["shoe-1", "hat-1", "shoe-2"])
        >>> found = index.search(gallery[:1], k=2, exclude_ids=["shoe-1"])
        >>> found.item_ids.tolist(), found.squared_distances.tolist()
        ([['shoe-2', 'hat-1']], [[1.0, 25.0]])
    """

    metric: Literal["l2"] = "l2"

    def __init__(self, flat: Any, items: pd.DataFrame, device: Device, gpu: int = 0) -> None:
        import faiss

        embeddings = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d)
        embeddings = embeddings.reshape(flat.ntotal, flat.d)  # [N, D], FAISS's own memory
        embeddings.flags.writeable = False
        ids = items["item_id"].tolist()
        check_values(embeddings, ids, "gallery")
        by_id = sorted(range(len(ids)), key=ids.__getitem__)
        id_order = np.empty(len(ids), dtype=np.int64)
        id_order[by_id] = np.arange(len(ids))
        centre = common_offset(embeddings)
        centred = embeddings - centre if centre.any() else embeddings
        self.items = items
        self.manifest: IndexManifest | None = None
        self._flat = flat  # owns the memory of `embeddings`
        self._ids = np.array([*ids, None], dtype=object)[:-1]  # [N]; None keeps it one-dimensional
        self._row_of = {item_id: row for row, item_id in enumerate(ids)}
        self._gallery = Gallery(embeddings, centre, row_lengths(centred), id_order)
        self._copies = copies_before(embeddings, id_order)
        self._thinned: tuple[int, NDArray[np.int64], Gallery, RoundedSearcher] | None = None
        self._cpu = _flat(centred) if centre.any() else flat
        placement = place(self._cpu, self._gallery, device, gpu)
        self._searcher = placement.searcher
        self.device: Literal["cpu", "gpu"] = placement.device
        self.device_reason: str = placement.reason
        self.gpu_failed = placement.gpu_failed

    @classmethod
    def build(
        cls,
        embeddings: NDArray[np.float32],
        item_ids: Sequence[str],
        metric: str = "l2",
        device: Device = "auto",
        *,
        gpu: int = 0,
        columns: Mapping[str, Sequence[str]] | None = None,
    ) -> EmbeddingIndex:
        """Builds the index over a copy of the embeddings.

        Args:
            embeddings: ``[N, D] float32``, finite; N and D at least 1.
            item_ids: N different non-empty ids.
            metric: ``l2``.
            device: ``cpu``, ``gpu``, or ``auto``: a GPU above the size where it pays. Where it
                cannot be used, the CPU answers and `device_reason` says why.
            gpu: Which of the visible GPUs, from 0.
            columns: Further columns of the item table, N texts each, as ``{"category": [...]}``.

        Raises:
            TypeError: ``embeddings`` is not a float32 array, or an id or a column's value no text.
            ValueError: A shape is wrong, an embedding is not finite or longer than 2.3e18, an id
                is empty or stands twice, a column does not fit, or ``metric`` or ``device`` has
                another name.
        """
        if metric != cls.metric:
            raise ValueError(
                f"metric is {metric!r}; expected 'l2': for cosine similarity, scale the embeddings "
                "to unit length first"
            )
        check_array(embeddings, "gallery")
        ids = check_texts(item_ids, len(embeddings), "item_ids")
        if not len(embeddings):
            raise ValueError("the gallery is empty; expected at least one item: check its splits")
        items = pd.DataFrame({"item_id": pd.Series(ids, dtype=object)})
        for name, values in (columns or {}).items():
            if name == "item_id":
                raise ValueError("columns holds 'item_id'; expected further columns: rename it")
            texts = check_texts(values, len(ids), f"column {name!r}", may_be_empty=True)
            items[name] = pd.Series(texts, dtype=object)
        return cls(_flat(embeddings), items, device, gpu)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude_ids: Sequence[str] | None = None,
        *,
        query_ids: Sequence[str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NearestItems:
        """Finds the k nearest items of each query, by (squared distance, item id).

        Args:
            queries: ``[Q, D] float32``, finite.
            k: Neighbours a query.
            exclude_ids: One id a query, which never appears in that query's neighbours, whatever
                its distance; an id that is not in the gallery excludes nothing.
            query_ids: One id a query; by default ``exclude_ids``, or else "0", "1", ...
            on_progress: Called with (queries answered, Q).

        Returns:
            K = k neighbours for each query, in the order of ``queries``.

        Raises:
            TypeError: ``queries`` is not a float32 array, ``k`` no integer, or an id no text.
            ValueError: A shape is wrong, a query is not finite or longer than 2.3e18, or ``k`` is
                below 1 or above what the gallery can give.
        """
        k = check_k(k)
        check_array(queries, "query", dim=self.dim)
        excluded = np.full(len(queries), -1, dtype=np.int64)
        if exclude_ids is not None:
            ids = check_texts(exclude_ids, len(queries), "exclude_ids", may_be_empty=True)
            excluded[:] = [self._row_of.get(item_id, -1) for item_id in ids]
        if query_ids is None:
            query_ids = [str(n) for n in range(len(queries))] if exclude_ids is None else ids
        asked = check_texts(query_ids, len(queries), "query_ids")
        check_values(queries, asked, "query")
        available = len(self) - int((excluded >= 0).any())
        if k > available:
            without = " once the query itself is excluded" if available < len(self) else ""
            raise ValueError(
                f"k is {k}, but this gallery of {len(self)} item(s) can give {available}{without}; "
                "lower k or enlarge the gallery"
            )
        rows, squared = self._nearest(np.ascontiguousarray(queries), k, excluded, on_progress)
        if failure := getattr(self._searcher, "failure", ""):
            self.device, self.device_reason, self.gpu_failed = "cpu", failure, True
        return NearestItems(
            query_ids=np.array([*asked, None], dtype=object)[:-1],
            item_ids=self._ids[rows],
            rows=rows,
            squared_distances=squared,
        )

    def leave_gpu(self) -> None:
        """Returns a card's memory back; the CPU answers from here on, with the same answers."""
        self._searcher = self._cpu

    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        excluded: NDArray[np.int64],
        on_progress: Callable[[int, int], None] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if self._copies.max() < max(k + 1, MANY_COPIES):
            return nearest(self._gallery, self._searcher, queries, k, excluded, on_progress)
        if self._thinned is None or self._thinned[0] != k:
            kept = np.flatnonzero(self._copies <= k)  # k + 1 of each, by id
            gallery = self._gallery.take(kept)
            self._thinned = (k, kept, gallery, _flat(gallery.embeddings - gallery.centre))
        _, kept, gallery, searcher = self._thinned
        place_of = np.full(len(self) + 1, -1, dtype=np.int64)  # the last place answers for row -1
        place_of[kept] = np.arange(len(kept))
        rows, squared = nearest(gallery, searcher, queries, k, place_of[excluded], on_progress)
        return kept[rows], squared

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        model_hash: str | None = None,
        preprocessing_hash: str | None = None,
        embedding_hash: str | None = None,
    ) -> IndexManifest:
        """Writes ``index.faiss``, ``items.parquet`` and, last, ``manifest.json``.

        Args:
            folder: Where to; made if missing.
            model_hash: Names the weights that made the embeddings.
            preprocessing_hash: Names the way from picture to network input.
            embedding_hash: Names the way from the network's values to the embedding.

        Returns:
            The manifest, with the sizes on disk.
        """
        import faiss
        import pyarrow as pa

        target = Path(folder)
        with atomic_path(target / INDEX_FILE) as temporary:
            faiss.write_index(self._flat, str(temporary))
        with atomic_path(target / ITEMS_FILE) as temporary:
            self.items.to_parquet(temporary, index=False)
        self.manifest = IndexManifest(
            metric=self.metric,
            dim=self.dim,
            count=len(self),
            model_hash=model_hash,
            preprocessing_hash=preprocessing_hash,
            embedding_hash=embedding_hash,
            versions={
                "faiss": faiss.__version__,
                "numpy": np.__version__,
                "pandas": pd.__version__,
                "pyarrow": pa.__version__,
            },
            files={name: record_file(target / name) for name in (INDEX_FILE, ITEMS_FILE)},
        )
        write_manifest(self.manifest, target)
        return self.manifest

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        expected_model_hash: str | None = None,
        expected_preprocessing_hash: str | None = None,
        expected_embedding_hash: str | None = None,
        expected_dim: int | None = None,
        expected_count: int | None = None,
        device: Device = "auto",
    ) -> EmbeddingIndex:
        """Opens a saved index, and refuses one that is damaged or belongs to something else.

        Args:
            folder: Where `save` wrote it.
            expected_model_hash: Refuse another; None asks nothing, as for the following.
            expected_preprocessing_hash: Refuse another.
            expected_embedding_hash: Refuse another.
            expected_dim: Refuse another embedding width.
            expected_count: Refuse another number of items.
            device: As in `build`.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file was changed, or does not hold what the manifest says, or the
                manifest does not say what is expected.
        """
        import faiss

        source = Path(folder)
        manifest = read_manifest(source)
        expected = {
            "metric": cls.metric,
            "dim": expected_dim,
            "count": expected_count,
            "model_hash": expected_model_hash,
            "preprocessing_hash": expected_preprocessing_hash,
            "embedding_hash": expected_embedding_hash,
        }
        check_expected(manifest, source, expected)
        check_files(manifest, source)
        try:
            flat = faiss.read_index(str(source / INDEX_FILE))
            items = pd.read_parquet(source / ITEMS_FILE).astype(object)
            if type(flat) is not faiss.IndexFlatL2:
                raise ValueError(f"{INDEX_FILE} holds a {type(flat).__name__}, not an IndexFlatL2")
            if (flat.ntotal, flat.d) != (manifest.count, manifest.dim):
                raise ValueError(f"{INDEX_FILE} holds {flat.ntotal} embeddings of {flat.d}")
            check_texts(items["item_id"].tolist(), manifest.count, "item_id")
            index = cls(flat, items, device)
        except (RuntimeError, ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(
                f"the index in {source} cannot be used: {error}; expected {manifest.count} "
                f"embedding(s) of {manifest.dim} numbers with their ids: build and save it again"
            ) from error
        index.manifest = manifest
        return index

    def __len__(self) -> int:
        return len(self._gallery)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._row_of

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return int(self._gallery.embeddings.shape[1])

    @property
    def item_ids(self) -> NDArray[np.object_]:
        """The ids in row order, ``[N] object`` of str."""
        return self._ids.copy()

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The gallery's embeddings, ``[N, D] float32``, read-only."""
        return self._gallery.embeddings

    @property
    def num_bytes(self) -> int:
        """Size of the embeddings, ``4 N D`` bytes; `manifest` has the sizes on disk."""
        return self._gallery.embeddings.nbytes

    @property
    def bytes_per_item(self) -> float:
        """Size of one embedding, ``4 D`` bytes; `manifest` has what an item costs on disk."""
        return self.num_bytes / len(self)


def _flat(embeddings: NDArray[np.float32]) -> Any:
    import faiss

    flat = faiss.IndexFlatL2(embeddings.shape[1])
    flat.add(np.ascontiguousarray(embeddings))
    return flat
