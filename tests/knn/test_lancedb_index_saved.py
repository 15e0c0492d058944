"""The kind ``lancedb`` on disk: versions, late rows, writers that were killed, wrong folders."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.knn.test_exact_store import brute_force
from tests.knn.test_lancedb_index import STRUCTURES, build, drawn
from tests.knn.test_search_index import recall_of
from visual_search.knn.indexes import load_index
from visual_search.knn.lancedb_index import LanceIndex
from visual_search.knn.plan import SearchPlan
from visual_search.knn.search_index import SearchIndex
from visual_search.knn.store import ArrayStore

lancedb = pytest.importorskip("lancedb", reason="the extra 'lancedb' is not installed")
pytestmark = pytest.mark.slow

N, MORE = 600, 40
ALL = drawn(N + MORE)
QUERIES = drawn(60, seed=1)


def longer() -> ArrayStore:
    return ArrayStore([ALL[:N], ALL[N:]])


@pytest.fixture(params=STRUCTURES)
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LanceIndex:
    return build(request.param, ALL[:N], monkeypatch)


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> LanceIndex:
    return build("scanned", ALL[:N], monkeypatch)


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "latest_version_hint.json"
    }


def opened(folder: Path, plan: SearchPlan, store: ArrayStore | None = None) -> SearchIndex:
    return load_index(folder, store or ArrayStore(ALL[:N]), plan)


def found(index: SearchIndex) -> NDArray[np.int64]:
    return index.search(QUERIES, 10)[0]


def test_a_saved_index_answers_as_before(index: LanceIndex, tmp_path: Path) -> None:
    before = found(index)
    scratch = index.folder
    index.save(tmp_path / "index.lancedb")
    assert not scratch.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["index.lancedb"]
    assert "latest_version_hint.json" not in {path.name for path in tmp_path.rglob("*")}
    np.testing.assert_array_equal(found(index), before)
    again = opened(tmp_path / "index.lancedb", SearchPlan.from_json(index.plan.to_json()))
    np.testing.assert_array_equal(found(again), before)
    assert again.plan == index.plan


def test_an_index_that_is_dropped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    index = build("scanned", ALL[:N], monkeypatch)
    assert list(tmp_path.iterdir()) == [index.folder]
    del index
    assert list(tmp_path.iterdir()) == []


def test_late_rows_are_found_at_once_and_after_saving(index: LanceIndex, tmp_path: Path) -> None:
    exact = brute_force(ALL, QUERIES, 10)[0]
    assert (exact >= N).any()  # else late rows would not matter
    extended = index.extended(longer())
    assert (len(index), len(extended)) == (N, N + MORE)
    assert recall_of(found(extended), exact) >= 0.85
    assert found(index).max() < N
    np.testing.assert_array_equal(extended.search(ALL[N:], 1)[0][:, 0], np.arange(N, N + MORE))

    extended.save(tmp_path / "a")
    assert extended.plan.params["num_rows"] == N + MORE
    assert recall_of(found(opened(tmp_path / "a", extended.plan, longer())), exact) >= 0.85
    np.testing.assert_array_equal(
        opened(tmp_path / "a", extended.plan, longer()).search(ALL[N:], 1)[0][:, 0],
        np.arange(N, N + MORE),
    )


def test_a_table_that_knows_fewer_rows_than_the_store_is_completed(
    index: LanceIndex, tmp_path: Path
) -> None:
    index.save(tmp_path / "a")
    late = opened(tmp_path / "a", index.plan, longer())
    assert len(late) == N + MORE
    assert recall_of(found(late), brute_force(ALL, QUERIES, 10)[0]) >= 0.85
    allowed = np.zeros(N + MORE, dtype=np.bool_)
    allowed[N - 5 :] = True
    rows, _ = late.search(QUERIES, 10, allowed)
    np.testing.assert_array_equal(rows, brute_force(ALL, QUERIES, 10, allowed)[0])


def test_a_further_version_changes_no_file_of_an_older_one(
    index: LanceIndex, tmp_path: Path
) -> None:
    index.save(tmp_path / "a")
    old_plan, before, old_files = index.plan, found(index), files(tmp_path / "a")
    index.add_rows(longer())
    index.save(tmp_path / "a")
    assert index.plan.params["version"] > old_plan.params["version"]
    now = files(tmp_path / "a")
    assert {name: now[name] for name in old_files} == old_files
    assert len(now) > len(old_files)
    np.testing.assert_array_equal(found(opened(tmp_path / "a", old_plan)), before)
    assert (
        recall_of(
            found(opened(tmp_path / "a", index.plan, longer())), brute_force(ALL, QUERIES, 10)[0]
        )
        >= 0.85
    )


def test_a_writer_that_was_killed_is_never_seen(scanned: LanceIndex, tmp_path: Path) -> None:
    scanned.save(tmp_path / "a")
    plan, before = scanned.plan, found(scanned)
    killed = opened(tmp_path / "a", plan, ArrayStore([ALL[:N], drawn(25, seed=9)]))
    killed.save(tmp_path / "a")  # the plan with its version was never kept
    np.testing.assert_array_equal(found(opened(tmp_path / "a", plan)), before)
    data = tmp_path / "a" / "embeddings.lance" / "data"
    (data / "half.lance").write_bytes(b"half")  # nor a file that no version names

    second = opened(tmp_path / "a", plan, longer())
    second.save(tmp_path / "a")
    np.testing.assert_array_equal(found(opened(tmp_path / "a", plan)), before)
    np.testing.assert_array_equal(
        found(opened(tmp_path / "a", second.plan, longer())), brute_force(ALL, QUERIES, 10)[0]
    )


def test_saving_that_fails_leaves_nothing(
    scanned: LanceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).mkdir()
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="no space left"):
        scanned.save(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_saving_over_something_else_is_refused(scanned: LanceIndex, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(
        FileExistsError, match=r"a exists; expected no such folder, or .*where this"
    ):
        scanned.save(tmp_path / "a")


def test_a_store_that_does_not_begin_alike_is_refused(scanned: LanceIndex, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows are appended, never removed"):
        scanned.add_rows(ArrayStore(ALL[:10]))
    spoilt = ALL.copy()
    spoilt[N + 2, 0] = np.inf
    with pytest.raises(ValueError, match=f"row {N + 2} holds NaN or infinity"):
        scanned.extended(ArrayStore(spoilt))
    assert len(scanned) == N
    scanned.save(tmp_path / "a")
    with pytest.raises(ValueError, match="embeddings are others than the store's"):
        opened(tmp_path / "a", scanned.plan, ArrayStore(drawn(N, seed=5)))
    with pytest.raises(ValueError, match=f"it holds {N} rows, the store 10"):
        opened(tmp_path / "a", scanned.plan, ArrayStore(ALL[:10]))
    narrow = np.ascontiguousarray(ALL[:N, :5])
    with pytest.raises(ValueError, match="its columns are"):
        opened(tmp_path / "a", scanned.plan, ArrayStore(narrow))


def test_a_wrong_version_folder_or_table_is_refused(scanned: LanceIndex, tmp_path: Path) -> None:
    scanned.save(tmp_path / "a")
    wrong = replace(scanned.plan, params={**scanned.plan.params, "version": 77})
    with pytest.raises(ValueError, match=r"cannot be used: .*expected version 77 with 600 rows"):
        opened(tmp_path / "a", wrong)
    fewer = replace(scanned.plan, params={**scanned.plan.params, "num_rows": 500})
    with pytest.raises(ValueError, match="it holds 600 rows, or not each once"):
        opened(tmp_path / "a", fewer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty cannot be used: .*build and save it again"):
        opened(tmp_path / "empty", scanned.plan)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*: build the index"):
        opened(tmp_path / "nowhere", scanned.plan)


def test_a_damaged_table_is_refused_or_never_answers_wrongly(
    scanned: LanceIndex, tmp_path: Path
) -> None:
    scanned.save(tmp_path / "a")
    (data,) = (tmp_path / "a" / "embeddings.lance" / "data").iterdir()
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot be used: .*build and save it again"):
        opened(tmp_path / "a", scanned.plan)


def test_another_program_reads_the_table(scanned: LanceIndex, tmp_path: Path) -> None:
    scanned.save(tmp_path / "a")
    table = lancedb.connect(tmp_path / "a").open_table("embeddings")
    assert table.schema.names == ["row", "embedding"]
    assert table.count_rows() == N
