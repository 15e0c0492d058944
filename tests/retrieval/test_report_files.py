from __future__ import annotations

import json
import math
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
    "=cmd()", "+1", "-1", "@x", "\tx", "\rx", "'quoted", "'=x", "''", "NA", "nan", "", "007", "1e3",
    "True", 'a "b", c', "a\nb", "a\r\nb", "a\rb", "a\tb", " x ", "é 中 😀", "\ufeffx", "#x",
    "<script>", "a;b", "\\",
]  # fmt: skip


def a_report(categories=("hat", "hat", "shoe", "tie"), counts=(3, 0, 1, 2), relevant=True):
    """Queries with these many answers each, at most three; every second one is relevant."""
    places = np.arange(3) < np.array(counts)[:, None]
    relevance = places & (np.arange(3) % 2 == 0) & relevant
    num_relevant = np.array([2 * relevant] * len(counts))
    lists = [range(count) for count in counts]
    held = [row[:n].tolist() for row, n in zip(relevance, counts, strict=True)]
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
            "neighbour_relevant": held,
        },
    )
    return build_report(answers, ["hat", "bag"], k=3, rules={"question": "é?\n"})


def assert_same(loaded: RetrievalReport, report: RetrievalReport) -> None:
    pd.testing.assert_frame_equal(loaded.per_query, report.per_query, check_exact=True)
    pd.testing.assert_frame_equal(loaded.per_category, report.per_category, check_exact=True)
    np.testing.assert_equal(loaded.summary, report.summary)  # calls NaN and NaN equal
    for name in report.per_query:
        tables = (loaded.per_query, report.per_query)
        kinds = [{type(value) for value in table[name]} for table in tables]
        assert kinds[0] == kinds[1], name


@pytest.mark.parametrize("counts", [(3, 0, 1, 2), (0, 0, 0, 0), (3, 3, 3, 3)])
@pytest.mark.parametrize("relevant", [True, False])
def test_round_trip(tmp_path, counts, relevant):
    report = a_report(counts=counts, relevant=relevant)
    paths = save_report(report, tmp_path / "metrics")
    assert set(paths) == set(FILES)
    assert sorted(path.name for path in (tmp_path / "metrics").iterdir()) == sorted(FILES)
    loaded = load_report(tmp_path / "metrics")
    assert_same(loaded, report)
    assert loaded.per_query["neighbour_relevant"].map(len).tolist() == list(counts)


@pytest.mark.parametrize("relevant", [True, False])
def test_intervals_floors_and_settings_come_back(tmp_path, relevant):
    report = with_intervals(a_report(relevant=relevant), num_resamples=100)
    more = {
        "floors": [{"name": "pixels", "dim": 3, "difference": math.nan, "low": math.inf}],
        "identity": {"data": "=shop", "protocol_settings": {"num_items": None, "k": 3}},
        "standing": "Above é.",
    }
    few = [True, False] * 2
    table = report.per_category.assign(few_queries=few)
    report = replace(report, per_category=table, summary={**report.summary, **more})
    text = save_report(report, tmp_path)[SUMMARY_FILE].read_text(encoding="utf-8")
    assert "é" in text
    summary = json.loads(text, parse_constant=pytest.fail)  # NaN is null, JSON has no infinity
    if not relevant:
        assert summary["micro_map_at_3"] is summary["intervals"]["macro"]["low"] is None
    loaded = load_report(tmp_path)
    assert math.isnan(loaded.summary["floors"][0].pop("low"))
    report.summary["floors"][0].pop("low")
    assert_same(loaded, report)
    assert loaded.summary["identity"]["protocol_settings"]["num_items"] is None
    assert loaded.per_category["few_queries"].dtype == bool


def test_numbers_come_back_to_the_last_digit(tmp_path):
    """A fast reader of decimals is off by one unit in the last place for some."""
    report = a_report(categories=[f"c{n}" for n in range(200)], counts=[1] * 200)
    values = np.random.default_rng(0).random(len(report.per_category))
    report = replace(report, per_category=report.per_category.assign(map_at_3=values))
    save_report(report, tmp_path)
    assert load_report(tmp_path).per_category["map_at_3"].tolist() == values.tolist()


def test_names_survive_as_they_are(tmp_path):
    report = a_report(categories=NASTY, counts=[1] * len(NASTY))
    ids = pd.Series(NASTY, dtype=object)
    report = replace(report, per_query=report.per_query.assign(query_id=ids, group=ids))
    report = with_intervals(report, num_resamples=100)
    save_report(report, tmp_path)
    assert_same(load_report(tmp_path), report)
    assert set(NASTY) <= set(report.per_category["category"])


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


@pytest.fixture
def saved(tmp_path):
    """The paths of a report with intervals; hats alone are not few."""
    report = with_intervals(a_report(), num_resamples=100)
    few = report.per_category["category"] != "hat"
    report = replace(report, per_category=report.per_category.assign(few_queries=few))
    return save_report(report, tmp_path)


def assert_named(saved, name, error=ValueError, said="cannot be read: .* evaluate the run again"):
    with pytest.raises(error, match=f"{name} {said}"):
        load_report(saved[name].parent)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_something_else_is_named(saved, name):
    for content in (b"", b"\xff\xfe{", b"[1]", b"1"):
        saved[name].write_bytes(content)
        assert_named(saved, name)
    saved[name].unlink()
    assert_named(saved, name, FileNotFoundError, "is missing; .* evaluate the run again")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (PER_CATEGORY_FILE, "num_left_out", "left"),
        (PER_CATEGORY_FILE, "category,", "name,"),
        (PER_CATEGORY_FILE, "False", "perhaps"),
        (PER_CATEGORY_FILE, "hat,1,2,", "hat,1,,"),
        (PER_CATEGORY_FILE, "hat,1,2,", "hat,1,2.5,"),
        (PER_CATEGORY_FILE, "hat,1,2,", "hat,1,2,2,"),
        (PER_CATEGORY_FILE, "hat,1,2,2,0,", "hat,1,2,2,0,x"),
        (SUMMARY_FILE, '"k": 3', '"k": "3"'),
        (SUMMARY_FILE, '"k": 3', '"l": 3'),
        (SUMMARY_FILE, "}\n", ""),
    ],
)
def test_a_damaged_file_is_named(saved, name, old, new):
    before = saved[name].read_text(encoding="utf-8")
    assert old in before
    saved[name].write_text(before.replace(old, new), encoding="utf-8")
    assert_named(saved, name)


def test_a_table_of_something_else_is_named(saved):
    table = pd.read_parquet(saved[PER_QUERY_FILE])
    for wrong in (
        table.drop(columns="neighbour_relevant"),
        table.drop(columns="group"),
        table.assign(neighbour_ids=1.5),
    ):
        wrong.to_parquet(saved[PER_QUERY_FILE])
        assert_named(saved, PER_QUERY_FILE)


@pytest.mark.parametrize("name", [PER_CATEGORY_FILE, SUMMARY_FILE])
def test_a_file_that_memory_should_not_hold_is_not_read(saved, name):
    with saved[name].open("r+b") as file:
        file.truncate(MAX_TEXT_BYTES + 1)  # of nothing: no disk is filled
    assert_named(saved, name, said="cannot be read: it has")
