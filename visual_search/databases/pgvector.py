"""PostgreSQL with pgvector: a table a collection, exact until it has an HNSW index.

The table has ``item_id``, ``content_key``, ``labels`` and ``embedding``; its comment holds the
`CollectionFacts`. A search by HNSW goes on until enough rows fulfil the conditions
(``hnsw.iterative_scan``, pgvector 0.8): without that it looks at ``ef_search`` rows and gives those
few of them that do.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from visual_search.databases.database import (
    CollectionFacts,
    CollectionItems,
    Conditions,
    DatabaseError,
    DatabaseUnavailableError,
    Proposed,
    extra_missing,
)
from visual_search.databases.urls import without_secrets

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

MIN_INDEXED = 10_000  # 12,225 x 512 are compared one by one in 10 to 20 ms
MAX_INDEXED_DIM = 2_000  # of pgvector's HNSW over float32
EF_SEARCH = 100  # candidates that HNSW keeps; pgvector's own 40 is for 10 neighbours
PAGE_ROWS = 10_000
MIN_VERSION = (0, 8)
# The client library gives a connection that is refused no code, only these words; asking again
# would not help.
_REFUSED = re.compile(r"authentication failed|does not exist|pg_hba|no password|invalid|missing")
T = TypeVar("T")


class PgvectorCollection:
    """A `VectorDatabase` in PostgreSQL.

    Args:
        url: ``postgresql://user@host/database``; what it lacks comes from libpq's own variables
            and password file.
        collection: The table's name.
        timeout_s: Of every request but `tend`, by the client's clock, which goes on where a server
            stands still.

    Raises:
        DatabaseError: The extra is not installed.
    """

    def __init__(self, url: str, collection: str, timeout_s: float) -> None:
        try:
            import pgvector.psycopg  # noqa: F401
            from psycopg import sql
        except ImportError as error:
            raise extra_missing("pgvector", error) from error
        shown = without_secrets(url, url) or "the server of libpq's variables"
        self.place = f"pgvector, {shown}, {collection}"
        self._url, self._name, self._timeout_s = url, collection, timeout_s
        self._table = sql.Identifier(collection)
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()

    def facts(self) -> CollectionFacts | None:
        """Returns what the table's comment says; None where there is no table."""
        found = self._run(
            lambda connection: connection.execute(
                "SELECT obj_description(oid, 'pg_class') FROM pg_class WHERE oid = to_regclass(%s)",
                [self._table.as_string(connection)],
            ).fetchone()
        )
        return None if found is None else CollectionFacts.from_json(str(found[0]))

    def create(self, facts: CollectionFacts) -> None:
        """Makes the extension and the table where they are not there."""
        from psycopg import sql

        def make(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                # Two at once would both find no table.
                connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [self._name])
                if not _pgvector_version(connection):
                    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                version = _pgvector_version(connection)
                if version < MIN_VERSION:
                    raise DatabaseError(
                        f"{self.place} has pgvector {'.'.join(map(str, version))}; expected "
                        f"{'.'.join(map(str, MIN_VERSION))} or newer, whose filtered searches find "
                        "enough: update the server's extension"
                    )
                row = connection.execute(
                    "SELECT to_regclass(%s)", [self._table.as_string(connection)]
                ).fetchone()
                if row is not None and row[0] is not None:
                    return
                connection.execute(
                    self._sql(
                        'CREATE TABLE {} (item_id text COLLATE "C" PRIMARY KEY, content_key text '
                        "NOT NULL, labels text[] NOT NULL, embedding vector({}) NOT NULL)",
                        sql.Literal(facts.dim),
                    )
                )
                connection.execute(self._sql("CREATE INDEX ON {} USING gin (labels)"))
                connection.execute(
                    self._sql("COMMENT ON TABLE {} IS {}", sql.Literal(facts.to_json()))
                )

        self._run(make)
        self.close()  # connections from before the extension do not know its type

    def upsert(self, items: CollectionItems) -> None:
        """Writes items in one transaction."""

        def write(connection: psycopg.Connection[Any]) -> None:
            with connection.transaction():
                connection.execute(
                    "CREATE TEMP TABLE IF NOT EXISTS incoming (item_id text, content_key text, "
                    "labels text[], embedding vector) ON COMMIT DELETE ROWS"
                )
                with connection.cursor().copy("COPY incoming FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(["text", "text", "text[]", "vector"])
                    for item_id, key, labels, embedding in zip(
                        items.item_ids,
                        items.content_keys,
                        items.labels,
                        items.embeddings,
                        strict=True,
                    ):
                        copy.write_row((item_id, key, list(labels), embedding))
                connection.execute(
                    self._sql(
                        "INSERT INTO {} SELECT * FROM incoming ORDER BY item_id "
                        "ON CONFLICT (item_id) DO UPDATE SET content_key = excluded.content_key, "
                        "labels = excluded.labels, embedding = excluded.embedding"
                    )
                )

        self._run(write)

    def delete(self, item_ids: Sequence[str]) -> None:
        """Removes items by their ids."""
        self._run(
            lambda connection: connection.execute(
                self._sql("DELETE FROM {} WHERE item_id = ANY(%s)"), [list(item_ids)]
            )
        )

    def content_keys(self, cursor: str | None) -> tuple[dict[str, str], str | None]:
        """Returns a page in the order of the ids; the cursor is the last of them."""
        rows = self._run(
            lambda connection: connection.execute(
                self._sql(
                    "SELECT item_id, content_key FROM {} WHERE item_id > %s "
                    "ORDER BY item_id LIMIT %s"
                ),
                [cursor or "", PAGE_ROWS],  # no id is empty
            ).fetchall()
        )
        return dict(rows), rows[-1][0] if len(rows) == PAGE_ROWS else None

    def keys_of(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Returns the content keys of some items."""
        return dict(
            self._run(
                lambda connection: connection.execute(
                    self._sql("SELECT item_id, content_key FROM {} WHERE item_id = ANY(%s)"),
                    [list(item_ids)],
                ).fetchall()
            )
        )

    def embeddings_of(self, item_ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Returns the embeddings of some items."""
        rows = self._run(
            lambda connection: (
                connection.cursor(binary=True)
                .execute(
                    self._sql("SELECT item_id, embedding FROM {} WHERE item_id = ANY(%s)"),
                    [list(item_ids)],
                )
                .fetchall()
            )
        )
        return {item_id: found.to_numpy().astype(np.float32) for item_id, found in rows}

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        conditions: Conditions = (),
        *,
        is_thorough: bool = False,
    ) -> list[Proposed]:
        """Finds the nearest rows; `hnsw.iterative_scan` looks on where conditions leave too few."""
        from psycopg import sql

        labels = {f"labels_{n}": list(one) for n, one in enumerate(conditions)}
        tests = [sql.SQL("labels && {}").format(sql.Placeholder(name)) for name in labels]
        matching = sql.SQL("WHERE " if tests else "") + sql.SQL(" AND ").join(tests)
        question = self._sql(
            "SELECT item_id, embedding <-> %(query)b AS distance FROM {} {} "
            "ORDER BY distance LIMIT %(k)s",
            matching,
        )

        def ask(connection: psycopg.Connection[Any]) -> list[Proposed]:
            found = []
            for query in queries:
                rows = connection.execute(question, {"query": query, "k": k, **labels}).fetchall()
                distances = np.array([row[1] for row in rows], np.float64)
                found.append(Proposed([row[0] for row in rows], np.square(distances)))
            return found

        def ask_exactly(connection: psycopg.Connection[Any]) -> list[Proposed]:
            with connection.transaction():  # an order by distance is what only HNSW scans
                connection.execute("SET LOCAL enable_indexscan = off")
                return ask(connection)

        return self._run(ask_exactly if is_thorough else ask)

    def count(self) -> int:
        """Counts the rows."""
        row = self._run(
            lambda connection: connection.execute(self._sql("SELECT count(*) FROM {}")).fetchone()
        )
        return 0 if row is None else int(row[0])

    def tend(self) -> str:
        """Makes the HNSW index where there are 10,000 rows, and renews the planner's statistics."""
        from psycopg import sql

        index = sql.Identifier(f"{self._name}_hnsw")

        def make(connection: psycopg.Connection[Any]) -> str:
            connection.execute("SELECT set_config('statement_timeout', '0', false)")
            connection.execute(self._sql("ANALYZE {}"))
            number, is_there = connection.execute(
                self._sql("SELECT count(*), to_regclass(%s) IS NOT NULL FROM {}"),
                [index.as_string(connection)],
            ).fetchone() or (0, False)
            facts = self.facts()
            if is_there or number < MIN_INDEXED or facts is None or facts.dim > MAX_INDEXED_DIM:
                return ""
            connection.execute(
                sql.SQL(
                    "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (embedding vector_l2_ops)"
                ).format(index, self._table)
            )
            return f"an HNSW index over {number:,} items was made"

        return self._run(make, is_bounded=False)

    def close(self) -> None:
        """Closes the connections that nobody uses just now."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _sql(self, text: str, *parts: sql.Composable) -> sql.Composed:
        """Returns a statement with the table's name, and further parts, in the place of braces."""
        from psycopg import sql

        return sql.SQL(text).format(self._table, *parts)

    def _run(self, work: Callable[[psycopg.Connection[Any]], T], *, is_bounded: bool = True) -> T:
        """Does something with a connection; once more where a kept one had been cut meanwhile."""
        import psycopg

        with self._in_its_words():
            with self._lock:
                kept = self._idle.pop() if self._idle and is_bounded else None
            if kept is not None:
                try:
                    return self._and_keep(kept, work)
                except psycopg.OperationalError:
                    if not kept.broken:
                        raise
                    self.close()  # the others were cut with it
            return self._and_keep(self._connected(is_bounded), work, is_kept=is_bounded)

    def _and_keep(
        self,
        connection: psycopg.Connection[Any],
        work: Callable[[psycopg.Connection[Any]], T],
        *,
        is_kept: bool = True,
    ) -> T:
        try:
            result = work(connection)
        except BaseException:
            connection.close()
            raise
        if is_kept:
            with self._lock:
                self._idle.append(connection)
        else:
            connection.close()
        return result

    def _connected(self, is_bounded: bool) -> psycopg.Connection[Any]:
        import psycopg
        from pgvector.psycopg import register_vector

        timeout_s = self._timeout_s if is_bounded else None
        connection: psycopg.Connection[Any] = _bounded_connection(timeout_s).connect(
            self._url,
            autocommit=True,
            prepare_threshold=None,  # a plan that is kept knows neither the filter nor SET LOCAL
            connect_timeout=max(2, round(self._timeout_s)),
            application_name="visual_search",
        )
        try:
            wait_ms = 0 if timeout_s is None else round(1000 * timeout_s)
            connection.execute("SELECT set_config('statement_timeout', %s, false)", [str(wait_ms)])
            if _pgvector_version(connection):
                register_vector(connection)
                connection.execute("SET hnsw.iterative_scan = relaxed_order")
                connection.execute(
                    "SELECT set_config('hnsw.ef_search', %s, false)", [str(EF_SEARCH)]
                )
        except psycopg.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _in_its_words(self) -> Iterator[None]:
        """Raises what the server says as one of our errors."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            words = without_secrets(" ".join(str(error).split()), self._url)
            is_refused = error.sqlstate is None and _REFUSED.search(words)
            if isinstance(error, psycopg.OperationalError) and not is_refused:
                raise DatabaseUnavailableError(
                    f"{self.place} does not answer: {words}; expected a server that is up and "
                    f"gives an answer within {self._timeout_s:g} s: look at it, then try again"
                ) from None  # the cause may hold the address
            raise DatabaseError(
                f"{self.place} refused the request: {words}; expected a database with pgvector "
                "and the right to use it: check url= and collection="
            ) from None


def _bounded_connection(timeout_s: float | None) -> type[psycopg.Connection[Any]]:
    """Returns a connection's class that waits at most so long for each answer.

    A server that stands still does not end its statements, and a machine that is gone sends
    nothing: only the client's own clock ends the wait.
    """
    import psycopg

    class Bounded(psycopg.Connection[Any]):
        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            return super().wait(gen, interval, timeout_s if timeout is None else timeout)

    return Bounded


def _pgvector_version(connection: psycopg.Connection[Any]) -> tuple[int, ...]:
    """Returns the extension's version, as (0, 8, 5); empty where it is not installed."""
    row = connection.execute(
        "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
    ).fetchone()
    return () if row is None else tuple(int(part) for part in row[0].split("."))
