"""Vector databases beside exact search and the bundle's own index, on the same drawn embeddings.

``python -m benchmarks.vector_databases --num-items 12225 --out results.json
pgvector=postgresql://shop@localhost/shop milvus=http://localhost:19530 lancedb=/tmp/lancedb``

Each address is a running server's (a folder, for LanceDB); the collection ``benchmark`` in it is
made anew. What the file of results has of other databases, by the same settings, stays there. The
embeddings are drawn as in ``large_index.py``: clusters within categories, unit
length. A filter's rows are drawn at random, whatever the cluster, so that the nearest rows mostly
do not fulfil it: the hard case for a graph. Each question is one query for the 10 nearest, as a
search server asks it, through `VectorDatabase.search` or `SearchIndex.search`, the way over the
network included. ``clients`` threads ask at the same time; p50 and p99 are of single questions.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.large_index import BLOCK, QUERY_BLOCK, Mixture, say
from visual_search.atomic import write_text
from visual_search.databases.database import CollectionFacts, VectorDatabase
from visual_search.databases.labels import label
from visual_search.databases.opening import open_database
from visual_search.databases.pushing import push
from visual_search.knn.indexes import build_index
from visual_search.knn.store import ArrayStore
from visual_search.runs.machine import processor_facts
from visual_search.runs.run import environment

K = 10
SHARES = (1.0, 0.1, 0.01, 0.001)  # of the items that a filter lets through
NUM_CLIENTS = (1, 16)
Search = Callable[[NDArray[np.float32]], Sequence[int]]  # [1, D] -> rows


class Drawn:
    """The items, as `pushing.push` takes them, and what each filter lets through.

    Attributes:
        embeddings: ``[N, D] float32``.
        allowed: A filter's share of the items -> ``[N] bool``.
    """

    def __init__(self, num_items: int, dim: int, num_queries: int, seed: int) -> None:
        mixture = Mixture(num_items, dim, seed)
        self.facts = CollectionFacts("drawn", "drawn", "drawn", dim)
        self.embeddings = np.empty((num_items, dim), np.float32)
        for start in range(0, num_items, BLOCK):
            stop = min(start + BLOCK, num_items)
            self.embeddings[start:stop] = mixture.draw(start // BLOCK, stop - start)[0]
        self.queries = mixture.draw(QUERY_BLOCK, num_queries)[0]
        rng = np.random.default_rng(seed)
        self.allowed = {share: rng.random(num_items) < share for share in SHARES}

    def __len__(self) -> int:
        return len(self.embeddings)

    def blocks(
        self,
    ) -> Iterator[tuple[Sequence[str], Mapping[str, Sequence[str]], NDArray[np.float32]]]:
        """Returns (ids, columns of texts, embeddings) some at a time; an id is a row's number."""
        for start in range(0, len(self), 4_096):
            rows = range(start, min(start + 4_096, len(self)))
            columns = {
                str(share): ["yes" if allowed[row] else "" for row in rows]
                for share, allowed in self.allowed.items()
                if share < 1
            }
            yield list(map(str, rows)), columns, self.embeddings[rows.start : rows.stop]


def measured(search: Search, queries: NDArray[np.float32], clients: int) -> dict[str, float]:
    """Returns p50 and p99 in milliseconds, and questions a second, of so many clients at once."""
    repeats = max(1, 2 * clients * 10 // len(queries))
    asked = [queries[n : n + 1] for n in range(len(queries))] * repeats
    seconds: list[float] = []
    lock = threading.Lock()

    def ask(query: NDArray[np.float32]) -> None:
        start = time.perf_counter()
        search(query)
        took = time.perf_counter() - start
        with lock:
            seconds.append(took)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, asked[: 2 * clients]))  # connections are made, pages read
        seconds.clear()
        start = time.perf_counter()
        list(pool.map(ask, asked))
        over = time.perf_counter() - start
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
        "a_second": round(len(asked) / over, 1),
    }


def compared(
    search: Search, queries: NDArray[np.float32], exact: NDArray[np.int64]
) -> dict[str, float]:
    """Returns recall@10 of the exact rows ``[Q, K]``, and how many rows came back on average."""
    hits = rows = 0
    for query, true in zip(queries, exact, strict=True):
        found = search(query[None])
        hits += len(set(found) & set(true.tolist()))
        rows += len(found)
    return {"recall": round(hits / max(1, exact.size), 4), "rows": round(rows / len(queries), 2)}


def questions(
    search_of: Callable[[float], Search], drawn: Drawn, exact: Mapping[float, NDArray[np.int64]]
) -> list[dict[str, Any]]:
    """Asks with every filter and number of clients."""
    found: list[dict[str, Any]] = []
    for share in SHARES:
        search = search_of(share)
        entry: dict[str, Any] = {"share": share, "available": exact[share].shape[1]}
        entry |= compared(search, drawn.queries, exact[share])
        entry["clients"] = {n: measured(search, drawn.queries, n) for n in NUM_CLIENTS}
        say(f"  {share:.1%}: {entry}")
        found.append(entry)
    return found


def fill(database: VectorDatabase, drawn: Drawn) -> float:
    """Fills a new collection, its index included, and gives the seconds that this took."""
    if database.facts() is not None:
        raise ValueError(
            f"{database.place} is there; expected none: the benchmark fills a new one, drop it"
        )
    start = time.perf_counter()
    pushed = push(drawn, database)
    assert pushed.num_items == len(drawn)
    return round(time.perf_counter() - start, 1)


def num_bytes(kind: str, url: str, database: VectorDatabase) -> int | None:
    """Returns what the collection takes on the disk, where that can be asked."""
    if kind == "lancedb":
        return sum(one.stat().st_size for one in Path(url).rglob("*") if one.is_file())
    if kind == "pgvector":
        import psycopg

        with psycopg.connect(url) as connection:
            name = database.place.rpartition(" ")[2]
            row = connection.execute("SELECT pg_total_relation_size(%s)", [name]).fetchone()
            return None if row is None else int(row[0])
    return None


def main() -> None:
    """Runs the benchmark and writes its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-items", type=int, default=12_225)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--num-queries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--own", nargs="*", default=["flat", "hnsw"], help="kinds of our own index")
    parser.add_argument("--out", type=Path, default=Path("vector_databases.json"))
    parser.add_argument("databases", nargs="*", metavar="KIND=URL")
    arguments = parser.parse_args()
    drawn = Drawn(arguments.num_items, arguments.dim, arguments.num_queries, arguments.seed)
    store = ArrayStore(drawn.embeddings)
    flat = build_index(store, "flat")
    exact = {share: flat.search(drawn.queries, K, drawn.allowed[share])[0] for share in SHARES}
    asked = {name: getattr(arguments, name) for name in ("num_items", "dim", "num_queries")}
    settings = {**asked, "seed": arguments.seed, "k": K}
    results: dict[str, Any] = {}
    if arguments.out.is_file():
        before = json.loads(arguments.out.read_text(encoding="utf-8"))
        results = before["results"] if before["settings"] == settings else {}

    def write() -> None:
        content = {
            "settings": settings,
            "machine": processor_facts(),
            "environment": environment(),
            "results": results,
        }
        write_text(arguments.out, json.dumps(content, indent=1) + "\n")

    for kind in arguments.own:
        say(f"our own index, {kind}")
        start = time.perf_counter()
        index = build_index(store, kind)
        build_s = round(time.perf_counter() - start, 1)

        def own(share: float, index: Any = index) -> Search:
            allowed = None if share == 1 else drawn.allowed[share]
            return lambda query: index.search(query, K, allowed)[0][0].tolist()

        results[f"own {kind}"] = {
            "build_s": build_s,
            "bytes": drawn.embeddings.nbytes + index.num_bytes,
            "questions": questions(own, drawn, exact),
        }
        write()
    for given in arguments.databases:
        kind, _, url = given.partition("=")
        say(kind)
        database = open_database(kind, url, "benchmark", timeout_s=60)
        build_s = fill(database, drawn)

        def there(share: float, database: VectorDatabase = database) -> Search:
            conditions = [] if share == 1 else [[label(str(share), "yes")]]
            return lambda query: [
                int(one) for one in database.search(query, K, conditions)[0].item_ids
            ]

        results[kind] = {
            "build_s": build_s,
            "bytes": num_bytes(kind, url, database),
            "questions": questions(there, drawn, exact),
        }
        database.close()
        write()


if __name__ == "__main__":
    main()
