from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.views.drawn import NAN, texts
from visual_search.views.projection import (
    project_embeddings,
    projection_figure,
    trustworthiness,
)

Neighbours = tuple[NDArray[np.int64], NDArray[np.float32]]


def clusters(num_items: int = 240, width: int = 8) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, width)) * 8
    items = centres[np.arange(num_items) % 3] + rng.normal(size=(num_items, width))
    return items.astype(np.float32)


def nearest(embeddings: NDArray[np.float32], k: int, *, itself: bool = True) -> Neighbours:
    """Returns the k nearest of each item by brute force; among equals the first one comes first."""
    difference = embeddings[:, None].astype(np.float64) - embeddings[None]
    distances = np.sqrt((difference**2).sum(axis=2))
    if not itself:
        np.fill_diagonal(distances, np.inf)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distances, rows, axis=1).astype(np.float32)


def assert_separated(points: NDArray[np.float32]) -> None:
    """Sees that the nearest two centres are farther apart than three times the widest spread."""
    groups = np.stack([points[start::3] for start in range(3)])
    centres = groups.mean(axis=1)
    spread = np.linalg.norm(groups - centres[:, None], axis=2).mean(axis=1).max()
    between = np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=1).min()
    assert between > 3 * spread


@pytest.mark.slow  # a first UMAP fit of a process compiles for 10 s
def test_umap_is_quiet_and_the_same_wherever_an_item_stands_among_its_neighbours() -> None:
    embeddings = clusters()
    embeddings[3] = embeddings[0]  # of the two the first comes first, in both rows
    given = nearest(embeddings, 16)
    kept = given[0].copy(), given[1].copy()
    without = nearest(embeddings, 16, itself=False)
    missing = given[0].copy(), given[1].copy()
    for mixed, alone in zip(missing, without, strict=True):
        mixed[5] = alone[5]  # it is found among the neighbours of all but item 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, *others = (
            project_embeddings(embeddings, neighbours=neighbours)
            for neighbours in (given, without, missing)
        )
        own = project_embeddings(embeddings, num_components=2)
    assert first.method == "umap"
    assert "15 neighbours, min_dist 0.1, seed 0" in first.description
    assert 0.8 < first.trustworthiness <= 1
    assert f"{first.trustworthiness:.3f}" in first.description
    assert first.points.dtype == np.float32
    assert (first.points.shape, own.points.shape) == ((240, 3), (240, 2))
    for other in others:
        np.testing.assert_array_equal(other.points, first.points)
    np.testing.assert_array_equal(given, kept)  # the caller's arrays stay as they were
    assert_separated(first.points)
    assert_separated(own.points)


@pytest.mark.parametrize(
    ("num_items", "more"), [(1, {}), (199, {}), (220, {"num_neighbours": 219})]
)
def test_a_handful_of_points_is_projected_by_pca(num_items: int, more: dict[str, int]) -> None:
    projection = project_embeddings(clusters(num_items), **more)
    assert projection.method == "pca"
    assert "too few" in projection.description
    assert projection.points.shape == (num_items, 3)
    assert np.isfinite(projection.points).all()


def test_pca_keeps_the_distances_of_three_dimensional_data() -> None:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 3)))
    embeddings = (rng.normal(size=(10, 3)) * (5, 2, 1) @ basis.T).astype(np.float32)
    points = project_embeddings(embeddings).points
    before = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    after = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert after == pytest.approx(before, abs=1e-4)
    assert points.std(axis=0)[0] > points.std(axis=0)[1] > points.std(axis=0)[2]


def test_equal_items_lie_at_the_origin() -> None:
    projection = project_embeddings(np.ones((30, 4), np.float32))
    assert projection.method == "pca"
    assert (projection.points == 0).all()


@pytest.mark.parametrize(("num_items", "k"), [(60, 15), (40, 5), (32, 15)])
def test_trustworthiness_is_that_of_scikit_learn(num_items: int, k: int) -> None:
    from sklearn import manifold

    rng = np.random.default_rng(0)
    embeddings = clusters(num_items)
    for points in (embeddings[:, :3], rng.normal(size=(num_items, 3)).astype(np.float32)):
        expected = manifold.trustworthiness(embeddings, points, n_neighbors=k)
        assert trustworthiness(embeddings, points, k) == pytest.approx(expected)
    # Of many items some are asked: what they say is near what all say.
    some = trustworthiness(embeddings, points, k, max_asked=num_items // 2)
    assert some == pytest.approx(expected, abs=0.15)
    assert np.isnan(trustworthiness(embeddings[:31], points[:31]))


ROWS, DISTANCES = nearest(clusters(), 15)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(({"embeddings": np.zeros(shape, np.float32)}, r"expected \[N, D\]")
          for shape in ((5,), (0, 4), (5, 0))),
        ({"embeddings": np.where(np.arange(240)[:, None] == 7, NAN, clusters())}, "first in row 7"),
        ({"num_components": 4}, "num_components is 4"),
        ({"num_neighbours": 1}, "num_neighbours is 1"),
        ({"min_dist": 1.5}, "min_dist is 1.5"),
        ({"neighbours": (ROWS[:50], DISTANCES[:50])}, r"expected both \[240, k\]"),
        ({"neighbours": (np.where(ROWS == 59, -1, ROWS), DISTANCES)}, "point to row -1"),
        ({"neighbours": (np.where(ROWS == 59, 240, ROWS), DISTANCES)}, "point to row 240"),
        ({"neighbours": (ROWS[:, :10], DISTANCES[:, :10])}, "10 columns, expected at least 15"),
        ({"neighbours": (ROWS, DISTANCES[:, ::-1])}, "not finite and ascending"),
        ({"neighbours": (ROWS, DISTANCES**2)}, "take the square root"),
    ],
)  # fmt: skip
def test_what_cannot_be_projected_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project_embeddings(**{"embeddings": clusters(), **given})


def test_the_figure_shows_four_views_and_a_legend() -> None:
    names = ["Coats & Jackets", "$5 socks $6", "Überzieher"]
    figure = projection_figure(clusters(60, 3), names * 20, "Gallery", "umap")
    assert len(figure.axes) == 4
    assert {"Gallery", "UMAP; 60 items in 3 categories", "UMAP 3"} <= set(texts(figure))
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["$5 socks $6 (20)", "Coats & Jackets (20)", "Überzieher (20)"]


def test_the_figure_of_two_dimensions_shows_every_point_in_its_categorys_colour() -> None:
    points = clusters(30, 2)
    figure = projection_figure(points, ["a", "b", "c"] * 10, "Gallery", "pca")
    (axes,) = figure.axes
    (collection,) = axes.collections
    offsets, colors = np.asarray(collection.get_offsets()), collection.get_facecolors()
    assert len(offsets) == 30
    handles = {h.get_label()[0]: h.get_markerfacecolor() for h in figure.legends[0].legend_handles}
    for point, color in zip(offsets, colors, strict=True):
        original = int(np.argmin(np.abs(points - point).sum(axis=1)))
        expected = handles["abc"[original % 3]]
        assert "#" + "".join(f"{round(part * 255):02x}" for part in color[:3]) == expected


def test_the_legend_of_sixty_categories_ends_with_other() -> None:
    categories = [f"Category number {i % 60:02d}" for i in range(180)]
    figure = projection_figure(clusters(180, 3), categories, "Gallery", "umap")
    texts(figure)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(legend) == 50
    assert legend[-1] == "other (33)"
