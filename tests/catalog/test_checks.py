"""What is found in a catalogue's table and pictures: each trouble planted, and none of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import Catalog, RefusedItem
from visual_search.catalog.checks import (
    Finding,
    NamedItem,
    attribute_table,
    category_table,
    check_attributes,
    check_categories,
    check_groups,
    check_refused,
    check_splits,
    torn_groups,
)
from visual_search.catalog.picture_checks import (
    check_copies,
    check_near_copies,
    check_pictures,
    picture_table,
)
from visual_search.catalog.picture_facts import facts_path, picture_facts
from visual_search.catalog.readers.sources import ArraySource, FolderSource

NONE = np.zeros(0, dtype=np.int64)


def catalog_of(**columns: list[str]) -> Catalog:
    """A catalogue without pictures; what is not given follows from the number of items."""
    num = len(next(iter(columns.values())))
    ids = [f"i{place}" for place in range(num)]
    table = {
        "item_id": ids,
        "image": ids,
        "category": ["hat", "shoe"] * (num // 2) + ["hat"] * (num % 2),
        "group": ids,
        "split": ["train"] * num,
    }
    return Catalog(
        "shop", pd.DataFrame(table | columns), ArraySource(np.zeros((0, 2, 2), np.uint8), [])
    )


def by_kind(findings: list[Finding]) -> dict[str, Finding]:
    kinds = [finding.kind for finding in findings]
    assert len(set(kinds)) == len(kinds)
    return dict(zip(kinds, findings, strict=True))


def test_an_orderly_table_has_no_finding() -> None:
    catalog = catalog_of(split=["train"] * 80 + ["val"] * 40 + ["test"] * 40)
    gallery, queries = catalog.rows_of_split("train"), catalog.rows_of_split("test")
    assert not torn_groups(catalog)
    assert not check_splits(catalog)
    assert not check_categories(catalog, gallery, queries)
    assert not check_groups(catalog)
    assert not check_attributes(catalog)
    assert not check_refused((), (), "error")


def test_refused_rows_and_pictures_are_named() -> None:
    row, picture = RefusedItem("a", "a.jpg", "no category"), RefusedItem("b", "b.jpg", "damaged")
    found = by_kind(check_refused([row], [picture], "error"))
    assert found["refused_rows"].items == (NamedItem("a", "no category", "a.jpg"),)
    assert found["broken_pictures"].items == (NamedItem("b", "damaged", "b.jpg"),)
    assert {finding.severity for finding in found.values()} == {"error"}
    assert check_refused([row], [], "warning")[0].severity == "warning"


def test_a_group_in_two_splits_is_an_error() -> None:
    catalog = catalog_of(group=["g", "g", "h", "h"], split=["test", "train", "train", ""])
    [found] = torn_groups(catalog)
    assert found.severity == "error"
    assert found.items == (NamedItem("g", "train, test"),)


def test_a_split_without_items_is_found() -> None:
    found = by_kind(check_splits(catalog_of(split=["train", "train"])))
    assert found["empty_test"].severity == "error"
    assert found["empty_val"].severity == "warning"
    assert "empty_train" not in found
    assert by_kind(check_splits(catalog_of(split=["test", "val"]))).keys() == {"empty_train"}


def test_troubles_of_categories_are_found() -> None:
    names = ["T-Shirt"] * 45 + ["t shirt"] * 4 + ["hat"] * 4 + ["cape"] + ["belt"] * 4
    catalog = catalog_of(category=names, split=["train"] * 53 + ["test"] + ["train"] * 4)
    found = by_kind(
        check_categories(catalog, catalog.rows_of_split("train"), catalog.rows_of_split("test"))
    )
    assert found["categories_alike"].items == (NamedItem("t shirt", "beside 'T-Shirt'"),)
    assert found["categories_alike"].what.startswith("1 category with the name of another one, but")
    assert found["categories_of_one"].items == (NamedItem("cape", "1 item"),)
    assert found["imbalance"].items == (NamedItem("T-Shirt", "45 items"),)
    assert "11 times the median of 4" in found["imbalance"].what
    assert found["categories_unanswered"].items == (NamedItem("cape", "1 query"),)
    assert found["few_queries"].severity == "note"
    assert len(found) == 5


def test_categories_that_look_the_same_are_found_and_told_apart() -> None:
    names = [
        "Röcke",
        "Ro\u0308cke",
        "Shoes",
        "Shoes ",
        "SHOES",
        "\uff33hoes",
        "Shoes\u200b",
        "Rocke",
    ]
    found = by_kind(check_categories(catalog_of(category=names), NONE, NONE))
    named = {item.item_id: item.why for item in found["categories_alike"].items}
    assert set(named) == {"Ro\u0308cke", "Shoes ", "SHOES", "\uff33hoes", "Shoes\u200b"}
    assert named["Ro\u0308cke"] == "beside 'Röcke', written as R o U+0308 c k e here"
    assert "U+0020" in named["Shoes "]
    assert named["SHOES"] == "beside 'Shoes'"


def test_names_of_signs_alone_are_not_alike() -> None:
    assert not check_categories(catalog_of(category=["+", "+", "-", "-"]), NONE, NONE)


def test_one_category_is_an_error() -> None:
    found = by_kind(check_categories(catalog_of(category=["hat"] * 4), NONE, NONE))
    assert found["one_category"].severity == "error"


def test_large_and_mixed_groups_are_found() -> None:
    catalog = catalog_of(group=["g"] * 6 + [f"h{place}" for place in range(24)])
    found = by_kind(check_groups(catalog))
    assert found["large_groups"].items == (NamedItem("g", "6 items"),)
    assert found["groups_mixed"].items == (NamedItem("g", "2 categories"),)


def test_attributes_that_say_little_are_found() -> None:
    catalog = catalog_of(
        empty=[""] * 6, season=["all"] * 6, sparse=["a", "b", "", "", "", ""], good=list("aabbcc")
    )
    found = by_kind(check_attributes(catalog))
    assert found["attributes_empty"].items[0].item_id == "empty"
    assert found["attributes_constant"].items[0].item_id == "season"
    assert found["attributes_sparse"].items == (NamedItem("sparse", "filled for 2 items"),)
    assert attribute_table(catalog)["num_values"].tolist() == [0, 1, 2, 3]
    assert attribute_table(catalog)["commonest"].tolist()[1] == "all (6)"


def test_the_category_table_counts_sides() -> None:
    catalog = catalog_of(
        category=["hat", "hat", "shoe", "hat"], split=["train", "train", "train", "test"]
    )
    table = category_table(catalog, np.array([0, 2]), np.array([3]))
    assert table.to_dict("list") == {
        "category": ["hat", "shoe"], "items": [3, 1], "groups": [3, 1], "train": [2, 1],
        "val": [0, 0], "test": [1, 0], "gallery": [1, 1], "queries": [1, 0],
    }  # fmt: skip


def test_a_severity_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="severity is 'fatal'; expected one of"):
        Finding("kind", "fatal", "what", "advice")  # type: ignore[arg-type]


def noise(seed: int, height: int = 160, width: int = 160) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(
    pixels: NDArray[np.uint8], kind: str = "PNG", mode: str = "RGB", **more: object
) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **more)
    return file.getvalue()


def cached_folder(
    tmp_path: Path, files: dict[str, bytes], splits: list[str] | None = None
) -> CachedCatalog:
    """The files as items, in this order; the category is what stands before a dash."""
    (tmp_path / "pictures").mkdir(exist_ok=True)
    for name, data in files.items():
        (tmp_path / "pictures" / name).write_bytes(data)
    names = list(files)
    table = pd.DataFrame(
        {
            "item_id": names,
            "image": names,
            "category": [name.split("-")[0] for name in names],
            "group": names,
            "split": splits or ["train"] * len(names),
        }
    )
    catalog = Catalog("shop", table, FolderSource(tmp_path / "pictures"))
    return cache_pictures(
        catalog, size_px=64, fit="stretch", cache_dir=tmp_path / "cache", on_bad_item="error"
    )


def test_troubles_of_pictures_are_found(tmp_path: Path) -> None:
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    frames = [Image.fromarray(noise(seed)) for seed in (20, 21)]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    see_through = Image.fromarray(noise(8)).convert("RGBA")
    see_through.putalpha(Image.fromarray(noise(9)).convert("L"))
    transparent = io.BytesIO()
    see_through.save(transparent, "PNG")
    files = {
        "hat-good.png": encoded(noise(0)),
        "hat-tiny.png": encoded(noise(1, 15, 40)),
        "hat-small.png": encoded(noise(2, 40, 40)),
        "hat-huge.jpg": encoded(noise(3, 5100, 5000), "JPEG"),
        "hat-long.png": encoded(noise(4, 400, 100)),
        "hat-plain.png": encoded(np.full((80, 80, 3), 250, np.uint8)),
        "hat-cmyk.jpg": encoded(noise(5), "JPEG", "CMYK"),
        "hat-gray.png": encoded(noise(6), mode="L"),
        "hat-turned.jpg": encoded(noise(7), "JPEG", exif=upside_down),
        "hat-animated.gif": animation.getvalue(),
        "hat-transparent.png": transparent.getvalue(),
    }
    cached = cached_folder(tmp_path, files)
    facts = picture_facts(cached.catalog, cached.pictures)
    found = by_kind(check_pictures(cached.catalog, facts, size_px=64, fit="stretch"))
    named = {kind: [item.item_id for item in finding.items] for kind, finding in found.items()}
    modes = {kind: named.pop(kind) for kind in list(named) if kind.startswith("mode_")}
    assert named == {
        "tiny": ["hat-tiny.png"],
        "enlarged": ["hat-small.png"],
        "huge": ["hat-huge.jpg"],
        "elongated": ["hat-long.png"],
        "plain": ["hat-plain.png"],
        "gray": ["hat-gray.png"],
        "turned": ["hat-turned.jpg"],
        "animated": ["hat-animated.gif"],
        "transparent": ["hat-transparent.png"],
    }
    assert modes["mode_CMYK"] == ["hat-cmyk.jpg"]
    assert modes["mode_RGBA"] == ["hat-transparent.png"]
    assert found["mode_CMYK"].severity == "warning"
    assert found["mode_CMYK"].what == "Of 11 pictures, 1 has the colour mode CMYK."
    assert found["mode_RGBA"].severity == "note"
    assert found["tiny"].items[0].why == "40 x 15 px"
    kept = by_kind(check_pictures(cached.catalog, facts, size_px=64, fit="letterbox"))
    assert (found["elongated"].severity, kept["elongated"].severity) == ("warning", "note")
    counted = picture_table(facts)
    assert counted["pictures"].sum() == len(files)
    jpeg = counted[(counted["format"] == "JPEG") & (counted["mode"] == "RGB")].iloc[0]
    assert (jpeg["smallest"], jpeg["largest"]) == ("160 x 160", "5000 x 5100")


def test_copies_are_found_and_told_apart(tmp_path: Path) -> None:
    shirt, shoe = noise(1), noise(2)
    files = {
        "hat-a.png": encoded(noise(0)),
        "hat-b.png": encoded(shirt),
        "hat-c.png": encoded(shirt, compress_level=1),  # another file of the same pixels
        "hat-d.png": encoded(shoe),
        "shoe-e.png": encoded(shoe),
        "shoe-f.jpg": encoded(shoe, "JPEG", quality=90),  # other pixels that look the same
        "hat-g.jpg": encoded(noise(0), "JPEG", quality=90),
    }
    splits = ["test", "train", "train", "train", "train", "train", "train"]
    cached = cached_folder(tmp_path, files, splits)
    facts = picture_facts(cached.catalog, cached.pictures)
    found = by_kind(check_copies(cached.catalog, facts))
    assert found["copies"].items == (NamedItem("hat-c.png", "hat", "hat-b.png"),)
    assert found["copies_other_category"].items == (
        NamedItem("shoe-e.png", "'shoe', beside 'hat'", "hat-d.png"),
    )
    near = by_kind(check_near_copies(cached.catalog, facts))
    pairs = {
        kind: [(item.other_id, item.item_id) for item in finding.items]
        for kind, finding in near.items()
    }
    assert pairs == {
        "near_copies_across_splits": [("hat-a.png", "hat-g.jpg")],
        "near_copies_other_category": [("hat-d.png", "shoe-f.jpg")],
        "near_copies": [("shoe-e.png", "shoe-f.jpg")],
    }
    assert near["near_copies"].severity == "note"
    [first, *_] = check_near_copies(cached.catalog, facts, max_listed=0)
    assert (first.num_items, first.items) == (1, ())


def test_near_copies_are_those_of_the_slow_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    num = 600  # more than two blocks
    hashes = rng.integers(1, 40, num).astype(np.uint64)  # a few bits: many are near
    catalog = catalog_of(split=list(rng.choice(["train", "test"], num)))
    facts = pd.DataFrame({"pixels": [str(v) for v in rng.integers(0, 400, num)], "hash": hashes})
    table = catalog.table.assign(**facts).drop_duplicates(["pixels", "category", "split"])
    expected = {"near_copies": 0, "near_copies_other_category": 0, "near_copies_across_splits": 0}
    rows = table.to_dict("records")
    for place, one in enumerate(rows):
        for other in rows[place + 1 :]:
            bits = bin(int(one["hash"]) ^ int(other["hash"])).count("1")
            if bits > 2 or one["pixels"] == other["pixels"]:
                continue
            kind = "near_copies"
            if one["split"] != other["split"]:
                kind = "near_copies_across_splits"
            elif one["category"] != other["category"]:
                kind = "near_copies_other_category"
            expected[kind] += 1
    found = by_kind(check_near_copies(catalog, facts, max_listed=7))
    assert {kind: finding.num_items for kind, finding in found.items()} == expected
    assert all(len(finding.items) == 7 for finding in found.values())
    assert all(finding.items[0].why.startswith("0 bits") for finding in found.values())


def test_wrong_limits_of_near_copies_are_refused() -> None:
    facts = pd.DataFrame({"pixels": ["a", "b"], "hash": np.array([1, 1], np.uint64)})
    for limits in ({"max_bits": 65}, {"max_listed": -1}):
        with pytest.raises(ValueError, match="expected 0 to 64 and 0 or more"):
            check_near_copies(catalog_of(split=["train", "train"]), facts, **limits)


def test_facts_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"hat-a.png": encoded(noise(0)), "hat-b.png": encoded(noise(1))}
    cached = cached_folder(tmp_path, files)
    calls: list[tuple[int, int]] = []
    facts = picture_facts(cached.catalog, cached.pictures, lambda *call: calls.append(call))
    assert calls == [(2, 2)]
    assert facts["width_px"].tolist() == [160, 160]
    assert facts["num_bytes"].tolist() == [len(data) for data in files.values()]
    path = facts_path(cached.pictures)
    assert path.is_file()

    more = cached_folder(tmp_path, files | {"hat-c.png": encoded(noise(2))})
    again = picture_facts(more.catalog, more.pictures, lambda *call: calls.append(call))
    assert calls[1:] == [(1, 1)]  # of the new one alone
    pd.testing.assert_frame_equal(again.head(2), facts)
    monkeypatch.setattr(FolderSource, "load", lambda *_: pytest.fail("everything is known"))
    third = picture_facts(more.catalog, more.pictures, lambda *call: calls.append(call))
    pd.testing.assert_frame_equal(third, again)
    assert len(calls) == 2


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet", b"x" * 5000])
def test_damaged_facts_are_found_anew(tmp_path: Path, content: bytes) -> None:
    cached = cached_folder(tmp_path, {"hat-a.png": encoded(noise(0))})
    facts = picture_facts(cached.catalog, cached.pictures)
    facts_path(cached.pictures).write_bytes(content)
    pd.testing.assert_frame_equal(picture_facts(cached.catalog, cached.pictures), facts)
    assert pd.read_parquet(facts_path(cached.pictures))["mode"].tolist() == ["RGB"]


def test_pictures_in_memory_have_facts(tmp_path: Path) -> None:
    arrays = np.stack([noise(seed, 28, 28)[..., 0] for seed in (0, 1)])
    catalog = replace(
        catalog_of(split=["train", "train"]), source=ArraySource(arrays, ["i0", "i1"])
    )
    cached = cache_pictures(
        catalog, size_px=32, fit="stretch", cache_dir=tmp_path, on_bad_item="error"
    )
    facts = picture_facts(catalog, cached.pictures)
    assert facts[["format", "mode", "width_px"]].to_numpy().tolist() == [["array", "L", 28]] * 2


def test_pictures_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    cached = cached_folder(tmp_path, {"hat-a.png": encoded(noise(0))})
    with pytest.raises(ValueError, match="has 2 items and there are 1 pictures"):
        picture_facts(catalog_of(split=["train", "train"]), cached.pictures)


def test_a_picture_that_has_gone_is_an_error(tmp_path: Path) -> None:
    cached = cached_folder(tmp_path, {"hat-a.png": encoded(noise(0))})
    (tmp_path / "pictures" / "hat-a.png").unlink()
    with pytest.raises(OSError, match=r"no picture 'hat-a\.png'"):
        picture_facts(cached.catalog, cached.pictures)
