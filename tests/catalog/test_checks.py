"""What is found in a catalogue's table and pictures: each trouble planted, and none of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.catalog.odd_pictures import encoded
from tests.catalog.shops import catalog_of, refuses, saved
from visual_search.catalog import checks, picture_checks
from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import RefusedItem
from visual_search.catalog.checks import Finding, NamedItem
from visual_search.catalog.picture_facts import facts_path, picture_facts
from visual_search.catalog.readers.sources import ArraySource, FolderSource

NONE = np.zeros(0, dtype=np.int64)


def by_kind(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.kind: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def named(findings: list[Finding]) -> dict[str, list[str]]:
    return {kind: [item.item_id for item in f.items] for kind, f in by_kind(findings).items()}


def test_an_orderly_table_has_no_finding() -> None:
    catalog = catalog_of(split=["train"] * 80 + ["val"] * 40 + ["test"] * 40)
    gallery, queries = catalog.rows_of_split("train"), catalog.rows_of_split("test")
    assert (
        not checks.torn_groups(catalog)
        + checks.check_splits(catalog)
        + checks.check_groups(catalog)
    )
    assert not checks.check_categories(catalog, gallery, queries)
    assert not checks.check_attributes(catalog)
    assert not checks.check_refused((), (), "error")


def test_refused_rows_torn_groups_and_empty_splits_are_named() -> None:
    row, picture = RefusedItem("a", "a.jpg", "no category"), RefusedItem("b", "b.jpg", "damaged")
    found = by_kind(checks.check_refused([row], [picture], "error"))
    assert found["refused_rows"].items == (NamedItem("a", "no category", "a.jpg"),)
    assert found["broken_pictures"].items == (NamedItem("b", "damaged", "b.jpg"),)
    assert {finding.severity for finding in found.values()} == {"error"}
    assert checks.check_refused([row], [], "warning")[0].severity == "warning"
    [torn] = checks.torn_groups(
        catalog_of(group=list("gghh"), split=["test", "train", "train", ""])
    )
    assert (torn.severity, torn.items) == ("error", (NamedItem("g", "train, test"),))
    empty = checks.check_splits(catalog_of(split=["train", "train"]))
    severities = {finding.kind: finding.severity for finding in empty}
    assert severities == {"empty_val": "warning", "empty_test": "error"}
    assert by_kind(checks.check_splits(catalog_of(split=["test", "val"]))).keys() == {"empty_train"}
    refuses(ValueError, "severity is 'fatal'; expected one of", Finding, "kind", "fatal", "", "")


def test_troubles_of_categories_are_found() -> None:
    names = ["t shirt"] * 4 + ["T-Shirt"] * 45 + ["hat"] * 4 + ["cape"] + ["belt"] * 4
    catalog = catalog_of(category=names, split=["train"] * 53 + ["test"] + ["train"] * 4)
    found = by_kind(
        checks.check_categories(
            catalog, catalog.rows_of_split("train"), catalog.rows_of_split("test")
        )
    )
    assert found["categories_alike"].items == (NamedItem("t shirt", "beside 'T-Shirt'"),)
    assert found["categories_alike"].what.startswith("1 category with")
    assert found["categories_of_one"].items == (NamedItem("cape", "1 item"),)
    assert found["imbalance"].items == (NamedItem("T-Shirt", "45 items"),)
    for part in ("'T-Shirt'", "45 items", "11 times the median of 4", "has 1."):
        assert part in found["imbalance"].what
    assert found["categories_unanswered"].items == (NamedItem("cape", "1 query"),)
    assert found["few_queries"].severity == "note"
    assert found["few_queries"].what.startswith("1 of 1 category with queries has fewer")
    assert len(found) == 5
    one = by_kind(checks.check_categories(catalog_of(category=["hat"] * 4), NONE, NONE))
    assert (one["one_category"].severity, len(one)) == ("error", 1)


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
    found = by_kind(checks.check_categories(catalog_of(category=names), NONE, NONE))
    why = {item.item_id: item.why for item in found["categories_alike"].items}
    assert set(why) == {"Ro\u0308cke", "Shoes ", "SHOES", "\uff33hoes", "Shoes\u200b"}
    assert why["Ro\u0308cke"] == "beside 'Röcke', written as R o U+0308 c k e here"
    assert "U+0020" in why["Shoes "]
    assert why["SHOES"] == "beside 'Shoes'"
    signs = catalog_of(category=["+", "+", "-", "-"])  # nothing but signs is not alike
    assert not checks.check_categories(signs, NONE, NONE)


def test_large_and_mixed_groups_are_found() -> None:
    catalog = catalog_of(group=["g"] * 6 + [f"h{place}" for place in range(24)])
    found = by_kind(checks.check_groups(catalog))
    assert found["large_groups"].items == (NamedItem("g", "6 items"),)
    assert found["groups_mixed"].items == (NamedItem("g", "2 categories"),)


def test_attributes_that_say_little_are_found() -> None:
    catalog = catalog_of(
        empty=[""] * 6, season=["all"] * 6, sparse=["a", "b", "", "", "", ""], good=list("aabbbc")
    )
    found = by_kind(checks.check_attributes(catalog))
    assert found["attributes_empty"].items[0].item_id == "empty"
    assert found["attributes_constant"].items[0].item_id == "season"
    assert found["attributes_sparse"].items == (NamedItem("sparse", "filled for 2 items"),)
    table = checks.attribute_table(catalog)
    assert table["num_values"].tolist() == [0, 1, 2, 3]
    assert table["commonest"][[0, 1, 3]].tolist() == ["", "all (6)", "b (3)"]


def test_the_category_table_counts_sides() -> None:
    splits = ["train", "train", "train", "test"]
    catalog = catalog_of(category=["hat", "hat", "shoe", "hat"], split=splits)
    table = checks.category_table(catalog, np.array([0, 2]), np.array([3]))
    assert table.to_dict("list") == {
        "category": ["hat", "shoe"], "items": [3, 1], "groups": [3, 1], "train": [2, 1],
        "val": [0, 0], "test": [1, 0], "gallery": [1, 1], "queries": [1, 0],
    }  # fmt: skip


# ---- pictures


def noise(seed: int, height: int = 160, width: int = 160) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def cached_folder(
    tmp_path: Path, files: dict[str, bytes], splits: object = "train"
) -> CachedCatalog:
    """The files as items, in this order; the category is what stands before a dash."""
    names = list(files)
    root = saved(tmp_path / "pictures", files)
    categories = [name.split("-")[0] for name in names]
    catalog = catalog_of(FolderSource(root), item_id=names, image=names, category=categories)
    return cache_pictures(
        replace(catalog, table=catalog.table.assign(split=splits)),
        size_px=64, fit="stretch", cache_dir=tmp_path / "cache", on_bad_item="error",
    )  # fmt: skip


def facts_of(cached: CachedCatalog) -> pd.DataFrame:
    return picture_facts(cached.catalog, cached.pictures)


def test_troubles_of_pictures_are_found(tmp_path: Path) -> None:
    upside_down, unknown = Image.Exif(), Image.Exif()
    upside_down[0x0112], unknown[0x0112] = 3, 9  # 1 to 8 are orientations
    see_through = noise(8).convert("RGBA")
    see_through.putalpha(noise(9).convert("L"))
    files = {
        "hat-good.png": encoded(noise(0), exif=unknown),
        "hat-tiny.png": encoded(noise(1, 15, 40)),
        "hat-small.png": encoded(noise(2, 40, 40)),
        "hat-huge.jpg": encoded(noise(3, 240, 200), "JPEG") + bytes(10 * 2**20),
        "hat-long.png": encoded(noise(4, 400, 100)),
        "hat-plain.png": encoded(Image.new("RGB", (80, 80), (250, 250, 250))),
        "hat-cmyk.jpg": encoded(noise(5).convert("CMYK"), "JPEG"),
        "hat-gray.png": encoded(noise(6).convert("L")),
        "hat-turned.jpg": encoded(noise(7), "JPEG", exif=upside_down),
        "hat-animated.gif": encoded(noise(20), "GIF", save_all=True, append_images=[noise(21)]),
        "hat-transparent.png": encoded(see_through),
    }
    cached = cached_folder(tmp_path, files)
    facts = facts_of(cached)
    findings = picture_checks.check_pictures(cached.catalog, facts, size_px=64, fit="stretch")
    found, ids = by_kind(findings), named(findings)
    assert [ids.pop("mode_CMYK"), ids.pop("mode_RGBA")] == [
        ["hat-cmyk.jpg"],
        ["hat-transparent.png"],
    ]
    assert {kind: items for kind, items in ids.items() if not kind.startswith("mode_")} == {
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
    assert (found["mode_CMYK"].severity, found["mode_RGBA"].severity) == ("warning", "note")
    assert found["mode_CMYK"].what == "Of 11 pictures, 1 has the colour mode CMYK."
    assert found["tiny"].items[0].why == "40 x 15 px"
    kept = by_kind(
        picture_checks.check_pictures(cached.catalog, facts, size_px=64, fit="letterbox")
    )
    assert (found["elongated"].severity, kept["elongated"].severity) == ("warning", "note")
    counted = picture_checks.picture_table(facts)
    assert counted["pictures"].sum() == len(files)
    jpeg = counted[(counted["format"] == "JPEG") & (counted["mode"] == "RGB")].iloc[0]
    assert (jpeg["smallest"], jpeg["largest"]) == ("160 x 160", "200 x 240")
    for size, huge in (((5000, 5000), []), ((25_000_001, 1), ["hat-good.png"])):  # the limit
        facts.loc[0, ["width_px", "height_px"]] = size
        findings = picture_checks.check_pictures(cached.catalog, facts, size_px=64, fit="stretch")
        assert named(findings)["huge"] == [*huge, "hat-huge.jpg"]


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
    cached = cached_folder(tmp_path, files, ["test"] + ["train"] * 6)
    facts = facts_of(cached)
    assert {
        kind: finding.items
        for kind, finding in by_kind(picture_checks.check_copies(cached.catalog, facts)).items()
    } == {
        "copies": (NamedItem("hat-c.png", "hat", "hat-b.png"),),
        "copies_other_category": (NamedItem("shoe-e.png", "'shoe', beside 'hat'", "hat-d.png"),),
    }
    near = by_kind(picture_checks.check_near_copies(cached.catalog, facts))
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
    [first, *_] = picture_checks.check_near_copies(cached.catalog, facts, max_listed=0)
    assert (first.num_items, first.items) == (1, ())
    for limits in ({"max_bits": 65}, {"max_bits": -1}, {"max_listed": -1}):
        message = "expected 0 to 64 and 0 or more"
        refuses(
            ValueError, message, picture_checks.check_near_copies, cached.catalog, facts, **limits
        )


def test_near_copies_are_those_of_the_slow_way() -> None:
    rng = np.random.default_rng(0)
    num = 300  # more than two blocks
    hashes = rng.integers(1, 40, num).astype(np.uint64)  # a few bits: many are near
    catalog = catalog_of(split=list(rng.choice(["train", "test"], num)))
    facts = pd.DataFrame({"pixels": [str(v) for v in rng.integers(0, 200, num)], "hash": hashes})
    table = catalog.table.assign(**facts).drop_duplicates(["pixels", "category", "split"])
    expected = {"near_copies": 0, "near_copies_other_category": 0, "near_copies_across_splits": 0}
    rows = table.to_dict("records")
    for place, one in enumerate(rows):
        for other in rows[place + 1 :]:
            bits = (int(one["hash"]) ^ int(other["hash"])).bit_count()
            if bits > 2 or one["pixels"] == other["pixels"]:
                continue
            kind = "near_copies"
            if one["split"] != other["split"]:
                kind = "near_copies_across_splits"
            elif one["category"] != other["category"]:
                kind = "near_copies_other_category"
            expected[kind] += 1
    found = by_kind(picture_checks.check_near_copies(catalog, facts, max_listed=7))
    assert {kind: finding.num_items for kind, finding in found.items()} == expected
    for finding in found.values():
        assert len(finding.items) == 7
        assert finding.items[0].why.startswith("0 bits")


def test_facts_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def facts_now(cached: CachedCatalog) -> pd.DataFrame:
        return picture_facts(cached.catalog, cached.pictures, lambda *call: calls.append(call))

    files = {"hat-a.png": encoded(noise(0)), "hat-b.png": encoded(noise(1))}
    cached = cached_folder(tmp_path, files)
    facts = facts_now(cached)
    assert calls == [(2, 2)]
    assert facts["width_px"].tolist() == [160, 160]
    assert facts["num_bytes"].tolist() == [len(data) for data in files.values()]
    for content in (b"", b"PAR1 no parquet", b"x" * 5000):  # damaged: found anew
        facts_path(cached.pictures).write_bytes(content)
        pd.testing.assert_frame_equal(facts_of(cached), facts)
        assert pd.read_parquet(facts_path(cached.pictures))["mode"].tolist() == ["RGB"] * 2

    more = cached_folder(tmp_path, files | {"hat-c.png": encoded(noise(2))})
    again = facts_now(more)
    assert calls[1:] == [(1, 1)]  # of the new one alone
    pd.testing.assert_frame_equal(again.head(2), facts)
    monkeypatch.setattr(FolderSource, "load", lambda *_: pytest.fail("everything is known"))
    pd.testing.assert_frame_equal(facts_now(more), again)
    assert len(calls) == 2


def test_pictures_in_memory_have_facts_those_gone_or_of_others_do_not(tmp_path: Path) -> None:
    arrays = np.stack([np.asarray(noise(seed, 28, 28).convert("L")) for seed in (0, 1)])
    catalog = catalog_of(ArraySource(arrays, ["i000", "i001"]), split=["train", "train"])
    cached = cache_pictures(
        catalog, size_px=32, fit="stretch", cache_dir=tmp_path, on_bad_item="error"
    )
    facts = facts_of(cached)
    assert facts[["format", "mode", "width_px"]].to_numpy().tolist() == [["array", "L", 28]] * 2
    other = cached_folder(tmp_path, {"hat-a.png": encoded(noise(0))})
    message = "has 2 items and there are 1 pictures"
    refuses(ValueError, message, picture_facts, catalog, other.pictures)
    (tmp_path / "pictures" / "hat-a.png").unlink()
    refuses(OSError, r"no picture 'hat-a\.png'", facts_of, other)
