"""Which runs differ in the seed alone, and what the others are called by."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.composing import typed
from visual_search.runs.run import Run
from visual_search.runs.variants import (
    MOST_SHOWN,
    Variant,
    seed_groups,
    settings_apart,
    told_apart,
    variant_of,
)


def run_of(folder: Path, *overrides: str, catalog: str = "abc") -> Run:
    from omegaconf import OmegaConf

    folder.mkdir(parents=True)
    config = typed("train", "trainer=cpu", *overrides)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    run = Run(folder)
    run.set_state("finished", catalog_fingerprint=catalog)
    return run


def test_runs_that_differ_in_the_seed_alone_are_one(tmp_path: Path) -> None:
    choices: list[tuple[str, ...]] = [
        ("seed=2",),
        ("seed=1", f"outputs={tmp_path}", "loader.num_workers=2", "logger=csv", "callbacks=none"),
        ("seed=1", "training.learning_rate=1"),
        ("seed=1", "model=residual"),
    ]
    runs = [run_of(tmp_path / f"{place}", *choice) for place, choice in enumerate(choices)]
    runs.append(run_of(tmp_path / "other pictures", "seed=3", catalog="xyz"))
    groups = seed_groups([variant_of(run) for run in runs])
    assert groups == [[1, 0], [2], [3], [4]]
    names = [(run.folder.parent.name, variant_of(run), run.folder) for run in runs[1:4]]
    labels = told_apart(names)
    assert "training.learning_rate=1.0" in labels[1]
    assert "model=residual" in labels[2]


def test_runs_of_other_code_are_others_and_their_names_say_so(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "mine" / f"{seed}", f"seed={seed}") for seed in (1, 2, 3)]
    for run, digits in zip(runs[:2], ("0" * 10, "1" * 10), strict=True):
        run.set_state("finished", catalog_fingerprint="abc", code={"model": digits})
    variants = [variant_of(run) for run in runs]
    assert seed_groups(variants) == [[0], [1], [2]]
    labels = told_apart([("mine", variants[place], runs[place].folder) for place in range(3)])
    assert [label.partition("=")[0] for label in labels] == ["code"] * 3
    assert labels[2] == "code=unknown"
    assert len(set(labels)) == 3


def test_an_evaluation_is_of_its_runs_training(tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        run = run_of(tmp_path / "plus" / f"{seed}", f"seed={seed}", "protocol=leave_one_out")
        place = run.folder / "evaluations" / "leave_one_out-01234567"
        place.mkdir(parents=True)
        text = (run.folder / "config.yaml").read_text()
        (place / "config.yaml").write_text(
            text.replace("batch_size: 128", f"batch_size: {seed + 1}")
        )
        Run(place).set_state("finished", catalog_fingerprint="of another catalogue")
        runs += [Run(place)]
    assert seed_groups([variant_of(run) for run in runs]) == [[0, 1]]


def test_all_cards_of_another_machine_are_as_many_as_there_were(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", "trainer=cpu")
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    config["trainer"] |= {"accelerator": "gpu", "devices": -1}
    (run.folder / "config.yaml").write_text(yaml.safe_dump(config))
    (run.folder / "metrics").mkdir()
    (run.folder / "metrics" / "summary.json").write_text('{"num_devices": 4}')
    settings = variant_of(run).settings
    assert settings is not None
    assert settings["trainer.devices"] == 4


def test_what_was_not_trained_here_is_like_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("pictures: {size_px: 32}")
    assert variant_of(Run(tmp_path)) == Variant(None, 0)


def test_a_name_holds_the_settings_in_which_a_run_is_least_like_the_others() -> None:
    many = {f"key{place}": 0 for place in range(2 * MOST_SHOWN)}
    odd = [many | {"key3": 1}, many | {"key5": 1}, many, dict.fromkeys(many, 2)]
    apart = settings_apart(odd)
    assert all(len(text.split()) <= MOST_SHOWN for text in apart)
    assert len(set(apart)) == len(apart)
    assert "key3=1" in apart[0].split()
    assert "key5=1" in apart[1].split()
    assert settings_apart([{"a": 1}]) == [""]


@pytest.mark.parametrize("value", [None, True, 0.001, "a b", [1, 2]])
def test_a_setting_in_a_name_is_what_one_types(value: object) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    text = settings_apart([{"key": value}, {"key": "other"}])[0]
    (parsed,) = OverridesParser.create().parse_overrides([text])
    assert parsed.value() == value


def test_what_no_setting_tells_apart_has_its_folders_name() -> None:
    same = Variant({"a": 1}, 0)
    runs = [("x", same, Path("x/aa")), ("x", same, Path("x/bb")), ("y", same, Path("y/cc"))]
    assert told_apart(runs) == ["aa", "bb", ""]
