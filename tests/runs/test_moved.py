"""A run whose data lies elsewhere by now: what is said, and that it helps."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.composing import settings_of, typed
from tests.storage.s3_server import S3Server
from visual_search.config.builders import ConfigError
from visual_search.embed import embed_catalog
from visual_search.evaluate import measure_run
from visual_search.export import export_run
from visual_search.runs.run import Run, write_json


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """What a finished run on a table that is gone left, as far as it is asked here."""
    return _finished(tmp_path, "data=table", f"data.path={tmp_path / 'shop' / 'products.csv'}")


def _finished(tmp_path: Path, *data: str) -> Run:
    place = Run(tmp_path / "outputs" / "plus_layer" / "0123456789")
    settings = settings_of("train", *data, "trainer=cpu")
    place.checkpoint.parent.mkdir(parents=True)
    place.checkpoint.touch()
    (place.folder / "config.yaml").write_text(yaml.safe_dump(settings))
    write_json(place.folder / "metrics" / "summary.json", {"precision": "32-true"})
    place.set_state("finished")
    return place


@pytest.mark.parametrize(
    ("command", "work", "more"),
    [
        ("evaluate", measure_run, ["protocol=leave_one_out"]),
        ("export", export_run, ["items=all"]),
        ("embed", embed_catalog, ["out=shards"]),
    ],
)
def test_moved_data_is_answered_with_the_command_that_helps(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    work: Callable[[Any], object],
    more: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = [f"run={run.folder}", *more]
    line = ["/usr/bin/python3", "-m", f"visual_search.{command}", *arguments]
    monkeypatch.setattr("sys.orig_argv", line)
    with pytest.raises(ConfigError, match=r"data\.path=.*products\.csv") as caught:
        work(typed(command, *arguments))
    told = shlex.split(str(caught.value).splitlines()[-1])
    assert told[:-1] == ["python", *line[1:]]
    # What it says is taken by the command, which then looks there.
    there = told[-1].replace("WHERE_IT_LIES_NOW", str(tmp_path / "elsewhere.csv"))
    with pytest.raises(FileNotFoundError, match=r"elsewhere\.csv"):
        work(typed(command, *told[3:-1], there))


def test_other_data_that_is_not_there_is_told_by_its_reader(run: Run, tmp_path: Path) -> None:
    other = ["data=folder", f"data.root={tmp_path / 'nowhere'}"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        measure_run(typed("evaluate", f"run={run.folder}", *other))


@pytest.mark.parametrize(
    ("bucket", "told"), [("moved", "is no longer there"), ("moved-none", "is not reached")]
)
def test_of_object_storage_too(s3: S3Server, tmp_path: Path, bucket: str, told: str) -> None:
    s3.put("moved", {"other/a.jpg": b"a"})
    run = _finished(tmp_path, "data=folder", f"data.root=s3://{bucket}/shop")
    with pytest.raises(ConfigError, match=f"data.root=s3://{bucket}/shop, which {told}"):
        measure_run(typed("evaluate", f"run={run.folder}"))


def test_what_is_still_on_object_storage_is_not_told_as_gone(s3: S3Server, tmp_path: Path) -> None:
    s3.put("moved-pictures", {"shop/a.jpg": b"a"})
    run = _finished(
        tmp_path, "data=open_metric_learning", f"data.path={tmp_path / 'none.csv'}",
        "data.dataset_root=s3://moved-pictures/shop",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"was trained on data.path=\S*none.csv, which is no"):
        measure_run(typed("evaluate", f"run={run.folder}"))
