from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf import text_format
from matplotlib import image as mpl_image
from numpy.typing import NDArray
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from visual_search.views.projector import sprite_sheet, write_projector

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(5, 3)).astype(np.float32)
CATEGORIES = pd.DataFrame({"category": ["hat", "shoe", "hat", "coat", "shoe"]})


def flat_pictures(number: int, side: int = 8) -> NDArray[np.uint8]:
    """Pictures of one colour each: red is the row number."""
    pictures = np.zeros((number, 3, side, side), np.uint8)
    pictures[:, 0] = np.arange(number, dtype=np.uint8)[:, None, None]
    return pictures


def config(log_dir: Path) -> Any:
    text = (log_dir / "projector_config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, ProjectorConfig())


def lines(path: Path) -> list[str]:
    return path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")


def test_sprites_stand_row_by_row() -> None:
    sheet = sprite_sheet(flat_pictures(7, side=4))
    assert sheet.shape == (12, 12, 3)
    for number in range(7):
        row, column = divmod(number, 3)
        sprite = sheet[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
        assert (sprite == (number, 0, 0)).all()
    assert (sheet[8:, 4:] == 255).all(), "places beyond the last picture are white"


def test_sprites_keep_their_orientation() -> None:
    picture = RNG.integers(0, 256, (1, 3, 6, 6), dtype=np.uint8)
    assert np.array_equal(sprite_sheet(picture), picture[0].transpose(1, 2, 0))


def test_sprites_are_made_smaller_by_the_mean() -> None:
    picture = RNG.integers(0, 256, (1, 3, 6, 6), dtype=np.uint8)
    halves = picture[0].reshape(3, 3, 2, 3, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
    assert np.abs(sprite_sheet(picture, 3) - halves).max() <= 0.5
    assert sprite_sheet(np.full((1, 3, 7, 7), 200, np.uint8), 3).tolist() == [[[200] * 3] * 3] * 3


@pytest.mark.parametrize(("side", "size"), [(128, 50), (28, 9), (3, 7), (5, 1)])
def test_sprites_agree_with_a_product_of_matrices(side: int, size: int) -> None:
    edges, old = np.linspace(0, side, size + 1), np.arange(side)
    weights = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    weights = np.clip(weights, 0, None) * size / side  # [size, side], rows sum to 1
    picture = RNG.integers(0, 256, (1, 3, side, side), dtype=np.uint8)
    expected = (weights @ picture[0] @ weights.T).transpose(1, 2, 0)
    assert np.abs(sprite_sheet(picture, size) - expected).max() <= 0.51  # rounding


@pytest.mark.parametrize(
    ("num_items", "side", "expected"),
    [(1, 128, 64), (1, 28, 28), (300, 80, 64), (12_225, 1, 1)],
)
def test_the_sprite_size_follows_the_pictures(num_items: int, side: int, expected: int) -> None:
    pictures = np.broadcast_to(np.uint8(9), (num_items, 3, side, side))
    columns = int(np.ceil(np.sqrt(num_items)))
    assert sprite_sheet(pictures).shape == (columns * expected, columns * expected, 3)


@pytest.mark.slow  # 12,225 pictures
def test_a_sheet_stays_within_8192_pixels() -> None:
    num_items = 200 * 200
    pictures = np.broadcast_to(np.uint8(9), (num_items, 3, 41, 41))
    assert sprite_sheet(pictures).shape == (8000, 8000, 3)  # 40 px each, 41 would be 8,200


def test_frames_are_painted_inside() -> None:
    sheet = sprite_sheet(flat_pictures(2, side=32), frame_colors=["#ff0000", "#0000ff"])
    assert (sheet[:2, :32] == (255, 0, 0)).all()
    assert (sheet[30:32, 32:] == (0, 0, 255)).all()
    assert (sheet[2:30, 34:62] == (1, 0, 0)).all()


def test_sheet_refuses_what_are_no_square_pictures() -> None:
    for pictures in (np.zeros((2, 3, 4, 5), np.uint8), np.zeros((0, 3, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected at least one square picture"):
            sprite_sheet(pictures)
    with pytest.raises(ValueError, match=r"expected \[B, 3, S, S\] uint8"):
        sprite_sheet(np.zeros((2, 4, 4, 3), np.uint8))


def test_sheet_refuses_to_grow_beyond_the_limit() -> None:
    with pytest.raises(ValueError, match="need 8250 px a side"):
        sprite_sheet(np.zeros((100, 3, 4, 4), np.uint8), sprite_size_px=825)


def test_sheet_refuses_another_number_of_colours() -> None:
    with pytest.raises(ValueError, match="2 images and 1 frame_colors"):
        sprite_sheet(flat_pictures(2), frame_colors=["#ff0000"])


def test_everything_is_written_and_read_back(tmp_path: Path) -> None:
    metadata = CATEGORIES.assign(item_id=["007", "a", "b", "c", "d"], score=[0.5, np.nan, 1, 0, 0])
    folder = write_projector(tmp_path, "gallery", POINTS, metadata, flat_pictures(5))
    assert sorted(path.name for path in folder.iterdir()) == [
        "metadata.tsv", "sprites.png", "tensors.tsv",
    ]  # fmt: skip
    assert np.loadtxt(folder / "tensors.tsv") == pytest.approx(POINTS, rel=1e-6)
    assert lines(folder / "metadata.tsv") == [
        "category\titem_id\tscore", "hat\t007\t0.5", "shoe\ta\t(none)", "hat\tb\t1", "coat\tc\t0",
        "shoe\td\t0",
    ]  # fmt: skip
    sheet = mpl_image.imread(folder / "sprites.png")
    assert sheet.shape[:2] == (24, 24)
    assert round(float(sheet[12, 12, 0] * 255)) == 4, "the fifth picture stands in the middle"
    (embedding,) = config(tmp_path).embeddings
    assert embedding.tensor_name == "gallery"
    assert embedding.tensor_path == "gallery/tensors.tsv"
    assert embedding.metadata_path == "gallery/metadata.tsv"
    assert embedding.sprite.image_path == "gallery/sprites.png"
    assert list(embedding.sprite.single_image_dim) == [8, 8]


def test_tensorboard_reads_it_and_finds_a_row_of_metadata_for_every_point(tmp_path: Path) -> None:
    from tensorboard.plugins.projector import projector_plugin

    labels = ["tab\there", "line\nbreak\r\n", "", None, "\u2028separator\x85"]
    folder = write_projector(tmp_path, "gallery", POINTS, pd.DataFrame({"label": labels}))
    tensor = projector_plugin._read_tensor_tsv_file(str(folder / "tensors.tsv"))
    assert tensor == pytest.approx(POINTS, rel=1e-6)
    assert lines(folder / "metadata.tsv") == [
        "tab here", "line break", "(none)", "(none)", "separator",
    ]  # fmt: skip


def test_one_column_has_no_header_and_several_have_one(tmp_path: Path) -> None:
    one = write_projector(tmp_path, "one", POINTS, CATEGORIES)
    assert lines(one / "metadata.tsv")[0] == "hat"
    two = write_projector(tmp_path, "two", POINTS, CATEGORIES.assign(num=range(5)))
    assert lines(two / "metadata.tsv")[0] == "category\tnum"


def test_formulas_and_tags_are_only_text(tmp_path: Path) -> None:
    names = ["=cmd()", "<script>alert(1)</script>", "+1+cmd()", "@x", "-3.5"]
    table = pd.DataFrame({"category": names, "change": [-1.5, 2, 3, 4, 5]})
    folder = write_projector(tmp_path, "gallery", POINTS, table)
    cells = [line.split("\t") for line in lines(folder / "metadata.tsv")[1:]]
    assert [cell[0] for cell in cells] == ["'=cmd()", names[1], "'+1+cmd()", "'@x", "-3.5"]
    assert cells[0][1] == "-1.5", "numbers stay numbers"


def test_more_than_fifty_categories_get_a_column_that_can_be_coloured(tmp_path: Path) -> None:
    names = [f"c{i % 60:02d}" for i in range(120)]
    points = RNG.normal(size=(120, 3)).astype(np.float32)
    folder = write_projector(tmp_path, "many", points, pd.DataFrame({"category": names}))
    head, *rows = (line.split("\t") for line in lines(folder / "metadata.tsv"))
    assert head == ["category", "category (49 largest)"]
    assert len({row[1] for row in rows}) == 50
    assert rows[59] == ["c59", "other"]


def test_every_embedding_of_the_folder_is_in_the_config(tmp_path: Path) -> None:
    write_projector(tmp_path, "b", POINTS, CATEGORIES, flat_pictures(5))
    write_projector(tmp_path, "a", POINTS, CATEGORIES)
    write_projector(tmp_path, "b", POINTS[:2], CATEGORIES[:2])
    first, second = config(tmp_path).embeddings
    assert (first.tensor_name, second.tensor_name) == ("a", "b")
    assert not second.HasField("sprite"), "the replaced embedding has no sprites any more"
    assert not (tmp_path / "b" / "sprites.png").exists()


def test_what_other_writers_left_stays_as_long_as_its_tensors_do(tmp_path: Path) -> None:
    (tmp_path / "00001" / "other").mkdir(parents=True)
    (tmp_path / "00001" / "other" / "tensors.tsv").write_text("1\t2\n")
    entry = 'embeddings {{ tensor_name: "{0}" tensor_path: "00001/{0}/tensors.tsv" }}\n'
    text = entry.format("other") + entry.format("gone")
    (tmp_path / "projector_config.pbtxt").write_text(text)
    for _ in range(2):
        write_projector(tmp_path, "gallery", POINTS, CATEGORIES)
    assert [e.tensor_name for e in config(tmp_path).embeddings] == ["gallery", "other"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "with blank"])
def test_refuses_a_name_that_is_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="the embedding's name is"):
        write_projector(tmp_path, name, POINTS, CATEGORIES)
    assert list(tmp_path.iterdir()) == []


def test_refuses_points_of_another_shape(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"points are \[5, 1\], expected \[N, P\]"):
        write_projector(tmp_path, "gallery", POINTS[:, :1], CATEGORIES)


def test_refuses_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        write_projector(tmp_path, "gallery", POINTS * np.float32(np.nan), CATEGORIES)


def test_refuses_another_number_of_rows(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 points, 4 rows of metadata and no sprites"):
        write_projector(tmp_path, "gallery", POINTS, CATEGORIES[:4])
    with pytest.raises(ValueError, match="5 points, 5 rows of metadata and 4 sprites"):
        write_projector(tmp_path, "gallery", POINTS, CATEGORIES, flat_pictures(4))


def test_refuses_no_column_and_equal_columns(tmp_path: Path) -> None:
    for table in (CATEGORIES[[]], pd.concat([CATEGORIES, CATEGORIES], axis=1)):
        with pytest.raises(ValueError, match="expected at least one and none twice"):
            write_projector(tmp_path, "gallery", POINTS, table)


def test_refuses_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "projector_config.pbtxt").write_text("embeddings {")
    with pytest.raises(ValueError, match="is no projector config"):
        write_projector(tmp_path, "gallery", POINTS, CATEGORIES)
    assert not (tmp_path / "gallery").exists(), "refused before anything is written"
