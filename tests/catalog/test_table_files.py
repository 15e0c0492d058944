"""Tables in other files than CSV: JSON lines and lists, workbooks, packed ones; each bounded."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from tests.catalog.shops import refuses, saved
from visual_search.catalog.readers import json_rows, listings, workbook
from visual_search.catalog.readers.json_rows import read_json_lines, read_json_list
from visual_search.catalog.readers.table import table
from visual_search.catalog.readers.workbook import read_workbook

NAMES = ("item_id", "title", "category", "image")
ROWS = [(f"0{n}", f'Größe {n}; "neu", | 5 €', "Hats", f"{n}.jpg") for n in range(1, 7)]
OBJECTS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
LINES = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in OBJECTS)


def separated(sign: str) -> str:
    quoted = [[f'"{text.replace(chr(34), 2 * chr(34))}"' for text in row] for row in (NAMES, *ROWS)]
    return "".join(sign.join(row) + "\r\n" for row in quoted)


def book(fill: Callable[[Any], object]) -> bytes:
    """A workbook whose first sheet, and whatever else it adds, a function fills."""
    made, file = openpyxl.Workbook(), io.BytesIO()
    fill(made)
    made.save(file)
    return file.getvalue()


def sheet_of(*rows: object, title: str = "Sheet") -> Callable[[Any], object]:
    def fill(made: Any) -> None:
        made.active.title = title
        for row in rows:
            made.active.append(row)

    return fill


FILES = {
    "shop.tab": separated("\t").encode(),
    "shop.txt": separated("\t").encode("utf-16"),  # Excel's "Unicode text"
    "shop.csv.gz": gzip.compress(separated(";").encode("cp1252")),
    "shop.TXT.GZ": gzip.compress(separated("|").encode("utf-8-sig")),
    "packed.csv": gzip.compress(separated(",").encode()),  # whatever its name says
    "shop.jsonl": LINES.encode(),
    "shop.ndjson.gz": gzip.compress(LINES.encode()) + gzip.compress(b""),  # of two parts
    "shop.json": json.dumps({"count": 6, "products": OBJECTS}).encode("utf-16"),
    "shop.xlsx": book(sheet_of(["Summer 2024"], [], NAMES, *ROWS)),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_shop_is_the_same_table_in_every_file(tmp_path: Path, name: str) -> None:
    saved(tmp_path, {name: FILES[name], **{row[3]: b"" for row in ROWS}})
    catalog = table(tmp_path / name)
    assert list(catalog.table["item_id"]) == [row[0] for row in ROWS]
    assert list(catalog.table["title"]) == [row[1] for row in ROWS]
    # what was found out reads the same file so again, and nothing more is found out then
    again = table(tmp_path / name, **catalog.settings)  # type: ignore[arg-type]
    assert again.fingerprint() == catalog.fingerprint()
    assert not again.settings


def test_a_folder_is_asked_for_its_usual_table_first(tmp_path: Path) -> None:
    saved(tmp_path, {"notes.jsonl": "{}", "shop.csv": separated(","), "1.jpg": b""})
    assert list(table(tmp_path, on_bad_item="skip_any").table["item_id"]) == ["01"]
    (tmp_path / "shop.csv").unlink()
    saved(tmp_path, {"notes.jsonl": LINES, "read.me.json": "{}"})
    assert list(table(tmp_path, on_bad_item="skip_any").table["item_id"]) == ["01"]


def test_settings_of_texts_are_none_of_other_files(tmp_path: Path) -> None:
    saved(tmp_path, FILES)
    for name, key in (("shop.xlsx", "encoding"), ("shop.jsonl", "separator")):
        told = {key: "cp1252"}
        refuses(ValueError, rf"data\.{key}=cp1252 .*leave it out", table, tmp_path / name, **told)


# ---- JSON


def test_values_of_json_stay_the_texts_that_they_are() -> None:
    text = '{"a": 1.10, "b": 7E5, "c": true, "d": null, "e": {"x": [1]}, "f": "  é "}\n\n'
    raw = read_json_lines((text + '{"g": ["1.jpg", {"src": "2.jpg"}], "a": "x"}\n').encode())
    assert raw.columns == ["a", "b", "c", "d", "e", "f", "g"]
    assert raw.rows[0] == ["1.10", "7E5", "true", "", '{"x": ["1"]}', "  é ", ""]
    assert raw.rows[1] == ["x", "", "", "", "", "", "1.jpg, 2.jpg"]
    assert raw.lists == {"g": [(), ("1.jpg", "2.jpg")]}
    assert raw.places == ["line 1", "line 3"]


BAD_LINES = {
    '{"item_id": 1,': "no JSON",
    "[1, 2]": "no object",
    '"text"': "no object",
    '{"a": 1, "a": 2}': "twice",
    '{"a": 1, " a": 2}': "each once",
    '{"": 1}': "names",
    "[" * 100_000: "nested",
    r'{"a": "\ud800"}': "no Unicode",
    r'{"a": ["\u0000"]}': "NUL",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_line_that_is_no_object_of_texts_is_refused_by_its_number(line: str) -> None:
    raw = read_json_lines((LINES + line + "\n" + LINES).encode())
    assert len(raw.rows) == 12
    (refused,) = raw.refused
    assert (refused.item_id, BAD_LINES[line] in refused.reason) == ("line 7", True)


def test_json_that_is_no_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for data, message in ((b"", "empty"), (b"[1]\n", r"empty: line 1 holds no object")):
        refuses(ValueError, message, read_json_lines, data)
    for data, message in ((b"{}", "holds no list"), (b"[", "no JSON"), (b"[]", "empty")):
        refuses(ValueError, message, read_json_list, data)
    monkeypatch.setattr(json_rows, "MAX_LIST_BYTES", 10)
    refuses(ValueError, r"\.jsonl", read_json_list, b'[{"a": "123"}]')
    monkeypatch.setattr(json_rows, "MAX_VALUES", 9)  # lines that share no key make a square
    lines = "".join(f'{{"k{n}": 1}}\n' for n in range(4)).encode()
    refuses(ValueError, "over 9 values in 4 column", read_json_lines, lines)


# ---- workbooks


def test_cells_are_the_texts_that_they_show() -> None:
    day = datetime.datetime(2024, 5, 31)
    number = (
        ["id", "ean", "size", "price", "day", "at", "new"],
        ["007", 7, 38.0, 1.5, day, day, True],
    )

    def fill(made: Any) -> None:
        sheet_of(*number)(made)
        made.active["B2"].number_format = "00000000"
        made.active["F2"] = datetime.datetime(2024, 5, 31, 12, 30)

    raw = read_workbook(book(fill), "shop.xlsx")
    assert raw.rows == [
        ["007", "00000007", "38", "1.5", "2024-05-31", "2024-05-31 12:30:00", "True"]
    ]


def test_the_sheet_with_the_columns_is_read_and_said() -> None:
    def fill(made: Any) -> None:
        sheet_of(*([f"note {n}", "x"] for n in range(9)), title="Notes")(made)
        sheet = made.create_sheet("Products")
        for row in (NAMES, *ROWS[:2]):
            sheet.append(row)
        made.create_sheet("Hidden").sheet_state = "hidden"
        made.create_sheet("Empty")

    raw = read_workbook(book(fill), "shop.xlsx", needed=["item_id", "image"])
    assert (raw.columns, len(raw.rows)) == ([*NAMES], 2)
    (choice,) = raw.choices
    assert "'Products'" in str(choice)
    assert "'Notes'" in str(choice)


def test_rows_of_a_sheet_are_named_by_their_number() -> None:
    rows = (["Summer"], [], ["a", "b"], ["1", "2"], [], ["3"], ["4", "5", "", "stray"], ["", ""])
    raw = read_workbook(book(sheet_of(*rows)), "shop.xlsx", needed=["a", "b"])
    assert (raw.columns[:2], raw.places) == (["a", "b"], ["row 4", "row 6", "row 7"])
    assert raw.rows[1][:2] == ["3", ""]
    assert "row 1" in str(raw.choices[0])


def test_workbooks_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = FILES["shop.xlsx"]
    for data, message in (
        (b"no zip", "no readable workbook"),
        (good[:-100], "no readable workbook"),
        (book(sheet_of()), "is empty"),
    ):
        refuses(ValueError, message, read_workbook, data, "x")
    bomb = io.BytesIO()  # entities that grow: what XML of somebody else's may hold
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'
    with zipfile.ZipFile(io.BytesIO(good)) as whole, zipfile.ZipFile(bomb, "w") as evil:
        for name in whole.namelist():
            text = whole.read(name)
            if name == "xl/sharedStrings.xml" or name.startswith("xl/worksheets"):
                text = text.replace(b"<sst", entities.encode() + b"<sst", 1)
                text = text.replace(b"<worksheet", entities.encode() + b"<worksheet", 1)
            evil.writestr(name, text)
    refuses(ValueError, "no readable workbook", read_workbook, bomb.getvalue(), "x")
    monkeypatch.setattr(workbook, "MAX_TEXT_BYTES", 100)
    refuses(ValueError, "unpacks to", read_workbook, good, "x")
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    refuses(ValueError, r"pip install 'visual-search\[excel\]'", read_workbook, good, "x")


def test_what_a_cell_repeats_counts_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"c{n}" for n in range(10)]
    data = book(sheet_of(names, *[["x" * 100] * 10] * 5))  # in the file it stands once
    assert read_workbook(data, "x").rows
    bounded = workbook.TextBudget("x", max_bytes=1000)
    monkeypatch.setattr(workbook, "TextBudget", lambda origin: bounded)
    refuses(ValueError, "come to over", read_workbook, data, "x")


# ---- packed


def test_packed_files_are_bounded_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = gzip.compress(separated(",").encode())
    saved(tmp_path, {"cut.csv.gz": packed[:-9], "odd.csv.gz": packed[:30] + b"x" * 30})
    refuses(ValueError, "damaged", table, tmp_path / "cut.csv.gz")
    refuses(ValueError, "damaged", table, tmp_path / "odd.csv.gz")
    saved(tmp_path, {"bomb.csv.gz": gzip.compress(b"a" * 100_000)})
    monkeypatch.setattr(listings, "MAX_LISTING_BYTES", 50_000)
    refuses(ValueError, "unpacks to over", table, tmp_path / "bomb.csv.gz")
