"""The kind ``lancedb`` on disk: versions, late rows, writers that were killed, wrong folders."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.knn.galleries import brute_force, recall_of
from tests.knn.test_lancedb_index import STRUCTURES, build, drawn
from visual_search.knn.indexes import load_index
from visual_search.knn.plan import SearchPlan
from visual_search.knn.search_index import SearchIndex
from visual_search.knn.store import ArrayStore

lancedb = pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
pytestmark = pytest.mark.slow

N, MORE = 600, 40
ALL = drawn(N + MORE)
SHORT, LONGER = ArrayStore(ALL[:N]), ArrayStore([ALL[:N], ALL[N:]])
QUERIES = drawn(60, seed=1)
EXACT = brute_force(ALL, QUERIES, 10)[0]  # among the longer store's


class Saved(NamedTuple):
    """A saved index: its folder, its plan, and what QUERIES find."""

    folder: Path
    plan: SearchPlan
    found: NDArray[np.int64]

    def opened(self, store: ArrayStore = SHORT, **params: int) -> SearchIndex:
        plan = replace(self.plan, params={**self.plan.params, **params})
        return load_index(self.folder, store, plan)


def found(index: SearchIndex) -> NDArray[np.int64]:
    return index.search(QUERIES, 10)[0]


@pytest.fixture(scope="module", params=STRUCTURES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    index = build(request.param, ALL[:N])
    before, scratch = found(index), index.folder
    folder = tmp_path_factory.mktemp("made") / "index.lancedb"
    index.save(folder)
    assert not scratch.exists()
    assert list(folder.parent.iterdir()) == [folder]
    assert "latest_version_hint.json" not in {path.name for path in folder.rglob("*")}
    np.testing.assert_array_equal(found(index), before)
    return Saved(folder, index.plan, before)


@pytest.fixture
def saved(made: Saved, tmp_path: Path) -> Saved:
    """A copy that may be changed, of every structure."""
    return made._replace(folder=shutil.copytree(made.folder, tmp_path / "a"))


@pytest.fixture
def scanned(tmp_path: Path) -> Saved:
    index = build("scanned", ALL[:N])
    index.save(tmp_path / "a")
    return Saved(tmp_path / "a", index.plan, found(index))


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "latest_version_hint.json"
    }


def assert_finds_all(index: SearchIndex) -> None:
    """The late rows are compared one by one: each finds itself."""
    assert len(index) == N + MORE
    assert recall_of(found(index), EXACT) >= 0.85
    own = index.search(ALL[N:], 1)[0][:, 0]
    np.testing.assert_array_equal(own, np.arange(N, N + MORE))


def test_a_saved_index_answers_as_before(saved: Saved) -> None:
    plan = SearchPlan.from_json(saved.plan.to_json())
    again = load_index(saved.folder, SHORT, plan)
    np.testing.assert_array_equal(found(again), saved.found)
    assert again.plan == saved.plan
    table = lancedb.connect(saved.folder).open_table("embeddings")  # as another program reads it
    assert (table.schema.names, table.count_rows()) == (["row", "embedding"], N)


def test_an_index_that_is_dropped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    index = build("scanned", ALL[:N])
    assert list(tmp_path.iterdir()) == [index.folder]
    extended = index.extended(LONGER)  # uses the same folder
    del index
    assert_finds_all(extended)
    del extended
    assert list(tmp_path.iterdir()) == []


def test_late_rows_are_found_at_once_and_after_saving(saved: Saved, tmp_path: Path) -> None:
    assert (EXACT >= N).any()  # else late rows would not matter
    index = saved.opened()
    extended = index.extended(LONGER)
    assert_finds_all(extended)
    assert len(index) == N
    assert found(index).max() < N
    extended.save(tmp_path / "b")
    assert extended.plan.params["num_rows"] == N + MORE
    assert_finds_all(load_index(tmp_path / "b", LONGER, extended.plan))


def test_a_table_that_knows_fewer_rows_than_the_store_is_completed(saved: Saved) -> None:
    late = saved.opened(LONGER)
    assert_finds_all(late)
    allowed = np.arange(N + MORE) >= N - 5
    rows, _ = late.search(QUERIES, 10, allowed)
    np.testing.assert_array_equal(rows, brute_force(ALL, QUERIES, 10, allowed)[0])


def test_a_further_version_changes_no_file_of_an_older_one(saved: Saved) -> None:
    old_files, index = files(saved.folder), saved.opened()
    index.add_rows(LONGER)
    index.save(saved.folder)
    assert index.plan.params["version"] > saved.plan.params["version"]
    now = files(saved.folder)
    assert {name: now[name] for name in old_files} == old_files
    assert len(now) > len(old_files)
    np.testing.assert_array_equal(found(saved.opened()), saved.found)
    assert_finds_all(load_index(saved.folder, LONGER, index.plan))


def test_a_writer_that_was_killed_is_never_seen(scanned: Saved) -> None:
    killed = scanned.opened(ArrayStore([ALL[:N], drawn(25, seed=9)]))
    killed.save(scanned.folder)  # the plan with its version was never kept
    np.testing.assert_array_equal(found(scanned.opened()), scanned.found)
    data = scanned.folder / "embeddings.lance" / "data"
    (data / "half.lance").write_bytes(b"half")  # nor a file that no version names

    second = scanned.opened(LONGER)
    second.save(scanned.folder)
    np.testing.assert_array_equal(found(scanned.opened()), scanned.found)
    np.testing.assert_array_equal(found(load_index(scanned.folder, LONGER, second.plan)), EXACT)


def test_saving_that_fails_or_over_something_else_leaves_nothing(
    scanned: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).mkdir()
        raise OSError("no space left")

    index, parent = scanned.opened(), scanned.folder.parent
    (parent / "b").mkdir()
    with pytest.raises(FileExistsError, match=r"b exists; expected no such folder, or .*where"):
        index.save(parent / "b")
    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="no space left"):
        index.save(parent / "c")
    assert sorted(path.name for path in parent.iterdir()) == ["a", "b"]


def test_a_store_that_does_not_begin_alike_is_refused(scanned: Saved) -> None:
    index = scanned.opened()
    with pytest.raises(ValueError, match="rows are appended, never removed"):
        index.add_rows(ArrayStore(ALL[:10]))
    spoilt = ALL.copy()
    spoilt[N + 2, 0] = np.inf
    with pytest.raises(ValueError, match=f"row {N + 2} holds NaN or infinity"):
        index.extended(ArrayStore(spoilt))
    assert len(index) == N
    narrow = np.ascontiguousarray(ALL[:N, :5])
    for embeddings, message in (
        (drawn(N, seed=5), "embeddings are others than the store's"),
        (ALL[:10], f"it holds {N} rows, the store 10"),
        (narrow, "its columns are"),
    ):
        with pytest.raises(ValueError, match=message):
            scanned.opened(ArrayStore(embeddings))


def test_a_wrong_version_folder_or_table_is_refused(scanned: Saved, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be used: .*expected version 77 with 600 rows"):
        scanned.opened(version=77)
    with pytest.raises(ValueError, match="it holds 600 rows, or not each once"):
        scanned.opened(num_rows=500)
    (tmp_path / "empty").mkdir()
    unusable = r"cannot be used: .*build and save it again"
    with pytest.raises(ValueError, match=unusable):
        scanned._replace(folder=tmp_path / "empty").opened()
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*: build the index"):
        scanned._replace(folder=tmp_path / "nowhere").opened()
    (data,) = (scanned.folder / "embeddings.lance" / "data").iterdir()
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ValueError, match=unusable):
        scanned.opened()
