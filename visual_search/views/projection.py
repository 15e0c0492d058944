"""Embeddings in three dimensions: UMAP, or PCA for a handful of points; and a figure of them."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from visual_search.views.sheet import HEADER_IN, MARGIN_IN, axes_in_inches, new_figure
from visual_search.views.style import (
    INK,
    MUTED,
    RULE,
    group_rare,
    quiet_style,
    show_literally,
    styles_by_category,
)
from visual_search.wording import many, number, of_all, one_line

MIN_POINTS_FOR_UMAP = 200  # of fewer, compiling UMAP takes as long as all else of a run: 10 s
MAX_BY_STYLE_ALONE = 10  # categories that colour and marker alone keep apart
_SMALL_IN, _GAP_IN = 1.28, 0.12  # a category's own panel, and from one to the next
_MAX_BEHIND = 2000  # grey points behind it


@dataclass(frozen=True, eq=False)
class Projection:
    """Points in few dimensions, and how they came about.

    Attributes:
        points: ``[N, num_components] float32``, row i belongs to embedding i.
        method: "umap" or "pca".
        description: One line for a figure's subtitle, with every setting.
        trustworthiness: See `trustworthiness`; NaN for too few points.
    """

    points: NDArray[np.float32]
    method: Literal["umap", "pca"]
    description: str
    trustworthiness: float


def project_embeddings(
    embeddings: NDArray[np.float32],
    *,
    num_components: int = 3,
    num_neighbours: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    neighbours: tuple[NDArray[np.integer], NDArray[np.floating]] | None = None,
    show_progress: bool = False,
) -> Projection:
    """Returns the embeddings in ``num_components`` dimensions, the same for the same arguments.

    UMAP (McInnes et al., arXiv 1802.03426) with Euclidean distances. Fewer than 200 points, fewer
    than ``num_neighbours`` + 2, or points that are all the same are projected by PCA instead; see
    `Projection.method`. Distances within UMAP's clusters mean something, those between them little.

    Args:
        embeddings: ``[N, D] float32``, finite.
        num_components: 2 or 3.
        num_neighbours: UMAP's ``n_neighbors``, which counts the item itself.
        min_dist: UMAP's ``min_dist``, in [0, 1].
        seed: Of UMAP alone; a seeded UMAP runs on one core.
        neighbours: ``(rows [N, k] integer, distances [N, k])`` of the exact nearest neighbours
            within ``embeddings``, nearest first, for example from FAISS: spares UMAP its own
            search. **Euclidean distances, not squared ones.** Whether an item stands in its own
            list does not matter: it is put first. At least ``num_neighbours`` columns are needed
            with the item itself, one less without.
        show_progress: Whether UMAP draws a progress bar while it moves the points.

    Raises:
        ValueError: Embeddings are no finite ``[N, D]`` with N, D >= 1; ``num_components`` is
            neither 2 nor 3; ``num_neighbours`` is below 2; ``min_dist`` lies outside [0, 1];
            neighbours have the wrong shape, point outside the embeddings, are too few, are not in
            ascending order, or are squared.
    """
    embeddings = np.asarray(embeddings, dtype=np.float32)
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(
            f"embeddings are {list(embeddings.shape)}, expected [N, D] with N and D at least 1; "
            "give one row an item."
        )
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(broken):
        raise ValueError(
            f"{len(broken)} embedding(s) hold NaN or infinity, the first in row {broken[0]}; "
            "check the weights and the pictures of these items."
        )
    if num_components not in (2, 3):
        raise ValueError(f"num_components is {num_components}, expected 2 or 3.")
    if num_neighbours < 2:
        raise ValueError(
            f"num_neighbours is {num_neighbours}, expected at least 2 (the item counts), as 15."
        )
    if not 0 <= min_dist <= 1:
        raise ValueError(f"min_dist is {min_dist}, expected a value in [0, 1], as 0.1.")
    precomputed: tuple[NDArray[np.integer], NDArray[np.floating]] | None = None
    num_items = len(embeddings)
    few = num_items < max(MIN_POINTS_FOR_UMAP, num_neighbours + 2)
    if few or (embeddings == embeddings[0]).all():
        why = "all items are the same"
        if few:
            why = f"{many(num_items, 'item is', 'items are')} too few for UMAP"
        points = _pca(embeddings, num_components)
        description = f"PCA to {num_components} dimensions ({why})"
        return _judged(embeddings, points, "pca", description, num_neighbours)
    if neighbours is not None:
        precomputed = _with_itself_first(embeddings, *neighbours, num_neighbours)
    points = _umap(
        embeddings, num_components, num_neighbours, min_dist, seed, precomputed, show_progress
    )
    description = (
        f"UMAP to {num_components} dimensions ({num_neighbours} neighbours, min_dist {min_dist:g}, "
        f"seed {seed})"
    )
    return _judged(embeddings, points, "umap", description, num_neighbours)


def _judged(
    embeddings: NDArray[np.float32],
    points: NDArray[np.float32],
    method: Literal["umap", "pca"],
    description: str,
    num_neighbours: int,
) -> Projection:
    """Returns a projection that says how far it is to be trusted."""
    value = trustworthiness(embeddings, points, num_neighbours)
    if not math.isnan(value):
        description += f"; trustworthiness {number(value)}"
    return Projection(points, method, description, value)


def trustworthiness(
    embeddings: NDArray[np.float32],
    points: NDArray[np.float32],
    num_neighbours: int = 15,
    max_asked: int = 1000,
) -> float:
    """Returns how far neighbours among the points are neighbours among the embeddings, 0 to 1.

    1 - 2 / (N k (2N - 3k - 1)) * sum over items i and those of their k nearest points j that are
    not among their k nearest embeddings of (r(i, j) - k), where r(i, j) is j's rank among the
    embeddings as seen from i, the nearest having 1 (Venna and Kaski 2001). Points thrown at random
    have about 0.5. Of more than ``max_asked`` items as many are asked, evenly spaced, among all of
    them: scikit-learn's ``trustworthiness`` holds three tables of N x N, 2.4 GB at 10,000 items.

    Args:
        embeddings: ``[N, D] float32``.
        points: ``[N, P] float32``, row i belongs to embedding i.
        num_neighbours: k.
        max_asked: Items whose neighbours are compared.

    Returns:
        NaN where N is below 2k + 2: the formula has no meaning there.
    """
    num, k = len(embeddings), num_neighbours
    if num < 2 * k + 2:
        return math.nan
    asked = np.unique(np.linspace(0, num - 1, min(num, max_asked), dtype=np.int64))
    before, after = (
        values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
        for values in (embeddings, points)
    )
    excess = 0.0
    for start in range(0, len(asked), 100):  # 100 x 10,000 distances at a time
        rows = asked[start : start + 100]
        nearest = np.argsort(_squared_distances(after, rows), axis=1, kind="stable")[:, 1 : k + 1]
        order = np.argsort(_squared_distances(before, rows), axis=1, kind="stable")
        ranks = np.empty_like(order)  # [rows, N], of the item itself 0
        np.put_along_axis(ranks, order, np.arange(num)[None], axis=1)
        excess += float(np.maximum(np.take_along_axis(ranks, nearest, axis=1) - k, 0).sum())
    return 1 - 2 * excess / (len(asked) * k * (2 * num - 3 * k - 1))


def _squared_distances(values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns ``[len(rows), N]``; an item's own is below all others, so that it comes first."""
    lengths = (values**2).sum(axis=1)
    squared: NDArray[np.float64] = lengths[rows, None] + lengths - 2 * values[rows] @ values.T
    squared[np.arange(len(rows)), rows] = -np.inf
    return squared


def _pca(embeddings: NDArray[np.float32], num_components: int) -> NDArray[np.float32]:
    """Projects on the first components; missing ones are 0; signs fixed by the largest weight."""
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    points = np.zeros((len(embeddings), num_components))
    _, strengths, directions = np.linalg.svd(centred, full_matrices=False)
    for component in range(min(num_components, len(directions))):
        if strengths[component] <= 1e-9 * max(strengths[0], 1e-30):
            break  # noise of the arithmetic, not a direction of the data
        direction = directions[component]
        direction = direction * np.sign(direction[np.argmax(np.abs(direction))])
        points[:, component] = centred @ direction
    return points.astype(np.float32)


def _umap(
    embeddings: NDArray[np.float32],
    num_components: int,
    num_neighbours: int,
    min_dist: float,
    seed: int,
    precomputed: tuple[NDArray[np.integer], NDArray[np.floating]] | None,
    show_progress: bool,
) -> NDArray[np.float32]:
    with warnings.catch_warnings():
        # UMAP warns that new points cannot be added later without a search index (none will be),
        # and where its spectral start does not converge (it then takes a random one, seeded).
        warnings.simplefilter("ignore")
        import umap

        settings: dict[str, Any] = {}
        if precomputed is not None:
            settings["precomputed_knn"] = precomputed
        reducer = umap.UMAP(
            n_components=num_components,
            n_neighbors=num_neighbours,
            min_dist=min_dist,
            random_state=seed,
            n_jobs=1,
            tqdm_kwds={"disable": not show_progress, "desc": "Projecting", "leave": False},
            **settings,
        )
        points = reducer.fit_transform(embeddings)
    return np.ascontiguousarray(points, dtype=np.float32)


def _with_itself_first(
    embeddings: NDArray[np.float32],
    given_rows: NDArray[np.integer],
    given_distances: NDArray[np.floating],
    num_neighbours: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns exactly ``num_neighbours`` columns of which the first is the item at distance 0."""
    num_items = len(embeddings)
    rows = np.array(given_rows, dtype=np.int64)  # copies: UMAP writes into what it gets
    distances = np.array(given_distances, dtype=np.float32)
    if rows.ndim != 2 or rows.shape != distances.shape or len(rows) != num_items:
        raise ValueError(
            f"neighbours are {list(rows.shape)} rows and {list(distances.shape)} distances, "
            f"expected both [{num_items}, k]; search the same embeddings."
        )
    if len(rows) and (rows.min() < 0 or rows.max() >= num_items):
        outside = int(rows[(rows < 0) | (rows >= num_items)][0])
        raise ValueError(
            f"neighbours point to row {outside}, expected 0 to {num_items - 1}; leave out the "
            "padding of a search that found too few."
        )
    if not np.isfinite(distances).all() or (np.diff(distances, axis=1) < 0).any():
        raise ValueError(
            "the neighbours' distances are not finite and ascending in every row; give Euclidean "
            "distances, nearest first."
        )
    itself = rows == np.arange(num_items)[:, None]
    # An item that is not found among its equals stands nowhere in its row: it displaces the last.
    missing = ~itself.any(axis=1)
    enough = rows.shape[1] + int(missing.all()) >= num_neighbours
    if not enough:
        raise ValueError(
            f"neighbours have {rows.shape[1]} columns, expected at least {num_neighbours} with the "
            f"item itself ({num_neighbours - 1} without); search for more, or lower num_neighbours."
        )
    if missing.all():
        others, others_distances = rows, distances
    else:
        itself[missing, -1] = True
        others = rows[~itself].reshape(num_items, -1)
        others_distances = distances[~itself].reshape(num_items, -1)
    columns = num_neighbours - 1
    rows = np.hstack([np.arange(num_items)[:, None], others[:, :columns]])
    distances = np.hstack([np.zeros((num_items, 1), np.float32), others_distances[:, :columns]])
    _refuse_squared(embeddings, rows, distances)
    return rows, distances


def _refuse_squared(
    embeddings: NDArray[np.float32], rows: NDArray[np.int64], distances: NDArray[np.float32]
) -> None:
    """Compares the last neighbours' distances of up to 50 items with the embeddings themselves."""
    sample = np.linspace(0, len(rows) - 1, min(len(rows), 50)).astype(np.int64)
    difference = embeddings[sample].astype(np.float64) - embeddings[rows[sample, -1]]
    true = np.sqrt((difference**2).sum(axis=1))
    given = distances[sample, -1]
    # 1 % and a thousandth of the spread: room for the rounding of FAISS's squared distances
    slack = 0.01 * true + 1e-3 * float(np.abs(embeddings[sample]).max())
    if (np.abs(given - true) > slack).any():
        worst = int(np.argmax(np.abs(given - true)))
        raise ValueError(
            f"the distance from row {sample[worst]} to row {rows[sample[worst], -1]} is given as "
            f"{given[worst]:.6g}, expected {true[worst]:.6g} (Euclidean); take the square root of "
            "squared distances and search the same embeddings."
        )


def projection_figure(
    points: NDArray[np.float32],
    categories: Sequence[str],
    title: str,
    method: str,
    num_all: int | None = None,
) -> Figure:
    """Returns four views of the points: in three dimensions, and along each of the three axes.

    Categories differ by colour and marker; beyond 50 the rarest become "other". Above ten, which
    nobody tells apart by that alone, each also has a small panel of its own below.

    Args:
        points: ``[N, 3] float32`` (or ``[N, 2]``: then there is one view).
        categories: N names.
        title: What the points are, such as "Gallery after epoch 7".
        method: How they were projected, such as `Projection.description`.
        num_all: Items of which these are some; None where they are all.

    Raises:
        ValueError: Points are no finite ``[N, 2 or 3]`` with N >= 1, or the categories differ in
            number.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) == 0:
        raise ValueError(
            f"points are {list(points.shape)}, expected [N, 3] or [N, 2] with N at least 1; "
            "project the embeddings first."
        )
    if not np.isfinite(points).all():
        raise ValueError("points hold NaN or infinity, expected finite values; project them anew.")
    if len(categories) != len(points):
        raise ValueError(
            f"there are {len(points)} points and {len(categories)} categories, expected one each."
        )
    shown = group_rare([str(category) for category in categories])
    styles = styles_by_category(shown)
    names = list(styles)
    flat = points.shape[1] == 2
    # legend columns of at most 25 names beside a block of 7.9 inches of panels
    legend_columns = 1 if len(names) <= 26 else 2
    panels_in, legend_in = 7.7, 2.35
    method_names = {"umap": "UMAP", "pca": "PCA"}
    axis_name = next((n for key, n in method_names.items() if key in method.lower()), "axis")
    small = names if len(names) > MAX_BY_STYLE_ALONE else []
    width_in = 2 * MARGIN_IN + panels_in + legend_columns * legend_in
    num_columns = int((width_in - 2 * MARGIN_IN + _GAP_IN) / (_SMALL_IN + _GAP_IN))
    small_in = (_SMALL_IN + 0.3) * math.ceil(len(small) / num_columns)
    with quiet_style():
        figure = new_figure(
            width_in,
            HEADER_IN + panels_in + 0.35 + small_in,
            title,
            f"{method_names.get(method, method)}; "
            f"{of_all(len(points), num_all or len(points), 'item')} in "
            f"{many(len(set(categories)), 'category', 'categories')}",
        )
        order = np.random.default_rng(0).permutation(len(points))
        if flat:
            axes = axes_in_inches(figure, MARGIN_IN, HEADER_IN, panels_in, panels_in)
            _scatter(axes, points, shown, styles, order, (0, 1), 2.0)
            _flat_axes(axes, axis_name, 0, 1)
        else:
            half = panels_in / 2
            solid = axes_in_inches(
                figure, MARGIN_IN - 0.1, HEADER_IN - 0.05, half, half + 0.1, projection="3d"
            )
            _scatter(solid, points, shown, styles, order, (0, 1, 2), 1.0)
            _solid_axes(solid, axis_name)
            places = {(0, 1): (1, 0), (0, 2): (0, 1), (1, 2): (1, 1)}
            for (first, second), (column, row) in places.items():
                axes = axes_in_inches(
                    figure,
                    MARGIN_IN + column * half + 0.15,
                    HEADER_IN + row * half + (0.0 if row == 0 else 0.1),
                    half - 0.3,
                    half - 0.3,
                )
                _scatter(axes, points, shown, styles, order, (first, second), 1.0)
                _flat_axes(axes, axis_name, first, second)
        for place, name in enumerate(small):
            row, column = divmod(place, num_columns)
            left = MARGIN_IN + column * (_SMALL_IN + _GAP_IN)
            top = HEADER_IN + panels_in + 0.45 + row * (_SMALL_IN + 0.3)
            axes = axes_in_inches(figure, left, top, _SMALL_IN, _SMALL_IN)
            mine = np.array([each == name for each in shown])
            _small_panel(axes, points, mine, name, styles[name])
        counts = Counter(shown)
        handles = [
            Line2D(
                [], [], linestyle="none", marker=styles[name][1], color=styles[name][0],
                markersize=7, label=f"{one_line(name, 20)} ({counts[name]:,})",
            )
            for name in names
        ]  # fmt: skip
        width, height = figure.get_size_inches()
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=((MARGIN_IN + panels_in + 0.1) / width, 1 - HEADER_IN / height),
            ncols=legend_columns,
            fontsize=9.5,
            handletextpad=0.3,
            columnspacing=1.2,
            borderaxespad=0.0,
            labelspacing=0.45,
        )
    return show_literally(figure)


def _scatter(
    axes: Any,
    points: NDArray[np.floating],
    categories: Sequence[str],
    styles: dict[str, tuple[str, str]],
    order: NDArray[np.integer],
    columns: tuple[int, ...],
    scale: float,
) -> None:
    """Draws the points in a shuffled order, so that no category covers the others."""
    size = float(np.clip(9000 / len(points), 3.5, 34)) * scale
    for marker in dict.fromkeys(style[1] for style in styles.values()):
        chosen = [i for i in order if styles[categories[i]][1] == marker]
        if chosen:
            # depth shading would wash the colours out that the legend shows
            solid = {"depthshade": False} if len(columns) == 3 else {}
            axes.scatter(
                *(points[chosen, column] for column in columns), **solid,
                c=[styles[categories[i]][0] for i in chosen],
                marker=marker, s=size, alpha=0.8, linewidths=0,
            )  # fmt: skip


def _small_panel(
    axes: Axes,
    points: NDArray[np.floating],
    mine: NDArray[np.bool_],
    name: str,
    style: tuple[str, str],
) -> None:
    """Draws one category on the first two axes, before the others in grey."""
    behind = np.flatnonzero(~mine)
    behind = behind[:: max(1, len(behind) // _MAX_BEHIND)]
    settings: dict[str, Any] = {"linestyle": "none", "markeredgewidth": 0}
    axes.plot(*points[behind, :2].T, marker="o", markersize=1.6, color=RULE, **settings)
    size = float(np.clip(60 / math.sqrt(max(mine.sum(), 1)), 2.0, 5.0))
    axes.plot(*points[mine, :2].T, marker=style[1], markersize=size, color=style[0], **settings)
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    room = 0.04 * np.maximum(high - low, 1e-9)
    axes.set_xlim(low[0] - room[0], high[0] + room[0])
    axes.set_ylim(low[1] - room[1], high[1] + room[1])
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(RULE)
    axes.set_title(one_line(name, 18), fontsize=8, loc="left", pad=2, color=INK)


def _flat_axes(axes: Axes, axis_name: str, first: int, second: int) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.margins(0.04)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(RULE)
    axes.set_xlabel(f"{axis_name} {first + 1}", fontsize=9, labelpad=3, loc="left")
    axes.set_ylabel(f"{axis_name} {second + 1}", fontsize=9, labelpad=3, loc="bottom")


def _solid_axes(axes: Any, axis_name: str) -> None:
    axes.view_init(elev=22, azim=-58)
    axes.set_box_aspect((1, 1, 0.85), zoom=1.03)
    for place, axis in enumerate((axes.xaxis, axes.yaxis, axes.zaxis)):
        axis.set_ticks([])
        axis.set_pane_color((0.97, 0.97, 0.97, 1.0))
        axis.line.set_color("#cccccc")
        axis.set_label_text(f"{axis_name} {place + 1}", fontsize=9, color=MUTED)
        axis.labelpad = -12
    axes.tick_params(colors=INK)
