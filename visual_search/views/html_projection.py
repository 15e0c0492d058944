"""The turnable projection of a run report: its points, their pictures, what the script gets."""

from __future__ import annotations

import base64
import gzip
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from visual_search.views.drawing import DrawnFigure
from visual_search.views.html_figures import DARK_PAGE, readable
from visual_search.views.html_page import Detail
from visual_search.views.style import (
    group_rare,
    styles_by_category,
)
from visual_search.wording import one_line

_PLOTLY = Path(__file__).parent / "vendor" / "plotly"
# plotly draws no triangles in three dimensions, and an x too thin to see
_SYMBOLS = {"o": "circle", "^": "cross", "s": "square", "D": "diamond", "v": "circle-open"}
_BLOCK = 256  # pictures that are read at a time
_MAX_LABEL = 120


class SpritePictures(Protocol):
    """Pictures by row number: an array ``[N, 3, S, S] uint8``, or the catalogue's cache of them."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, eq=False)
class ProjectionView:
    """Points to turn, and what is shown of each.

    Attributes:
        points: ``[N, 3] float32``, finite, as `Projection.points`.
        item_ids: N ids.
        categories: N names.
        description: How the points came about, as `Projection.description`.
        pictures: By row number; only the rows of shown points are read. None shows none.
        picture_rows: ``[N] int64``, the row of each point's picture; None where row i belongs to
            point i.
        num_all: Items of the gallery, of which these points are some; None where they are all.
        figure: The same, drawn before; None draws it.

    Raises:
        ValueError: There is no point, points are not finite ``[N, 3]``, or a list differs in
            length.
    """

    points: NDArray[np.floating]
    item_ids: Sequence[str]
    categories: Sequence[str]
    description: str
    pictures: SpritePictures | None = None
    picture_rows: NDArray[np.int64] | None = None
    num_all: int | None = None
    figure: DrawnFigure | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.points)
        if len(shape) != 2 or shape[1] != 3 or shape[0] == 0 or not np.isfinite(self.points).all():
            raise ValueError(
                f"points are {list(shape)}, expected finite [N, 3] with N at least 1; project the "
                "embeddings to three dimensions."
            )
        lengths = {"item_ids": len(self.item_ids), "categories": len(self.categories)}
        if self.picture_rows is not None:
            lengths["picture_rows"] = len(self.picture_rows)
        if set(lengths.values()) != {shape[0]}:
            raise ValueError(
                f"there are {shape[0]} points, but {lengths}; give one entry a point in each."
            )


def choose_points(num_points: int, max_points: int) -> NDArray[np.int64]:
    """Returns which points are shown: all, or ``max_points`` evenly spread over their order.

    Example:
        >>> choose_points(10, 4).tolist()
        [0, 3, 6, 9]
    """
    if num_points <= max_points:
        return np.arange(num_points, dtype=np.int64)
    return np.rint(np.linspace(0, num_points - 1, max_points)).astype(np.int64)


def plotly_script() -> str:
    """Returns plotly's gl3d bundle with its licence in front, as it stands in a page."""
    licence = (_PLOTLY / "LICENSE").read_text(encoding="utf-8")
    code = gzip.decompress((_PLOTLY / "plotly-gl3d.min.js.gz").read_bytes()).decode()
    return f"/*!\n{licence}*/\n{code}"


def projection_data(view: ProjectionView, detail: Detail) -> dict[str, Any]:
    """Returns what the page's script draws, as plain values for `script_json`.

    ``names`` are the categories and ``category`` the point's place among them; ``groups`` are
    those with a colour of their own (at most 50) and ``group`` likewise. Colours come in two, for
    a light and a dark page. ``sprite`` holds the pictures of all points, row by row.
    """
    rows = choose_points(len(view.points), detail.max_points)
    points = np.asarray(view.points, dtype=np.float64)[rows]
    # three digits of the extent's thousandth are finer than a pixel of any screen
    centre, extent = points.mean(axis=0), max(float(np.ptp(points, axis=0).max()), 1e-12)
    points = np.round((points - centre) / extent * 20, 3)
    whole = [str(category) for category in view.categories]
    grouped = group_rare(whole)
    styles = styles_by_category(grouped)
    counts = Counter(grouped)
    groups = list(styles)
    names = sorted({whole[row] for row in rows})
    name_places = {name: place for place, name in enumerate(names)}
    group_places = {name: place for place, name in enumerate(groups)}
    data: dict[str, Any] = {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "z": points[:, 2].tolist(),
        "ids": [one_line(str(view.item_ids[row]), _MAX_LABEL) for row in rows],
        "names": [one_line(name, _MAX_LABEL) for name in names],
        "category": [name_places[whole[row]] for row in rows],
        "groups": [
            _style(one_line(name, _MAX_LABEL), *styles[name], counts[name]) for name in groups
        ],
        "group": [group_places[grouped[row]] for row in rows],
        "axis": "UMAP" if "umap" in view.description.lower() else "PCA",
    }
    if view.pictures is not None:
        of_points = rows if view.picture_rows is None else np.asarray(view.picture_rows)[rows]
        columns = math.ceil(math.sqrt(len(rows)))
        data["sprite"] = {
            "uri": _sprites(view.pictures, of_points, columns, detail),
            "columns": columns,
            "px": detail.sprite_px,
        }
    return data


def _style(name: str, colour: str, marker: str, num_points: int) -> dict[str, object]:
    return {
        "name": name,
        "count": num_points,
        "light": readable(colour, "#ffffff", 3.0),
        "dark": readable(colour, DARK_PAGE, 4.0),
        "symbol": _SYMBOLS[marker],
    }


def _sprites(
    pictures: SpritePictures, rows: NDArray[np.int64], columns: int, detail: Detail
) -> str:
    """Returns one sheet of small pictures, row by row, as a WebP data URI."""
    from PIL import Image

    side = detail.sprite_px
    sheet = Image.new("RGB", (columns * side, math.ceil(len(rows) / columns) * side), "white")
    for start in range(0, len(rows), _BLOCK):
        block = np.asarray(pictures[rows[start : start + _BLOCK]])
        for offset, pixels in enumerate(block):
            small = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
            row, column = divmod(start + offset, columns)
            sheet.paste(
                small.resize((side, side), Image.Resampling.BOX), (column * side, row * side)
            )
    written = io.BytesIO()
    sheet.save(written, "WEBP", quality=max(detail.quality - 12, 20), method=4)
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode("ascii")
