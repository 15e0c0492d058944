"""Sets in published layouts as commands: what check prints of each, and that it trains."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from tests.catalog.published_sets import SETS
from tests.composing import typed
from tests.small_runs import BARE, NARROW, QUICK
from visual_search.check import main
from visual_search.runs.parts import Parts
from visual_search.train import train

SMALL = ("pictures.size_px=32", "split.allow_few=true")


@pytest.mark.parametrize("name", SETS)
def test_check_finds_it_fit_and_prints_how_to_train(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = [f"data={name}", *SETS[name](tmp_path / "data"), *SMALL]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check", *said])
    main()  # an error ends it with another status
    printed = capsys.readouterr().out
    words = shlex.split(printed.splitlines()[-1])
    if name == "lookbench":
        assert "Fit to measure a run on" in printed
        assert words == ["python", "-m", "visual_search.evaluate", "run=PATH", *said[:-2]]
        return
    assert "Fit to train on" in printed
    assert words[:3] == ["python", "-m", "visual_search.train"]
    assert set(said) <= set(words[3:])
    catalog = Parts(typed("train", *words[3:])).catalog
    assert set(catalog.table["split"]) == {"train", "val", "test"}
    assert f"{len(catalog)} (0 refused)" in printed


def test_a_leak_of_many_pairs_is_printed_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where, protocol, _ = SETS["lookbench"](tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["check", "data=lookbench", where, protocol, *SMALL])
    with pytest.raises(SystemExit):  # by category the product itself is a leak
        main()
    printed = capsys.readouterr().out
    assert "\n  group: query " in printed
    assert "\N{REPLACEMENT CHARACTER}" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stanford_online_products", "deepfashion_consumer2shop"])
def test_it_trains_by_the_published_protocol(name: str, tmp_path: Path) -> None:
    said = [f"data={name}", *SETS[name](tmp_path / "data"), *SMALL, *QUICK, *NARROW, *BARE]
    said.append("loader.max_items_per_category={train: 99, val: 99, test: 99}")
    places = [f"outputs={tmp_path / 'outputs'}", f"pictures.cache_dir={tmp_path / 'cache'}"]
    summary = train(typed("train", "objective=simclr", *said, *places)).summary()
    assert 0 <= summary["micro_hit_at_1"] <= 1
    assert summary["num_queries"] > 0
