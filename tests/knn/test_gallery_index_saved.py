from __future__ import annotations

import json
from dataclasses import replace

import faiss
import numpy as np
import pandas as pd
import pytest

from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.knn.manifest import (
    INDEX_FILE,
    ITEMS_FILE,
    MANIFEST_FILE,
    read_manifest,
    write_manifest,
)
from visual_search.reading import record_file

FILES = (INDEX_FILE, ITEMS_FILE, MANIFEST_FILE)
IDS = ["007", "NA", "ünï", "=1+1", *(f"item-{n}" for n in range(36))]


def embeddings(offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((40, 6)) + offset).astype(np.float32)


def an_index(offset: float = 0.0) -> EmbeddingIndex:
    columns = {"category": ["hat", "NA"] * 20}
    return EmbeddingIndex.build(embeddings(offset), IDS, columns=columns)


@pytest.fixture
def folder(tmp_path):
    an_index().save(tmp_path / "index", model_hash="m1", preprocessing_hash="p1")
    return tmp_path / "index"


def assert_refused(folder, message, error=ValueError, **expected):
    with pytest.raises(error, match=message):
        EmbeddingIndex.load(folder, **expected)


def rewrite_manifest(folder, **changes):
    """What a careful forger would do: the checksums fit again."""
    files = {name: record_file(folder / name) for name in (INDEX_FILE, ITEMS_FILE)}
    write_manifest(replace(read_manifest(folder), **{"files": files, **changes}), folder)


@pytest.mark.parametrize("offset", [0.0, 500.0])
def test_round_trip_gives_the_same_answers_ids_and_columns(tmp_path, offset):
    gallery, index = embeddings(offset), an_index(offset)
    manifest = index.save(tmp_path, model_hash="m1", preprocessing_hash="p1")
    loaded = EmbeddingIndex.load(
        tmp_path,
        expected_model_hash="m1",
        expected_preprocessing_hash="p1",
        expected_dim=6,
        expected_count=40,
    )
    assert loaded.manifest == manifest == index.manifest
    pd.testing.assert_frame_equal(loaded.items, index.items)
    assert loaded.item_ids.tolist() == IDS
    np.testing.assert_array_equal(loaded.embeddings, gallery)
    expected, result = index.search(gallery, 5, IDS), loaded.search(gallery, 5, IDS)
    assert result.item_ids.tolist() == expected.item_ids.tolist()
    assert result.squared_distances.tolist() == expected.squared_distances.tolist()
    # Centring is the index's own business: other programs read the file, too.
    flat = faiss.read_index(str(tmp_path / INDEX_FILE))
    np.testing.assert_array_equal(flat.reconstruct_n(0, 40), gallery)


def test_the_folder_holds_three_files_and_says_what_they_cost(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    manifest = EmbeddingIndex.load(folder).manifest  # nothing expected: anything sound
    on_disk = {name: (folder / name).stat().st_size for name in (INDEX_FILE, ITEMS_FILE)}
    assert manifest.num_bytes == sum(on_disk.values())
    assert manifest.bytes_per_item == on_disk[INDEX_FILE] / 40
    assert 24 <= manifest.bytes_per_item < 24 + 100 / 40  # 4 D, and FAISS's header
    written = json.loads((folder / MANIFEST_FILE).read_text())
    assert set(written["versions"]) == {"faiss", "numpy", "pandas", "pyarrow"}
    assert (written["metric"], written["dim"], written["count"]) == ("l2", 6, 40)


def test_saving_again_replaces_the_folder(folder):
    EmbeddingIndex.build(embeddings(1)[:9], IDS[:9]).save(folder)
    assert len(EmbeddingIndex.load(folder)) == 9
    assert_refused(folder, "model_hash None, expected 'm1'", expected_model_hash="m1")


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"expected_model_hash": "m2"}, r"has model_hash 'm1', expected 'm2'; .*load the model"),
        ({"expected_preprocessing_hash": "p2"}, r"has preprocessing_hash 'p1', expected 'p2'"),
        ({"expected_dim": 7}, r"has dim 6, expected 7"),
        ({"expected_count": 41}, r"has count 40, expected 41"),
    ],
)
def test_an_index_of_something_else_is_refused(folder, expected, message):
    assert_refused(folder, message, **expected)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_or_folder_is_named(folder, name):
    (folder / name).unlink()
    assert_refused(folder, rf"{name} is missing", FileNotFoundError)
    assert_refused(folder / "nowhere", "nowhere", FileNotFoundError)


@pytest.mark.parametrize("name", FILES)
def test_every_tampered_file_is_refused(folder, name):
    data = (folder / name).read_bytes()
    middle = len(data) // 2
    changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    for tampered in (changed, data[:-9], data + b"x", b""):
        (folder / name).write_bytes(tampered)
        assert_refused(folder, "build and save the index again")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no object"),
        ("{}", "format is 'None'"),
        ('{"sha256": "0", "format": "other/1"}', "format is 'other/1'"),
        ('{"sha256": "0", "format": "visual_search.embedding_index/1"}', "its own checksum"),
    ],
)
def test_another_json_is_refused(folder, text, message):
    (folder / MANIFEST_FILE).write_text(text)
    assert_refused(folder, message)


def test_an_edited_hash_or_another_metric_is_noticed(folder):
    text = (folder / MANIFEST_FILE).read_text()
    (folder / MANIFEST_FILE).write_text(text.replace('"m1"', '"m2"'))
    assert_refused(folder, "does not fit its own checksum", expected_model_hash="m2")
    (folder / MANIFEST_FILE).write_text(text)
    rewrite_manifest(folder, metric="inner_product")
    assert_refused(folder, "metric 'inner_product', expected 'l2'")


def flat(values: np.ndarray, kind=faiss.IndexFlatL2) -> bytes:
    index = kind(values.shape[1])
    index.add(np.ascontiguousarray(values))
    return faiss.serialize_index(index).tobytes()


WITH_NAN = embeddings()
WITH_NAN[3, 3] = np.nan


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (flat(embeddings()[:39]), "holds 39 embeddings of 6"),
        (flat(embeddings()[:, :5]), "holds 40 embeddings of 5"),
        (flat(embeddings(), faiss.IndexFlatIP), "holds a IndexFlatIP, not an IndexFlatL2"),
        (flat(WITH_NAN), r"row 3 \('=1\+1'\) holds NaN"),
        (b"IxF2 but no more", "cannot be used"),
    ],
)
def test_another_index_is_refused_even_with_right_checksums(folder, index, message):
    (folder / INDEX_FILE).write_bytes(index)
    rewrite_manifest(folder)
    assert_refused(folder, message)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"item_id": IDS[:39]}, "item_id is 39 value"),
        ({"item_id": [*IDS[:39], IDS[0]]}, "item id '007' stands 2 times"),
        ({"item_id": [*IDS[:39], None]}, "item_id, row 39"),
        ({"item_id": range(40)}, "expected text"),
        ({"id": IDS}, "'item_id'"),
    ],
)
def test_another_item_table_is_refused_even_with_right_checksums(folder, items, message):
    pd.DataFrame(items).to_parquet(folder / ITEMS_FILE)
    rewrite_manifest(folder)
    assert_refused(folder, message)
