"""Measuring finished runs by other protocols and on other data, and embeddings from outside."""

import contextlib
import io
import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image

from tests.composing import typed
from tests.small_runs import run_here
from visual_search.config.builders import ConfigError
from visual_search.evaluate import main, measure_from_outside, measure_run
from visual_search.retrieval.report_files import load_report
from visual_search.runs import parts
from visual_search.runs.finished import Measured
from visual_search.runs.run import Run, RunLockedError, write_json

pytestmark = pytest.mark.slow

DATA = ["data=synthetic", "data.items_per_category=20", "data.categories=[Dresses,Shoes,Hats]",
        "data.image_size_px=32"]  # fmt: skip
SPLIT = ["split.val_fraction=0.1", "split.test_fraction=0.4", "split.allow_few=true"]
QUICK = ["floors=false", "near_duplicates=false"]
LEFT_OUT = ("protocol=leave_one_out", *QUICK)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on 60 drawn products, in whose folder further measurements gather."""
    limits = "loader.max_items_per_category={train: null, val: null, test: null}"
    folder = tmp_path_factory.mktemp("evaluate")
    return run_here(folder, *DATA, *SPLIT, limits, "floors=true", "loader.batch_size=8")


@pytest.fixture
def fresh(run: Run, tmp_path: Path) -> Run:
    """A copy without further measurements, to be changed."""
    place = tmp_path / "a" / "b" / "c"  # pictures are shared
    (tmp_path / "cache").symlink_to(run.folder.parents[2] / "cache")
    shutil.copytree(run.folder, place, ignore=shutil.ignore_patterns("evaluations"))
    return Run(place)


def arguments(run: Run, *more: str) -> list[str]:
    cache = f"pictures.cache_dir={run.folder.parents[2] / 'cache'}"
    return [f"run={run.folder}", cache, "trainer.accelerator=cpu", *more]


def evaluate(run: Run, *more: str) -> Measured:
    return measure_run(typed("evaluate", *arguments(run, *more)))


@pytest.fixture(scope="module")
def left_out(run: Run) -> tuple[Measured, str]:
    """A further measurement, without the network, and what was printed."""
    folder = run.folder / "evaluations"
    folder.mkdir()
    (folder / "overview.csv").write_text("relevance,embedding\n", encoding="utf-8")  # is none
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(parts, "load_module", lambda run: pytest.fail("the network was loaded"))
        measured = evaluate(run, *LEFT_OUT)
    return measured, said.getvalue()


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Nothing is measured: where it would be lies here, with the settings as its config."""
    found: list[Run] = []

    def measured(place: Run, parts: Any, *_: Any, **__: Any) -> Measured:
        place.config = lambda: vars(parts.settings)  # type: ignore[method-assign]
        found.append(place)
        return Measured(place, is_new=True)

    monkeypatch.setattr("visual_search.evaluate.measured", measured)
    return found


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
        assert evaluate(fresh, *more) == Measured(fresh, is_new=False)
    assert not (fresh.folder / "evaluations").exists()


def test_items_that_were_embedded_are_not_embedded_again(
    run: Run, left_out: tuple[Measured, str]
) -> None:
    measured, said = left_out
    assert measured.is_new
    assert "none is computed" in said
    folder, summary = measured.run.folder, measured.run.summary()
    assert folder.match("evaluations/leave_one_out-*")
    assert summary["identity"]["protocol_name"] == "leave_one_out"
    assert summary["num_gallery"] == summary["num_queries"] > 15
    assert summary["embedding_ms_per_item"] is None
    assert summary["num_queries_trained_on"] == 0
    assert summary["floors"] == []
    assert "no floor was measured" in summary["standing"]
    own = embeddings_by_id(run.folder)
    for item_id, values in embeddings_by_id(folder).items():
        np.testing.assert_array_equal(values, own[item_id])
    for name in ("report.html", "config.yaml", "environment.json", "metrics/per_query.parquet",
                 "metrics/per_category.csv"):  # fmt: skip
        assert (folder / name).stat().st_size, name
    assert not list(folder.rglob("*.tmp*"))
    assert not (folder / "metrics" / "near_duplicates.csv").exists()
    with pytest.raises(ConfigError, match=f"expected its run: run={run.folder}"):
        evaluate(measured.run)


def test_the_same_question_is_measured_once_and_left_alone_in_work(
    run: Run, left_out: tuple[Measured, str]
) -> None:
    first = left_out[0].run
    written = (first.folder / "metrics" / "summary.json").stat().st_mtime_ns
    again = evaluate(run, *LEFT_OUT, "loader.batch_size=4")
    assert (again.run.folder, again.is_new) == (first.folder, False)
    assert (first.folder / "metrics" / "summary.json").stat().st_mtime_ns == written
    (first.folder / "leftover.txt").write_text("old")
    other = Run(first.folder)
    other.lock()
    with pytest.raises(RunLockedError, match="in use"):
        evaluate(run, *LEFT_OUT, "rerun=true")
    assert other.state == "finished"
    other.unlock()
    afresh = evaluate(run, *LEFT_OUT, "rerun=true")
    assert (afresh.run.folder, afresh.is_new) == (first.folder, True)
    assert not (first.folder / "leftover.txt").exists()


def test_only_what_is_new_is_embedded_and_the_rest_is_the_runs(
    fresh: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = evaluate(fresh, "protocol=reference_2023", *QUICK)
    known, found = embeddings_by_id(fresh.folder), embeddings_by_id(measured.run.folder)
    assert len(known) < len(found) == 60  # the validation items are new
    assert f"Saved before: {len(known)} of 60 embeddings" in capsys.readouterr().out
    for item_id, values in known.items():
        np.testing.assert_array_equal(found[item_id], values)
    summary = measured.run.summary()
    assert summary["headline"]["title"] == "reference_2023"
    assert summary["num_queries_trained_on"] == fresh.summary()["num_gallery"]
    assert summary["embedding_ms_per_item"] > 0
    # What was new is now known as well.
    evaluate(fresh, "protocol=reference_2023", "protocol.k=3", *QUICK)
    assert "Saved before: all 60 embeddings" in capsys.readouterr().out


def test_floors_stand_beside_a_further_measurement(run: Run) -> None:
    more = ("protocol=leave_one_out", "protocol.k=3", "protocol.relevance=[colour]")
    measured = evaluate(run, *more)
    summary = measured.run.summary()
    names = [floor["name"] for floor in summary["floors"]]
    assert (names[0], names[-1]) == ("random", "untrained")
    assert all(floor["definition"] for floor in summary["floors"])
    per_query = pd.read_parquet(measured.run.folder / "metrics" / "floors.parquet")
    assert list(per_query.columns) == ["query_id", *names]
    assert summary["standing"].startswith("mAP@3 ")
    assert set(load_report(measured.run.folder / "metrics").per_category["category"]) > {"red"}


def test_the_floors_of_the_same_sides_are_those_of_the_run(run: Run) -> None:
    measured = evaluate(run, "rerun=true", "near_duplicates=false")
    assert measured.is_new
    assert measured.run.folder != run.folder
    own, again = run.summary(), measured.run.summary()
    for name in ("floors", "standing", "identity"):
        assert again[name] == own[name]
    assert means(measured.run) == means(run)


def test_every_setting_that_changes_the_numbers_has_its_own_folder(
    run: Run, places: list[Run]
) -> None:
    changes = ("protocol.k=4", "protocol.on_leak=allow", "protocol.relevance=[style]",
               "query_split=train", "+data.background_noise=0.1")  # fmt: skip
    for change in changes:
        evaluate(run, *LEFT_OUT, change)
    assert len({place.folder for place in places}) == len(changes)
    # The last one named a key of the data, without the rest.
    config = places[-1].config()
    assert config["data"] == {**run.config()["data"], "background_noise": 0.1}
    kept = {"kept": str(run.folder / "split.csv")}
    assert vars(config["split"]) == run.config()["split"] | kept


def test_another_precision_embeds_everything_itself(
    fresh: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "bf16-mixed" if fresh.summary()["precision"] == "32-true" else "32-true"
    measured = evaluate(fresh, f"trainer.precision={other}", *QUICK)
    assert measured.run.summary()["precision"] == other
    assert "0 of " in capsys.readouterr().out
    own, found = embeddings_by_id(fresh.folder), embeddings_by_id(measured.run.folder)
    assert own.keys() == found.keys()
    difference = max(float(np.abs(own[i] - found[i]).max()) for i in own)
    assert 0 < difference < 0.1


def test_a_network_whose_code_has_changed_embeds_everything_anew(
    fresh: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fresh.status()
    code = {**before["code"], "model": "0" * 10}
    fresh.set_state("finished", catalog_fingerprint=before["catalog_fingerprint"], code=code)
    measured = evaluate(fresh, *QUICK)
    assert measured.run.folder != fresh.folder
    said = capsys.readouterr()
    assert "Saved before: 0 of " in said.out
    assert f"plain_encoder has changed since {fresh.folder} was trained" in said.err
    assert measured.run.status()["code"]["model"] == before["code"]["model"]
    assert not evaluate(fresh, *QUICK).is_new


def test_a_precision_that_this_machine_lacks_is_no_more_than_a_run_had(
    fresh: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of a GPU without bf16, evaluated on the processor, which has no such autocast."""
    other = fresh.summary() | {"precision": "16-mixed"}
    write_json(fresh.folder / "metrics" / "summary.json", other)
    assert evaluate(fresh, *QUICK) == Measured(fresh, is_new=False)  # nothing is computed
    measured = evaluate(fresh, *LEFT_OUT)
    summary = measured.run.summary()
    assert (summary["precision"], summary["device"]) == ("32-true", "cpu")
    environment = json.loads((measured.run.folder / "environment.json").read_text())
    assert [one["precision"] for one in environment["computed_on"]] == ["32-true"]
    said = capsys.readouterr().out
    assert "16-mixed" in said
    assert "0 of " in said  # what was saved is of another precision
    again = evaluate(fresh, *LEFT_OUT, "trainer.precision=32-true")
    assert (again.run.folder, again.is_new) == (measured.run.folder, False)
    for wrong in ("trainer.precision=16-mixed", "trainer.devices=2", "trainer.accelerator=gpu"):
        if wrong.endswith("gpu") and torch.cuda.is_available():
            continue
        with pytest.raises(ConfigError, match=wrong.partition("=")[0].replace(".", r"\.")):
            evaluate(fresh, *LEFT_OUT, "protocol.k=3", wrong)


def test_a_run_is_measured_on_another_catalogue(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for category in ("Bags", "[bold]Belts"):
        (tmp_path / "shop" / category).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(0, 255, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "shop" / category / f"{number}.png")
    more = ("data=folder", "split.test_fraction=0.4", "split=stratified", *QUICK)
    measured = evaluate(run, *more, f"data.root={tmp_path / 'shop'}")
    summary, config = measured.run.summary(), measured.run.config()
    assert summary["num_queries_trained_on"] == 0
    assert summary["identity"]["data"] == "shop"
    assert config["model"] == run.config()["model"]
    assert config["loader"]["max_items_per_category"] == {"train": None, "val": None, "test": None}
    assert "[bold]Belts" in set(load_report(measured.run.folder / "metrics").per_category.category)
    # The catalogue moves; with its new place it is the same question.
    (tmp_path / "shop").rename(tmp_path / "moved")
    renamed = evaluate(run, *more, f"data.root={tmp_path / 'moved'}")
    assert (renamed.run.folder, renamed.is_new) == (measured.run.folder, False)


def outside(run: Run, folder: Path, *more: str) -> Measured:
    """Measures the run's own embeddings as a file, with one of nobody."""
    own = embeddings_by_id(run.folder)
    table = {**own, "nobody": np.zeros_like(next(iter(own.values())))}
    np.save(folder / "clip.npy", np.stack(list(table.values())).astype(np.float64))
    (folder / "clip.txt").write_text("\n".join(table))
    given = [f"embeddings={folder / 'clip.npy'}", f"outputs={folder / 'outputs'}", *DATA, *SPLIT,
             "split=stratified", "near_duplicates=false", "pictures.size_px=32"]  # fmt: skip
    return measure_from_outside(typed("evaluate", *given, *arguments(run)[1:], *more))


def test_embeddings_from_outside_have_the_numbers_of_the_run_that_made_them(
    run: Run, tmp_path: Path
) -> None:
    measured = outside(run, tmp_path)
    assert measured.is_new
    assert measured.run.folder.parent == tmp_path / "outputs" / "clip"
    own, other = run.summary(), measured.run.summary()
    assert means(measured.run) == means(run)
    for name in ("intervals", "identity", "embedding_dim"):
        assert other[name] == own[name]
    floors = [floor["micro_map_at_5"] for floor in own["floors"] if floor["name"] != "untrained"]
    assert [floor["micro_map_at_5"] for floor in other["floors"]] == floors
    tables = [load_report(one.folder / "metrics").per_query for one in (run, measured.run)]
    pd.testing.assert_frame_equal(*tables)
    assert other["kind"] == "embeddings from outside"
    assert other["embedding_ms_per_item"] is None
    assert (measured.run.folder / "report.html").is_file()
    again = outside(run, tmp_path)
    assert (again.run.folder, again.is_new) == (measured.run.folder, False)


def test_a_network_of_another_library_is_measured_by_its_name(run: Run, tmp_path: Path) -> None:
    network = ["embedder=timm", "embedder.model=test_resnet", "embedder.pretrained=false"]
    folder, cache = f"outputs={tmp_path}", f"pictures.cache_dir={run.folder.parents[2] / 'cache'}"
    asked = [*network, *DATA, "split=stratified", *SPLIT, folder, cache, *QUICK]
    measured = measure_from_outside(typed("evaluate", *asked))
    assert measured.is_new
    assert measured.run.folder.parts[-2] == "test_resnet"
    assert measured.run.summary()["num_queries"] == run.summary()["num_queries"]
    assert not measure_from_outside(typed("evaluate", *asked)).is_new
    with pytest.raises(ConfigError, match=r"measured: run and embedder; expected one of"):
        measure_from_outside(typed("evaluate", *asked, f"run={run.folder}"))


def test_an_embedder_says_which_package_it_needs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)  # as if it were not there
    cache = f"pictures.cache_dir={run.folder.parents[2] / 'cache'}"
    asked = [*DATA, "split=stratified", *SPLIT, f"outputs={tmp_path}", cache, *QUICK]
    other = ["embedder=sentence_transformers", "embedder.model=x", *asked]
    with pytest.raises(ConfigError, match="pip install sentence-transformers"):
        measure_from_outside(typed("evaluate", *other))


def test_embeddings_are_ranked_as_their_library_compares_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By cosine, so that a length, which the Euclidean order would see, changes nothing."""

    class Model:
        similarity_fn_name = "cosine"

        def __init__(self, name: str) -> None:
            self.rng = np.random.default_rng(0)

        def encode(self, pictures: list[Image.Image], **_: object) -> NDArray[np.float64]:
            means = np.array([np.asarray(one).mean(axis=(0, 1)) for one in pictures])
            return means * self.rng.uniform(1, 1000, (len(pictures), 1))

    module = types.ModuleType("sentence_transformers")
    module.SentenceTransformer = Model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    cache = f"pictures.cache_dir={run.folder.parents[2] / 'cache'}"
    asked = [*DATA, "split=stratified", *SPLIT, f"outputs={tmp_path}", cache, *QUICK]
    network = ["embedder=sentence_transformers", "embedder.model=a/mean"]
    measured = measure_from_outside(typed("evaluate", *network, *asked))
    held = np.load(measured.run.folder / "embeddings" / "queries.npy")
    assert np.linalg.norm(held, axis=1) == pytest.approx(1, abs=1e-6)
    Model.similarity_fn_name = "dot"
    with pytest.raises(ConfigError, match="compared by dot; expected cosine or euclidean"):
        measure_from_outside(typed("evaluate", *network, "name=other", *asked))


def test_other_embeddings_pictures_or_names_have_their_own_folder(
    run: Run, fresh: Run, tmp_path: Path, places: list[Run]
) -> None:
    np.save(fresh.folder / "embeddings" / "queries.npy",
            np.load(fresh.folder / "embeddings" / "queries.npy") + 1)  # fmt: skip
    for own, more in (
        (run, ()),
        (run, ("name=mine",)),
        (run, ("pictures.size_px=64",)),
        (fresh, ()),
    ):
        outside(own, tmp_path, *more)
    assert len({place.folder for place in places}) == 4
    assert places[1].folder.parent.name == "mine"


def test_a_measurement_that_broke_off_says_so_and_the_next_call_works(fresh: Run) -> None:
    for error, state, said in (
        (OSError("no space left"), "failed", "OSError: no space left"),
        (KeyboardInterrupt(), "interrupted", ""),
    ):

        def broken(*args: Any, error: BaseException = error, **kwargs: Any) -> None:
            raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("visual_search.runs.results.save_evaluation", broken)
            with pytest.raises(type(error)):
                evaluate(fresh, *LEFT_OUT)
        (place,) = map(Run, (fresh.folder / "evaluations").iterdir())
        assert (place.status()["state"], place.status()["error"]) == (state, said)
        assert fresh.state == "finished"
    measured = evaluate(fresh, *LEFT_OUT)
    assert (measured.run.folder, measured.is_new) == (place.folder, True)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command's exit status."""
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_prints_a_measurement(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = arguments(run, *LEFT_OUT, "protocol.k=2", "explain=true")
    assert command(monkeypatch, *asked) == 0
    printed = capsys.readouterr().out
    for text in ("Dresses", "micro mean", "95 % interval", "report.html", "searches among all"):
        assert text in printed
    assert command(monkeypatch, *asked) == 0
    assert "was measured before; rerun=true measures again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("run=nowhere",), 2, "nowhere is no run's folder"),
        (("run=x", "embeddings=clip.npy", *DATA), 2, "run and embeddings; expected one of"),
        (("embeddings=clip.npy", *DATA), 1, "no file at clip.npy"),
        (("run={run}", "protocol.k=3"), 2, "no protocol is chosen"),
        (("run={run}", "protocol=leave_one_out", "protocol.kk=3"), 2, "protocol.kk"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...], status: int, message: str,
) -> None:  # fmt: skip
    asked = [one.format(run=run.folder) if "{run}" in one else one for one in more]
    assert command(monkeypatch, *asked) == status
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_what_cannot_be_measured_is_named(run: Run) -> None:
    for more, message in (
        (("run=null",), "no run is named; expected run=PATH"),
        ((f"run={run.folder.parent}",), f"did you mean {run.folder}?"),
        (("protocol=category_restricted",), "protocol.relevance is not set"),
        (("protocol=leave_one_out", "protocol.exclude=me"), "protocol.exclude"),
        (("+protocol.relevance=[color]",), "did you mean 'colour'?"),
        (("+protocol.k=500",), "protocol.k is 500"),
        (("query_split=tset",), "none of the 60 item(s)"),
        (("data=folder", "data.root=/nowhere"), "/nowhere"),
    ):
        with pytest.raises((ValueError, OSError), match=re.escape(message)):
            evaluate(run, *more)
    with pytest.raises(ConfigError, match=r"expected data=\.\.\."):
        measure_from_outside(typed("evaluate", "embeddings=clip.npy"))


def test_a_run_without_an_end_numbers_or_a_network_is_refused(fresh: Run) -> None:
    fresh.set_state("interrupted")
    with pytest.raises(ConfigError, match="is interrupted; expected a finished one"):
        evaluate(fresh)
    fresh.set_state("finished")
    fresh.checkpoint.unlink()
    with pytest.raises(ConfigError, match="has no network"):
        evaluate(fresh)
    (fresh.folder / "metrics" / "summary.json").unlink()
    with pytest.raises(ConfigError, match="dry run"):
        evaluate(fresh)


def test_a_run_from_before_protocols_had_names_needs_one(run: Run, fresh: Run) -> None:
    config = fresh.config()
    config["protocol"] = {"k": 5, "gallery": {"kind": "per_category", "max_per_category": 1000}}
    (fresh.folder / "config.yaml").write_text(yaml.safe_dump(config))
    summary = {"embedding_dim": 64, "epochs": 1, "micro_map_at_5": 0.5}
    (fresh.folder / "metrics" / "summary.json").write_text(json.dumps(summary))
    (fresh.folder / "metrics" / "trained_items.parquet").unlink()
    with pytest.raises(ConfigError, match="give protocol=gallery_query"):
        evaluate(fresh)
    measured = evaluate(fresh, "protocol=gallery_query", "floors=false")
    assert measured.run.summary()["num_queries_trained_on"] is None  # it did not say
    assert measured.run.summary()["micro_map_at_5"] == run.summary()["micro_map_at_5"]
    assert "trained on." not in (measured.run.folder / "report.html").read_text()
