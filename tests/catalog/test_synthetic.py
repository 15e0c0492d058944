import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from visual_search.catalog.synthetic import CATEGORIES, SyntheticSource, synthetic
from visual_search.catalog.synthetic.drawing import (
    GOLD,
    Look,
    Pen,
    Pose,
    arc,
    box,
    ellipse,
    mirrored,
    shaded,
    smooth,
)
from visual_search.catalog.synthetic.generator import COLOURS, DRAWINGS

SHEET = Path(__file__).parents[1] / "data" / "drawn.png"  # a row a category, 40 px a picture
UPRIGHT = Pose(scale=1.0, angle_deg=0.0, shift=(0.0, 0.0), flip=False)


def drawn(category: str, style: str, pattern: str = "plain", pose: Pose = UPRIGHT) -> NDArray:
    """Returns the product alone, [256, 256, 4] uint8."""
    look = Look(category, "red", COLOURS["red"], pattern, style, 8.0, GOLD)
    pen = Pen(look, pose, 64)
    pen.draw(DRAWINGS[category].strokes)
    return np.asarray(pen.canvas)


def test_the_table_knows_every_attribute() -> None:
    catalog = synthetic(items_per_category=40)
    assert len(catalog) == 40 * len(CATEGORIES) == 640
    assert catalog.categories == sorted(CATEGORIES)
    assert catalog.attributes == ["colour", "pattern", "style"]
    assert set(catalog.table["colour"]) == set(COLOURS)
    assert set(catalog.table["pattern"]) == {"plain", "striped", "dotted", "checked"}
    for category, rows in catalog.table.groupby("category"):
        assert set(rows["style"]) == set(DRAWINGS[str(category)].styles)
    assert set(catalog.table["split"]) == {""}
    assert catalog.table["item_id"][0] == f"{CATEGORIES[0].lower()}-00000"


def test_products_look_as_they_did() -> None:
    """Names of runs and every number on drawn products rest on them."""
    catalog = synthetic(8, image_size_px=40)
    pictures = np.stack([catalog.source.load(image) for image in catalog.table["image"]])
    rows = pictures.reshape(len(CATEGORIES), 8, 40, 40, 3).swapaxes(1, 2)
    with Image.open(SHEET) as sheet:
        expected = np.asarray(sheet.convert("RGB"), dtype=np.int64)
    # 2 of 255 for what another version of Pillow rounds.
    np.testing.assert_allclose(rows.reshape(expected.shape), expected, rtol=0, atol=2)


def test_more_items_or_other_categories_change_none() -> None:
    few = synthetic(5, ["Hats", "Rings"], image_size_px=32)
    many = synthetic(30, ["Rings", "Coats", "Hats"], image_size_px=32)
    together = many.table.set_index("item_id").loc[few.table["item_id"]].reset_index()
    assert together[list(few.table.columns)].equals(few.table)
    for image in few.table["image"]:
        np.testing.assert_array_equal(few.source.load(image), many.source.load(image))
    assert few.source.content_keys(["hats-00001"]) == many.source.content_keys(["hats-00001"])


def test_pictures_are_the_same_in_another_process_and_differ_from_each_other() -> None:
    catalog = synthetic(20, ["Shoes"], image_size_px=32)
    again = pickle.loads(pickle.dumps(catalog.source))
    pictures = [catalog.source.load(image) for image in catalog.table["image"]]
    for image, picture in zip(catalog.table["image"], pictures, strict=True):
        assert isinstance(picture, np.ndarray)
        assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
        np.testing.assert_array_equal(again.load(image), picture)
    assert len({np.asarray(picture).tobytes() for picture in pictures}) == 20


def test_content_keys_follow_all_that_changes_the_picture() -> None:
    image = "dresses-00003"
    sources = [
        SyntheticSource(32, 0.0, 0),
        SyntheticSource(32, 0.0, 1),
        SyntheticSource(33, 0.0, 0),
        SyntheticSource(32, 0.5, 0),
    ]
    keys = {source.content_keys([image])[0] for source in sources}
    assert len(keys) == len({source.load(image).tobytes() for source in sources}) == 4
    two = SyntheticSource(32, 0.0, 0).content_keys([image, "dresses-00004"])
    assert len(set(two)) == 2


def test_about_one_item_in_twenty_shares_its_group() -> None:
    table = synthetic(400).table
    pairs = table.groupby("group").filter(lambda rows: len(rows) > 1)
    assert 0.03 < len(pairs) / len(table) < 0.07
    assert set(table.groupby("group").size()) == {1, 2}
    for group, rows in pairs.groupby("group"):
        assert len(rows[["category", "colour", "pattern", "style"]].drop_duplicates()) == 1
        assert group == rows["item_id"].iloc[0]


def test_two_views_of_a_product_are_two_pictures() -> None:
    catalog = synthetic(400, ["Shirts"], image_size_px=32)
    pairs = catalog.table.groupby("group").filter(lambda rows: len(rows) > 1)
    assert len(pairs) >= 4
    first, second = (catalog.source.load(image) for image in pairs["image"][:2])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("category", CATEGORIES)
def test_styles_differ_and_stay_inside_the_picture(category: str) -> None:
    silhouettes = []
    for style in DRAWINGS[category].styles:
        alpha = drawn(category, style)[..., 3] > 0
        assert 0.05 < alpha.mean() < 0.8
        edge = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
        assert not edge.any(), f"{style} is cut off"
        silhouettes.append(alpha)
    for i, first in enumerate(silhouettes):
        for second in silhouettes[i + 1 :]:
            common = (first & second).sum() / (first | second).sum()
            assert common < 0.97


@pytest.mark.parametrize("category", [c for c, d in DRAWINGS.items() if d.has_pattern])
def test_patterns_are_seen_and_keep_the_silhouette(category: str) -> None:
    style = DRAWINGS[category].styles[0]
    plain = drawn(category, style)
    for pattern in ("striped", "dotted", "checked"):
        patterned = drawn(category, style, pattern)
        np.testing.assert_array_equal(patterned[..., 3], plain[..., 3])
        changed = (patterned != plain).any(-1)[plain[..., 3] > 0].mean()
        assert changed > 0.04, pattern


@pytest.mark.parametrize("category", [c for c, d in DRAWINGS.items() if not d.has_pattern])
def test_jewelry_and_glasses_are_plain(category: str) -> None:
    assert set(synthetic(30, [category]).table["pattern"]) == {"plain"}


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_named_colour_is_in_the_picture(category: str) -> None:
    catalog = synthetic(12, [category])
    for row in catalog.table.itertuples():
        picture = np.asarray(catalog.source.load(str(row.image)), dtype=int)
        far = np.abs(picture - COLOURS[str(row.colour)]).max(-1)
        assert (far < 40).mean() > 0.002, row


def test_the_pose_turns_mirrors_and_moves() -> None:
    upright = drawn("Shoes", "boot")[..., 3] > 0
    mirror = drawn("Shoes", "boot", pose=Pose(1.0, 0.0, (0.0, 0.0), True))[..., 3] > 0
    common = (upright[:, ::-1] & mirror).sum() / (upright[:, ::-1] | mirror).sum()
    assert common > 0.97
    moved = drawn("Shoes", "boot", pose=Pose(0.5, 90.0, (10.0, -20.0), False))[..., 3] > 0
    rows, columns = np.nonzero(moved)
    # the boot's toe is at the lower left; turned clockwise by 90 degrees, at the upper left
    assert moved.sum() == pytest.approx(upright.sum() / 4, rel=0.1)
    assert abs(columns.mean() / 256 - 0.6) < 0.1
    assert abs(rows.mean() / 256 - 0.3) < 0.1


def test_noise_changes_the_background_and_not_the_product() -> None:
    plain, noisy = (SyntheticSource(64, noise, 0) for noise in (0.0, 1.0))
    spread = []
    for image in ("pants-00000", "coats-00001", "rings-00002"):
        clean, dirty = (np.asarray(source.load(image), dtype=int) for source in (plain, noisy))
        border = np.concatenate([clean[0], clean[-1], clean[:, 0], clean[:, -1]])
        assert border.min() > 200, "without noise the ground is white, a soft shadow on it"
        assert np.median(border) >= 244
        changed = np.abs(clean - dirty).max(-1) > 0
        spread.append(dirty[changed].std())
        assert 0.05 < (~changed).mean() < 0.8
    assert min(spread) > 20


def test_numbers_out_of_range_and_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="items_per_category is 0; expected at least 1"):
        synthetic(0)
    with pytest.raises(ValueError, match="'dress' cannot be drawn; did you mean 'Dresses'"):
        synthetic(1, ["dress"])
    for categories in ([], ["Hats", "Hats"]):
        with pytest.raises(ValueError, match="expected at least one, each once"):
            synthetic(1, categories)
    for size in (15, 1025):
        with pytest.raises(ValueError, match="expected 16 to 1024"):
            synthetic(1, image_size_px=size)
    for noise in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"background_noise is .*; expected 0 to 1"):
            synthetic(1, background_noise=noise)


@pytest.mark.parametrize(
    "image", ["", "dresses", "dresses-3", "ties-00001", "dresses-0000²", "Hats-00001"]
)
def test_names_of_no_picture_are_refused(image: str) -> None:
    source = SyntheticSource(16, 0.0, 0)
    for call in (source.load, lambda name: source.content_keys([name])):
        with pytest.raises(
            FileNotFoundError, match="can be drawn; expected a name as 'dresses-00012'"
        ):
            call(image)


def test_shapes_are_where_they_are_said_to_be() -> None:
    assert box(1, 2, 3, 4) == [(1, 2), (3, 2), (3, 4), (1, 4)]
    rounded = np.array(box(0, 0, 10, 10, 2))
    assert rounded.min() == pytest.approx(0)
    assert rounded.max() == pytest.approx(10)
    circle = np.array(ellipse(5, 6, 2, 2))
    np.testing.assert_allclose(np.hypot(*(circle - [5, 6]).T), 2)
    assert arc(0, 0, 1, 2, 0, 90, 2)[1] == pytest.approx((0, 2))
    assert mirrored([(0, 1), (3, 2), (0, 5)]) == [(50, 1), (47, 2), (50, 5), (53, 2)]
    corners = [(0.0, 0.0), (1.0, 5.0), (4.0, 2.0)]
    curve = smooth(corners, closed=False, num_between=4)
    assert [curve[0], curve[4], curve[8]] == [pytest.approx(corner) for corner in corners]
    assert shaded((10, 100, 200), 2, add=1) == (21, 201, 255)
