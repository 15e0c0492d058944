from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf import text_format
from matplotlib import image as mpl_image
from numpy.typing import NDArray
from tensorboard.plugins.projector import projector_plugin
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from tests.views.drawn import pictures
from visual_search.views import projector
from visual_search.views.projector import ProjectorView, sprite_sheet, write_projector

POINTS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
CATEGORIES = pd.DataFrame({"category": ["hat", "shoe", "hat", "coat", "shoe"]})


def flat_pictures(number: int, side: int = 8) -> NDArray[np.uint8]:
    """Pictures of one colour each: red is the row number."""
    found = np.zeros((number, 3, side, side), np.uint8)
    found[:, 0] = np.arange(number, dtype=np.uint8)[:, None, None]
    return found


def config(log_dir: Path) -> Any:
    text = (log_dir / "projector_config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, ProjectorConfig())


def lines(folder: Path) -> list[str]:
    text = (folder / "metadata.tsv").read_bytes().decode("utf-8")
    return text.removesuffix("\n").split("\n")


def test_sprites_stand_row_by_row_upright_and_with_their_frames_inside() -> None:
    sheet = sprite_sheet(flat_pictures(7, side=4))
    assert sheet.shape == (12, 12, 3)
    for number in range(7):
        row, column = divmod(number, 3)
        sprite = sheet[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
        assert (sprite == (number, 0, 0)).all()
    assert (sheet[8:, 4:] == 255).all(), "places beyond the last picture are white"
    picture = pictures(1, side=6)
    np.testing.assert_array_equal(sprite_sheet(picture), picture[0].transpose(1, 2, 0))
    framed = sprite_sheet(flat_pictures(2, side=32), frame_colors=["#ff0000", "#0000ff"])
    assert (framed[:2, :32] == (255, 0, 0)).all()
    assert (framed[30:32, 32:] == (0, 0, 255)).all()
    assert (framed[2:30, 34:62] == (1, 0, 0)).all()


@pytest.mark.parametrize(("side", "size"), [(6, 3), (28, 9), (3, 7), (5, 1)])
def test_sprites_are_made_smaller_by_the_mean_of_the_area(side: int, size: int) -> None:
    edges, old = np.linspace(0, side, size + 1), np.arange(side)
    weights = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    weights = np.clip(weights, 0, None) * size / side  # [size, side], rows sum to 1
    picture = pictures(1, side)
    expected = (weights @ picture[0] @ weights.T).transpose(1, 2, 0)
    assert np.abs(sprite_sheet(picture, size) - expected).max() <= 0.51  # rounding


@pytest.mark.parametrize(
    ("num_items", "side", "expected"), [(1, 128, 64), (1, 28, 28), (300, 80, 28), (300, 1, 1)]
)
def test_the_sprite_size_follows_the_pictures_and_the_sheets_limit(
    num_items: int, side: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "MAX_SHEET_PX", 18 * 28 + 17)
    given = np.broadcast_to(np.uint8(9), (num_items, 3, side, side))
    columns = int(np.ceil(np.sqrt(num_items)))
    assert sprite_sheet(given).shape == (columns * expected, columns * expected, 3)


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), {}, "expected at least one square picture"),
        (flat_pictures(0), {}, "expected at least one square picture"),
        (np.zeros((2, 4, 4, 3), np.uint8), {}, r"expected \[B, 3, S, S\] uint8"),
        (flat_pictures(100), {"sprite_size_px": 825}, "need 8250 px a side"),
        (flat_pictures(2), {"frame_colors": ["#ff0000"]}, "2 images and 1 frame_colors"),
    ],
)
def test_a_sheet_refuses_what_it_cannot_hold(given: Any, more: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sprite_sheet(given, **more)


def test_everything_is_written_and_read_back(tmp_path: Path) -> None:
    metadata = CATEGORIES.assign(
        item_id=["007", "a", "b", "c", "d"], score=[0.5, np.nan, 1, 0, 0], n=range(5)
    )
    folder = write_projector(tmp_path, "gallery", POINTS, metadata, flat_pictures(5))
    assert {path.name for path in folder.iterdir()} == {
        "metadata.tsv", "sprites.png", "tensors.tsv",
    }  # fmt: skip
    tensor = projector_plugin._read_tensor_tsv_file(str(folder / "tensors.tsv"))  # TensorBoard's
    assert tensor == pytest.approx(POINTS, rel=1e-6)
    assert lines(folder) == [
        "category\titem_id\tscore\tn", "hat\t007\t0.5\t0", "shoe\ta\t(none)\t1",
        "hat\tb\t1\t2", "coat\tc\t0\t3", "shoe\td\t0\t4",
    ]  # fmt: skip
    sheet = mpl_image.imread(folder / "sprites.png")
    assert sheet.shape[:2] == (24, 24)
    assert round(float(sheet[12, 12, 0] * 255)) == 4, "the fifth picture stands in the middle"
    (embedding,) = config(tmp_path).embeddings
    paths = embedding.tensor_path, embedding.metadata_path, embedding.sprite.image_path
    assert paths == ("gallery/tensors.tsv", "gallery/metadata.tsv", "gallery/sprites.png")
    assert (embedding.tensor_name, [*embedding.sprite.single_image_dim]) == ("gallery", [8, 8])


@pytest.mark.parametrize("values", [np.random.default_rng(0).normal(size=(5, 7)), np.zeros((5, 7))])
def test_wide_embeddings_are_read_back_and_a_bookmark_colours_them_by_category(
    tmp_path: Path, values: NDArray[np.float64]
) -> None:
    metadata = pd.DataFrame({"item_id": list("abcde")}).join(CATEGORIES)
    view = ProjectorView("UMAP", POINTS)
    folder = write_projector(tmp_path, "wide", values.astype(np.float32), metadata, None, view)
    assert lines(folder)[0] == "category\titem_id", "the projector labels by the first"
    (embedding,) = config(tmp_path).embeddings
    read = projector_plugin._read_tensor_tsv_file  # TensorBoard's
    path = tmp_path / embedding.tensor_path
    try:
        tensor = read(str(path))
    except UnicodeDecodeError:
        tensor = projector_plugin._read_tensor_binary_file(str(path), embedding.tensor_shape)
    assert tensor == pytest.approx(values.astype(np.float32))
    (state,) = json.loads((tmp_path / embedding.bookmarks_path).read_text())
    assert (state["label"], state["dataSetDimensions"]) == ("UMAP", [5, 7])
    assert (state["selectedColorOptionName"], state["selectedLabelOption"]) == ("category",) * 2
    places = [[point[f"umap-{axis}"] for axis in range(3)] for point in state["projections"]]
    assert np.array(places) == pytest.approx(POINTS, abs=1e-5)


ODD = ["tab\there", "line\nbreak\r\n", "", None, "\u2028separator\x85"]
FORMULAS = ["=cmd()", "<script>alert(1)</script>", "+1+cmd()", "@x", "-3.5"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"label": ODD}, ["tab here", "line break", "(none)", "(none)", "separator"]),
        ({"category": FORMULAS, "change": [-1.5, 2, 3, 4, 5]},
         ["category\tchange", "'=cmd()\t-1.5", "<script>alert(1)</script>\t2", "'+1+cmd()\t3",
          "'@x\t4", "-3.5\t5"]),
    ],
)  # fmt: skip
def test_a_point_has_one_row_of_plain_text_and_several_columns_a_header(
    tmp_path: Path, table: dict[str, Any], expected: list[str]
) -> None:
    assert lines(write_projector(tmp_path, "gallery", POINTS, pd.DataFrame(table))) == expected


def test_more_than_fifty_categories_get_a_column_that_can_be_coloured(tmp_path: Path) -> None:
    names = [f"c{i % 60:02d}" for i in range(120)]
    points = np.zeros((120, 3), np.float32)
    folder = write_projector(tmp_path, "many", points, pd.DataFrame({"category": names}))
    head, *rows = (line.split("\t") for line in lines(folder))
    assert head == ["category", "category (49 largest)"]
    view = ProjectorView("", points)
    folder = write_projector(
        tmp_path, "many", points, pd.DataFrame({"category": names}), None, view
    )
    (state,) = json.loads((folder / "view.json").read_text())
    assert state["selectedColorOptionName"] == head[1]
    assert len({row[1] for row in rows}) == 50
    assert rows[59] == ["c59", "other"]


def test_the_config_names_every_embedding_whose_tensors_are_there(tmp_path: Path) -> None:
    (tmp_path / "00001" / "other").mkdir(parents=True)
    (tmp_path / "00001" / "other" / "tensors.tsv").write_text("1\t2\n")
    entry = 'embeddings {{ tensor_name: "{0}" tensor_path: "00001/{0}/tensors.tsv" }}\n'
    text = entry.format("other") + entry.format("gone")  # by another writer
    (tmp_path / "projector_config.pbtxt").write_text(text)
    write_projector(tmp_path, "b", POINTS, CATEGORIES, flat_pictures(5))
    write_projector(tmp_path, "a", POINTS, CATEGORIES)
    write_projector(tmp_path, "b", POINTS[:2], CATEGORIES[:2])
    found = config(tmp_path).embeddings
    assert [each.tensor_name for each in found] == ["a", "b", "other"]
    assert not found[1].HasField("sprite"), "the replaced embedding has no sprites any more"
    assert not (tmp_path / "b" / "sprites.png").exists()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        *((name, {}, "the embedding's name is") for name in ("", "a/b", "..", ".hidden", "a b")),
        ("a", {"points": POINTS[:, :1]}, r"points are \[5, 1\], expected \[N, P\]"),
        ("a", {"points": POINTS * np.float32(np.nan)}, "hold NaN or infinity"),
        ("a", {"metadata": CATEGORIES[:4]}, "5 points, 4 rows of metadata and no sprites"),
        ("a", {"sprites": flat_pictures(4)}, "5 points, 5 rows of metadata and 4 sprites"),
        ("a", {"metadata": CATEGORIES[[]]}, "expected at least one and none twice"),
        ("a", {"metadata": pd.concat([CATEGORIES] * 2, axis=1)}, "at least one and none twice"),
        ("a", {}, "is no projector config"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "projector_config.pbtxt").write_text("embeddings {")
    with pytest.raises(ValueError, match=message):
        write_projector(tmp_path, name, **{"points": POINTS, "metadata": CATEGORIES, **change})
    assert [path.name for path in tmp_path.iterdir()] == ["projector_config.pbtxt"]
