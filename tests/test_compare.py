"""Comparing and ranking what was measured: the tables, the pages, and what is refused."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.composing import typed
from visual_search.catalog.synthetic import synthetic
from visual_search.compare import compare_runs, print_comparison
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import CompareSchema
from visual_search.evaluate import measure_from_outside
from visual_search.reports.overviews import conclude, overview
from visual_search.reports.rankings import print_leaderboard, rank_runs
from visual_search.retrieval.comparability import NotComparableError
from visual_search.runs.finished import Measured
from visual_search.runs.run import Run

pytestmark = pytest.mark.slow

DATA = ["data=synthetic", "data.items_per_category=40", "data.image_size_px=32"]
DATA += ["data.categories=[Dresses,Shoes,Hats]"]


class Workshop:
    """Measures embeddings of drawn products: `noise` of them hides the category."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        catalog = synthetic(40, ["Dresses", "Shoes", "Hats"], image_size_px=32)
        self.ids = catalog.table["item_id"].tolist()
        categories = pd.factorize(catalog.table["category"])[0]
        self.signal = np.eye(3, dtype=np.float32)[categories]

    def measure(self, name: str, noise: float, *more: str) -> Measured:
        numbers = np.random.default_rng(len(name))
        drawn = numbers.normal(size=(len(self.ids), 16)).astype(np.float32) * np.float32(noise)
        drawn[:, :3] += self.signal
        np.save(self.folder / f"{name}.npy", drawn)
        (self.folder / f"{name}.txt").write_text("\n".join(self.ids))
        return measure_from_outside(
            typed(
                "evaluate",
                *DATA,
                f"embeddings={self.folder / name}.npy",
                f"outputs={self.folder / 'outputs'}",
                f"pictures.cache_dir={self.folder / 'cache'}",
                "pictures.size_px=32",
                "split=hash",
                "split.test_fraction=0.4",
                *more,
            )
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def good(workshop: Workshop) -> Measured:
    return workshop.measure("good", 0.1)


@pytest.fixture(scope="module")
def poor(workshop: Workshop) -> Measured:
    return workshop.measure("poor", 2.0)


def compared(workshop: Workshop, *measured: Measured, **more: Any) -> CompareSchema:
    config = typed("compare", f"pictures.cache_dir={workshop.folder / 'cache'}")
    own = {
        "runs": [str(one.run.folder) for one in measured],
        "out": str(workshop.folder / "comparison"),
    }
    return dataclasses.replace(config, **own | more)


def test_the_better_embedding_is_found_better_and_leaves_tables_and_a_page(
    workshop: Workshop, good: Measured, poor: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    found = compare_runs(compared(workshop, good, poor, names=["after", "<script>"]))
    assert found.comparison.runs["run"].tolist() == ["after", "<script>"]
    micro = found.comparison.pairs.set_index("statistic").loc["micro"]
    assert (micro["a"], micro["b"]) == ("after", "<script>")
    assert micro["difference"] > 0.2
    assert micro["low"] < micro["difference"] < micro["high"]
    assert micro["p_holm"] < 0.01
    assert micro["verdict"] == "a is better"
    print_comparison(found)
    printed = capsys.readouterr().out
    assert found.comparison.sentence.split(".")[0][:40] in " ".join(printed.split())
    assert str(found.folder / "report.html") in printed.replace("\n", "")
    assert max(map(len, printed.splitlines()[:20])) <= 80
    assert not found.without_pictures
    names = {path.name for path in found.folder.iterdir()}
    assert {"report.html", "runs.csv", "pairs.csv", "per_category.csv", "queries.csv"} <= names
    queries = pd.read_csv(found.folder / "queries.csv")
    assert queries["spread"].is_monotonic_decreasing  # where they differ most first
    page = (found.folder / "report.html").read_text(encoding="utf-8")
    assert "after" in page
    assert "<script>," not in page
    assert "data:image/" in page  # the search results side by side
    assert not re.search(r'(?:src|href)="https?:', page)
    assert len(page.encode()) < 5_000_000
    assert str(workshop.folder) not in page


def test_what_cannot_be_compared_is_refused(
    workshop: Workshop, good: Measured, poor: Measured
) -> None:
    with pytest.raises(ConfigError, match="name each run once"):
        compare_runs(compared(workshop, good, poor, names=["one", "one"]))
    with pytest.raises(ConfigError, match="two or more"):
        compare_runs(compared(workshop, good))
    other = workshop.measure("other", 0.1, "protocol=leave_one_out", "floors=false")
    with pytest.raises(NotComparableError, match=r"visual_search\.evaluate run=.*protocol="):
        compare_runs(compared(workshop, good, poor, other))


def test_pictures_that_are_gone_are_left_out_and_said(
    workshop: Workshop, good: Measured, poor: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(settings: dict[str, Any]) -> None:
        raise FileNotFoundError("no file at products.csv")

    monkeypatch.setattr("visual_search.runs.parts.build_catalog", gone)
    found = compare_runs(compared(workshop, good, poor))
    assert found.comparison.runs["run"].tolist() == ["good", "poor"]
    assert "no file at products.csv" in found.without_pictures
    assert (found.folder / "report.html").is_file()


def test_the_leaderboard_ranks_runs_and_floors(
    workshop: Workshop, good: Measured, poor: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = workshop.folder / "outputs"
    unfinished = outputs / "unfinished" / "0000000000"
    unfinished.mkdir(parents=True, exist_ok=True)
    (unfinished / "status.json").write_text('{"state": "interrupted"}')
    board = rank_runs(typed("leaderboard", f"outputs={outputs}"))
    table = board.groups[0].table
    runs = table[~table["is_floor"]]
    assert runs["name"].tolist()[0] == "good"
    assert runs["rank"].tolist()[0] == 1
    assert table["is_floor"].sum() == 8  # all controls; nothing here has a network of its own
    assert table["micro"].is_monotonic_decreasing
    assert (str(unfinished), "it is interrupted") in board.left_out
    print_leaderboard(board)
    printed = capsys.readouterr().out
    assert "floor" in printed
    assert "left out" in printed
    markdown = (outputs / "leaderboard.md").read_text(encoding="utf-8")
    assert "| good |" in markdown
    assert "HOG" in markdown
    csv = pd.read_csv(outputs / "leaderboard.csv")
    assert {"good", "poor"} <= set(csv["name"])
    page = (outputs / "leaderboard.html").read_text(encoding="utf-8")
    assert "report.html" in page
    assert not re.search(r'(?:src|href)="https?:', page)
    for text in (markdown, page, (outputs / "leaderboard.csv").read_text(encoding="utf-8")):
        assert str(workshop.folder) not in text
        assert good.run.folder.name in text


SUMMARY, QUERIES = "metrics/summary.json", "metrics/per_query.parquet"
CATEGORIES, STATUS = "metrics/per_category.csv", "status.json"
DAMAGE = {
    "torn": (SUMMARY, b'{"k": 5, "ident'),
    "empty": (SUMMARY, b""),
    "binary": (SUMMARY, b"\x89PNG\xff\x00"),
    "list": (SUMMARY, b"[1]"),
    "deep": (SUMMARY, b"[" * 100_000),
    "foreign": (SUMMARY, b'{"k": 5, "identity": [], "headline": 3}'),
    "no_k": (SUMMARY, b'{"identity": {}, "headline": {}}'),
    "other_queries": (QUERIES, None),
    "no_parquet": (QUERIES, b"query_id,value"),
    "no_bytes": (QUERIES, b""),
    "no_csv": (CATEGORIES, b"\xff\xfe\x00"),
    "no_rows": (CATEGORIES, b""),
    "torn_status": (STATUS, b'{"state": "fini'),
    "odd_status": (STATUS, b'{"state": 7}'),
    "odd_seconds": (STATUS, b'{"state": "finished", "seconds": "long"}'),
    "odd_time": (STATUS, b'{"state": "finished", "since": 12}'),
    "list_status": (STATUS, b"[]"),
    "foreign_status": (STATUS, b'{"status": "ok"}'),
}


def damaged(good: Measured, folder: Path, file: str, content: bytes | None) -> Path:
    shutil.copytree(good.run.folder, folder)
    if content is None:  # of another measurement
        table = pd.read_parquet(folder / file)
        table.head(len(table) // 2).to_parquet(folder / file)
    else:
        (folder / file).write_bytes(content)
    return folder


def test_a_bad_run_is_named_and_left_out(
    good: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = tmp_path / "outputs"
    places = {
        str(damaged(good, outputs / name / "0123456789", file, content)): file
        for name, (file, content) in DAMAGE.items()
    }
    shutil.copytree(good.run.folder, outputs / "whole" / "0123456789")
    (outputs / "whole" / "linked").symlink_to(good.run.folder)
    (outputs / "whole" / "around").symlink_to(outputs)
    board = rank_runs(typed("leaderboard", f"outputs={outputs}"))
    (group,) = board.groups
    ranked = group.table.loc[~group.table["is_floor"], "path"].tolist()
    assert sorted(map(Path, ranked)) == [
        outputs / "whole" / "0123456789",
        outputs / "whole" / "linked",
    ]
    reasons = dict(board.left_out)
    assert reasons.keys() == places.keys()
    for path, file in places.items():
        named = SUMMARY if file == QUERIES and "other_queries" in path else file
        assert str(Path(path, named)) in reasons[path], path
    print_leaderboard(board)
    printed = capsys.readouterr().out
    assert all(f"left out: {path}: " in printed for path in places)


def test_a_bad_run_is_not_compared(
    workshop: Workshop, good: Measured, poor: Measured, tmp_path: Path
) -> None:
    for name in ("torn", "foreign", "other_queries", "no_csv", "torn_status"):
        folder = damaged(good, tmp_path / name / "0123456789", *DAMAGE[name])
        settings = compared(workshop, good, poor)
        settings.runs.append(str(folder))
        with pytest.raises(ValueError, match=re.escape(str(folder))):
            compare_runs(settings)
    tagged = b"model: !!python/object/apply:os.system [ls]\n"
    folder = damaged(good, tmp_path / "tagged" / "0123456789", "config.yaml", tagged)
    with pytest.raises(ValueError, match=re.escape(str(folder / "config.yaml"))):
        compare_runs(compared(workshop, good, Measured(Run(folder), is_new=False)))


def test_an_evaluation_that_another_has_just_finished_is_not_done_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = workshop.measure("twice", 0.1, "floors=false")
    status = (first.run.folder / "status.json").read_bytes()
    states = iter(["running"])  # as it was found, before it is locked
    own = Run.state.fget
    assert own is not None
    monkeypatch.setattr(Run, "state", property(lambda run: next(states, None) or own(run)))
    again = workshop.measure("twice", 0.1, "floors=false")
    assert not again.is_new
    assert (first.run.folder / "status.json").read_bytes() == status


def test_an_empty_folder_has_no_leaderboard(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished run"):
        rank_runs(typed("leaderboard", f"outputs={tmp_path}"))
    with pytest.raises(ConfigError, match="no folder at"):
        rank_runs(typed("leaderboard", f"outputs={tmp_path / 'gone'}"))


def test_evaluations_side_by_side(
    workshop: Workshop, good: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = workshop.measure("good", 0.1, "protocol=gallery_query", "protocol.relevance=[colour]")
    table = overview([good, colours])
    assert table["relevance"].drop_duplicates().tolist() == ["category", "colour"]
    best = table[table["relevance"] == "colour"].sort_values("value").iloc[-1]
    assert best["embedding"] == "colour histogram"  # a category's embedding knows no colour
    conclude([good, colours], tmp_path)
    assert "by what counts as relevant" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"overview.csv", "overview.png"}
