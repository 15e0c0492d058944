"""The check of a catalogue: each trouble planted, none of them, what is printed and written."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.composing import typed
from visual_search.check import check_data, main
from visual_search.config.builders import ConfigError
from visual_search.reports.check_tables import Checked, print_check
from visual_search.runs.parts import Parts
from visual_search.train import train


def picture(seed: int, height: int = 96, width: int = 96) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def orderly(tmp_path: Path) -> Path:
    """A table of 60 items, 20 of each split, with nothing wrong with it."""
    rows = []
    for place in range(60):
        name = f"i{place:02d}"
        picture(place).save(tmp_path / f"{name}.png")
        split = ("train", "val", "test")[place // 20]
        colour = ("red", "blue")[place // 2 % 2]
        rows.append((name, f"{name}.png", ("hat", "shoe")[place % 2], name, split, colour))
    columns = ["item_id", "image", "category", "product", "split", "colour"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "products.csv", index=False)
    return tmp_path / "products.csv"


@pytest.fixture
def troubled(orderly: Path) -> Path:
    """The same with a trouble of each kind."""
    folder = orderly.parent
    table = pd.read_csv(orderly, dtype=str)
    by_id = table.set_index("item_id")
    by_id.loc["i01", "image"] = "nowhere.png"  # refused
    (folder / "i02.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")  # broken
    picture(3, 12, 12).save(folder / "i03.png")  # tiny
    picture(4, 5100, 5000).save(folder / "i04.jpg")  # huge
    by_id.loc["i04", "image"] = "i04.jpg"
    picture(5).convert("CMYK").save(folder / "i05.jpg")  # an odd mode
    by_id.loc["i05", "image"] = "i05.jpg"
    shutil.copy(folder / "i06.png", folder / "i08.png")  # copies of one category
    shutil.copy(folder / "i07.png", folder / "i10.png")  # and of two
    picture(9).save(folder / "i11.jpg", quality=85)  # near copies
    by_id.loc["i11", "image"] = "i11.jpg"
    shutil.copy(folder / "i12.png", folder / "i40.png")  # a leak from train to test
    by_id.loc[["i13", "i41"], "product"] = "one product"  # torn by the data
    by_id.loc["i14", "category"] = "Hat"
    by_id.reset_index().to_csv(orderly, index=False)
    return orderly


def settings(table: Path, *overrides: str) -> Any:
    folder = table.parent
    return typed(
        "check", "data=table", f"data.path={table}", "data.group=product", "data.split=split",
        "pictures.size_px=64", f"pictures.cache_dir={folder / 'cache'}",
        f"outputs={folder / 'outputs'}", "split.allow_few=true", *overrides,
    )  # fmt: skip


def kinds(checked: Checked) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"error": [], "warning": [], "note": []}
    for finding in checked.findings:
        found[finding.severity].append(finding.kind)
    return found


def test_an_orderly_catalogue_is_fit_and_a_second_check_decodes_nothing(
    orderly: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = orderly.parent / "elsewhere"
    checked = check_data(settings(orderly, f"out={folder}"))
    assert checked.folder == folder
    assert kinds(checked) == {"error": [], "warning": [], "note": ["few_groups", "few_queries"]}
    assert checked.standing == "Fit to train on: 2 notes."
    assert "keeps 20 of 60 items; 20 items of the test split ask. No category" in checked.rule
    print_check(checked)
    printed = capsys.readouterr().out
    assert "Fit to train on: 2 notes." in printed
    assert "30 items each" in printed
    assert str(folder / "report.html") in printed.replace("\n", "")
    assert (folder / "report.html").is_file()
    assert checked.cached.num_decoded == 60
    known = "visual_search.catalog.picture_facts._header"
    monkeypatch.setattr(known, lambda _: pytest.fail("it is known"))
    second = check_data(settings(orderly))
    assert second.cached.num_decoded == 0
    assert second.findings == checked.findings
    # How the rule is told, which needs no picture.
    capped = check_data(settings(orderly, "protocol.max_per_category=7"))
    taken = "Of 2 categories it takes the 7 that the seed chooses, which leaves out 6 items: "
    assert capped.rule.endswith(f"{taken}hat, shoe.")
    assert capped.categories["gallery"].tolist() == [7, 7]
    wider = check_data(settings(orderly, "protocol.gallery_splits=[train,val]"))
    assert "keeps 40 of 60 items" in wider.rule
    assert wider.rule.endswith("No category of the train and val splits is cut.")


def test_a_test_that_can_say_next_to_nothing_is_an_error_unless_allowed(orderly: Path) -> None:
    checked = check_data(settings(orderly, "split.allow_few=false"))
    (found,) = [finding for finding in checked.findings if finding.kind == "few_groups"]
    assert found.severity == "error"
    assert "20 queries: expect a mean over them to be known to about ±0.2" in found.what
    assert "split.allow_few=true" in found.advice
    asked = ["data=table", f"data.path={orderly}", "data.group=product", "data.split=split"]
    folder = [f"outputs={orderly.parent}", f"pictures.cache_dir={orderly.parent / 'cache'}"]
    with pytest.raises(ConfigError, match=r"at least 50 queries of 20 groups.*split\.allow_few"):
        train(typed("train", "model=plain_encoder", "objective=simclr", *asked, *folder))


def test_what_was_left_out_is_a_share_beside_the_verdict(orderly: Path) -> None:
    table = pd.read_csv(orderly, dtype=str)
    table.loc[table.index[:6], "image"] = "nowhere.png"
    table.to_csv(orderly, index=False)
    checked = check_data(settings(orderly, "data.on_bad_item=skip"))
    assert (kinds(checked)["error"], "(10.0 %)" in checked.standing) == ([], True)
    table.loc[table.index[6], "image"] = "nowhere.png"
    table.to_csv(orderly, index=False)
    checked = check_data(settings(orderly, "data.on_bad_item=skip"))
    assert kinds(checked)["error"] == ["left_out"]
    assert "7 of 60" in checked.standing
    checked = check_data(settings(orderly, "data.on_bad_item=skip_any"))
    assert kinds(checked)["error"] == []
    assert "left_out" in kinds(checked)["warning"]


def test_what_stops_training_is_an_error_of_the_check(orderly: Path) -> None:
    for override in ("k=21", "relevance=[season]", "max_per_category=2"):
        checked = check_data(settings(orderly, f"protocol.{override}"))
        assert kinds(checked)["error"] == ["protocol"]
        assert checked.standing.startswith("Not fit to train on")
    assert kinds(check_data(settings(orderly, "protocol.k=20")))["error"] == []
    drawn = ["data.split=null", "data.attributes=[colour]", "split=cold_start_newest"]
    checked = check_data(settings(orderly, *drawn, "split.order_by=season"))
    assert kinds(checked)["error"] == ["split", "protocol"]
    [split, _] = [finding for finding in checked.findings if finding.severity == "error"]
    assert "order_by is 'season'" in split.what
    assert checked.rule == "No gallery can be chosen; see the findings."


def test_what_the_reader_chose_is_noted(orderly: Path) -> None:
    text = orderly.read_text().replace(",", ";").replace("red", "grün")
    orderly.write_bytes(text.encode("cp1252"))
    checked = check_data(settings(orderly))
    (noted,) = [finding for finding in checked.findings if finding.kind == "choices"]
    assert {item.item_id for item in noted.items} == {"data.separator", "data.encoding"}
    written = json.loads((checked.folder / "findings.json").read_text())
    assert {choice["key"]: choice["value"] for choice in written["choices"]} == {
        "data.separator": "';'",
        "data.encoding": "cp1252",
    }


@pytest.mark.parametrize(
    "names",
    [
        ("SKU", "Picture", "Type", "colour"),
        ("Article no.", "picture, main", 'type "new"', "[colour]"),
        ("null", "image's {path}", " k=v ", "${x}"),
    ],
)
def test_the_command_that_it_prints_reads_the_catalogue_as_it_was_read(
    orderly: Path, names: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    table = pd.read_csv(orderly, dtype=str).drop(columns="split")
    table.loc[59, "image"] = "nowhere.png"  # a bad item, and too few queries
    table = table[["item_id", "image", "category", "colour"]].set_axis([*names], axis=1)
    table.to_csv(orderly, index=False, sep=";", encoding="utf-16")
    monkeypatch.chdir(orderly.parent)
    monkeypatch.setattr(sys, "argv", ["check", "data=table", "data.path=products.csv"])
    with pytest.raises(SystemExit):  # of the row without its picture
        main()
    printed = capsys.readouterr().out
    assert "data.separator=';'" in printed.splitlines()[1]
    assert f"data.item_id={names[0]}" in printed.splitlines()[2]
    commands = [line for line in printed.splitlines() if line.startswith("  python -m ")]
    words = shlex.split(commands[0])
    assert words[:4] == ["python", "-m", "visual_search.train", "experiment=best_pretrained"]
    own = typed("train", *words[3:])
    assert (own.data["on_bad_item"], own.split.allow_few) == ("skip", True)
    named = Parts(own).whole
    assert (len(named), len(named.refused), named.settings) == (59, 1, {})
    assert list(named.table["item_id"][:2]) == ["i00", "i01"]
    assert named.categories == ["hat", "shoe"]


def test_copies_on_both_sides_are_left_out_by_the_command_that_it_prints(
    orderly: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(orderly.parent)
    asked = ["data=table", "data.path=products.csv", "data.split=split", "split.allow_few=true"]
    monkeypatch.setattr(sys, "argv", ["check", *asked])

    def commands() -> list[str]:
        with pytest.raises(SystemExit):
            main()
        printed = capsys.readouterr().out
        return [line for line in printed.splitlines() if line.startswith("  python -m ")]

    shutil.copy("i12.png", "i40.png")  # of train, and of test
    (first, *_) = commands()
    own = typed("train", *shlex.split(first)[3:])
    assert own.protocol["on_leak"] == "drop"
    assert Parts(own).sides("test").num_dropped == 1
    for place in range(20):
        shutil.copy(f"i{place:02d}.png", f"i{place + 40}.png")
    assert not commands()  # no query would be left


def test_each_trouble_is_found_and_named(
    troubled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = check_data(settings(troubled))
    found = kinds(checked)
    assert sorted(found["error"]) == [
        "broken_pictures", "leak_group", "leak_groups_given", "leak_pixels", "refused_rows",
    ]  # fmt: skip
    assert {
        "categories_alike", "categories_of_one", "copies", "copies_other_category", "tiny", "huge",
        "mode_CMYK",
    } <= set(found["warning"])  # fmt: skip
    assert "near_copies" in found["note"]
    named = {
        finding.kind: [(item.item_id, item.other_id) for item in finding.items]
        for finding in checked.findings
    }
    assert named["refused_rows"] == [("i01", "nowhere.png")]
    assert named["broken_pictures"] == [("i02", "i02.png")]
    assert named["leak_pixels"] == [("i40", "i12")]
    assert named["leak_group"] == [("i41", "i13")]
    assert ("i08", "i06") in named["copies"]
    assert named["copies_other_category"] == [("i10", "i07")]
    assert named["near_copies"] == [("i11", "i09")]
    assert named["tiny"] == [("i03", "")]
    assert named["huge"] == [("i04", "")]
    assert named["mode_CMYK"] == [("i05", "")]
    print_check(checked)
    printed = capsys.readouterr().out
    assert "i40 beside i12" in printed
    assert "i01 (nowhere.png): line 3" in printed
    assert "Not fit to train on as it is: 5 errors" in printed

    content = json.loads((checked.folder / "findings.json").read_text(encoding="utf-8"))
    assert checked.folder == troubled.parent / "outputs" / "check" / "products"
    assert (content["num_items"], content["num_refused"], content["num_errors"]) == (58, 2, 5)
    assert [finding["kind"] for finding in content["findings"]] == [
        finding.kind for finding in checked.findings
    ]
    assert content["categories"][0]["category"] == "shoe"
    page = (checked.folder / "report.html").read_text(encoding="utf-8")
    for text in ("Not fit to train on", "nowhere.png", "i40", "one product", "Contact sheets"):
        assert text in page
    for path in checked.folder.iterdir():  # what is written names no place
        written = path.read_text(encoding="utf-8")
        assert "nowhere.png" in written
        assert str(troubled.parent) not in written, path
    # What is left out on purpose is a warning.
    found = kinds(check_data(settings(troubled, "data.on_bad_item=skip", "protocol.on_leak=drop")))
    assert found["error"] == ["leak_groups_given"]
    assert {"refused_rows", "broken_pictures", "leak_pixels", "leak_group"} <= set(found["warning"])


def test_thousands_of_categories_have_one_sheet_together(
    orderly: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(orderly, dtype=str)
    table["category"] = [f"c{place // 2:02d}" for place in range(60)]
    table.to_csv(orderly, index=False)
    monkeypatch.setattr("visual_search.check.MAX_SHEETS", 4)
    checked = check_data(settings(orderly, "sheet_items=5"))
    page = (checked.folder / "report.html").read_text(encoding="utf-8")
    alts = re.findall('alt="([^"]* pictures of [^"]*)"', page)
    assert alts == [
        *(f"2 pictures of c{place:02d}" for place in range(4)),
        "15 pictures of Of each smaller category one picture",
    ]


def test_queries_that_nothing_answers_are_counted(orderly: Path) -> None:
    table = pd.read_csv(orderly, dtype=str)
    table["title"] = [f"t{place}" for place in range(len(table))]
    held = table["split"] == "train"
    table["pair"] = table["category"].where(held | (table.groupby("split").cumcount() > 1), "none")
    table.to_csv(orderly, index=False)
    nothing = check_data(settings(orderly, "protocol.relevance=[title]"))
    assert kinds(nothing)["error"] == ["unanswered"]
    part = check_data(settings(orderly, "protocol.relevance=[pair]"))
    [finding] = [finding for finding in part.findings if finding.kind == "unanswered"]
    asking = table.loc[(table["split"] == "test") & (table["pair"] == "none"), "item_id"]
    assert finding.severity == "warning"
    assert {item.item_id for item in finding.items} == set(asking)
    assert len(asking)


def test_wrong_settings_are_refused(orderly: Path) -> None:
    with pytest.raises(ConfigError, match="sheet_items=0; expected at least 1"):
        check_data(settings(orderly, "sheet_items=0"))
    with pytest.raises(ConfigError, match="no data is named; expected data=OPTION"):
        check_data(typed("check"))
    with pytest.raises(ConfigError, match="on_bad_item='ignore' is of a wrong type"):
        check_data(settings(orderly, "data.on_bad_item=ignore"))


def test_a_catalogue_without_one_picture_is_refused(orderly: Path) -> None:
    for path in orderly.parent.glob("*.png"):
        path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="no item of catalogue 'products' is left"):
        check_data(settings(orderly))


@pytest.mark.parametrize(("which", "status"), [("orderly", 0), ("troubled", 1)])
def test_the_exit_status_guards_a_pipeline(
    which: str, status: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    table: Path = request.getfixturevalue(which)
    folder = table.parent
    monkeypatch.chdir(folder)
    monkeypatch.setattr(
        sys, "argv",
        ["check", "data=table", "data.path=products.csv", "data.group=product", "data.split=split",
         "pictures.size_px=64", "split.allow_few=true"],
    )  # fmt: skip
    if status:
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == status
    else:
        main()
    assert (folder / "outputs" / "check" / "products" / "findings.json").is_file()
