"""A run's folder: what is said of files that are not as a run writes them."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.composing import settings_of
from visual_search.reading import MAX_TEXT_BYTES, DamagedFileError, read_table
from visual_search.runs.embedding_files import saved_embeddings
from visual_search.runs.finished import finished_run
from visual_search.runs.run import Run


@pytest.mark.parametrize(
    "content",
    [
        b"", b"  \n", b'{"state": "fini', b"\xff\xfe\x00\x01", b"[]", b"3", b"{}",
        b'{"state": null}', b'{"state": "done"}', b'{"state": ["finished"]}', b"[" * 100_000,
        *(b'{"state": "finished", "seconds": %s}' % odd for odd in (b'"long"', b"NaN", b"true")),
        *(b'{"state": "running", "since": %s}' % odd for odd in (b"5", b'"yesterday"')),
    ],
)  # fmt: skip
def test_an_odd_status_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    for read in (lambda run: run.state, Run.status, Run.seconds_so_far):
        with pytest.raises(DamagedFileError, match=re.escape(str(tmp_path / "status.json"))):
            read(Run(tmp_path))


def test_no_status_is_a_new_run(tmp_path: Path) -> None:
    assert Run(tmp_path).state == "new"
    assert Run(tmp_path / "gone").summary() == {}


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "status.json").mkdir()
    (tmp_path / "metrics" / "summary.json").mkdir(parents=True)
    (tmp_path / "config.yaml").mkdir()
    for read, name in (
        (Run.status, "status.json"),
        (Run.summary, "metrics/summary.json"),
        (Run.config, "config.yaml"),
    ):
        with pytest.raises(DamagedFileError, match=re.escape(str(tmp_path / name))):
            read(Run(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"model: [", b"just text", b"- a\n- b\n", b"model: \xff\xfe", b"a: \x00",
        b"[" * 10_000,
        b"model: !!python/object/apply:os.system [ls]", b"model: !mine {a: 1}", b"date: 2026-13-45",
    ],
)  # fmt: skip
def test_odd_settings_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(DamagedFileError, match=re.escape(str(tmp_path / "config.yaml"))):
        Run(tmp_path).config()


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    for name, size in (("status.json", 2**40), ("history.csv", MAX_TEXT_BYTES + 1)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)  # sparse
    with pytest.raises(DamagedFileError, match=r"1,099,511,627,776 bytes"):
        Run(tmp_path).status()
    with pytest.raises(DamagedFileError, match=r"history\.csv"):
        read_table(tmp_path / "history.csv", "a table")


def test_a_damaged_table_and_a_pipe_are_named(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for content in (b"", b"\xff\xfe\x00\x01", b'a,b\n"1,2\n'):
        path.write_bytes(content)
        with pytest.raises(DamagedFileError, match=re.escape(str(path))):
            read_table(path, "a table")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DamagedFileError, match=r"pipe\.csv"):
        read_table(tmp_path / "pipe.csv", "a table")


def test_saved_embeddings_that_are_damaged_are_named(tmp_path: Path) -> None:
    ids, array = tmp_path / "gallery.parquet", tmp_path / "gallery.npy"
    pd.DataFrame({"content_key": ["a", "b"]}).to_parquet(ids)
    np.save(array, np.zeros((3, 3), np.float32))
    longer = array.read_bytes()
    np.save(array, np.zeros((2, 3), np.float32))
    assert set(saved_embeddings([tmp_path])) == {"a", "b"}
    whole, odd = array.read_bytes(), (b"", b"\x93NUMPY", pickle.dumps([1]), b"x" * 1000)
    for content in (*odd, whole[:-8], longer):
        array.write_bytes(content)
        with pytest.raises(DamagedFileError, match=re.escape(str(array))):
            saved_embeddings([tmp_path])
    array.write_bytes(whole)
    for content in odd:
        ids.write_bytes(content)
        with pytest.raises(DamagedFileError, match=r"gallery\.parquet"):
            saved_embeddings([tmp_path])


@pytest.mark.parametrize(
    ("lack", "said"),
    [({"trainer": None}, "trainer is None"), ({"model": {"_target_": "os"}}, "_target_ is 'os'")],
)
def test_settings_that_lack_a_part_are_named(
    tmp_path: Path, lack: dict[str, object], said: str
) -> None:
    run = Run(tmp_path)
    settings = settings_of("train", "experiment=plus_layer", "data=synthetic")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "summary.json").write_text('{"k": 5}')
    run.checkpoint.parent.mkdir()
    run.checkpoint.touch()
    run.set_state("finished", seconds=1.0)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    assert finished_run(str(tmp_path)).folder == tmp_path
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | lack))
    with pytest.raises(DamagedFileError, match=rf"config\.yaml.*{said}"):
        finished_run(str(tmp_path))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings | {"seed": "many"}))
    with pytest.raises(DamagedFileError, match=r"config\.yaml.*'many'.*full_key: seed"):
        finished_run(str(tmp_path)).settings()
