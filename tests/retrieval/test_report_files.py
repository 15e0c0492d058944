from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from visual_search.reading import MAX_TEXT_BYTES
from visual_search.retrieval.report import Answers, RetrievalReport, build_report, with_intervals
from visual_search.retrieval.report_files import (
    PER_CATEGORY_FILE,
    PER_QUERY_FILE,
    SUMMARY_FILE,
    load_report,
    save_report,
)
from visual_search.wording import as_cell, from_cell

FILES = (PER_QUERY_FILE, PER_CATEGORY_FILE, SUMMARY_FILE)
NASTY = [
    "=cmd()",
    "+1",
    "-1",
    "@x",
    "\tx",
    "\rx",
    "'quoted",
    "'=x",
    "''",
    "NA",
    "nan",
    "",
    "007",
    "1e3",
    "True",
    'a "b", c',
    "a\nb",
    "a\r\nb",
    "a\rb",
    "a\tb",
    " x ",
    "é 中 😀",
    "\ufeffx",
    "#x",
    "<script>",
    "a;b",
    "\\",
]


def a_report(categories=("hat", "hat", "shoe", "tie"), counts=(3, 0, 1, 2), relevant=True):
    """Queries with these many answers each, at most three; every second one is relevant."""
    places = np.arange(3) < np.array(counts)[:, None]
    relevance = places & (np.arange(3) % 2 == 0) & relevant
    num_relevant = np.array([2 * relevant] * len(counts))
    lists = [range(count) for count in counts]
    answers = Answers(
        query_ids=[f"00{n}" for n in range(len(counts))],
        categories=categories,
        groups=[f"=g{n}" for n in range(len(counts))],
        relevance=relevance,
        num_relevant=num_relevant,
        gains=relevance.astype(np.int64),
        num_matching=num_relevant[:, None],
        lists={
            "neighbour_ids": [[f"NA{n}" for n in numbers] for numbers in lists],
            "neighbour_categories": [["=c", "", "\r"][: len(numbers)] for numbers in lists],
            "neighbour_squared_distances": [[n / 3 for n in numbers] for numbers in lists],
            "neighbour_relevant": [
                row[:n].tolist() for row, n in zip(relevance, counts, strict=True)
            ],
        },
    )
    return build_report(answers, ["hat", "bag"], k=3, rules={"question": "é?\n"})


def assert_same(loaded: RetrievalReport, report: RetrievalReport) -> None:
    pd.testing.assert_frame_equal(loaded.per_query, report.per_query, check_exact=True)
    pd.testing.assert_frame_equal(loaded.per_category, report.per_category, check_exact=True)
    np.testing.assert_equal(loaded.summary, report.summary)  # calls NaN and NaN equal
    for name in report.per_query:
        kinds = [
            {type(value) for value in table[name]} for table in (loaded.per_query, report.per_query)
        ]
        assert kinds[0] == kinds[1], name


@pytest.mark.parametrize("counts", [(3, 0, 1, 2), (0, 0, 0, 0), (3, 3, 3, 3)])
@pytest.mark.parametrize("relevant", [True, False])
def test_round_trip(tmp_path, counts, relevant):
    report = a_report(counts=counts, relevant=relevant)
    paths = save_report(report, tmp_path / "metrics")
    assert set(paths) == set(FILES)
    assert sorted(path.name for path in (tmp_path / "metrics").iterdir()) == sorted(FILES)
    assert_same(load_report(tmp_path / "metrics"), report)
    for name in ("neighbour_ids", "neighbour_relevant"):
        assert load_report(tmp_path / "metrics").per_query[name].map(len).tolist() == list(counts)


@pytest.mark.parametrize("relevant", [True, False])
def test_intervals_floors_and_settings_come_back(tmp_path, relevant):
    report = with_intervals(a_report(relevant=relevant), num_resamples=100)
    report = replace(
        report,
        summary={
            **report.summary,
            "floors": [{"name": "pixels", "dim": 3, "difference": math.nan, "low": math.inf}],
            "identity": {"data": "=shop", "protocol_settings": {"num_items": None, "k": 3}},
            "standing": "Above é.",
        },
    )
    save_report(report, tmp_path)
    loaded = load_report(tmp_path)
    assert math.isnan(loaded.summary["floors"][0].pop("low"))  # JSON has no infinity
    report.summary["floors"][0].pop("low")
    assert_same(loaded, report)
    assert loaded.summary["identity"]["protocol_settings"]["num_items"] is None
    assert loaded.per_category["few_queries"].dtype == bool
    assert loaded.per_category["few_queries"].tolist() == [True] * 4
    many = replace(report, per_category=report.per_category.assign(few_queries=[True, False] * 2))
    save_report(many, tmp_path)
    assert load_report(tmp_path).per_category["few_queries"].tolist() == [True, False] * 2


def test_nan_is_null(tmp_path):
    report = with_intervals(a_report(relevant=False), num_resamples=100)
    text = save_report(report, tmp_path)[SUMMARY_FILE].read_text(encoding="utf-8")
    summary = json.loads(text, parse_constant=pytest.fail)
    assert summary["micro_map_at_3"] is None
    assert summary["intervals"]["macro"]["low"] is None
    assert "é" in text


def test_numbers_come_back_to_the_last_digit(tmp_path):
    """A fast reader of decimals is off by one unit in the last place for some."""
    report = a_report(categories=[f"c{n}" for n in range(200)], counts=[1] * 200)
    values = np.random.default_rng(0).random(len(report.per_category))
    report = replace(report, per_category=report.per_category.assign(map_at_3=values))
    save_report(report, tmp_path)
    assert load_report(tmp_path).per_category["map_at_3"].tolist() == values.tolist()


@pytest.mark.parametrize("name", NASTY)
def test_a_name_survives_as_it_is(tmp_path, name):
    report = with_intervals(a_report(categories=[name, "hat", "z", "z"]), num_resamples=100)
    ids = pd.Series([name, "a", "b", "c"], dtype=object)
    report = replace(report, per_query=report.per_query.assign(query_id=ids, group=ids))
    save_report(report, tmp_path)
    assert_same(load_report(tmp_path), report)
    assert name in report.per_category["category"].tolist()


@pytest.mark.parametrize("name", NASTY)
def test_no_cell_is_a_formula(name):
    assert from_cell(as_cell(name)) == name
    is_number = name in ("+1", "-1")
    assert is_number or not as_cell(name).startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("name", ["-1", "-3.5", "+5", "-1e-3", "-.5", "-1,5", "7", "1.10"])
def test_a_number_with_a_sign_is_no_formula(name):
    assert as_cell(name) == name == from_cell(as_cell(name))
    assert from_cell(f"'{name}") == name or name[0] not in "+-"  # of an earlier version
    assert as_cell(f"{name}+1").startswith("'") == (name[0] in "+-")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    save_report(a_report(), tmp_path)[name].unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing; .* evaluate the run again"):
        load_report(tmp_path)


def other(name: str, content: bytes | None = None, old: str = "", new: str = ""):
    """A way to damage a file: other content, or ``old`` in it replaced by ``new``."""
    return pytest.param(name, content, old, new, id=f"{name}-{content or old!r}")


@pytest.mark.parametrize(
    ("name", "content", "old", "new"),
    [
        *(other(name, content) for name in FILES for content in (b"", b"\xff\xfe{", b"[1]", b"1")),
        other(PER_CATEGORY_FILE, old="num_left_out", new="left"),
        other(PER_CATEGORY_FILE, old="category,", new="name,"),
        other(PER_CATEGORY_FILE, old="False", new="perhaps"),
        other(PER_CATEGORY_FILE, old="hat,1,2,", new="hat,1,,"),
        other(PER_CATEGORY_FILE, old="hat,1,2,", new="hat,1,2.5,"),
        other(PER_CATEGORY_FILE, old="hat,1,2,", new="hat,1,2,2,"),
        other(PER_CATEGORY_FILE, old="hat,1,2,2,0,", new="hat,1,2,2,0,x"),
        other(SUMMARY_FILE, old='"k": 3', new='"k": "3"'),
        other(SUMMARY_FILE, old='"k": 3', new='"l": 3'),
        other(SUMMARY_FILE, old="}\n", new=""),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, old, new):
    report = with_intervals(a_report(), num_resamples=100)
    few = report.per_category["category"] != "hat"
    report = replace(report, per_category=report.per_category.assign(few_queries=few))
    path = save_report(report, tmp_path)[name]
    if content is None:
        before = path.read_text(encoding="utf-8")
        assert old in before
        path.write_text(before.replace(old, new), encoding="utf-8")
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read: .* evaluate the run again"):
        load_report(tmp_path)


def test_a_table_of_something_else_is_named(tmp_path):
    path = save_report(a_report(), tmp_path)[PER_QUERY_FILE]
    table = pd.read_parquet(path)
    for wrong in (
        table.drop(columns="neighbour_relevant"),
        table.drop(columns="group"),
        table.assign(neighbour_ids=1.5),
    ):
        wrong.to_parquet(path)
        with pytest.raises(ValueError, match=rf"{PER_QUERY_FILE} cannot be read"):
            load_report(tmp_path)


@pytest.mark.parametrize("name", ["per_category.csv", "summary.json"])
def test_a_file_that_memory_should_not_hold_is_not_read(tmp_path, name):
    save_report(a_report(), tmp_path)
    with (tmp_path / name).open("r+b") as file:
        file.truncate(MAX_TEXT_BYTES + 1)  # of nothing: no disk is filled
    with pytest.raises(ValueError, match=rf"{re.escape(name)} cannot be read: it has"):
        load_report(tmp_path)
