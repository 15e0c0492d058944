"""The tables of the pages: each a `views.table.Table`, which one macro of the templates writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from visual_search.reading import Ends, Summary, ends_of, number_in
from visual_search.views.html_page import cell, is_number, mark, relative_link, scale_limit
from visual_search.views.style import metric_title
from visual_search.views.table import Cell, Row, Sign, Table, TableColumn, cells, valued
from visual_search.wording import (
    SAME_ANSWERS,
    Number,
    as_float,
    count,
    difference,
    interval,
    is_missing,
    number,
    p_value,
    sign_shown,
    three_digits,
)

if TYPE_CHECKING:
    import pandas as pd

_FEW_QUERIES = 20
_P_COLUMNS = ("holm_p_value", "p_holm", "p_value")  # the one that decides first
_TITLES = {
    "p_value": "p", "holm_p_value": "p (Holm)", "p_holm": "p (Holm)", "num_queries": "n queries",
    "num_queries_scored": "n queries", "num_gallery": "n gallery", "num_groups": "n groups",
    "num_left_out": "left out", "few_queries": "few", "effective_groups": "effective groups",
}  # fmt: skip


def headline_of(summary: Summary) -> dict[str, str]:
    """Returns ``mean`` and ``title`` of the metric that a summary is about.

    Example:
        >>> headline_of({"k": 5})
        {'mean': 'map_at_5', 'title': 'mAP@5'}
    """
    given = summary.get("headline")
    mean = given["mean"] if given else f"map_at_{summary.get('k', 5)}"
    return {"mean": mean, "title": given["title"] if given else metric_title(mean)}


def extra_means(summary: Summary) -> list[str]:
    """Returns the means that stand beside the headline in a table of runs and floors."""
    wanted = (f"precision_at_{summary.get('k', 5)}", "hit_at_1", "map_at_r")
    return [mean for mean in wanted if f"micro_{mean}" in summary]


def sign_of(value: Number, low: Number, high: Number, p: Number) -> Sign:
    """Returns what a difference's test says: "above", "below", "unclear", "same"; "" without one.

    The rule of `wording.sign_shown`, so that a sign and the p beside it never disagree.

    Args:
        value: The difference.
        low: Lower end of its interval.
        high: Upper end; both are 0 where every answer is the same.
        p: The row's p after Holm's correction.

    Example:
        >>> sign_of(0.03, 0.01, 0.05, 0.02), sign_of(0.03, 0.01, 0.05, 0.2), sign_of(0, 0, 0, 1)
        ('above', 'unclear', 'same')
    """
    if is_missing(low) or is_missing(high):
        return ""
    if low == high == 0:
        return "same"
    shown = sign_shown(*map(as_float, (value, low, high, p)))
    return "above" if shown > 0 else "below" if shown < 0 else "unclear"


def difference_cell(value: Number, low: Number, high: Number, p: Number, *, rough: bool) -> Cell:
    """Returns a difference with its interval and the sign of its test."""
    sign = sign_of(value, low, high, p)
    if sign == "same":
        return replace(valued(SAME_ANSWERS, value), sign=sign)
    at, _, ends = difference(value, low, high, rough=rough, none="").partition(" ")
    return replace(valued(at, value, ends, rough=rough), sign=sign)


def mean_cell(mean: Number, ends: Ends) -> Cell:
    """Returns a mean with its interval."""
    rough = ends.get("rough") is True
    written = interval(ends.get("low"), ends.get("high"), rough=rough, none="")
    return valued(number(mean), mean, written, rough=rough)


class Measurement(NamedTuple):
    """A row of a page's table: a name, its kind, its numbers, and the cells of further columns."""

    name: Cell
    kind: Literal["run", "floor"]
    measured: Mapping[str, Any]
    others: Sequence[Cell]


def best_first(lines: Iterable[Measurement], mean: str) -> list[Measurement]:
    """Sorts by the mean over queries, those without one last, ties by name."""
    return sorted(
        lines, key=lambda line: (_order(number_in(line.measured, f"micro_{mean}")), line.name.text)
    )


def _order(mean: Number) -> tuple[bool, float]:
    return is_missing(mean), 0.0 if is_missing(mean) else -as_float(mean)


def measurements_table(
    lines: Sequence[Measurement],
    summary: Summary,
    others: Sequence[str],
    rough: Mapping[str, bool] | None = None,
) -> dict[str, object]:
    """Returns runs and floors in their order: means, bars on one scale, widths, further columns.

    Args:
        lines: The rows.
        summary: Of a run, which says what the headline is.
        others: Titles of the further columns.
        rough: Statistic -> whether few groups carry the floors' means, too.
    """
    headline, extras = headline_of(summary), extra_means(summary)
    ends = [ends_of(line.measured, "micro") for line in lines]
    micros = [number_in(line.measured, f"micro_{headline['mean']}") for line in lines]
    limit = scale_limit([*micros, *(one["high"] for one in ends)])
    rows = []
    for line, value, micro in zip(lines, micros, ends, strict=True):
        measured, macro = line.measured, ends_of(line.measured, "macro")
        if rough and line.kind == "floor":
            micro["rough"], macro["rough"] = rough["micro"], rough["macro"]
        means = [number_in(measured, f"micro_{name}") for name in extras]
        width = measured.get("dim", measured.get("embedding_dim"))
        row = cells(
            line.name,
            mean_cell(value, micro),
            _bar(value, micro, limit),
            mean_cell(number_in(measured, f"macro_{headline['mean']}"), macro),
            *(valued(number(mean), mean) for mean in means),
            valued(count(width), width),
            *line.others,
        )
        rows.append(Row(row, line.kind))
    columns = [
        TableColumn("Embedding", "name"),
        TableColumn(f"{headline['title']} micro", with_ends=True),
        TableColumn(number(limit, 1), "mark"),
        *map(TableColumn, ("macro", *map(metric_title, extras), "width", *others)),
    ]
    return shown_table(Table("", columns, rows), len(rows))


def _bar(mean: Number, ends: Ends, limit: float) -> Cell:
    return Cell(mark=mark(mean, ends.get("low"), ends.get("high"), limit))


def standing_table(summary: Summary, name: str) -> dict[str, object] | None:
    """Returns the run and then its floors, best first; None where there are no floors."""
    floors = summary.get("floors")
    if not floors:
        return None
    # the same groups carry the floors' means
    rough = {each: ends_of(summary, each).get("rough") is True for each in ("micro", "macro")}
    lines = []
    for floor in floors:
        p, p_holm = floor.get("p_value"), floor.get("p_holm", floor.get("p_value"))
        found = floor.get("difference"), floor.get("difference_low"), floor.get("difference_high")
        of = rough[floor.get("statistic") or "micro"]
        tested = [
            difference_cell(*found, p_holm, rough=of),
            _p_cell(p, p_holm),
        ]
        lines.append(Measurement(Cell(floor.get("title") or floor["name"]), "floor", floor, tested))
    run = Measurement(Cell(name, tag="this run"), "run", summary, [valued(number(None), None)] * 2)
    ordered = [run, *best_first(lines, headline_of(summary)["mean"])]
    return measurements_table(ordered, summary, ("run minus floor", "p"), rough)


def products_table(summary: Summary, name: str) -> dict[str, object] | None:
    """Returns the run and then its floors over products; None where there are no such numbers."""
    products = summary.get("products")
    floors = products.get("floors") if products else None
    if not products or not floors:
        return None
    rough = products.get("rough") is True  # the same groups carry the floors' means
    ends: Ends = {"low": products["low"], "high": products["high"]}
    lines: list[tuple[Cell, float, Ends, list[Cell]]] = [
        (Cell(name, tag="this run"), products["mean"], ends, [valued(number(None), None)] * 2)
    ]
    for floor in sorted(floors, key=lambda floor: _order(floor["micro"])):
        found = floor["difference"], floor["difference_low"], floor["difference_high"]
        tested = [difference_cell(*found, floor["p_holm"], rough=rough)]
        tested += [_p_cell(floor["p_value"], floor["p_holm"])]
        line = Cell(floor["title"]), as_float(floor["micro"]), ends_of(floor, "micro"), tested
        lines.append(line)
    limit = scale_limit([value for _, mean, ends, _ in lines for value in (mean, ends["high"])])
    rows = [
        Row(
            (named, mean_cell(mean, {**ends, "rough": rough}), _bar(mean, ends, limit), *tested),
            "floor" if place else "run",
        )
        for place, (named, mean, ends, tested) in enumerate(lines)
    ]
    columns = [
        TableColumn("Embedding", "name"),
        TableColumn(products["title"], with_ends=True),
        TableColumn(number(limit, 1), "mark"),
        *map(TableColumn, ("run minus floor", "p")),
    ]
    return shown_table(Table("", columns, rows), len(rows))


def category_table(
    per_category: pd.DataFrame,
    summary: Summary,
    floors_per_category: pd.DataFrame | None,
    max_rows: int,
) -> dict[str, object]:
    """Returns a ``table`` of the categories, best first, those without a scored query last.

    Beside it the numbers of categories that have ``few`` queries, a ``rough`` interval, or a floor
    that is better (``below``), and whether there are floors (``has_floor``).

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
    besides = {
        "num_queries_scored", "num_queries", "num_gallery", "num_left_out", "num_groups",
        "category", mean, "headline_low", "headline_high", "few_queries", "rough",
        "effective_groups",
    }  # fmt: skip
    extras = [
        column
        for column in per_category.columns
        if column not in besides and is_number(per_category[column].iloc[0])
    ]
    floors = _best_floors(floors_per_category, summary)
    records = per_category.to_dict("records")
    records.sort(key=lambda values: (_order(values[mean]), str(values["category"])))
    limit = scale_limit(
        [values.get(end) for values in records for end in (mean, "headline_high")]
        + [value for _, value in floors.values()]
    )
    counts = [("num_gallery", "n gallery")]
    if "num_groups" in per_category:
        counts.insert(0, ("num_groups", "n groups"))
    if any(values.get("num_left_out") for values in records):
        counts.insert(0, ("num_left_out", "left out"))
    rows, num_few, num_rough, num_below = [], 0, 0, 0
    for values in records:
        scored = values.get("num_queries_scored", values.get("num_queries"))
        few = values.get("few_queries")
        is_few = bool(few) if few is not None else (scored or 0) < _FEW_QUERIES
        ends: Ends = {
            "low": values.get("headline_low"),
            "high": values.get("headline_high"),
            "rough": values.get("rough") is True,
        }
        bar, of_floor = _bar(values[mean], ends, limit), Cell(number(None))
        if floor := floors.get(str(values["category"])):
            title, value = floor
            below = value > as_float(values[mean])
            num_below += below
            of_floor = valued(number(value), value, title)
            of_floor = replace(of_floor, sign="below" if below else "")
            if bar.mark:
                at = round(min(value / limit, 1.0) * 100, 2)
                bar = Cell(mark={**bar.mark, "floor_at": at})
        num_few += is_few
        num_rough += bool(ends["rough"]) and not is_missing(ends["low"])
        rows.append(
            Row(
                cells(
                    Cell(str(values["category"]), tag="few" if is_few else ""),
                    valued(count(scored), scored),
                    mean_cell(values[mean], ends),
                    bar,
                    *([of_floor] if floors else []),
                    *(valued(number(values[name]), values[name]) for name in extras),
                    *(valued(count(values.get(name)), values.get(name)) for name, _ in counts),
                )
            )
        )
    columns = [
        TableColumn("Category", "name"),
        TableColumn("n queries"),
        TableColumn(headline["title"], with_ends=True),
        TableColumn(number(limit, 1), "mark"),
        *([TableColumn("best floor")] if floors else []),
        *(TableColumn(metric_title(str(name))) for name in extras),
        *(TableColumn(title) for _, title in counts),
    ]
    return {
        "table": shown_table(Table("", columns, rows), max_rows),
        "few": num_few,
        "has_floor": bool(floors),
        "rough": num_rough,
        "below": num_below,
    }


def _best_floors(table: pd.DataFrame | None, summary: Summary) -> dict[str, tuple[str, float]]:
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
            best[str(values["category"])] = (titles.get(name, name), known[name])
    return best


def shown_table(table: Table, max_rows: int, given: int | None = None) -> dict[str, object]:
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
    return {"columns": columns, "rows": rows, "given": given or len(table.rows)}


def _linked(cell: Cell) -> Cell:
    return replace(cell, href=relative_link(cell.href)) if cell.href else cell


def plain_table(table: pd.DataFrame, max_rows: int) -> dict[str, object]:
    """Returns any table, its first column as the rows' names."""
    head = table.head(max_rows)
    numeric = [
        len(head) > 0 and all(is_missing(value) or is_number(value) for value in head[column])
        for column in table.columns
    ]
    columns = [
        TableColumn(str(name), "name" if place == 0 else "number" if is_numeric else "words")
        for place, (name, is_numeric) in enumerate(zip(table.columns, numeric, strict=True))
    ]
    rows = [
        Row(
            [
                valued(cell(value), value) if is_numeric else Cell(cell(value))
                for value, is_numeric in zip(line, numeric, strict=True)
            ]
        )
        for line in head.itertuples(index=False, name=None)
    ]
    return shown_table(Table("", columns, rows), max_rows, len(table))


def measured_table(table: pd.DataFrame | None, max_rows: int) -> dict[str, object] | None:
    """Returns a table of measured values: intervals beside their value, differences with a sign.

    Columns ``low`` and ``high`` belong to ``difference``, ``x_low`` and ``x_high`` to ``x``,
    ``low:run`` and ``high:run`` to ``mean:run``; they stand in its cell, with the word of ``rough``
    where that is true; what Holm's correction leaves of a p stands below it. None where there is no
    row.
    """
    if table is None or len(table) == 0:
        return None
    names = [str(column) for column in table.columns]
    ends = {name: pair for name in names for pair in _ends(name) if set(pair) <= set(names)}
    inside = {end for pair in ends.values() for end in pair}
    # without any p, the interval alone says what the sign does
    decides = next((name for name in _P_COLUMNS if name in names), None)
    if decides and decides != "p_value" and "p_value" in names:
        inside.add(decides)  # below the p that it corrects
    kinds = {
        name: _kind(name, table.dtypes.iloc[place].kind)
        for place, name in enumerate(names)
        if name not in inside and name != "rough"
    }
    rows = []
    for line in table.head(max_rows).itertuples(index=False, name=None):
        values = dict(zip(names, line, strict=True))
        rough = values.get("rough") is True
        row = []
        for name, kind in kinds.items():
            value = values[name]
            low, high = (values[end] for end in ends[name]) if name in ends else (None, None)
            if kind == "text":
                row.append(Cell(cell(value)))
            elif kind == "difference":
                p = values[decides] if decides else 0.0
                row.append(difference_cell(value, low, high, p, rough=rough))
            elif kind == "fraction":
                row.append(mean_cell(value, {"low": low, "high": high, "rough": rough}))
            elif kind == "effective":
                row.append(valued(three_digits(value), value))
            elif kind == "p":
                row.append(_p_cell(value, values[decides] if decides in inside else None))
            else:
                row.append(valued(count(value), value))
        rows.append(Row(row))
    columns = [
        TableColumn(
            _TITLES.get(name, name.removeprefix("mean:")),
            "name" if place == 0 else "words" if kind == "text" else "number",
        )
        for place, (name, kind) in enumerate(kinds.items())
    ]
    return shown_table(Table("", columns, rows), max_rows, len(table))


def _p_cell(p: Number, holm: Number) -> Cell:
    """Returns a p, and below it that after Holm's correction: two columns would leave the page."""
    return valued(p_value(p), p, "" if is_missing(holm) else f"Holm {p_value(holm)}")


def _ends(name: str) -> list[tuple[str, str]]:
    """Returns the names that the columns of a value's interval may have."""
    ends = [(f"{name}_low", f"{name}_high")]
    if name == "difference":
        ends.append(("low", "high"))
    if name.startswith("mean:"):
        ends.append((f"low:{name[5:]}", f"high:{name[5:]}"))
    return ends


def _kind(name: str, dtype: str) -> str:
    """Returns how a column is written: difference, p, count, effective, fraction or text."""
    if dtype not in "iuf":
        return "text"
    if name == "effective_groups":
        return "effective"
    if name.endswith("difference"):
        return "difference"
    if name.endswith("p_value") or name == "p_holm":
        return "p"
    return "fraction" if dtype == "f" else "count"
