"""Items as pages show them: their pictures beside what was found, projected, or nearly the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.reading import SAVED, read_table
from visual_search.wording import first_by_size, many, number, three_digits

if TYPE_CHECKING:
    import pandas as pd

    from visual_search.catalog.cache import Pictures
    from visual_search.catalog.catalog import Catalog
    from visual_search.retrieval.report import RetrievalReport
    from visual_search.views.html import ExampleGroup, PicturePair, ProjectionView
    from visual_search.views.picture_grids import SearchRow

MAX_NEAR_PAIRS = 8
MAX_EXAMPLE_GROUPS = 60  # categories, those with most queries
MAX_PROJECTED = 3000  # points of the report's projection


class ShownItems:
    """The items with their pictures, by id."""

    def __init__(self, catalog: Catalog, pictures: Pictures) -> None:
        self.catalog, self.pictures = catalog, pictures
        self.row_of = {item_id: row for row, item_id in enumerate(catalog.table["item_id"])}

    def search_row(self, answered: Mapping[Any, Any], column: str) -> SearchRow:
        """Returns a line of ``per_query`` with its pictures."""
        import numpy as np

        from visual_search.views.picture_grids import SearchRow

        found = np.array([self.row_of[i] for i in answered["neighbour_ids"]], dtype=np.int64)
        return SearchRow(
            query_image=self.pictures[[self.row_of[answered["query_id"]]]][0],
            query_label=answered["query_id"],
            query_category=answered["category"],
            neighbour_images=self.pictures[found],
            neighbour_labels=list(answered["neighbour_ids"]),
            neighbour_categories=list(answered["neighbour_categories"]),
            squared_distances=np.array(answered["neighbour_squared_distances"], dtype=np.float64),
            correct=np.array(answered["neighbour_relevant"], dtype=np.bool_),
            score=float(answered[column]),
        )


def search_rows(
    per_query: pd.DataFrame, column: str, catalog: Catalog, pictures: Pictures
) -> list[SearchRow]:
    """Returns the lines of a report's ``per_query`` with their pictures, in their order."""
    shop = ShownItems(catalog, pictures)
    return [shop.search_row(line, column) for line in per_query.to_dict("records")]


def examples(report: RetrievalReport, shop: ShownItems) -> list[ExampleGroup]:
    """Returns the best and the worst queries of each category, of many those with most queries."""
    from visual_search.retrieval.extremes import best_first, worst_first
    from visual_search.views.html import ExampleGroup

    column = report.summary["headline"]["column"]
    title = report.summary["headline"]["title"]
    table = report.per_query
    scored = table.loc[table[column].notna(), "category"].value_counts()
    names = scored.index.tolist()
    chosen = sorted(names[i] for i in first_by_size(names, scored.tolist(), MAX_EXAMPLE_GROUPS))
    per_group = 2 if len(names) <= 12 else 1
    categories = table["category"].to_numpy(dtype=object)
    wanted = set(chosen)
    places: dict[str, dict[str, list[int]]] = {}
    for kind, order in (("worst", worst_first), ("best", best_first)):
        for place in order(table, column).tolist():
            if categories[place] in wanted:
                of_category = places.setdefault(categories[place], {"worst": [], "best": []})
                others = of_category["worst"] if kind == "best" else ()
                if len(of_category[kind]) < per_group and place not in others:
                    of_category[kind].append(place)

    def rows(chosen_places: Sequence[int]) -> list[SearchRow]:
        lines = table.iloc[list(chosen_places)].to_dict("records")
        return [shop.search_row(line, column) for line in lines]

    means = table.groupby("category")[column].mean()
    return [
        ExampleGroup(
            title=str(category),
            best=rows(places[category]["best"]),
            worst=rows(places[category]["worst"]),
            note=f"{title} {number(means[category])} over "
            f"{many(scored[category], 'query', 'queries')}",
        )
        for category in chosen
    ]


def projection(folder: Path, report: RetrievalReport, shop: ShownItems) -> ProjectionView | None:
    """Returns the gallery's points in three dimensions; None where they were not projected."""
    import numpy as np

    from visual_search.views.drawing import read_figure
    from visual_search.views.html import ProjectionView

    drawn = folder / "figures" / "projection.png"
    path = folder / "embeddings" / "projection.parquet"
    if not path.is_file():
        return None
    points = read_table(path, SAVED)
    rows = np.array([shop.row_of[i] for i in points["item_id"]], dtype=np.int64)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_PROJECTED), dtype=int))
    points, rows = points.iloc[chosen], rows[chosen]  # what describes them stays
    return ProjectionView(
        points=points[["x", "y", "z"]].to_numpy(dtype=np.float32),
        item_ids=points["item_id"].tolist(),
        categories=shop.catalog.table["category"].iloc[rows].tolist(),
        description=str(points.attrs.get("description", "The gallery in three dimensions")),
        num_all=report.summary["num_gallery"],
        pictures=shop.pictures,
        picture_rows=rows,
        figure=read_figure(drawn) if drawn.is_file() else None,
    )


def near_table(folder: Path) -> pd.DataFrame | None:
    """Returns ``metrics/near_duplicates.csv``; None where it has no line."""
    from visual_search.wording import from_cell

    path = folder / "metrics" / "near_duplicates.csv"
    ids = {"query_id": str, "gallery_id": str}
    table = read_table(path, SAVED, dtype=ids, keep_default_na=False)
    for column in ("query_id", "gallery_id"):
        table[column] = table[column].map(from_cell)
    return table if len(table) else None


def near_pairs(folder: Path, shop: ShownItems) -> list[PicturePair]:
    """Returns the closest of them with their pictures."""
    from visual_search.views.html import PicturePair

    table = near_table(folder)
    if table is None:
        return []
    pairs = []
    for line in table.head(MAX_NEAR_PAIRS).to_dict("records"):
        ids = (str(line["query_id"]), str(line["gallery_id"]))
        images = shop.pictures[[shop.row_of[item_id] for item_id in ids]]
        distance = three_digits(float(line["relative_squared_distance"]))
        note = f"{many(int(line['hash_bits']), 'bit')}, rel. d² {distance}"
        pairs.append(PicturePair((images[0], images[1]), ids, note))
    return pairs
