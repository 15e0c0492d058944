import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.catalog.shops import refuses
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
    """Returns the product alone, [128, 128, 4] uint8."""
    look = Look(category, "red", COLOURS["red"], pattern, style, 8.0, GOLD)
    pen = Pen(look, pose, 32)
    pen.draw(DRAWINGS[category].strokes)
    return np.asarray(pen.canvas)


def alike(first: NDArray, second: NDArray) -> float:
    return (first & second).sum() / (first | second).sum()


def test_the_table_knows_every_attribute_and_some_items_share_a_group() -> None:
    catalog = synthetic(items_per_category=80)
    assert len(catalog) == 80 * len(CATEGORIES) == 1280
    assert catalog.categories == sorted(CATEGORIES)
    assert catalog.attributes == ["colour", "pattern", "style"]
    assert set(catalog.table["colour"]) == set(COLOURS)
    assert set(catalog.table["pattern"]) == {"plain", "striped", "dotted", "checked"}
    for category, rows in catalog.table.groupby("category"):
        assert set(rows["style"]) == set(DRAWINGS[str(category)].styles)
        assert DRAWINGS[str(category)].has_pattern or set(rows["pattern"]) == {"plain"}
    assert set(catalog.table["split"]) == {""}
    assert catalog.table["item_id"][0] == f"{CATEGORIES[0].lower()}-00000"
    pairs = catalog.table.groupby("group").filter(lambda rows: len(rows) > 1)
    assert 0.03 < len(pairs) / len(catalog) < 0.07
    assert set(pairs.groupby("group").size()) == {2}
    for group, rows in pairs.groupby("group"):
        assert len(rows[["category", "colour", "pattern", "style"]].drop_duplicates()) == 1
        assert group == rows["item_id"].iloc[0]
        first, second = (catalog.source.load(image) for image in rows["image"])
        assert not np.array_equal(first, second), "two views are two pictures"
        break


def test_products_look_as_they_did() -> None:
    """Names of runs and every number on drawn products rest on them."""
    catalog = synthetic(8, image_size_px=40)
    pictures = np.stack([catalog.source.load(image) for image in catalog.table["image"]])
    rows = pictures.reshape(len(CATEGORIES), 8, 40, 40, 3).swapaxes(1, 2)
    with Image.open(SHEET) as sheet:
        expected = np.asarray(sheet.convert("RGB"), dtype=np.int64)
    # 2 of 255 for what another version of Pillow rounds.
    np.testing.assert_allclose(rows.reshape(expected.shape), expected, rtol=0, atol=2)
    colours = np.array([COLOURS[name] for name in catalog.table["colour"]])
    far = np.abs(pictures.astype(int) - colours[:, None, None]).max(-1)
    seen = (far < 40).mean((1, 2)) > 0.002  # the named colour is in the picture
    assert list(catalog.table["item_id"][~seen]) == []


def test_more_items_or_other_categories_or_another_process_change_none() -> None:
    few = synthetic(5, ["Hats", "Rings"], image_size_px=32)
    many = synthetic(20, ["Rings", "Coats", "Hats"], image_size_px=32)
    together = many.table.set_index("item_id").loc[few.table["item_id"]].reset_index()
    assert together[list(few.table.columns)].equals(few.table)
    again = pickle.loads(pickle.dumps(few.source))
    pictures = [few.source.load(image) for image in few.table["image"]]
    for image, picture in zip(few.table["image"], pictures, strict=True):
        assert (picture.shape, picture.dtype) == ((32, 32, 3), np.uint8)
        for source in (many.source, again):
            np.testing.assert_array_equal(source.load(image), picture)
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert few.source.content_keys(["hats-00001"]) == many.source.content_keys(["hats-00001"])


def test_content_keys_follow_all_that_changes_the_picture() -> None:
    image = "dresses-00003"
    settings = [(32, 0.0, 0), (32, 0.0, 1), (33, 0.0, 0), (32, 0.5, 0)]
    sources = [SyntheticSource(*each) for each in settings]
    keys = {source.content_keys([image])[0] for source in sources}
    assert len(keys) == len({source.load(image).tobytes() for source in sources}) == 4
    assert len(set(sources[0].content_keys([image, "dresses-00004"]))) == 2


@pytest.mark.parametrize("category", CATEGORIES)
def test_styles_differ_and_stay_inside_and_patterns_keep_the_silhouette(category: str) -> None:
    styles = DRAWINGS[category].styles
    shapes = {style: drawn(category, style)[..., 3] > 0 for style in styles}
    for place, (style, shape) in enumerate(shapes.items()):
        assert 0.05 < shape.mean() < 0.8
        edge = np.concatenate([shape[0], shape[-1], shape[:, 0], shape[:, -1]])
        assert not edge.any(), f"{style} is cut off"
        assert all(alike(shape, other) < 0.97 for other in list(shapes.values())[place + 1 :])
    if DRAWINGS[category].has_pattern:
        plain = drawn(category, styles[0])
        for pattern in ("striped", "dotted", "checked"):
            patterned = drawn(category, styles[0], pattern)
            np.testing.assert_array_equal(patterned[..., 3], plain[..., 3])
            changed = (patterned != plain).any(-1)[plain[..., 3] > 0].mean()
            assert changed > 0.04, pattern


def test_the_pose_turns_mirrors_and_moves() -> None:
    upright = drawn("Shoes", "boot")[..., 3] > 0
    mirror = drawn("Shoes", "boot", pose=Pose(1.0, 0.0, (0.0, 0.0), True))[..., 3] > 0
    assert alike(upright[:, ::-1], mirror) > 0.95
    moved = drawn("Shoes", "boot", pose=Pose(0.5, 90.0, (10.0, -20.0), False))[..., 3] > 0
    rows, columns = np.nonzero(moved)
    # the boot's toe is at the lower left; turned clockwise by 90 degrees, at the upper left
    assert moved.sum() == pytest.approx(upright.sum() / 4, rel=0.1)
    assert columns.mean() / 128 == pytest.approx(0.6, abs=0.1)
    assert rows.mean() / 128 == pytest.approx(0.3, abs=0.1)


def test_noise_changes_the_background_and_not_the_product() -> None:
    plain, noisy = (SyntheticSource(48, noise, 0) for noise in (0.0, 1.0))
    for image in ("pants-00000", "coats-00001", "rings-00002"):
        clean, dirty = (np.asarray(source.load(image), dtype=int) for source in (plain, noisy))
        border = np.concatenate([clean[0], clean[-1], clean[:, 0], clean[:, -1]])
        assert border.min() > 200, "without noise the ground is white, a soft shadow on it"
        assert np.median(border) >= 244
        changed = np.abs(clean - dirty).max(-1) > 0
        assert dirty[changed].std() > 20
        assert 0.05 < (~changed).mean() < 0.8


def test_numbers_out_of_range_and_unknown_names_are_refused() -> None:
    for given, settings, message in (
        ((0,), {}, "items_per_category is 0; expected at least 1"),
        ((1, ["dress"]), {}, "'dress' cannot be drawn; did you mean 'Dresses'"),
        ((1, []), {}, "expected at least one, each once"),
        ((1, ["Hats", "Hats"]), {}, "expected at least one, each once"),
        ((1,), {"image_size_px": 15}, "expected 16 to 1024"),
        ((1,), {"image_size_px": 1025}, "expected 16 to 1024"),
        ((1,), {"background_noise": -0.1}, r"background_noise is .*; expected 0 to 1"),
        ((1,), {"background_noise": 1.1}, r"background_noise is .*; expected 0 to 1"),
        ((1,), {"background_noise": float("nan")}, r"background_noise is .*; expected 0 to 1"),
    ):
        refuses(ValueError, message, synthetic, *given, **settings)
    source = SyntheticSource(16, 0.0, 0)
    for image in ("", "dresses", "dresses-3", "ties-00001", "dresses-0000²", "Hats-00001"):
        for call in (source.load, lambda name: source.content_keys([name])):
            refuses(FileNotFoundError, "expected .*'dresses-00012'", call, image)


def test_shapes_are_where_they_are_said_to_be() -> None:
    assert box(1, 2, 3, 4) == [(1, 2), (3, 2), (3, 4), (1, 4)]
    rounded = np.array(box(0, 0, 10, 10, 2))
    assert (rounded.min(), rounded.max()) == pytest.approx((0, 10))
    circle = np.array(ellipse(5, 6, 2, 2))
    np.testing.assert_allclose(np.hypot(*(circle - [5, 6]).T), 2)
    assert arc(0, 0, 1, 2, 0, 90, 2)[1] == pytest.approx((0, 2))
    assert mirrored([(0, 1), (3, 2), (0, 5)]) == [(50, 1), (47, 2), (50, 5), (53, 2)]
    corners = [(0.0, 0.0), (1.0, 5.0), (4.0, 2.0)]
    curve = smooth(corners, closed=False, num_between=4)
    assert curve[::4] == [pytest.approx(corner) for corner in corners]
    assert shaded((10, 100, 200), 2, add=1) == (21, 201, 255)
