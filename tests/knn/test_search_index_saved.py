from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.knn.test_search_index import (
    APPROXIMATE,
    DIM,
    GALLERY,
    OURS,
    QUERIES,
    assert_sound,
    brute_force,
    clustered,
    recall_of,
)
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
def files(indexes, tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("indexes")
    for kind in APPROXIMATE:
        indexes[kind].save(folder / f"{kind}.faiss")
    return {kind: folder / f"{kind}.faiss" for kind in APPROXIMATE}


def assert_same_answers(index: SearchIndex, other: SearchIndex) -> None:
    for allowed in (None, np.arange(len(index)) % 3 == 0):
        for found, expected in zip(
            index.search(QUERIES, 10, allowed), other.search(QUERIES, 10, allowed), strict=True
        ):
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
        size = path.stat().st_size
        assert index.num_bytes == pytest.approx(size, rel=0.25)  # but for FAISS's small tables


@pytest.mark.parametrize("kind", OURS)
def test_rows_that_are_added_are_found(kind, indexes, files):
    added = build_index(ArrayStore(GALLERY), kind)
    added.search(QUERIES, 3, np.arange(1500) % 3 == 0)  # what it keeps of its rows must not age
    added.add_rows(LONGER)
    extended = indexes[kind].extended(LONGER)
    loaded = load_index(files.get(kind), LONGER, indexes[kind].plan)
    assert len(added) == len(extended) == len(loaded) == 1800
    assert len(indexes[kind]) == 1500
    assert_same_answers(added, extended)
    assert_same_answers(added, loaded)
    rows, squared = added.search(LATER[:50], 10)
    assert_sound(rows, squared, LATER[:50], ALL, 10)
    np.testing.assert_array_equal(rows[:, 0], np.arange(1500, 1550))  # each finds itself
    expected, _ = brute_force(ALL, LATER[:50], 10)
    assert recall_of(rows, expected) >= 0.93
    before, _ = indexes[kind].search(LATER[:50], 10)
    assert before.max() < 1500  # the shorter one is as it was


@pytest.mark.parametrize("kind", OURS)
def test_a_store_that_does_not_continue_the_known_rows_is_refused(indexes, kind):
    index = indexes[kind]
    bad = LATER.copy()
    bad[7, 0] = np.inf
    stores = {
        "holds 1499 embedding.*knows 1500": ArrayStore(GALLERY[:1499]),
        "of 8 numbers": ArrayStore(np.ascontiguousarray(GALLERY[:, :8])),
        "gallery embedding row 1507 holds NaN": ArrayStore([GALLERY, bad]),
    }
    for message, store in stores.items():
        for method in (index.add_rows, index.extended):
            with pytest.raises(ValueError, match=message):
                method(store)
    assert len(index) == 1500
    assert_same_answers(index, build_index(ArrayStore(GALLERY), kind))


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_damaged_files_are_refused(indexes, files, kind, tmp_path):
    plan, store = indexes[kind].plan, indexes[kind].store
    whole = files[kind].read_bytes()
    path = tmp_path / "index.faiss"
    for length in (0, 3, 90, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be read" if length > 3 else "begins with"):
            load_index(path, store, plan)
    path.write_bytes(b"PAR1" + whole[4:])
    with pytest.raises(ValueError, match=f"begins with b'PAR1'; expected the {kind} index"):
        load_index(path, store, plan)
    with pytest.raises(FileNotFoundError, match=r"there is no search index .*missing.faiss"):
        load_index(tmp_path / "missing.faiss", store, plan)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_foreign_files_are_refused(indexes, files, kind):
    plan, store = indexes[kind].plan, indexes[kind].store
    other_kind = APPROXIMATE[APPROXIMATE.index(kind) - 1]
    with pytest.raises(ValueError, match="begins with"):
        load_index(files[other_kind], store, plan)
    structure = {"hnsw": "num_links", "ivf": "num_lists", "ivfpq": "num_parts"}[kind]
    params = {**plan.params, structure: plan.params[structure] + 1}
    with pytest.raises(ValueError, match=f"holds .*'{structure}'.*, the plan says"):
        load_index(files[kind], store, dataclasses.replace(plan, params=params))
    with pytest.raises(ValueError, match="holds 1500 rows, the store 1499"):
        load_index(files[kind], ArrayStore(GALLERY[:1499]), plan)
    wide = ArrayStore(np.concatenate([GALLERY, GALLERY], axis=1))
    with pytest.raises(ValueError, match=f"'dim': {DIM}, .*'dim': {2 * DIM}"):
        load_index(files[kind], wide, plan)
    others = ArrayStore(GALLERY[::-1])
    with pytest.raises(ValueError, match=r"recognises .* made of other embeddings"):
        load_index(files[kind], others, plan)


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_a_file_that_rounds_otherwise_than_its_plan_is_refused(indexes, files, kind):
    plan = indexes[kind].plan
    assert plan.params["code_bits"] == 32
    params = {**plan.params, "code_bits": 8}
    with pytest.raises(ValueError, match=r"Flat.*, the plan says .*(SQ|ScalarQuantizer)"):
        load_index(files[kind], indexes[kind].store, dataclasses.replace(plan, params=params))


def test_a_file_with_other_row_numbers_is_refused(indexes, tmp_path):
    faiss = load_faiss()
    index = faiss.clone_index(indexes["ivf"]._index)
    index.add_with_ids(GALLERY[:1], np.array([7]))  # a second row 7, and none 1500
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(ValueError, match="does not hold the rows 0 to 1500 once each"):
        load_index(tmp_path / "index.faiss", LONGER, indexes["ivf"].plan)


def test_a_path_is_named_where_there_is_a_file_and_only_there(indexes, files):
    with pytest.raises(ValueError, match="path is None; expected the file of the ivf index"):
        load_index(None, indexes["ivf"].store, indexes["ivf"].plan)
    with pytest.raises(ValueError, match="a flat index has no file, but"):
        load_index(files["ivf"], indexes["flat"].store, indexes["flat"].plan)


@pytest.mark.parametrize(("kind", "most"), [("hnsw", 320), ("ivf", 30), ("ivfpq", 16)])
def test_large_stores_are_held_in_short_codes(kind, most, tmp_path):
    gallery = clustered(10_000, seed=3)
    index = build_index(ArrayStore(gallery), kind)
    assert index.num_bytes / 10_000 < most  # 64 bytes as given, and links or ids
    if kind != "ivfpq":
        assert index.plan.params["code_bits"] == 8
    index.save(tmp_path / "index.faiss")
    loaded = load_index(tmp_path / "index.faiss", index.store, index.plan)
    rows, squared = loaded.search(QUERIES, 10)
    assert_sound(rows, squared, QUERIES, gallery, 10)
    assert recall_of(rows, brute_force(gallery, QUERIES, 10)[0]) >= 0.93
