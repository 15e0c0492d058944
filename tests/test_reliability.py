"""The campaign of docs/reliability.md: its parts start, and what it judges as lost is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.reliability.__main__ import PARTS, RESULTS, keep, main
from benchmarks.reliability.hostile import Case
from benchmarks.reliability.kills import points, read_point, tree
from benchmarks.reliability.opening import Outcome
from benchmarks.reliability.requests import ids_are_right
from benchmarks.reliability.subjects import SUBJECTS
from benchmarks.reliability.tables import table

ROOT = Path(__file__).resolve().parent.parent


def test_its_verbs_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in (*PARTS, "table"))


def test_the_page_has_the_table_of_the_results() -> None:
    results = json.loads(RESULTS.read_text())
    made = table(results)
    assert made.count("\n") == 1 + sum(len(part["rows"]) for part in results.values()) > 1
    assert made in (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


def test_kills_spread_over_all_steps_and_can_be_repeated() -> None:
    found = list(points(SUBJECTS[0], 20, 100, seed=1))
    steps = [point.step for point in found if point.step is not None]
    shares = [point.share for point in found if point.share is not None]
    assert (min(steps), max(steps), len(steps)) == (1, 100, 10)
    assert len(set(shares)) == 10
    assert all(0 <= share < 1 for share in shares)
    assert found == list(points(SUBJECTS[0], 20, 100, seed=1))
    assert [read_point(str(point)).step for point in found] == [point.step for point in found]


def test_names_that_differ_between_runs_are_looked_past(tmp_path: Path) -> None:
    for folder, name in (("a", "000001-0123abcd"), ("b", "000002-ffffffff")):
        path = tmp_path / folder / "segments" / name / "items.parquet"
        path.parent.mkdir(parents=True)
        path.touch()
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    (tmp_path / "b" / "tmpx").touch()
    assert tree(tmp_path / "b") - tree(tmp_path / "a") == {"tmpx"}


@pytest.mark.parametrize(
    ("end", "said", "ran", "is_lost"),
    [
        ("opened", "right", False, False),
        ("opened", "other", False, True),
        ("opened", "right", True, True),
        ("refused", "ValueError: /x/items.parquet is cut", False, False),
        ("refused", "ValueError: something is wrong", False, True),
        ("another error", "KeyError: 'items.parquet'", False, True),
        ("killed", "", False, True),
        ("hung", "", False, True),
        ("too much memory", "", False, True),
    ],
)
def test_what_counts_as_lost(end: str, said: str, ran: bool, is_lost: bool) -> None:
    outcome = Outcome(end, said, 1.0, 10)
    case = Case("a bundle", "a file: cut", outcome, ("items.parquet",), ran, right="right")
    assert bool(case.wrong) == is_lost


def test_a_wrong_answer_is_told() -> None:
    gone = frozenset({"b"})
    assert not ids_are_right(["a", "c"], 2, gone)
    assert ids_are_right(["a"], 2, gone)
    assert ids_are_right(["a", "a"], 2, gone)
    assert "b" in ids_are_right(["a", "b"], 2, gone)


def test_results_of_other_kinds_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    monkeypatch.setitem(keep.__globals__, "RESULTS", path)
    row = {"survived": 2, "lost": 0}
    keep("kills", [{"kind": "train", "tried": 2, **row}, {"kind": "embed", "tried": 2, **row}], 0)
    keep("kills", [{"kind": "train", "tried": 9, **row}], 0)
    rows = {row["kind"]: row["tried"] for row in json.loads(path.read_text())["kills"]["rows"]}
    assert rows == {"train": 9, "embed": 2}
