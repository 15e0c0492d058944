"""A search among a million embeddings: built, tuned to its recall, against raw FAISS, in one run.

``python benchmarks/large_index.py --folder scratch [--num-items 1000000] [--num-threads 2]``

The embeddings are drawn, seeded: a mixture of many clusters within categories, with noise, on the
unit sphere. They, the exact answers and the index stay in the folder, so that a run that was
stopped goes on where it was; ``--fresh`` starts again. Raw FAISS is the same index object, asked
for the same k with the same parameters in turns with ours; it compares rounded codes, ours
compares the candidates' exact embeddings after it, and its recall is better for that. ``refined``
is FAISS's own way to the same answer: `IndexRefineFlat`, exact embeddings in memory, the same
number of candidates.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from visual_search.atomic import atomic_path, write_text
from visual_search.knn.engine import candidate_rows, faiss_threads, load_faiss
from visual_search.knn.exact_store import ExactSearcher
from visual_search.knn.indexes import build_index, load_index
from visual_search.knn.plan import SearchPlan
from visual_search.knn.search_index import SearchIndex
from visual_search.knn.store import ArrayStore
from visual_search.runs.machine import processor_facts
from visual_search.runs.run import environment

BLOCK = 10_000  # items drawn at a time, each block from its own seed
QUERY_BLOCK = 2**31  # the number of the block that the queries are, beyond all items
ITEMS_A_CLUSTER, NUM_CATEGORIES = 250, 100
DECAY = 0.5  # the j-th direction has a spread of j^-0.5, as learned embeddings have few that matter
CATEGORY, CLUSTER, NOISE = 1.0, 0.8, 0.6  # spreads
K = 10
AIM_RECALL, AIM_OVERHEAD = 0.95, 1.2


class Mixture:
    """Draws embeddings of categories and clusters, ``[n, D] float32`` of unit length."""

    def __init__(self, num_items: int, dim: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seed, self.dim = seed, dim
        self.spread = (np.arange(1, dim + 1) ** -DECAY).astype(np.float32)
        rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        self.rotation = rotation.astype(np.float32)
        num_clusters = max(NUM_CATEGORIES, num_items // ITEMS_A_CLUSTER)
        self.category_of = rng.integers(0, NUM_CATEGORIES, num_clusters)
        categories = rng.standard_normal((NUM_CATEGORIES, dim), dtype=np.float32)
        clusters = rng.standard_normal((num_clusters, dim), dtype=np.float32)
        self.centres = CATEGORY * categories[self.category_of] + CLUSTER * clusters

    def draw(self, block: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Returns the embeddings of a block and their categories."""
        rng = np.random.default_rng([self.seed, block])
        cluster = rng.integers(0, len(self.centres), count)
        drawn = self.centres[cluster] + NOISE * rng.standard_normal(
            (count, self.dim), dtype=np.float32
        )
        embeddings = (drawn * self.spread) @ self.rotation
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        return embeddings.astype(np.float32), self.category_of[cluster]


class MemoryPeak:
    """The most memory of this process inside the block: its own, and with mapped files."""

    def __init__(self) -> None:
        self.own = self.resident = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
            sizes = {line.split(":")[0]: line.split()[1] for line in lines if "kB" in line}
            self.own = max(self.own, int(sizes["RssAnon"]) * 1024)
            self.resident = max(self.resident, int(sizes["VmRSS"]) * 1024)
            if self._over.wait(0.05):
                return

    def to_json(self) -> dict[str, int]:
        """Returns both in bytes."""
        return {"peak_own_bytes": self.own, "peak_with_mapped_files_bytes": self.resident}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def progress(what: str, every_s: float = 10) -> Callable[[int, int], None]:
    last = time.monotonic()

    def note(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > every_s:
            last = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")

    return note


def make_embeddings(path: Path, mixture: Mixture, num_items: int) -> None:
    """Writes the items' embeddings and, beside them, their categories."""
    note = progress("draw")
    categories = np.empty(num_items, dtype=np.int64)
    with atomic_path(path) as temporary:
        shape = (num_items, mixture.dim)
        array: np.memmap[Any, Any] = open_memmap(temporary, "w+", np.float32, shape)
        for start in range(0, num_items, BLOCK):
            stop = min(start + BLOCK, num_items)
            array[start:stop], categories[start:stop] = mixture.draw(start // BLOCK, stop - start)
            note(stop, num_items)
        array.flush()
        np.save(path.with_name("categories.npy"), categories)


def recall_of(rows: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Returns the share of the exact neighbours that was found.

    Example:
        >>> recall_of(np.array([[1, 2]]), np.array([[2, 3]]))
        0.5
    """
    hits = [len(set(found) & set(wanted)) for found, wanted in zip(rows, exact, strict=True)]
    return float(sum(hits) / exact.size)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Returns p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50_ms": float(1000 * p50), "p99_ms": float(1000 * p99)}


def raw_search(index: SearchIndex, num_threads: int) -> Callable[[NDArray[np.float32]], Any]:
    """Returns raw FAISS's own search with the parameters that ours was tuned to."""
    faiss, params = load_faiss(), index.plan.params
    if index.plan.kind == "flat":
        raw = faiss.IndexFlatL2(index.dim)
        for _, block in index.store.blocks(BLOCK):
            raw.add(np.ascontiguousarray(block))
        options = None
    else:
        raw = index._index  # type: ignore[attr-defined]
        if index.plan.kind == "hnsw":
            options = faiss.SearchParametersHNSW(efSearch=params["ef_search"])
        else:
            options = faiss.SearchParametersIVF(nprobe=params["num_probes"])

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        with faiss_threads(num_threads):
            return candidate_rows(raw, queries, K, options)

    return search


def refined_search(
    index: SearchIndex, num_threads: int
) -> Callable[[NDArray[np.float32]], Any] | None:
    """Returns raw FAISS with exact distances, as ours has them; None for a flat index."""
    if index.plan.kind == "flat":
        return None
    faiss, params = load_faiss(), index.plan.params
    codes = index._index  # type: ignore[attr-defined]
    embeddings = index.store.take(np.arange(len(index)))
    refined = faiss.IndexRefineFlat(codes, faiss.swig_ptr(embeddings))  # copies them
    del embeddings
    if index.plan.kind == "hnsw":
        among = faiss.SearchParametersHNSW(efSearch=params["ef_search"])
    else:
        among = faiss.SearchParametersIVF(nprobe=params["num_probes"])
    factor = params["num_candidates"] / index.plan.recall_k
    options = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=among)

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        with faiss_threads(num_threads):
            return candidate_rows(refined, queries, K, options)

    return search


def time_in_turns(
    ways: dict[str, Callable[[NDArray[np.float32]], Any]],
    queries: NDArray[np.float32],
    batch: int,
    rounds: int,
) -> dict[str, Any]:
    """Times each way on the same batches, one after the other, and gives their percentiles.

    An overhead is the median over the batches of ours divided by another way on that batch: a
    machine that is busy for a while is busy for both.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for _ in range(rounds):
        for number, start in enumerate(range(0, len(queries) - batch + 1, batch)):
            part = queries[start : start + batch]
            for name in names if number % 2 else names[::-1]:  # nobody always finds a warm cache
                begin = time.perf_counter()
                ways[name](part)
                seconds[name].append(time.perf_counter() - begin)
    ours = np.array(seconds["ours"])
    return {
        "batch_size": batch,
        "num_batches": len(ours),
        **{name: percentiles(times) for name, times in seconds.items()},
        "overhead": {
            name: float(np.median(ours / times))
            for name, times in seconds.items()
            if name != "ours"
        },
    }


def prepare(arguments: argparse.Namespace) -> tuple[ArrayStore, NDArray[np.float32]]:
    """Draws what is not there yet; gives the store and the queries."""
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    names = ("num_items", "dim", "seed", "kind", "max_bytes", "num_threads")
    settings = json.dumps({name: getattr(arguments, name) for name in names})
    note = folder / "settings.json"
    if arguments.fresh or not note.exists() or note.read_text() != settings:
        for name in ("embeddings.npy", "exact.npy", "index.faiss", "built.json"):
            (folder / name).unlink(missing_ok=True)
    write_text(note, settings)
    mixture = Mixture(arguments.num_items, arguments.dim, arguments.seed)
    path = folder / "embeddings.npy"
    if not path.exists():
        make_embeddings(path, mixture, arguments.num_items)
    return ArrayStore(np.load(path, mmap_mode="r")), mixture.draw(QUERY_BLOCK, 1000)[0]


def built(arguments: argparse.Namespace, store: ArrayStore) -> tuple[SearchIndex, dict[str, Any]]:
    """Builds and saves the index, or takes over what a stopped run left."""
    path, note = arguments.folder / "index.faiss", arguments.folder / "built.json"
    if not note.exists():
        begin = time.perf_counter()
        with MemoryPeak() as peak:
            index = build_index(
                store,
                arguments.kind,
                target_recall=AIM_RECALL,
                max_bytes=arguments.max_bytes,
                num_threads=arguments.num_threads,
                on_progress=progress("build"),
            )
        numbers = {"seconds": time.perf_counter() - begin, **peak.to_json()}
        index.save(path)
        write_text(note, json.dumps({"plan": index.plan.to_json(), "build": numbers}))
    found = json.loads(note.read_text())
    plan = SearchPlan.from_json(found["plan"])
    begin = time.perf_counter()
    index = load_index(
        path if path.exists() else None, store, plan, num_threads=arguments.num_threads
    )
    numbers = {
        **found["build"],
        "load_seconds": time.perf_counter() - begin,
        "index_bytes": index.num_bytes,
        "file_bytes": path.stat().st_size if path.exists() else 0,
        "embedding_bytes": 4 * len(store) * store.dim,
    }
    return index, numbers


def exact_answers(arguments: argparse.Namespace, store: ArrayStore, queries: Any) -> Any:
    path = arguments.folder / "exact.npy"
    if not path.exists():
        say("exact answers")
        with atomic_path(path) as temporary:
            np.save(temporary, ExactSearcher(store).nearest(queries, K)[0])
    return np.load(path)


def restricted(index: SearchIndex, queries: Any, categories: Any) -> list[dict[str, Any]]:
    """Times and checks searches among some of the items; each is exactly K long."""
    exact = ExactSearcher(index.store)
    rng = np.random.default_rng(0)
    removed = rng.random(len(index)) >= 0.01
    masks = {
        "1% of the items removed": removed,
        "one category of 100": categories == np.bincount(categories).argmax(),
        "20 categories of 100": categories < 20,
    }
    found = []
    for name, allowed in masks.items():
        wanted, _ = exact.nearest(queries, K, allowed)
        rows, _ = index.search(queries, K, allowed)
        assert rows.shape == wanted.shape
        assert allowed[rows].all()
        seconds = []
        for query in queries:
            begin = time.perf_counter()
            index.search(query[None], K, allowed)
            seconds.append(time.perf_counter() - begin)
        found.append(
            {
                "allowed": name,
                "num_allowed": int(allowed.sum()),
                "recall_at_10": recall_of(rows, wanted),
                "one_query": percentiles(seconds),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="scratch, 3 GB at a million")
    parser.add_argument("--num-items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kind", default="auto")
    parser.add_argument("--max-bytes", type=int, help="memory for the index; default: half of free")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="take nothing over")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    arguments = parser.parse_args()
    store, queries = prepare(arguments)
    say(f"{len(store):,} embeddings of {store.dim}")
    index, build = built(arguments, store)
    plan = index.plan
    say(f"{plan.kind} {dict(plan.params)}: {plan.reason}")
    say(f"built in {build['seconds']:.0f} s, sample recall@10 {plan.recall}")
    truth = exact_answers(arguments, store, queries)
    raw = raw_search(index, arguments.num_threads)

    def ours(part: NDArray[np.float32]) -> NDArray[np.int64]:
        return index.search(part, K)[0]

    ways = {"raw": raw, "ours": ours}
    refined = refined_search(index, arguments.num_threads)
    if refined is not None:
        ways["refined"] = refined
    recall = {name: recall_of(way(queries), truth) for name, way in ways.items()}
    with MemoryPeak() as peak:
        timings = [
            time_in_turns(ways, queries, batch, 1 if batch == 1 else arguments.rounds)
            for batch in (1, 32, 1000)
        ]
        categories = np.load(arguments.folder / "categories.npy")
        among = restricted(index, queries[:200], categories)
    for timing in timings:
        for name in ways:
            print(
                f"batch {timing['batch_size']:>5}: {name} p50 {timing[name]['p50_ms']:.2f} p99 "
                f"{timing[name]['p99_ms']:.2f} ms"
                + (f", ours / {name} {timing['overhead'][name]:.3f}" if name != "ours" else "")
            )
    for case in among:
        print(
            f"{case['allowed']} ({case['num_allowed']:,}): recall@10 {case['recall_at_10']:.3f}, "
            f"one query p50 {case['one_query']['p50_ms']:.2f} ms"
        )
    found = ", ".join(f"{name} {value:.4f}" for name, value in recall.items())
    print(f"recall@10 of 1,000 queries: {found}")
    print(
        f"index {build['index_bytes'] / 2**20:.0f} MiB; peak own memory, build "
        f"{build['peak_own_bytes'] / 2**20:.0f} MiB, search {peak.own / 2**20:.0f} MiB"
    )
    print(f"aims: recall@10 at least {AIM_RECALL}, ours / raw at most {AIM_OVERHEAD}")
    if arguments.json:
        command = f"python benchmarks/large_index.py --folder scratch --num-items {len(store)}"
        command += f" --dim {store.dim} --kind {arguments.kind} --seed {arguments.seed}"
        command += f" --num-threads {arguments.num_threads} --rounds {arguments.rounds}"
        command += f" --max-bytes {arguments.max_bytes}" if arguments.max_bytes else ""
        numbers = {
            "command": command,
            "seed": arguments.seed,
            "num_items": len(store),
            "dim": store.dim,
            "num_threads": arguments.num_threads,
            "plan": plan.to_json(),
            "build": build,
            "recall_at_10": recall,
            "num_queries": len(queries),
            "search": timings,
            "restricted": among,
            "search_memory": peak.to_json(),
            "environment": processor_facts() | {"packages": environment()["packages"]},
        }
        write_text(arguments.json, json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
