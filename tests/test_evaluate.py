"""Measuring finished runs by other protocols and on other data, and embeddings from outside."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from tests.composing import typed
from visual_search.config.builders import ConfigError
from visual_search.evaluate import main, measure_embeddings, measure_run
from visual_search.retrieval.report_files import load_report
from visual_search.runs import parts
from visual_search.runs.finished import Measured
from visual_search.runs.run import Run, RunLockedError, write_json
from visual_search.train import train

pytestmark = pytest.mark.slow

DATA = ["data=synthetic", "data.items_per_category=20", "data.categories=[Dresses,Shoes,Hats]"]
SPLIT = ["split.val_fraction=0.1", "split.test_fraction=0.4"]
QUICK = ["floors=false", "near_duplicates=false"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on 60 drawn products: one epoch of five batches."""
    folder = tmp_path_factory.mktemp("evaluate")
    more = ["budget=smoke", "trainer=cpu", "callbacks=none", "logger={}", "near_duplicates=false",
            "trainer.enable_progress_bar=false", "loader.batch_size=8",
            "loader.max_items_per_category={train: null, val: null, test: null}",
            f"outputs={folder / 'outputs'}", f"pictures.cache_dir={folder / 'cache'}"]  # fmt: skip
    return train(typed("train", *DATA, *SPLIT, *more))


@pytest.fixture
def fresh(run: Run) -> Iterator[Run]:
    """The run without further measurements, before and after."""
    shutil.rmtree(run.folder / "evaluations", ignore_errors=True)
    yield run
    shutil.rmtree(run.folder / "evaluations", ignore_errors=True)


def arguments(run: Run, *more: str) -> list[str]:
    cache = run.folder.parents[2] / "cache"
    return [f"pictures.cache_dir={cache}", "trainer.accelerator=cpu", *more]


def evaluate(run: Run, *more: str) -> Measured:
    settings = typed("evaluate", *arguments(run, *more))
    return measure_embeddings(settings) if settings.embeddings else measure_run(settings)


def embeddings_by_id(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for side in ("gallery", "queries"):
        ids = pd.read_parquet(folder / "embeddings" / f"{side}.parquet")["item_id"]
        found |= dict(zip(ids, np.load(folder / "embeddings" / f"{side}.npy"), strict=True))
    return found


def means(run: Run) -> dict[str, Any]:
    return {k: v for k, v in run.summary().items() if k.startswith(("micro_", "macro_"))}


def test_without_anything_else_it_is_the_runs_own_measurement(fresh: Run) -> None:
    for more in ((), ("protocol=gallery_query",), ("+protocol.k=5",), tuple(DATA)):
        measured = evaluate(fresh, f"run={fresh.folder}", *more)
        assert measured == Measured(fresh, is_new=False)
    assert not (fresh.folder / "evaluations").exists()


def test_items_that_were_embedded_are_not_embedded_again(
    fresh: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "load_module", lambda run: pytest.fail("the network was loaded"))
    measured = evaluate(fresh, f"run={fresh.folder}", "protocol=leave_one_out", *QUICK)
    assert measured.is_new
    assert "none is computed" in capsys.readouterr().out
    folder, summary = measured.run.folder, measured.run.summary()
    assert folder.match("evaluations/leave_one_out-*")
    assert summary["identity"]["protocol_name"] == "leave_one_out"
    assert summary["num_gallery"] == summary["num_queries"] > 15
    assert summary["embedding_ms_per_item"] is None
    assert summary["num_queries_trained_on"] == 0
    assert summary["floors"] == []
    assert "no floor was measured" in summary["standing"]
    own = embeddings_by_id(fresh.folder)
    for item_id, values in embeddings_by_id(folder).items():
        np.testing.assert_array_equal(values, own[item_id])
    for name in ("report.html", "config.yaml", "environment.json", "metrics/per_query.parquet",
                 "metrics/per_category.csv"):  # fmt: skip
        assert (folder / name).stat().st_size, name
    assert not list(folder.rglob("*.tmp*"))
    assert not (folder / "metrics" / "near_duplicates.csv").exists()


def test_an_overview_beside_the_evaluations_is_no_evaluation(fresh: Run) -> None:
    folder = fresh.folder / "evaluations"
    folder.mkdir(exist_ok=True)
    (folder / "overview.csv").write_text("relevance,embedding\n", encoding="utf-8")
    overrides = (f"run={fresh.folder}", "protocol=leave_one_out", "protocol.k=2", *QUICK)
    assert evaluate(fresh, *overrides).is_new


def test_only_what_is_new_is_embedded_and_the_rest_is_the_runs(
    fresh: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = evaluate(fresh, f"run={fresh.folder}", "protocol=reference_2023", *QUICK)
    known, found = embeddings_by_id(fresh.folder), embeddings_by_id(measured.run.folder)
    num_new = len(found) - len(known)
    assert len(found) == 60
    assert num_new > 0  # the validation items
    assert f"Saved before: {len(known)} of 60 embeddings" in capsys.readouterr().out
    for item_id, values in known.items():
        np.testing.assert_array_equal(found[item_id], values)
    summary = measured.run.summary()
    assert summary["headline"]["title"] == "reference_2023"
    assert summary["num_queries_trained_on"] == fresh.summary()["num_gallery"]
    assert summary["embedding_ms_per_item"] > 0
    # What was new is now known as well.
    evaluate(fresh, f"run={fresh.folder}", "protocol=reference_2023", "protocol.k=3", *QUICK)
    assert "Saved before: all 60 embeddings" in capsys.readouterr().out


def test_floors_stand_beside_a_further_measurement(fresh: Run) -> None:
    more = ("protocol=leave_one_out", "protocol.k=3", "protocol.relevance=[colour]")
    measured = evaluate(fresh, f"run={fresh.folder}", *more)
    summary = measured.run.summary()
    names = [floor["name"] for floor in summary["floors"]]
    assert (names[0], names[-1]) == ("random", "untrained")
    assert all(floor["definition"] for floor in summary["floors"])
    per_query = pd.read_parquet(measured.run.folder / "metrics" / "floors.parquet")
    assert list(per_query.columns) == ["query_id", *names]
    assert summary["standing"].startswith("mAP@3 ")
    assert set(load_report(measured.run.folder / "metrics").per_category["category"]) > {"red"}


def test_the_floors_of_the_same_sides_are_those_of_the_run(fresh: Run) -> None:
    measured = evaluate(fresh, f"run={fresh.folder}", "rerun=true", "near_duplicates=false")
    assert measured.is_new
    assert measured.run.folder != fresh.folder
    own, again = fresh.summary(), measured.run.summary()
    assert again["floors"] == own["floors"]
    assert again["standing"] == own["standing"]
    assert means(measured.run) == means(fresh)
    assert again["identity"] == own["identity"]


def test_the_same_question_is_measured_once(fresh: Run) -> None:
    asked = (f"run={fresh.folder}", "protocol=leave_one_out", *QUICK)
    first = evaluate(fresh, *asked)
    written = (first.run.folder / "metrics" / "summary.json").stat().st_mtime_ns
    again = evaluate(fresh, *asked, "loader.batch_size=4")
    assert (again.run.folder, again.is_new) == (first.run.folder, False)
    assert (first.run.folder / "metrics" / "summary.json").stat().st_mtime_ns == written
    (first.run.folder / "leftover.txt").write_text("old")
    afresh = evaluate(fresh, *asked, "rerun=true")
    assert (afresh.run.folder, afresh.is_new) == (first.run.folder, True)
    assert not (first.run.folder / "leftover.txt").exists()


def test_every_setting_that_changes_the_numbers_has_its_own_folder(fresh: Run) -> None:
    asked = (f"run={fresh.folder}", "protocol=leave_one_out", *QUICK)
    changes = ("protocol.k=3", "protocol.on_leak=allow", "protocol.relevance=[style]",
               "query_split=train", "+data.background_noise=0.1")  # fmt: skip
    folders = {evaluate(fresh, *asked, change).run.folder for change in changes}
    assert len(folders) == len(changes)


def test_another_precision_embeds_everything_itself(
    fresh: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "bf16-mixed" if fresh.summary()["precision"] == "32-true" else "32-true"
    measured = evaluate(fresh, f"run={fresh.folder}", f"trainer.precision={other}", *QUICK)
    assert measured.run.summary()["precision"] == other
    assert "0 of " in capsys.readouterr().out
    own, found = embeddings_by_id(fresh.folder), embeddings_by_id(measured.run.folder)
    assert own.keys() == found.keys()
    difference = max(float(np.abs(own[i] - found[i]).max()) for i in own)
    assert 0 < difference < 0.1


def test_a_precision_that_this_machine_lacks_is_no_more_than_a_run_had(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of a GPU without bf16, evaluated on the processor, which has no such autocast."""
    elsewhere = Run(tmp_path / "run")
    shutil.copytree(run.folder, elsewhere.folder)
    write_json(
        elsewhere.folder / "metrics" / "summary.json", run.summary() | {"precision": "16-mixed"}
    )
    asked = (f"run={elsewhere.folder}", f"pictures.cache_dir={run.folder.parents[2] / 'cache'}")
    own = evaluate(run, *asked, *QUICK)
    assert (own.run, own.is_new) == (elsewhere, False)  # it was measured; nothing is computed
    measured = evaluate(run, *asked, "protocol=leave_one_out", *QUICK)
    summary = measured.run.summary()
    assert (summary["precision"], summary["device"]) == ("32-true", "cpu")
    environment = json.loads((measured.run.folder / "environment.json").read_text())
    assert [one["precision"] for one in environment["computed_on"]] == ["32-true"]
    said = capsys.readouterr().out
    assert "16-mixed" in said
    assert "0 of " in said  # what was saved is of another precision
    again = evaluate(run, *asked, "protocol=leave_one_out", "trainer.precision=32-true", *QUICK)
    assert (again.run.folder, again.is_new) == (measured.run.folder, False)
    for wrong in ("trainer.precision=16-mixed", "trainer.devices=2", "trainer.accelerator=gpu"):
        if wrong.endswith("gpu") and torch.cuda.is_available():
            continue
        with pytest.raises(ConfigError, match=wrong.partition("=")[0].replace(".", r"\.")):
            evaluate(run, *asked, "protocol=leave_one_out", "protocol.k=3", wrong, *QUICK)


def test_a_run_is_measured_on_another_catalogue(fresh: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for category in ("Bags", "[bold]Belts"):
        (tmp_path / "shop" / category).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shop" / category / f"{number}.png")
    more = (
        "data=folder",
        f"data.root={tmp_path / 'shop'}",
        "split.test_fraction=0.4",
        "split=hash",
    )
    measured = evaluate(fresh, f"run={fresh.folder}", *more, *QUICK)
    summary, config = measured.run.summary(), measured.run.config()
    assert summary["num_queries_trained_on"] == 0
    assert summary["identity"]["data"] == "shop"
    assert config["model"] == fresh.config()["model"]
    assert config["loader"]["max_items_per_category"] == {"train": None, "val": None, "test": None}
    assert "[bold]Belts" in set(load_report(measured.run.folder / "metrics").per_category.category)
    # The catalogue moves; with its new place it is the same question.
    (tmp_path / "shop").rename(tmp_path / "moved")
    moved = ("data=folder", f"data.root={tmp_path / 'moved'}", *more[2:])
    renamed = evaluate(fresh, f"run={fresh.folder}", *moved, *QUICK)
    assert (renamed.run.folder, renamed.is_new) == (measured.run.folder, False)


def test_data_that_moved_is_named_without_the_rest(fresh: Run) -> None:
    more = "+data.background_noise=0.1"
    measured = evaluate(fresh, f"run={fresh.folder}", more, *QUICK)
    data = {**fresh.config()["data"], "background_noise": 0.1}
    assert measured.run.config()["data"] == data
    assert measured.run.config()["split"] == fresh.config()["split"]


def outside(run: Run, folder: Path, *more: str) -> list[str]:
    """The run's own embeddings as a file, with one of nobody, and what measures it."""
    table = {**embeddings_by_id(run.folder), "nobody": np.zeros(512)}
    np.save(folder / "clip.npy", np.stack(list(table.values())).astype(np.float64))
    (folder / "clip.txt").write_text("\n".join(table))
    return [f"embeddings={folder / 'clip.npy'}", f"outputs={run.folder.parents[1]}", *DATA,
            "split=hash", *SPLIT, "near_duplicates=false", *more]  # fmt: skip


def test_embeddings_from_outside_have_the_numbers_of_the_run_that_made_them(
    fresh: Run, tmp_path: Path
) -> None:
    measured = evaluate(fresh, *outside(fresh, tmp_path))
    assert measured.is_new
    assert measured.run.folder.parent == fresh.folder.parents[1] / "clip"
    own, other = fresh.summary(), measured.run.summary()
    assert means(measured.run) == means(fresh)
    assert other["intervals"] == own["intervals"]
    assert other["identity"] == own["identity"]
    floors = [floor["micro_map_at_5"] for floor in own["floors"] if floor["name"] != "untrained"]
    assert [floor["micro_map_at_5"] for floor in other["floors"]] == floors
    tables = [load_report(run.folder / "metrics").per_query for run in (fresh, measured.run)]
    pd.testing.assert_frame_equal(*tables)
    assert other["kind"] == "embeddings from outside"
    assert other["embedding_dim"] == own["embedding_dim"]
    assert other["embedding_ms_per_item"] is None
    assert (measured.run.folder / "report.html").is_file()
    again = evaluate(fresh, *outside(fresh, tmp_path))
    assert (again.run.folder, again.is_new) == (measured.run.folder, False)


def test_other_embeddings_pictures_or_names_have_their_own_folder(
    fresh: Run, tmp_path: Path
) -> None:
    asked = outside(fresh, tmp_path, "floors=false")
    first = evaluate(fresh, *asked)
    named = evaluate(fresh, *asked, "name=mine")
    fitted = evaluate(fresh, *asked, "pictures.size_px=64")
    np.save(tmp_path / "clip.npy", np.load(tmp_path / "clip.npy")[:, :9])
    narrow = evaluate(fresh, *asked)
    assert len({found.run.folder for found in (first, named, fitted, narrow)}) == 4
    assert named.run.folder.parent.name == "mine"
    assert narrow.run.summary()["embedding_dim"] == 9


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (OSError("no space left"), "failed", "OSError: no space left"),
        (KeyboardInterrupt(), "interrupted", ""),
    ],
)
def test_a_measurement_that_broke_off_says_so_and_the_next_call_works(
    fresh: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, state: str, said: str
) -> None:
    asked = (f"run={fresh.folder}", "protocol=leave_one_out", *QUICK)

    def broken(*args: Any, **kwargs: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("visual_search.runs.results.save_evaluation", broken)
        with pytest.raises(type(error)):
            evaluate(fresh, *asked)
    (place,) = map(Run, (fresh.folder / "evaluations").iterdir())
    assert (place.status()["state"], place.status()["error"]) == (state, said)
    assert fresh.state == "finished"
    measured = evaluate(fresh, *asked)
    assert (measured.run.folder, measured.is_new) == (place.folder, True)


def test_a_measurement_in_work_is_left_alone(fresh: Run) -> None:
    asked = (f"run={fresh.folder}", "protocol=leave_one_out", *QUICK)
    other = Run(evaluate(fresh, *asked).run.folder)
    other.lock()
    try:
        with pytest.raises(RunLockedError, match="in use"):
            evaluate(fresh, *asked, "rerun=true")
        assert other.state == "finished"
    finally:
        other.unlock()


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command's exit status."""
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_prints_a_measurement(
    fresh: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = arguments(fresh, f"run={fresh.folder}", "protocol=leave_one_out", *QUICK)
    assert command(monkeypatch, *asked) == 0
    printed = capsys.readouterr().out
    for text in ("Dresses", "micro mean", "95 % interval", "report.html", "searches among all"):
        assert text in printed
    assert command(monkeypatch, *asked) == 0
    assert "was measured before; rerun=true measures again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ((), 2, "no run is named; expected run=PATH"),
        (("run=nowhere",), 2, "nowhere is no run's folder"),
        (("run={parent}",), 2, "did you mean {run}?"),
        (("run={run}", "embeddings=clip.npy", *DATA), 2, "both given"),
        (("embeddings=clip.npy",), 2, "expected data=..."),
        (("embeddings=clip.npy", *DATA), 1, "no file at clip.npy"),
        (("run={run}", "protocol=category_restricted"), 2, "protocol.relevance is not set"),
        (("run={run}", "protocol=leave_one_out", "protocol.exclude=me"), 2, "protocol.exclude"),
        (("run={run}", "protocol=leave_one_out", "protocol.kk=3"), 2, "protocol.kk"),
        (("run={run}", "protocol.k=3"), 2, "no protocol is chosen"),
        (("run={run}", "+protocol.relevance=[color]"), 1, "did you mean 'colour'?"),
        (("run={run}", "+protocol.k=500"), 1, "protocol.k is 500"),
        (("run={run}", "query_split=tset"), 1, "none of the 60 item(s)"),
        (("run={run}", "data=folder", "data.root=/nowhere"), 1, "/nowhere"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    fresh: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...], status: int, message: str,
) -> None:  # fmt: skip
    names = {"run": str(fresh.folder), "parent": str(fresh.folder.parent)}
    asked = [argument.format(**names) if "{" in argument else argument for argument in more]
    assert command(monkeypatch, *arguments(fresh, *asked)) == status
    said = capsys.readouterr().err
    assert message.format(**names) in said
    assert "Traceback" not in said


def copied(run: Run, folder: Path) -> Run:
    shutil.copytree(run.folder, folder / "copy", ignore=shutil.ignore_patterns("evaluations"))
    return Run(folder / "copy")


def test_a_run_without_an_end_numbers_or_a_network_is_refused(fresh: Run, tmp_path: Path) -> None:
    other = copied(fresh, tmp_path)
    other.set_state("interrupted")
    with pytest.raises(ConfigError, match="is interrupted; expected a finished one"):
        evaluate(fresh, f"run={other.folder}")
    other.set_state("finished")
    other.checkpoint.unlink()
    with pytest.raises(ConfigError, match="has no network"):
        evaluate(fresh, f"run={other.folder}")
    (other.folder / "metrics" / "summary.json").unlink()
    with pytest.raises(ConfigError, match="dry run"):
        evaluate(fresh, f"run={other.folder}")


def test_a_further_measurement_is_no_run(fresh: Run) -> None:
    place = evaluate(fresh, f"run={fresh.folder}", "protocol=leave_one_out", *QUICK).run.folder
    with pytest.raises(ConfigError, match=f"expected its run: run={fresh.folder}"):
        evaluate(fresh, f"run={place}")


def test_a_run_from_before_protocols_had_names_needs_one(fresh: Run, tmp_path: Path) -> None:
    other = copied(fresh, tmp_path)
    config = other.config()
    config["protocol"] = {"k": 5, "gallery": {"kind": "per_category", "max_per_category": 1000}}
    (other.folder / "config.yaml").write_text(yaml.safe_dump(config))
    summary = {"embedding_dim": 512, "epochs": 1, "micro_map_at_5": 0.5}
    (other.folder / "metrics" / "summary.json").write_text(json.dumps(summary))
    (other.folder / "metrics" / "trained_items.parquet").unlink()
    with pytest.raises(ConfigError, match="give protocol=gallery_query"):
        evaluate(fresh, f"run={other.folder}")
    measured = evaluate(fresh, f"run={other.folder}", "protocol=gallery_query", "floors=false")
    assert measured.run.summary()["num_queries_trained_on"] is None  # it did not say
    assert measured.run.summary()["micro_map_at_5"] == fresh.summary()["micro_map_at_5"]
    assert "trained on." not in (measured.run.folder / "report.html").read_text()
