"""The tables of the pages: rows of plain values that the templates write out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from visual_search.views.html_page import is_number, mark, relative_link, scale_limit
from visual_search.views.style import metric_title
from visual_search.views.table import Cell, Table
from visual_search.wording import ALPHA, is_missing

if TYPE_CHECKING:
    import pandas as pd

_FEW_QUERIES = 20
_P_COLUMNS = ("holm_p_value", "p_holm", "p_value")  # the one that decides first
_TITLES = {
    "p_value": "p", "holm_p_value": "p (Holm)", "p_holm": "p (Holm)", "num_queries": "n queries",
    "num_queries_scored": "n queries", "num_gallery": "n gallery", "num_groups": "n groups",
    "num_left_out": "left out", "few_queries": "few", "effective_groups": "effective groups",
}  # fmt: skip


def headline_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """Returns ``mean`` and ``title`` of the metric that a summary is about.

    Example:
        >>> headline_of({"k": 5})
        {'mean': 'map_at_5', 'title': 'mAP@5'}
    """
    given = summary.get("headline") or {}
    mean = str(given.get("mean") or f"map_at_{summary.get('k', 5)}")
    return {"mean": mean, "title": str(given.get("title") or metric_title(mean))}


def extra_means(summary: Mapping[str, Any]) -> list[str]:
    """Returns the means that stand beside the headline in a table of runs and floors."""
    k = summary.get("k", 5)
    wanted = (f"precision_at_{k}", "hit_at_1")
    return [mean for mean in wanted if f"micro_{mean}" in summary]


def verdict(low: Any, high: Any, p_value: Any) -> str:
    """Returns what a difference's test says: "above", "below", "unclear", "same"; "" without one.

    The rule of `retrieval.floor_comparison.sign_shown`: p, which is corrected where there was more
    than one test, decides, so that a sign and the p beside it never disagree.

    Args:
        low: Lower end of the difference's interval.
        high: Upper end; both are 0 where every answer is the same.
        p_value: The row's p after Holm's correction.

    Example:
        >>> verdict(0.01, 0.05, 0.02), verdict(0.01, 0.05, 0.2), verdict(0.0, 0.0, 1.0)
        ('above', 'unclear', 'same')
    """
    if is_missing(low) or is_missing(high):
        return ""
    if low == high == 0:
        return "same"
    if is_missing(p_value) or not p_value < ALPHA:
        return "unclear"
    return "above" if low > 0 else "below" if high < 0 else "unclear"


def overall_row(summary: Mapping[str, Any], mean: str, extras: Sequence[str]) -> dict[str, Any]:
    """Returns a run's or a floor's overall numbers as one row of a table.

    A floor holds its intervals as ``micro_low`` and so on, a run under ``intervals``.
    """
    intervals = summary.get("intervals") or {}
    micro, macro = intervals.get("micro") or {}, intervals.get("macro") or {}
    return {
        "micro_rough": micro.get("rough") is True,
        "macro_rough": macro.get("rough") is True,
        "micro": summary.get(f"micro_{mean}"),
        "micro_low": summary.get("micro_low", micro.get("low")),
        "micro_high": summary.get("micro_high", micro.get("high")),
        "macro": summary.get(f"macro_{mean}"),
        "macro_low": summary.get("macro_low", macro.get("low")),
        "macro_high": summary.get("macro_high", macro.get("high")),
        "extras": [summary.get(f"micro_{name}") for name in extras],
        "dim": summary.get("dim", summary.get("embedding_dim")),
    }


def add_marks(rows: Sequence[dict[str, Any]]) -> float:
    """Returns every row a ``mark`` on one scale, and the value at that scale's right end."""
    limit = scale_limit([row[key] for row in rows for key in ("micro", "micro_high")])
    for row in rows:
        row["mark"] = mark(row["micro"], row["micro_low"], row["micro_high"], limit)
    return limit


def best_first(rows: Sequence[dict[str, Any]], mean: str = "micro") -> list[dict[str, Any]]:
    """Sorts rows by ``micro`` or ``macro``, rows without one last, ties by ``name``."""
    return sorted(
        rows,
        key=lambda row: (
            is_missing(row[mean]),
            0.0 if is_missing(row[mean]) else -row[mean],
            row["name"],
        ),
    )


def floor_row(floor: Mapping[str, Any], mean: str, extras: Sequence[str]) -> dict[str, Any]:
    """Returns a floor of ``summary["floors"]`` as a row."""
    p_holm = floor.get("p_holm", floor.get("p_value"))
    return overall_row(floor, mean, extras) | {
        "name": str(floor.get("title") or floor["name"]),
        "floor": True,
        "difference": floor.get("difference"),
        "low": floor.get("difference_low"),
        "high": floor.get("difference_high"),
        "rough": False,
        "p_value": floor.get("p_value"),
        "p_holm": p_holm,
        "verdict": verdict(floor.get("difference_low"), floor.get("difference_high"), p_holm),
    }


def standing_table(summary: Mapping[str, Any], name: str) -> dict[str, object] | None:
    """Returns the run and then its floors, best first; None where there are no floors."""
    floors = summary.get("floors") or []
    if not floors:
        return None
    mean, extras = headline_of(summary)["mean"], extra_means(summary)
    run = overall_row(summary, mean, extras) | {
        "name": name, "floor": False, "difference": None, "low": None, "high": None,
        "rough": False, "p_value": None, "p_holm": None, "verdict": "",
    }  # fmt: skip
    rows = [run, *best_first([floor_row(floor, mean, extras) for floor in floors])]
    for row in rows:  # carried by the same groups
        for name in ("micro_rough", "macro_rough"):
            row[name] = run[name]
        row["rough"] = run[f"{floors[0].get('statistic') or 'micro'}_rough"]
    limit = add_marks(rows)
    return {"rows": rows, "limit": limit, "extras": extras}


def category_table(
    per_category: pd.DataFrame,
    summary: Mapping[str, Any],
    floors_per_category: pd.DataFrame | None,
    max_rows: int,
) -> dict[str, Any]:
    """Returns one row a category, best first, those without a scored query last.

    Raises:
        ValueError: There is no column ``category`` or none of the headline's name.
    """
    headline = headline_of(summary)
    mean = headline["mean"]
    for column in ("category", mean):
        if column not in per_category:
            raise ValueError(
                f"per_category has no column {column!r}, only {list(per_category.columns)}; give "
                "the table of the summary's own report."
            )
    counts = {
        "num_queries_scored", "num_queries", "num_gallery", "num_left_out", "num_groups",
    }  # fmt: skip
    besides = {"category", mean, "headline_low", "headline_high", "few_queries", "rough"}
    besides |= {"effective_groups"}
    extras = [
        str(column)
        for column in per_category.columns
        if column not in counts | besides and is_number(per_category[column].iloc[0])
    ]
    floors = _best_floors(floors_per_category, summary)
    rows = []
    for values in per_category.to_dict("records"):
        scored = values.get("num_queries_scored", values.get("num_queries"))
        few = values.get("few_queries")
        floor = floors.get(str(values["category"]))
        rows.append(
            {
                "name": str(values["category"]),
                "scored": scored,
                "left_out": values.get("num_left_out"),
                "gallery": values.get("num_gallery"),
                "groups": values.get("num_groups"),
                "few": bool(few) if few is not None else (scored or 0) < _FEW_QUERIES,
                "micro": values[mean],
                "micro_low": values.get("headline_low"),
                "micro_high": values.get("headline_high"),
                "micro_rough": values.get("rough") is True,
                "effective_groups": values.get("effective_groups"),
                "floor": floor,
                "below_floor": floor is not None
                and not is_missing(values[mean])
                and floor[1] > values[mean],
                "extras": [values[name] for name in extras],
            }
        )
    rows = best_first(rows)
    limit = scale_limit(
        [row[key] for row in rows for key in ("micro", "micro_high")]
        + [floor[1] for floor in floors.values()]
    )
    for row in rows:
        row["mark"] = mark(row["micro"], row["micro_low"], row["micro_high"], limit)
        floor = row["floor"]
        row["floor_at"] = round(min(floor[1] / limit, 1.0) * 100, 2) if floor else None
    return {
        "rows": rows[:max_rows],
        "given": len(rows),
        "limit": limit,
        "extras": extras,
        "few": sum(row["few"] for row in rows),
        "has_floor": bool(floors),
        "has_left_out": any(row["left_out"] for row in rows),
        "has_groups": "num_groups" in per_category,
        "rough": sum(row["micro_rough"] and not is_missing(row["micro_low"]) for row in rows),
        "below": sum(row["below_floor"] for row in rows),
    }


def _best_floors(
    table: pd.DataFrame | None, summary: Mapping[str, Any]
) -> dict[str, tuple[str, float]]:
    """Returns the best floor's title and value by category."""
    if table is None or len(table) == 0:
        return {}
    titles = {f["name"]: f.get("title") or f["name"] for f in summary.get("floors") or []}
    best: dict[str, tuple[str, float]] = {}
    for values in table.to_dict("records"):
        known = {
            str(name): float(value)
            for name, value in values.items()
            if name != "category" and not is_missing(value)
        }
        if known:
            name = max(known, key=lambda each: known[each])
            best[str(values["category"])] = (str(titles.get(name, name)), known[name])
    return best


def shown_table(table: Table, max_rows: int) -> dict[str, object]:
    """Returns a table as the pages' macro writes it: the first rows, and how many there are.

    Raises:
        ValueError: A link leads elsewhere.
    """
    places = [place for place, column in enumerate(table.columns) if column.on_page]
    rows = [
        {"kind": row.kind, "cells": [_linked(row.cells[place]) for place in places]}
        for row in table.rows[:max_rows]
    ]
    columns = [table.columns[place] for place in places]
    return {"columns": columns, "rows": rows, "given": len(table.rows)}


def _linked(cell: Cell) -> Cell:
    return replace(cell, href=relative_link(cell.href)) if cell.href else cell


def plain_table(table: pd.DataFrame, max_rows: int) -> dict[str, object]:
    """Returns any table: column names, which are numbers, the first rows, how many there are."""
    rows = [list(row) for row in table.head(max_rows).itertuples(index=False, name=None)]
    return {
        "columns": [str(column) for column in table.columns],
        "numeric": [
            bool(rows) and all(is_missing(row[place]) or is_number(row[place]) for row in rows)
            for place in range(len(table.columns))
        ],
        "rows": rows,
        "given": len(table),
    }


def measured_table(table: pd.DataFrame | None, max_rows: int) -> dict[str, Any] | None:
    """Returns a table of measured values: intervals beside their value, differences with a sign.

    Columns ``low`` and ``high`` belong to ``difference``, ``x_low`` and ``x_high`` to ``x``,
    ``low:run`` and ``high:run`` to ``mean:run``; they stand in its cell, with the word of ``rough``
    where that is true. None where there is no row.
    """
    if table is None or len(table) == 0:
        return None
    names = [str(column) for column in table.columns]
    ends = {name: pair for name in names for pair in _ends(name) if set(pair) <= set(names)}
    inside = {end for pair in ends.values() for end in pair}
    # without any p, the interval alone says what the sign does
    decides = next((name for name in _P_COLUMNS if name in names), None)
    columns = [
        {
            "name": name,
            "title": _TITLES.get(name, name.removeprefix("mean:")),
            "kind": _kind(name, table[column]),
        }
        for name, column in zip(names, table.columns, strict=True)
        if name not in inside and name != "rough"
    ]
    rows = []
    for record in table.head(max_rows).to_dict("records"):
        values = {str(name): value for name, value in record.items()}
        cells = []
        for column in columns:
            name = column["name"]
            low, high = (values[end] for end in ends[name]) if name in ends else (None, None)
            cells.append(
                {"value": values[name], "low": low, "high": high, "difference": values[name],
                 "rough": values.get("rough") is True,
                 "verdict": verdict(low, high, values[decides] if decides else 0.0)}
            )  # fmt: skip
        rows.append(cells)
    return {"columns": columns, "rows": rows, "given": len(table)}


def _ends(name: str) -> list[tuple[str, str]]:
    """Returns the names that the columns of a value's interval may have."""
    ends = [(f"{name}_low", f"{name}_high")]
    if name == "difference":
        ends.append(("low", "high"))
    if name.startswith("mean:"):
        ends.append((f"low:{name[5:]}", f"high:{name[5:]}"))
    return ends


def _kind(name: str, values: pd.Series[Any]) -> str:
    """Returns how a column is written: difference, p, count, fraction or text."""
    if values.dtype.kind == "b" or values.dtype.kind not in "iuf":
        return "text"
    if name.endswith("difference"):
        return "difference"
    if name.endswith("p_value") or name == "p_holm":
        return "p"
    return "fraction" if values.dtype.kind == "f" else "count"
