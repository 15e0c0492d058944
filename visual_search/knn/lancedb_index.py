"""The kind ``lancedb``: candidates from a LanceDB table, exact distances from the store.

LanceDB is embedded: no server, a folder of files that are never changed after they were written.
The table holds row numbers and a copy of the embeddings. Every write to it is a new version, and
the plan names the one that an index belongs to (``params["version"]``): a writer that is killed
leaves files that no version names, or a version that no plan names, and readers see neither.

Below `MIN_INDEXED` rows the table has no vector index, LanceDB scans it, and answers are exact.
Above, it has ``IVF_HNSW_SQ`` (one graph, a byte a number) up to `MAX_GRAPH_ROWS` rows, and
``IVF_PQ`` (lists, a byte for about four numbers) beyond.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from visual_search.atomic import scratch_folder
from visual_search.knn.exact import MARGIN, tolerance
from visual_search.knn.exact_store import rank_candidates
from visual_search.knn.lancedb_table import (
    EMBEDDING,
    NUM_LINKS,
    ROW,
    TABLE,
    Scratch,
    check_same_embeddings,
    create_index,
    flush,
    load_lancedb,
    reader_of,
    schema_of,
    structure_for,
)
from visual_search.knn.plan import SearchPlan
from visual_search.knn.search_index import CHECK_ROWS, Progress, SearchIndex
from visual_search.knn.store import EmbeddingStore, blocks_from
from visual_search.knn.tuning import efforts, hold_out, tuned_plan

HINT_FILE = "latest_version_hint.json"  # the one file that is overwritten; LanceDB does without it
MAX_EF = 2048
EXACT_ROWS = 20_000  # comparing so many allowed rows exactly takes as long as LanceDB takes
MAX_FETCH = 2**14  # candidates a query; where they do not suffice, the store is searched
BATCH_QUERIES = 256


if TYPE_CHECKING:
    from lancedb.table import Table


class LanceIndex(SearchIndex):
    """Lets LanceDB propose candidates and ranks them by the exact embeddings.

    LanceDB runs as many threads as there are cores, or as ``LANCE_CPU_THREADS`` in the environment
    says; ``num_threads`` counts for what is compared outside of it. Its training draws its own
    random numbers: two builds may differ in their answers. A forked process cannot search.

    Args:
        store: The N exact embeddings.
        plan: How it was built and how far it looks.
        table: LanceDB's, at the plan's version.
        folder: Where the table lies.
        scratch: Removed with the last index that uses it; None once the index was saved.
        num_threads: As in `SearchIndex`.
    """

    def __init__(
        self,
        store: EmbeddingStore,
        plan: SearchPlan,
        table: Any,
        folder: Path,
        scratch: Scratch | None = None,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(store, plan, num_threads)
        self.folder = folder
        self._table = table
        self._scratch = scratch
        self._leave_scratch = None if scratch is None else scratch.used_by(self)

    @classmethod
    def made(
        cls,
        store: EmbeddingStore,
        kind: str,
        reason: str,
        *,
        target_recall: float,
        recall_k: int,
        num_threads: int | None,
        on_progress: Progress | None,
    ) -> Self:
        """Writes a table, indexes and tunes it, see `build_index` of `search_index`.

        It lies in the folder of temporary files (``TMPDIR``) until it is saved.

        Raises:
            ValueError: LanceDB is not installed, the store is empty, or it holds an embedding that
                is not finite or longer than 2.3e18.
        """
        lancedb = load_lancedb()
        if not len(store):
            raise ValueError(
                "the store is empty; expected at least one embedding for lancedb: use flat or auto"
            )
        for _ in blocks_from(store, 0, CHECK_ROWS):
            pass  # a value that is refused is named before anything is written
        scratch = Scratch()
        folder = scratch.folder
        structure = structure_for(len(store))
        plan = SearchPlan(
            kind,
            f"{reason}; LanceDB {lancedb.__version__}, {structure or 'scanned'}",
            {"num_rows": len(store), "version": 1},
            target_recall=target_recall,
            recall_k=recall_k,
            num_trained_rows=len(store),
        )
        held_out = hold_out(store, recall_k) if structure else None
        left_out = np.zeros(len(store), dtype=np.bool_)
        if held_out is not None:
            left_out[held_out.rows] = True
        table = lancedb.connect(folder).create_table(
            TABLE, data=reader_of(store, 0, ~left_out, on_progress), schema=schema_of(store.dim)
        )
        index = cls(store, plan, table, folder, scratch, num_threads)
        if held_out is not None:
            params = create_index(table, structure, len(store), store.dim)
            index.plan = replace(plan, params={**plan.params, **params})
            is_graph = structure == "IVF_HNSW_SQ"
            index.plan = tuned_plan(
                kind,
                index.plan.reason,
                index.plan.params,
                store,
                held_out,
                # A graph is asked for no more than the walk keeps: more would make it walk further.
                lambda queries, effort, count: index._propose(
                    queries, effort, min(count, effort) if is_graph else count
                )[0],
                efforts(16, MAX_EF) if is_graph else efforts(1, int(params["num_partitions"])),
                effort_name="effort",
                target_recall=target_recall,
                recall_k=recall_k,
                max_factor=4 if is_graph else 64,
                bytes_per_effort=(
                    2.0 * NUM_LINKS * store.dim
                    if is_graph
                    else len(store) / params["num_partitions"] * params["num_parts"]
                ),
            )
            table.add(reader_of(store, 0, left_out))
        index._at_version(int(table.version))
        return index

    @classmethod
    def opened(
        cls,
        path: str | os.PathLike[str],
        store: EmbeddingStore,
        plan: SearchPlan,
        num_threads: int | None,
    ) -> Self:
        """Opens a folder at the version that the plan names, see `load_index`.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: LanceDB is not installed, or the folder holds no table of this version, or
                one of other embeddings.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}: build the index, save it there")
        lancedb = load_lancedb()
        try:
            table = lancedb.connect(folder).open_table(TABLE)
            table.checkout(int(plan.params["version"]))
            check_same_embeddings(table, int(plan.params["num_rows"]), store)
        except (ValueError, RuntimeError, OSError, KeyError) as error:
            raise ValueError(
                f"the LanceDB table in {folder} cannot be used: {str(error)[:300]}; expected "
                f"version {plan.params.get('version')} with {plan.params.get('num_rows')} rows of "
                "the store: build and save it again"
            ) from error
        return cls(store, plan, table, folder, None, num_threads)

    @property
    def num_bytes(self) -> int:
        """Size of the vector index, which LanceDB reads into memory as it is asked."""
        return sum(int(found.size_bytes or 0) for found in self._table.list_indices())

    def _twin(self) -> Self:
        # New rows are compared one by one; `save` writes them into the table.
        return type(self)(
            self.store, self.plan, self._table, self.folder, self._scratch, self.num_threads
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a folder, or, into the folder that it was opened from, a further version.

        A new folder appears whole or not at all; in its own folder no file of an older version is
        changed. `plan` names the version that was written: keep it after saving.

        Raises:
            FileExistsError: Something else is at ``path``.
        """
        lancedb = load_lancedb()
        target = Path(path)
        if not target.exists():
            with scratch_folder(target.parent, target.name) as scratch:
                temporary = shutil.copytree(self.folder, scratch / "new")
                version = self._write_late_rows(lancedb.connect(temporary).open_table(TABLE))
                (temporary / f"{TABLE}.lance" / "_versions" / HINT_FILE).unlink(missing_ok=True)
                flush(temporary)
                os.rename(temporary, target)
        elif target.resolve() == self.folder.resolve():
            version = self._write_late_rows(lancedb.connect(target).open_table(TABLE))
            flush(target)
        else:
            raise FileExistsError(
                f"{target} exists; expected no such folder, or {self.folder}, where this index "
                "lies: give another path"
            )
        self._table = lancedb.connect(target).open_table(TABLE)
        self.folder, self._scratch = target, None
        if self._leave_scratch is not None:
            self._leave_scratch()
        self._at_version(version)

    def _write_late_rows(self, table: Table) -> int:
        """Adds what the table lacks, and gives the version that has it."""
        version, known = int(self.plan.params["version"]), self._num_known
        if known == len(self):
            return version
        if int(table.version) != version:  # a writer was killed before its plan was kept
            table.checkout(version)
            table.restore()
        table.add(reader_of(self.store, known, np.ones(len(self), dtype=np.bool_)))
        self.plan = replace(self.plan, params={**self.plan.params, "num_rows": len(self)})
        return int(table.version)

    def _at_version(self, version: int) -> None:
        self._table.checkout(version)
        self.plan = replace(self.plan, params={**self.plan.params, "version": version})

    @property
    def _num_known(self) -> int:
        """Rows of the table; those of the store from there on came later."""
        return int(self.plan.params["num_rows"])

    def _nearest(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
        num_allowed: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        is_exact = "num_candidates" not in self.plan.params
        count = k + MARGIN
        if not is_exact:
            count = math.ceil(k * self.plan.params["num_candidates"] / self.plan.recall_k)
        if allowed is not None and (is_exact or num_allowed <= max(EXACT_ROWS, 2 * count)):
            return self._exact.nearest(queries, k, allowed)
        late = np.arange(len(self)) >= self._num_known
        if allowed is not None:
            late &= allowed
        num_late = int(np.count_nonzero(late))
        wanted = min(count, num_allowed - num_late)  # candidates that are to be allowed
        rows = np.empty((len(queries), k), dtype=np.int64)
        squared = np.empty((len(queries), k))
        pending = np.arange(len(queries))
        # If those that are allowed lie evenly, so many candidates hold enough of them.
        fetch = math.ceil(count * len(self) / num_allowed)
        effort = int(self.plan.params.get("effort", 1))
        while len(pending) and fetch <= min(MAX_FETCH, self._num_known):
            asked = queries[pending]
            candidates, worst = self._propose(asked, effort, fetch)
            if allowed is not None:
                candidates[~allowed[candidates]] = -1  # -1 stays: it is the last row's turn
            settled = np.count_nonzero(candidates >= 0, axis=1) >= wanted
            if num_late:
                newest, _ = self._exact.nearest(asked, min(k, num_late), late)
                candidates = np.concatenate([candidates, newest], axis=1)
            best, exact = rank_candidates(
                self.store, asked, candidates, min(k, candidates.shape[1])
            )
            settled &= best[:, -1] >= 0 if best.shape[1] == k else False
            if is_exact:  # a row that was not fetched is at least as far as the worst that was
                error = tolerance(np.ones(1), self.dim)[0]
                settled &= worst * (1 - error) > exact[:, -1]
            rows[pending[settled]], squared[pending[settled]] = best[settled], exact[settled]
            pending = pending[~settled]
            fetch, effort = 4 * fetch, 2 * effort
        if len(pending):
            rows[pending], squared[pending] = self._exact.nearest(queries[pending], k, allowed)
        return rows, squared

    def _propose(
        self, queries: NDArray[np.float32], effort: int, count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Returns LanceDB's candidates ``[Q, count] int64``, the nearest first, -1 at a short end.

        Beside them, ``[Q] float64``, its rounded squared distance of the last one.

        Args:
            queries: ``[Q, D] float32``.
            effort: Lists to look into, or how far to walk in the graph; a scan ignores it.
            count: Candidates a query.
        """
        rows = np.full((len(queries), count), -1, dtype=np.int64)
        worst = np.full(len(queries), -np.inf)
        for start in range(0, len(queries), BATCH_QUERIES):
            asked = queries[start : start + BATCH_QUERIES]
            search = self._table.search(asked, vector_column_name=EMBEDDING)
            search = search.distance_type("l2").select([ROW, "_distance"]).limit(count)
            if "num_parts" in self.plan.params:
                search = search.nprobes(min(effort, int(self.plan.params["num_partitions"])))
            elif "num_links" in self.plan.params:
                search = search.ef(max(effort, count))
            answer = search.to_arrow()
            found, distances = answer[ROW].to_numpy(), answer["_distance"].to_numpy()
            of_query = np.zeros(len(found), dtype=np.int64)  # one query alone is not numbered
            if "query_index" in answer.column_names:
                of_query = answer["query_index"].to_numpy().astype(np.int64)
            order = np.lexsort((distances, of_query))
            counts = np.bincount(of_query, minlength=len(asked))
            place = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
            rows[start + of_query[order], place] = found[order]
            np.maximum.at(worst, start + of_query, distances.astype(np.float64))
        return rows, worst
