"""From a search result and categories to numbers: per query, per category, overall."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visual_search.atomic import atomic_path, write_text
from visual_search.retrieval.embeddings import check_texts
from visual_search.retrieval.index import SearchResult
from visual_search.retrieval.metrics import (
    Metric,
    average_precision_at_k,
    check_k,
    definitions,
    hit_at_k,
    precision_at_k,
    recall_at_k,
    reciprocal_rank_at_k,
)
from visual_search.retrieval.protocol import (
    EXCLUSION_RULE,
    RELEVANCE_RULE,
    TIE_RULE,
    count_relevant,
    relevant,
)

PER_QUERY_FILE = "per_query.parquet"
PER_CATEGORY_FILE = "per_category.csv"
SUMMARY_FILE = "summary.json"

MICRO_RULE = "micro: mean over the queries that are scored (num_queries_scored)."
MACRO_RULE = (
    "macro: mean over the categories with at least one scored query (num_categories_scored) of the "
    "category's own mean."
)
LIST_COLUMNS = ("neighbour_ids", "neighbour_categories", "neighbour_squared_distances")


@dataclass(frozen=True, eq=False)
class RetrievalReport:
    """How well an index answers its queries; a lower-case ``k`` stands for the number itself.

    Attributes:
        per_query: One row a query, in the order asked: ``query_id``, ``category``, ``num_relevant``
            (R), ``average_precision``, ``precision``, ``recall``, ``hit_at_1``, ``hit_at_k``,
            ``reciprocal_rank`` (all within the first k; NaN where R = 0), and three columns of
            lists of length k: ``neighbour_ids``, ``neighbour_categories``,
            ``neighbour_squared_distances``.
        per_category: One row a category of gallery or queries, sorted: ``category``,
            ``num_gallery``, ``num_queries``, ``num_queries_scored``, ``num_left_out`` and the means
            ``map_at_5``, ``precision_at_5``, ``recall_at_5``, ``hit_at_1``, ``hit_at_5``,
            ``mrr_at_5`` (for k = 5; NaN where no query is scored).
        summary: Plain values: ``k``, the counts, ``micro_map_at_5``, ``macro_map_at_5``, ...,
            ``definitions`` (name -> sentence) and ``rules`` (relevance, self exclusion, ties,
            micro, macro).
    """

    per_query: pd.DataFrame
    per_category: pd.DataFrame
    summary: dict[str, Any]


def evaluate_retrieval(
    result: SearchResult,
    query_categories: Sequence[str],
    gallery_categories: Sequence[str],
    gallery_ids: Sequence[str],
    k: int = 5,
) -> RetrievalReport:
    """Measures a search result.

    Args:
        result: Q queries with K >= k neighbours; the queries are excluded from their own.
        query_categories: Q categories, in the result's order.
        gallery_categories: N categories, in the index's row order.
        gallery_ids: N ids, in the index's row order.
        k: Neighbours that count.

    Raises:
        TypeError: A category or id is no text, or ``k`` no integer.
        ValueError: There is no query, a query stands twice, a query is among its own neighbours,
            lengths differ, the gallery's ids are not those of the result, or ``k`` is outside 1..K.

    Example:
        >>> from visual_search.retrieval.index import EmbeddingIndex
        >>> ids, categories = ["h1", "h2", "s1"], ["hat", "hat", "shoe"]
        >>> embeddings = np.array([[0], [1], [5]], dtype=np.float32)
        >>> index = EmbeddingIndex.build(embeddings, ids)
        >>> found = index.search(embeddings, k=2, exclude_ids=ids)
        >>> report = evaluate_retrieval(found, categories, categories, ids, k=2)
        >>> report.summary["micro_map_at_2"], report.summary["num_left_out"]
        (1.0, 1)
    """
    k = check_k(k)
    asked = check_texts(query_categories, len(result), "query_categories")
    gallery = check_texts(gallery_ids, len(gallery_ids), "gallery_ids")
    held = check_texts(gallery_categories, len(gallery), "gallery_categories")
    _check_result(result, gallery, k)
    rows = result.rows[:, :k]  # [Q, k]
    neighbour_categories = np.array([*held, None], dtype=object)[rows]  # [Q, k]
    relevance = relevant(asked, neighbour_categories)  # [Q, k] bool
    num_relevant = count_relevant(result.query_ids.tolist(), asked, gallery, held)  # [Q]

    metrics: dict[str, tuple[Metric, int]] = {
        "average_precision": (average_precision_at_k, k),
        "precision": (precision_at_k, k),
        "recall": (recall_at_k, k),
        "hit_at_1": (hit_at_k, 1),
        "hit_at_k": (hit_at_k, k),
        "reciprocal_rank": (reciprocal_rank_at_k, k),
    }
    per_query = pd.DataFrame(
        {
            "query_id": pd.Series(result.query_ids, dtype=object),
            "category": pd.Series(asked, dtype=object),
            "num_relevant": num_relevant,
            **{
                name: metric(relevance, num_relevant, depth)
                for name, (metric, depth) in metrics.items()
            },
            "neighbour_ids": result.item_ids[:, :k].tolist(),
            "neighbour_categories": neighbour_categories.tolist(),
            "neighbour_squared_distances": result.squared_distances[:, :k].tolist(),
        }
    )
    per_category = _per_category(per_query, held, k)
    return RetrievalReport(per_query, per_category, _summary(per_query, per_category, len(held), k))


def _check_result(result: SearchResult, gallery_ids: list[str], k: int) -> None:
    if not len(result):
        raise ValueError("the search result holds no query; expected at least one: check the split")
    if k > result.k:
        raise ValueError(
            f"k is {k}, but the result holds {result.k} neighbour(s) a query; search with k={k}"
        )
    counts = pd.Series(result.query_ids, dtype=object).value_counts()
    if counts.iloc[0] > 1:
        raise ValueError(
            f"query {counts.index[0]!r} stands {counts.iloc[0]} times in the result; expected each "
            "query once: drop what a distributed sampler repeats"
        )
    if int(result.rows.max()) >= len(gallery_ids) or not np.array_equal(
        np.array([*gallery_ids, None], dtype=object)[result.rows], result.item_ids
    ):
        raise ValueError(
            f"the {len(gallery_ids)} gallery ids are not those that the result's rows point to; "
            "expected the index's item_ids, in row order: pass index.item_ids"
        )
    itself = np.flatnonzero((result.item_ids == result.query_ids[:, None]).any(axis=1))
    if len(itself):
        raise ValueError(
            f"query {result.query_ids[itself[0]]!r} is among its own neighbours "
            f"({len(itself)} such query row(s)); expected it excluded: search with exclude_ids"
        )


def _means(k: int) -> dict[str, str]:
    """Column of `per_query` -> name of its mean; at k = 1 both hit columns have one mean."""
    return {
        "average_precision": f"map_at_{k}",
        "precision": f"precision_at_{k}",
        "recall": f"recall_at_{k}",
        "hit_at_1": "hit_at_1",
        "hit_at_k": f"hit_at_{k}",
        "reciprocal_rank": f"mrr_at_{k}",
    }


def _mean(values: Iterable[float]) -> float:
    """The mean of what is not NaN, exactly rounded: the order of the queries cannot matter."""
    scored = [value for value in values if not math.isnan(value)]
    return math.fsum(scored) / len(scored) if scored else math.nan


def _per_category(per_query: pd.DataFrame, gallery_categories: list[str], k: int) -> pd.DataFrame:
    num_gallery = Counter(gallery_categories)
    queries = {str(name): rows for name, rows in per_query.groupby("category")}
    lines = []
    for category in sorted(num_gallery.keys() | queries.keys()):
        rows = queries.get(category, per_query.iloc[:0])
        num_scored = int((rows["num_relevant"] > 0).sum())
        lines.append(
            {
                "category": category,
                "num_gallery": num_gallery[category],
                "num_queries": len(rows),
                "num_queries_scored": num_scored,
                "num_left_out": len(rows) - num_scored,
                **{mean: _mean(rows[column]) for column, mean in _means(k).items()},
            }
        )
    return pd.DataFrame(lines).astype({"category": object})


def _summary(
    per_query: pd.DataFrame, per_category: pd.DataFrame, num_gallery: int, k: int
) -> dict[str, Any]:
    num_scored = int(per_category["num_queries_scored"].sum())
    summary: dict[str, Any] = {
        "k": k,
        "num_gallery": num_gallery,
        "num_queries": len(per_query),
        "num_queries_scored": num_scored,
        "num_left_out": len(per_query) - num_scored,
        "num_categories": len(per_category),
        "num_categories_scored": int((per_category["num_queries_scored"] > 0).sum()),
    }
    for column, mean in _means(k).items():
        summary[f"micro_{mean}"] = _mean(per_query[column])
        summary[f"macro_{mean}"] = _mean(per_category[mean])
    summary["definitions"] = definitions(k)
    summary["rules"] = {
        "relevance": RELEVANCE_RULE,
        "self_exclusion": EXCLUSION_RULE,
        "ties": TIE_RULE,
        "micro": MICRO_RULE,
        "macro": MACRO_RULE,
    }
    return summary


def save_report(report: RetrievalReport, folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Writes ``per_query.parquet``, ``per_category.csv`` and ``summary.json``.

    NaN and infinity become null, since JSON has neither.

    The CSV keeps every category as it is. One that begins with ``=``, ``+``, ``-`` or ``@`` is
    still text to a program that reads data, but a spreadsheet may take it for a formula: import
    the column as text there.

    Returns:
        File name -> path.
    """
    paths = {name: Path(folder) / name for name in (PER_QUERY_FILE, PER_CATEGORY_FILE)}
    with atomic_path(paths[PER_QUERY_FILE]) as temporary:
        report.per_query.to_parquet(temporary, index=False)
    with atomic_path(paths[PER_CATEGORY_FILE]) as temporary:
        report.per_category.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    text = json.dumps(_plain(report.summary), indent=2, ensure_ascii=False, allow_nan=False)
    paths[SUMMARY_FILE] = write_text(Path(folder) / SUMMARY_FILE, text + "\n")
    return paths


def load_report(folder: str | os.PathLike[str]) -> RetrievalReport:
    """Reads what `save_report` wrote, with the same values and types.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file cannot be read as what it should be.
    """
    per_query = _read(Path(folder) / PER_QUERY_FILE, _read_per_query)
    per_category = _read(Path(folder) / PER_CATEGORY_FILE, _read_per_category)
    summary = _read(Path(folder) / SUMMARY_FILE, _read_summary)
    return RetrievalReport(per_query, per_category, summary)


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; expected the three files of a saved report: evaluate the run again"
        )
    try:
        return reader(path)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read: {error}; expected what saving a report writes: evaluate the "
            "run again"
        ) from error


def _read_per_query(path: Path) -> pd.DataFrame:
    table = pd.read_parquet(path)
    for column in LIST_COLUMNS:
        table[column] = [list(values) for values in table[column]]
    return table.astype({"query_id": object, "category": object})


def _read_per_category(path: Path) -> pd.DataFrame:
    text = {"category": str}  # a category may be called NA or 007
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_filter=False, encoding="utf-8")
    for column in table.columns[1:]:
        whole = column.startswith("num_")
        numbers = [float(value) if value != "" else math.nan for value in table[column]]
        table[column] = np.array(numbers, dtype=np.int64 if whole else np.float64)
    return table.astype({"category": object})


def _read_summary(path: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {name: math.nan if value is None else value for name, value in summary.items()}


def _plain(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in summary.items()
    }
