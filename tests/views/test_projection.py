from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.views.test_figures import assert_texts_within_page, texts
from visual_search.views.projection import (
    _with_itself_first,
    project_embeddings,
    projection_figure,
)

Neighbours = tuple[NDArray[np.int64], NDArray[np.float32]]


def clusters(num_items: int = 60, width: int = 8, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, width)) * 8
    items = centres[np.arange(num_items) % 3] + rng.normal(size=(num_items, width))
    return items.astype(np.float32)


def brute_force(embeddings: NDArray[np.float32], k: int) -> Neighbours:
    difference = embeddings[:, None].astype(np.float64) - embeddings[None]
    distances = np.sqrt((difference**2).sum(axis=2))
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distances, rows, axis=1).astype(np.float32)


def separation(points: NDArray[np.float32]) -> float:
    """The nearest distance between centres over the widest spread within a cluster."""
    groups = [points[start::3] for start in range(3)]
    centres = [group.mean(axis=0) for group in groups]
    spread = max(
        float(np.linalg.norm(group - centre, axis=1).mean())
        for group, centre in zip(groups, centres, strict=True)
    )
    between = min(
        float(np.linalg.norm(centres[a] - centres[b])) for a, b in ((0, 1), (0, 2), (1, 2))
    )
    return between / spread


@pytest.mark.slow  # a first UMAP fit of a process compiles for 10 s
def test_umap_is_deterministic_quiet_and_finds_the_clusters_with_and_without_neighbours() -> None:
    embeddings = clusters()
    rows, distances = brute_force(embeddings, 18)
    given = (rows.copy(), distances.copy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = project_embeddings(embeddings, neighbours=given)
        second = project_embeddings(embeddings, neighbours=given)
        own = project_embeddings(embeddings, num_components=2)
    assert first.method == "umap"
    assert "15 neighbours, min_dist 0.1, seed 0" in first.description
    assert first.points.shape == (60, 3)
    assert first.points.dtype == np.float32
    assert np.array_equal(first.points, second.points)
    assert np.array_equal(given[0], rows), "the caller's arrays stay as they were"
    assert own.points.shape == (60, 2)
    assert separation(first.points) > 3
    assert separation(own.points) > 3


@pytest.mark.slow  # a first UMAP fit of a process compiles for 10 s
def test_neighbours_lead_to_the_same_graph_as_umaps_own_search() -> None:
    embeddings = clusters()
    with_itself = project_embeddings(embeddings, neighbours=brute_force(embeddings, 15))
    rows, distances = brute_force(embeddings, 15)
    without = project_embeddings(embeddings, neighbours=(rows[:, 1:], distances[:, 1:]))
    assert np.array_equal(with_itself.points, without.points)


def test_the_item_is_put_first_wherever_it_stood() -> None:
    embeddings = np.array([[0.0], [0.0], [0.0], [5.0]], np.float32)
    rows = np.array([[1, 0, 2], [0, 1, 2], [0, 1, 3], [3, 0, 1]])  # item 2 is missing in its row
    distances = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 5], [0, 5, 5]], np.float32)
    out_rows, out_distances = _with_itself_first(embeddings, rows, distances, 3)
    assert out_rows.tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 0, 1]]
    assert out_distances.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 5, 5]]


@pytest.mark.parametrize("num_items", [1, 2, 3, 16, 19])
def test_a_handful_of_points_is_projected_by_pca(num_items: int) -> None:
    projection = project_embeddings(clusters(num_items))
    assert projection.method == "pca"
    assert "too few" in projection.description
    assert projection.points.shape == (num_items, 3)
    assert np.isfinite(projection.points).all()


def test_many_neighbours_need_more_points_for_umap() -> None:
    assert project_embeddings(clusters(41), num_neighbours=40).method == "pca"


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


@pytest.mark.parametrize("shape", [(5,), (0, 4), (5, 0)])
def test_refuses_what_are_no_embeddings(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[N, D\]"):
        project_embeddings(np.zeros(shape, np.float32))


def test_refuses_nan_and_names_the_row() -> None:
    embeddings = clusters()
    embeddings[7, 2] = np.nan
    with pytest.raises(ValueError, match="the first in row 7"):
        project_embeddings(embeddings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_components": 4}, "num_components is 4"),
        ({"num_neighbours": 1}, "num_neighbours is 1"),
        ({"min_dist": 1.5}, "min_dist is 1.5"),
    ],
)
def test_refuses_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        project_embeddings(clusters(), **settings)


def wrong_neighbours() -> dict[str, tuple[Neighbours, str]]:
    rows, distances = brute_force(clusters(), 15)
    outside, unsorted = rows.copy(), distances.copy()
    outside[3, 14] = -1
    unsorted[:, 1] = 99
    return {
        "shape": ((rows[:50], distances[:50]), r"expected both \[60, k\]"),
        "outside": ((outside, distances), "point to row -1"),
        "few": ((rows[:, :10], distances[:, :10]), "have 10 columns, expected at least 15"),
        "unsorted": ((rows, unsorted), "not finite and ascending"),
        "squared": ((rows, distances**2), "take the square root"),
    }


@pytest.mark.parametrize("case", ["shape", "outside", "few", "unsorted", "squared"])
def test_refuses_wrong_neighbours(case: str) -> None:
    neighbours, message = wrong_neighbours()[case]
    with pytest.raises(ValueError, match=message):
        project_embeddings(clusters(), neighbours=neighbours)


def test_the_figure_shows_four_views_and_a_legend() -> None:
    points = clusters(60, 3)
    names = ["Coats & Jackets", "$5 socks $6", "Überzieher"]
    figure = projection_figure(points, [names[i % 3] for i in range(60)], "Gallery", "umap")
    shown = texts(figure)
    assert len(figure.axes) == 4
    assert {"Gallery", "UMAP; 60 items in 3 categories", "UMAP 3"} <= set(shown)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["$5 socks $6 (20)", "Coats & Jackets (20)", "Überzieher (20)"]
    assert_texts_within_page(figure)


def test_the_figure_of_two_dimensions_has_one_view() -> None:
    assert len(projection_figure(clusters(9, 2), ["a"] * 9, "Gallery", "pca").axes) == 1


def test_the_figure_shows_every_point_in_its_categorys_colour() -> None:
    points = clusters(30, 2)
    figure = projection_figure(points, ["a", "b", "c"] * 10, "Gallery", "pca")
    (collection,) = figure.axes[0].collections
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
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(legend) == 50
    assert legend[-1] == "other (33)"
    assert_texts_within_page(figure)


def test_the_figure_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"points are \[5, 4\], expected \[N, 3\]"):
        projection_figure(np.zeros((5, 4), np.float32), ["a"] * 5, "Gallery", "pca")


def test_the_figure_refuses_nan() -> None:
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        projection_figure(np.full((5, 3), np.nan, np.float32), ["a"] * 5, "Gallery", "pca")


def test_the_figure_refuses_another_number_of_categories() -> None:
    with pytest.raises(ValueError, match="5 points and 4 categories"):
        projection_figure(np.zeros((5, 3), np.float32), ["a"] * 4, "Gallery", "pca")
