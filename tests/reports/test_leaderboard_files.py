from __future__ import annotations

import csv
import io
import itertools
import math

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from tests.retrieval.test_comparison import IDENTITY
from tests.retrieval.test_ranking import entry, floor
from visual_search.reports import leaderboard_files
from visual_search.reports.leaderboard_files import CSV_START, RankedRun
from visual_search.retrieval.ranking import COLUMNS, rank
from visual_search.wording import escaped

NASTY = [
    "a|b", "a\\|b", "<script>alert(1)</script>", "&lt;b&gt;", "`code`", "*x* _y_ __z__ ~~w~~",
    "[link](https://example.com)", "![picture](x.png)",
    "https://example.com and www.example.com and me@example.com at mAP@5.",
    "two\nlines\r\nand\u2028more", "trailing \\", "$x$ # 1", "plus_layer",
]  # fmt: skip


def runs_of(groups):
    """Each row as the one run that it is."""
    tables = pd.concat([group.table for group in groups]) if groups else pd.DataFrame({"path": []})
    return {path: [RankedRun(path, 0, {}, "2024-05-01", None)] for path in tables["path"]}


def to_markdown(group):
    return leaderboard_files.to_markdown(group, runs_of([group]))


def to_csv(groups):
    return leaderboard_files.to_csv(groups, runs_of(groups))


def rows_of(markdown):
    """The table's cells as a reader sees them, by a Markdown library; no other markup may come."""
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(markdown)
    couples = itertools.pairwise(tokens)
    cells = [token for before, token in couples if before.type in ("td_open", "th_open")]
    for cell in cells:
        assert {child.type for child in cell.children} <= {"text", "text_special"}, cell.content
    texts = ["".join(child.content for child in cell.children) for cell in cells]
    return [texts[i : i + 13] for i in range(0, len(texts), 13)]


def test_markdown_shows_the_table_with_what_it_was_measured_on():
    more = {"embedding_dim": 128, "embedding_ms_per_item": 1.5, "epochs": 30}
    more |= {"index": {"bytes": 4_200_000}, "floors": [floor("hog", 0.5, "HOG + PCA-256")]}
    runs = [
        entry("plus_layer", 0.8, "outputs/plus_layer/1a", **more),
        entry("baseline", 0.78, "outputs/baseline/2b", half=math.nan, num_gallery=11029),
    ]
    text = to_markdown(rank(runs)[0])
    assert text.startswith(
        "## shop, protocol gallery_query\n\n54 queries in 30 groups (6 left out), 100 gallery "
        "items, k = 5; ranked by the micro mean of mAP@5.\n\n| \\# | ranks | Run |"
    )
    rows = rows_of(text)
    assert rows[0][:7] == ["#", "ranks", "Run", "mAP@5 micro", "macro", "P@5", "hit@1"]
    ends = "0.800 [0.750, 0.850]"
    assert rows[1] == [
        "1", "1-2", "plus_layer", ends, ends, "0.250", "0.125",
        "128", "4.2 MB", "1.5", "30", "2024-05-01", "outputs/plus_layer/1a",
    ]  # fmt: skip
    assert rows[2][:4] == ["=2", "1-2", "baseline", "0.780"]
    hog = ["floor", "", "HOG + PCA-256", "0.500 [0.490, 0.510]", "0.400", "\u2013", "0.500"]
    assert rows[3][:7] == hog
    assert len(rows) == 4
    rules = text.partition("\n\n- ")[2].splitlines()
    assert rules[:2] == ["mAP@5: Mean of AP@5.", "- micro: over queries."]
    assert rules[-1].startswith("- floor: ")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_in_markdown_is_text_and_nothing_else(name):
    (group,) = rank([entry(name, 0.8, f"outputs/{name}"), entry("other", 0.5)])
    text = to_markdown(group)
    expected = " ".join(name.split())
    rows = rows_of(text)
    assert len(rows) == 3
    assert " ".join(rows[1][2].split()) == expected
    assert " ".join(rows[1][12].split()) == f"outputs/{expected}"
    assert "<" not in text
    assert not set(text) & set("\r\u2028")
    text.encode("utf-8")


def test_names_cannot_break_a_heading_or_turn_the_line():
    data = "shop\n# <b>x</b> \u202egnp \udcff"
    (group,) = rank([entry("a", 0.5, identity={**IDENTITY, "data": data})])
    text = to_markdown(group)
    assert text.splitlines()[0] == (
        "## shop \\# &lt;b&gt;x&lt;/b&gt;  gnp ?, protocol gallery_query"
    )
    text.encode("utf-8")
    to_csv([group]).encode("utf-8")
    links = "https\\://example.com www\\.x.de a\\@b.de"
    assert escaped(links.replace("\\", "")) == links


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_csv_holds_every_table_and_reads_back():
    runs = [
        entry("a", 0.1 + 0.2, floors=[floor("hog", 0.25)], embedding_dim=7),
        entry("b", 0.5, k=10, intervals=None),
    ]
    text = to_csv(rank(runs))
    lines = read_csv(text)
    assert list(lines[0]) == [*CSV_START, *COLUMNS]
    assert [line["name"] for line in lines] == ["a", "hog", "b"]
    assert [line["rank"] for line in lines] == ["1", "", "1"]
    assert [line["k"] for line in lines] == ["5", "5", "10"]
    assert [line["num_groups"] for line in lines] == ["30", "30", ""]
    assert lines[0]["micro"] == repr(0.1 + 0.2)
    assert [line["is_floor"] for line in lines] == ["False", "True", "False"]
    start = [lines[0][name] for name in ("data", "protocol", "headline", "num_gallery")]
    assert start == ["shop", "gallery_query", "mAP@5", "100"]
    table = pd.read_csv(io.StringIO(text))
    assert table["micro_low"].isna().tolist() == [False, False, True]
    assert table["dim"].tolist()[:2] == [7, 8]
    assert len(read_csv(to_csv([]))) == 0


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_spreadsheet_takes_no_name_for_a_formula(start):
    nasty = f"{start}cmd|' /C calc'!A0"
    identity = {**IDENTITY, "data": nasty, "protocol_name": nasty}
    (group,) = rank([entry(nasty, 0.5, nasty, identity=identity, val_loss=-1.0)])
    group.table.loc[0, "embedding_ms_per_item"] = -1.5
    (line,) = read_csv(to_csv([group]))
    for column in ("data", "protocol", "name", "path"):
        assert line[column] == f"'{nasty}"
    assert line["embedding_ms_per_item"] == "-1.5"  # numbers are untouched


@pytest.mark.parametrize("name", [*NASTY, 'a"b', "a,b", "a\rb", "'a", "", "NA"])
def test_other_names_are_kept_as_they_are_in_csv(name):
    (line,) = read_csv(to_csv(rank([entry(name, 0.5, "outputs/x")])))
    assert line["name"] == name
