from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.knn.galleries import DIM, GALLERY, QUERIES, brute_force, clustered, recall_of
from tests.knn.test_search_index import APPROXIMATE, OURS, assert_sound
from visual_search.knn import faiss_parts
from visual_search.knn.engine import load_faiss
from visual_search.knn.indexes import build_index, load_index
from visual_search.knn.plan import SearchPlan
from visual_search.knn.search_index import SearchIndex
from visual_search.knn.store import ArrayStore

LATER = clustered(300, seed=7)
LONGER = ArrayStore([GALLERY, LATER])
ALL = np.concatenate([GALLERY, LATER])

pytestmark = pytest.mark.usefixtures("_always_approximate")


@pytest.fixture(scope="module")
def files(indexes, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("indexes")
    for kind in APPROXIMATE:
        indexes[kind].save(folder / f"{kind}.faiss")
    return {kind: folder / f"{kind}.faiss" for kind in APPROXIMATE}


def assert_same_answers(index: SearchIndex, other: SearchIndex) -> None:
    for allowed in (None, np.arange(len(index)) % 3 == 0):
        answers = zip(
            index.search(QUERIES, 10, allowed), other.search(QUERIES, 10, allowed), strict=True
        )
        for found, expected in answers:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", OURS)
def test_saved_and_loaded_answers_the_same(indexes, kind, tmp_path):
    index, path = indexes[kind], tmp_path / "index.faiss"
    index.save(path)
    assert path.exists() == index.needs_file == (kind != "flat")
    assert [file.name for file in tmp_path.iterdir()] == ["index.faiss"] * index.needs_file
    plan = SearchPlan.from_json(index.plan.to_json())
    loaded = load_index(path if index.needs_file else None, index.store, plan, num_threads=1)
    assert loaded.plan == index.plan
    assert loaded.num_bytes == index.num_bytes
    assert_same_answers(loaded, index)
    if index.needs_file:
        assert 0 < path.stat().st_size - index.num_bytes < len(index)  # FAISS's small tables


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_index_of_small_numbers_is_recognised_by_its_own_rows(kind, tmp_path):
    """A row is compared with what the index gives for it: at no distance, whatever the scale."""
    index = build_index(ArrayStore(GALLERY[:1000] * np.float32(1e-3)), kind)
    index.save(tmp_path / "index.faiss")
    assert_same_answers(load_index(tmp_path / "index.faiss", index.store, index.plan), index)


BYTES_A_ROW = {"flat": 0, "ivf": 4 * DIM + 8, "ivfpq": 2 + 8}  # its code and its number


@pytest.mark.parametrize("kind", OURS)
def test_rows_that_are_added_are_found(kind, indexes, files):
    added = build_index(ArrayStore(GALLERY), kind)
    added.search(QUERIES, 3, np.arange(1500) % 3 == 0)  # what it keeps of its rows must not age
    added.add_rows(LONGER)
    extended = indexes[kind].extended(LONGER)
    loaded = load_index(files.get(kind), LONGER, indexes[kind].plan)
    assert len(added) == len(extended) == len(loaded) == 1800
    assert len(indexes[kind]) == 1500
    if kind in BYTES_A_ROW:
        more = BYTES_A_ROW[kind] * len(LATER)
        assert added.num_bytes == loaded.num_bytes == indexes[kind].num_bytes + more
    assert_same_answers(added, extended)
    assert_same_answers(added, loaded)
    rows, squared = added.search(LATER[:50], 10)
    assert_sound(rows, squared, LATER[:50], ALL, 10)
    np.testing.assert_array_equal(rows[:, 0], np.arange(1500, 1550))  # each finds itself
    expected, _ = brute_force(ALL, LATER[:50], 10)
    assert recall_of(rows, expected) >= 0.93
    before, _ = indexes[kind].search(LATER[:50], 10)
    assert before.max() < 1500  # the shorter one is as it was


WITH_INFINITY = LATER.copy()
WITH_INFINITY[7, 0] = np.inf


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(
    ("store", "message"),
    [
        (ArrayStore(GALLERY[:1499]), "holds 1499 embedding.*knows 1500"),
        (ArrayStore(np.ascontiguousarray(GALLERY[:, :8])), "of 8 numbers"),
        (ArrayStore([GALLERY, WITH_INFINITY]), "gallery embedding row 1507 holds NaN"),
    ],
)
def test_a_store_that_does_not_continue_the_known_rows_is_refused(indexes, kind, store, message):
    index = indexes[kind]
    before = index.search(QUERIES, 10)[0]
    for method in (index.add_rows, index.extended):
        with pytest.raises(ValueError, match=message):
            method(store)
    assert len(index) == 1500
    np.testing.assert_array_equal(index.search(QUERIES, 10)[0], before)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_damaged_and_foreign_files_are_refused(indexes, files, kind, tmp_path):
    plan, store, path = indexes[kind].plan, indexes[kind].store, tmp_path / "index.faiss"

    def assert_refused(message, file=files[kind], store=store, error=ValueError, **params):
        other = dataclasses.replace(plan, params={**plan.params, **params})
        with pytest.raises(error, match=message):
            load_index(file, store, other)

    whole = files[kind].read_bytes()
    for length in (0, 3, 90, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert_refused("cannot be read" if length > 3 else "begins with", path)
    path.write_bytes(b"PAR1" + whole[4:])
    assert_refused(f"begins with b'PAR1'; expected the {kind} index", path)
    missing = tmp_path / "missing.faiss"
    assert_refused("there is no search index .*missing.faiss", missing, error=FileNotFoundError)

    assert_refused("begins with", files[APPROXIMATE[APPROXIMATE.index(kind) - 1]])
    structure = {"hnsw": "num_links", "ivf": "num_lists", "ivfpq": "num_parts"}[kind]
    message = f"holds .*'{structure}'.*, the plan says"
    assert_refused(message, **{structure: plan.params[structure] + 1})
    assert_refused("holds 1500 rows, the store 1499", store=ArrayStore(GALLERY[:1499]))
    wide = ArrayStore(np.concatenate([GALLERY, GALLERY], axis=1))
    assert_refused(f"'dim': {DIM}, .*'dim': {2 * DIM}", store=wide)
    assert_refused("recognises .* made of other embeddings", store=ArrayStore(GALLERY[::-1]))
    if kind != "ivfpq":  # it rounds otherwise than its plan says
        assert plan.params["code_bits"] == 32
        assert_refused(r"Flat.*, the plan says .*(SQ|ScalarQuantizer)", code_bits=8)


def test_other_row_numbers_and_a_path_that_does_not_belong_are_refused(indexes, files, tmp_path):
    ivf, flat, faiss = indexes["ivf"], indexes["flat"], load_faiss()
    index = faiss.clone_index(ivf._index)
    index.add_with_ids(GALLERY[:1], np.array([7]))  # a second row 7, and none 1500
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(ValueError, match="does not hold the rows 0 to 1500 once each"):
        load_index(tmp_path / "index.faiss", LONGER, ivf.plan)
    with pytest.raises(ValueError, match="path is None; expected the file of the ivf index"):
        load_index(None, ivf.store, ivf.plan)
    with pytest.raises(ValueError, match="a flat index has no file, but"):
        load_index(files["ivf"], flat.store, flat.plan)


@pytest.mark.parametrize(("kind", "most"), [("hnsw", 320), ("ivf", 30), ("ivfpq", 24)])
def test_large_stores_are_held_in_short_codes(kind, most, tmp_path, monkeypatch):
    monkeypatch.setattr(faiss_parts, "MIN_ROUNDED_ROWS", 2000)
    gallery = clustered(2000, seed=3)
    index = build_index(ArrayStore(gallery), kind)
    assert index.num_bytes / 2000 < most  # 64 bytes as given, and links or ids
    assert index.plan.params.get("code_bits") == (None if kind == "ivfpq" else 8)
    index.save(tmp_path / "index.faiss")
    loaded = load_index(tmp_path / "index.faiss", index.store, index.plan)
    rows, squared = loaded.search(QUERIES, 10)
    assert_sound(rows, squared, QUERIES, gallery, 10)
    assert recall_of(rows, brute_force(gallery, QUERIES, 10)[0]) >= 0.93
