"""Items as pages show them: their pictures beside what was found, projected, or nearly the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from visual_search.catalog.cache import Pictures
    from visual_search.catalog.catalog import Catalog
    from visual_search.retrieval.report import RetrievalReport
    from visual_search.views.html import ExampleGroup, PicturePair, ProjectionView
    from visual_search.views.picture_grids import SearchRow

MAX_NEAR_PAIRS = 8
MAX_PROJECTED = 3000  # points of the report's projection


class ShownItems:
    """The items with their pictures, by id."""

    def __init__(self, catalog: Catalog, pictures: Pictures) -> None:
        self.catalog, self.pictures = catalog, pictures
        self.row_of = {item_id: row for row, item_id in enumerate(catalog.table["item_id"])}

    def search_row(self, answered: Mapping[Any, Any], column: str) -> SearchRow:
        """Gives a line of ``per_query`` with its pictures."""
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
    """Gives the lines of a report's ``per_query`` with their pictures, in their order."""
    shop = ShownItems(catalog, pictures)
    return [shop.search_row(line, column) for line in per_query.to_dict("records")]


def examples(report: RetrievalReport, shop: ShownItems) -> list[ExampleGroup]:
    """Gives the best and the worst queries of each category."""
    from visual_search.views.html import ExampleGroup

    column = report.summary["headline"]["column"]
    title = report.summary["headline"]["title"]
    scored = report.per_query[report.per_query[column].notna()]
    per_group = 2 if scored["category"].nunique() <= 12 else 1
    groups = []
    for category, lines in scored.groupby("category"):
        ordered = lines.sort_values([column, "query_id"])
        worst = ordered.head(min(per_group, len(ordered)))
        rest = ordered.iloc[len(worst) :]
        best = rest.sort_values([column, "query_id"], ascending=[False, True]).head(per_group)
        groups.append(
            ExampleGroup(
                title=str(category),
                best=[shop.search_row(line, column) for line in best.to_dict("records")],
                worst=[shop.search_row(line, column) for line in worst.to_dict("records")],
                note=f"{title} {lines[column].mean():.3f} over {len(lines)} queries",
            )
        )
    return groups


def projection(folder: Path, report: RetrievalReport, shop: ShownItems) -> ProjectionView | None:
    """Gives the gallery's points in three dimensions; None where they were not projected."""
    import numpy as np
    import pandas as pd

    from visual_search.views.html import ProjectionView

    path = folder / "embeddings" / "projection.parquet"
    if not path.is_file():
        return None
    points = pd.read_parquet(path)
    rows = np.array([shop.row_of[i] for i in points["item_id"]], dtype=np.int64)
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_PROJECTED), dtype=int))
    points, rows = points.iloc[chosen], rows[chosen]
    return ProjectionView(
        points=points[["x", "y", "z"]].to_numpy(dtype=np.float32),
        item_ids=points["item_id"].tolist(),
        categories=shop.catalog.table["category"].iloc[rows].tolist(),
        description="UMAP of the gallery's embeddings to three dimensions"
        + (f", {len(rows):,} of its items" if len(rows) < report.summary["num_gallery"] else ""),
        pictures=shop.pictures,
        picture_rows=rows,
    )


def near_table(folder: Path) -> pd.DataFrame | None:
    """Gives ``metrics/near_duplicates.csv``; None where it has no line."""
    import pandas as pd

    from visual_search.retrieval.report_files import from_cell

    path = folder / "metrics" / "near_duplicates.csv"
    table = pd.read_csv(path, dtype={"query_id": str, "gallery_id": str}, keep_default_na=False)
    for column in ("query_id", "gallery_id"):
        table[column] = table[column].map(from_cell)
    return table if len(table) else None


def near_pairs(folder: Path, shop: ShownItems) -> list[PicturePair]:
    """Gives the closest of them with their pictures."""
    from visual_search.views.html import PicturePair

    table = near_table(folder)
    if table is None:
        return []
    pairs = []
    for line in table.head(MAX_NEAR_PAIRS).to_dict("records"):
        ids = (str(line["query_id"]), str(line["gallery_id"]))
        images = shop.pictures[[shop.row_of[item_id] for item_id in ids]]
        note = f"{line['hash_bits']} bits, distance {float(line['relative_distance']):.2g}"
        pairs.append(PicturePair((images[0], images[1]), ids, note))
    return pairs
