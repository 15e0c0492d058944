"""Damaged, foreign, mismatched and hostile bundles: refused with the reason."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bundle.conftest import IDS
from tests.bundle.small_bundles import (
    change_manifest,
    create,
    encoder_file,
    files_in,
    items_of,
    replace_file,
)
from visual_search import reading
from visual_search.bundle.arrow import text_array
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, read_manifest
from visual_search.bundle.segments import text_table
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, (1, 0), allow_pickle=allow_pickle)
    return file.getvalue()


def parquet(table: Any) -> bytes:
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def segment_of(folder: Path) -> str:
    return read_manifest(folder)[0].segments[0].folder


@pytest.fixture
def full_folder(tmp_path: Path) -> Path:
    """A bundle that has every kind of file: an index of its own and removed rows."""
    folder = create(tmp_path / "bundle", IDS, kind="hnsw", files={"note.md": "Hello"})
    remove_items(folder, ["item-4"], tidy=False)
    return folder


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "longer"])
def test_every_damaged_file_is_found(full_folder: Path, damage: str) -> None:
    names = sorted(read_manifest(full_folder)[0].files)
    assert len(names) == 8
    assert {"encoder.onnx", "note.md"} < set(names)
    for name in names:
        path = full_folder / name
        data = path.read_bytes()
        changed = bytearray(data)
        changed[len(data) // 2] ^= 1
        if damage == "missing":
            path.unlink()
            with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
                Bundle.open(full_folder)
        else:
            wrong = {"changed": bytes(changed), "cut": data[:-1], "longer": data + b"\0"}[damage]
            path.write_bytes(wrong)
            reason = "has SHA-256" if damage == "changed" else "bytes, expected"
            with pytest.raises(ValueError, match=f"{path.name} {reason}|{path.name} has .* bytes"):
                Bundle.open(full_folder)
        if damage in ("cut", "longer"):
            with pytest.raises(ValueError, match=r"bytes, expected .* it was cut or"):
                Bundle.open(full_folder, verify="sizes")
        path.write_bytes(data)
    Bundle.open(full_folder)


def test_a_writer_does_not_copy_damage_under_a_new_hash(full_folder: Path) -> None:
    path = full_folder / segment_of(full_folder) / "embeddings.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    before = files_in(full_folder)
    with pytest.raises(ValueError, match=r"embeddings\.npy has SHA-256"):
        rebuild_bundle(full_folder)
    assert files_in(full_folder) == before


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[1]", "it holds no object"),
        ("{}", "its format is 'None'"),
        ("[" * 100_000, "cannot be used"),
        ('{"format": "visual_search.embedding_index/1"}', "embedding_index/1', not"),
        ('{"format": "visual_search.bundle/2"}', "newer than .*; update visual-search"),
        ('{"format": "visual_search.bundle/1"}', "does not fit its own checksum"),
    ],
)
def test_another_format_is_refused(bundle_folder: Path, text: str, reason: str) -> None:
    (bundle_folder / MANIFEST_FILE).write_text(text)
    with pytest.raises(ValueError, match=reason):
        Bundle.open(bundle_folder)


def test_a_changed_manifest_is_refused(bundle_folder: Path) -> None:
    path = bundle_folder / MANIFEST_FILE
    path.write_text(path.read_text().replace("0.5", "0.9"))
    with pytest.raises(ValueError, match="does not fit its own checksum"):
        Bundle.open(bundle_folder)


def test_a_huge_manifest_is_not_read(bundle_folder: Path) -> None:
    with (bundle_folder / MANIFEST_FILE).open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    with pytest.raises(ValueError, match="has more than 33,554,432 bytes"):
        Bundle.open(bundle_folder)


def test_no_bundle_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"no bundle\.json in .*check the path"):
            Bundle.open(folder)
        with pytest.raises(FileNotFoundError, match=r"no bundle\.json"):
            remove_items(folder, ["a"])
    assert not list(tmp_path.iterdir())  # no lock file in a folder that is no bundle


def set_to(*keys: str | int, value: Any) -> Any:
    def change(content: dict[str, Any]) -> None:
        at: Any = content
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_to("num_items", value=13), "counts 13 item"),
        (set_to("num_removed", value=1), "counts 12 item.* and 1 removed"),
        (set_to("segments", 0, "num_rows", value=13), "segments have 13 row"),
        (set_to("segments", 0, "num_rows", value=-1), "expected an integer of 0"),
        (set_to("segments", 0, "num_rows", value=2**40), "expected an integer of 0"),
        (set_to("segments", value=[]), "it has no segment"),
        (set_to("segments", 0, "folder", value=3), r"segments\[0\].folder is 3, expected text"),
        (set_to("index", "num_rows", value=13), "its index knows 13 row"),
        (set_to("index", "made_by", value="0" * 64), "were made by the encoder '000000000000'"),
        (set_to("index", "plan", value=3), "plan is 3, expected an object"),
        (set_to("index", "plan", value={}), "a search plan has the fields"),
        (set_to("index", "plan", "kind", value="hnsw"), "the parameters of hnsw"),
        (set_to("index", "file", value="index/gone.faiss"), "needs the file 'index/gone.faiss'"),
        (set_to("index", "file", value="note.md"), "a flat index has no file"),
        (set_to("encoder", "sha256", value="1" * 64), "holds the encoder '111111111111'"),
        (set_to("encoder", "file", value="gone.onnx"), "needs the file 'gone.onnx'"),
        (set_to("encoder", "embedding_dim", value=5), "expected float32 .12, 5."),
        (set_to("encoder", "embedding_dim", value=0), "of width 0"),
        (set_to("encoder", "embedding_dim", value=True), "embedding_dim is True"),
        (set_to("columns", value=["category"]), None),
        (set_to("columns", value=["colour", "category"]), "'category' stands first"),
        (set_to("columns", value=["category", "colour", "size"]), "item table .* size"),
        (set_to("columns", value=["category", 3]), r"columns\[1\] is 3"),
        (set_to("removed", value="note.md"), r"removes 0 row\(s\) by 'note.md'"),
        (set_to("surprise", value=1), "unexpected keyword argument 'surprise'"),
        (set_to("files", value={}), "needs the file 'encoder.onnx'"),
        (set_to("files", value=[]), "cannot be used"),
        (set_to("generation", value="1"), "generation is '1'"),
        (set_to("retired", value=[{"file": "a", "since": "x"}]), "has no time"),
    ],
)
def test_what_does_not_fit_is_refused(bundle_folder: Path, change: Any, reason: str | None) -> None:
    change_manifest(bundle_folder, change)
    if reason is None:  # a bundle may show less than its tables hold
        assert Bundle.open(bundle_folder).columns == ("category",)
        return
    with pytest.raises(ValueError, match=reason):
        Bundle.open(bundle_folder)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/hostname",
        "a/../../secret",
        "a\\..\\b",
        "C:/x",
        ".lock",
        "a//b",
        "",
        "a\0b",
    ],
)
def test_a_path_out_of_the_folder_is_refused(bundle_folder: Path, name: str) -> None:
    (bundle_folder.parent / "secret").write_bytes(b"x")
    record = {"sha256": "0" * 64, "num_bytes": 1}
    change_manifest(bundle_folder, lambda content: content["files"].update({name: record}))
    with pytest.raises(ValueError, match="may lead out of the bundle's folder"):
        Bundle.open(bundle_folder)


def test_a_segment_out_of_the_folder_is_refused(bundle_folder: Path) -> None:
    change_manifest(bundle_folder, set_to("segments", 0, "folder", value="../other"))
    with pytest.raises(ValueError, match=r"needs the file '\.\./other/items"):
        Bundle.open(bundle_folder)


@pytest.mark.parametrize("linked", ["note.md", "segments"])
def test_a_link_out_of_the_folder_is_refused(bundle_folder: Path, linked: str) -> None:
    outside = bundle_folder.parent / "outside"
    (bundle_folder / linked).rename(outside)
    (bundle_folder / linked).symlink_to(outside)
    with pytest.raises(ValueError, match="is a link that leads out of the bundle"):
        Bundle.open(bundle_folder)


@pytest.mark.parametrize("linked", ["segments", "index", "removed", ".lock"])
def test_a_writer_follows_no_link(bundle_folder: Path, linked: str) -> None:
    place, outside = bundle_folder / linked, bundle_folder.parent / "outside"
    if place.is_dir():
        place.rename(outside)
    else:
        place.unlink(missing_ok=True)
        outside.mkdir()
    (outside / "mine").write_text("mine")
    place.symlink_to(outside / "mine" if linked == ".lock" else outside)
    before = files_in(outside)
    with pytest.raises(ValueError, match=f"{linked} is a link"):
        add_items(bundle_folder, items_of(["x"]))
    with pytest.raises(ValueError, match=f"{linked} is a link"):
        rebuild_bundle(bundle_folder)
    assert files_in(outside) == before
    assert (outside / "mine").read_text() == "mine"


def test_a_folder_or_pipe_in_the_place_of_a_file_is_refused(bundle_folder: Path) -> None:
    import os

    (bundle_folder / "note.md").unlink()
    os.mkfifo(bundle_folder / "note.md")
    with pytest.raises(FileNotFoundError, match="missing, or no regular file"):
        Bundle.open(bundle_folder)


def test_what_has_another_size_is_not_hashed(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    record_file = reading.record_file

    def note(path: Path) -> Any:
        hashed.append(path.name)
        return record_file(path)

    monkeypatch.setattr(reading, "record_file", note)
    (bundle_folder / "note.md").write_text("Hello, and much more")
    with pytest.raises(ValueError, match=r"note\.md has 20 bytes, expected 5"):
        Bundle.open(bundle_folder)
    assert "note.md" not in hashed
    assert "encoder.onnx" in hashed  # those before it were


def test_nobody_waits_at_a_pipe_in_the_place_of_the_manifest(bundle_folder: Path) -> None:
    import os

    (bundle_folder / MANIFEST_FILE).unlink()
    os.mkfifo(bundle_folder / MANIFEST_FILE)
    with pytest.raises(ValueError, match=rf"{MANIFEST_FILE} is no file"):
        Bundle.open(bundle_folder)


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("import builtins; builtins.exploded = True",))


@pytest.mark.parametrize("name", ["embeddings.npy", "thumbnails.npy"])
@pytest.mark.parametrize("kind", ["objects", "pickle", "archive"])
def test_nothing_in_a_bundle_runs_code(bundle_folder: Path, name: str, kind: str) -> None:
    import builtins

    archive = io.BytesIO()
    np.savez(archive, a=np.array([Bomb()], dtype=object), allow_pickle=True)
    data = {
        "objects": npy(np.array([Bomb()] * 12, dtype=object), allow_pickle=True),
        "pickle": pickle.dumps(Bomb()),
        "archive": archive.getvalue(),
    }[kind]
    replace_file(bundle_folder, f"{segment_of(bundle_folder)}/{name}", data)
    with pytest.raises(ValueError, match=f"{name} cannot be read as a plain array"):
        Bundle.open(bundle_folder)
    assert not hasattr(builtins, "exploded")


@pytest.mark.parametrize(
    "data",
    [
        npy(np.zeros((12, 4))),
        npy(np.zeros((12, 5), np.float32)),
        npy(np.zeros((11, 4), np.float32)),
        npy(np.asfortranarray(np.zeros((12, 4), np.float32))),
        npy(np.zeros((12, 4), np.float32))[:-4],
        npy(np.zeros((12, 4), np.float32)).replace(b"(12, 4)", b"(9**9,)"),
        b"\x93NUMPY\x01\x00\xff\xff",
        b"",
    ],
)
def test_embeddings_of_another_kind_are_refused(bundle_folder: Path, data: bytes) -> None:
    replace_file(bundle_folder, f"{segment_of(bundle_folder)}/embeddings.npy", data)
    with pytest.raises(ValueError, match=r"embeddings\.npy cannot be read .*expected float32"):
        Bundle.open(bundle_folder)


@pytest.mark.parametrize("ends", [[0] * 12 + [10**15], [1] + [2] * 12, [0, 9] + [5] * 11])
def test_thumbnails_that_are_cut_wrongly_are_refused(bundle_folder: Path, ends: list[int]) -> None:
    data = npy(np.array(ends, np.uint64))
    replace_file(bundle_folder, f"{segment_of(bundle_folder)}/thumbnails.npy", data)
    with pytest.raises(ValueError, match=r"does not cut thumbnails\.bin"):
        Bundle.open(bundle_folder)


def test_item_tables_of_another_kind_are_refused(bundle_folder: Path) -> None:
    import pyarrow as pa

    name = f"{segment_of(bundle_folder)}/items.parquet"
    columns = {"category": ["a"] * 12, "colour": [""] * 12}
    numbers = text_table(IDS, columns).set_column(1, "category", pa.array(range(12)))
    some = pa.array(["a"] * 11 + [None], pa.large_string())
    tables = {
        "it has 11 row": text_table(IDS[1:], {name: v[1:] for name, v in columns.items()}),
        "'category' holds int64": numbers,
        "a text is missing": text_table(IDS, columns).set_column(1, "category", some),
        "different ids": text_table(["a"] * 12, columns),
        "colour": text_table(IDS, {"category": ["a"] * 12}),
    }
    for reason, table in tables.items():
        replace_file(bundle_folder, name, parquet(table))
        with pytest.raises(ValueError, match=reason):
            Bundle.open(bundle_folder)
    replace_file(bundle_folder, name, b"PAR1 nothing PAR1")
    with pytest.raises(ValueError, match=r"items\.parquet cannot be used"):
        Bundle.open(bundle_folder)
    # Other text types of Arrow are texts too.
    short = pa.table({"item_id": IDS, "category": pa.array(["a"] * 12), "colour": [""] * 12})
    short = short.set_column(1, "category", text_array(["a"] * 12).dictionary_encode())
    replace_file(bundle_folder, name, parquet(short))
    assert Bundle.open(bundle_folder).values_of("category") == {"a": 12}


@pytest.mark.parametrize("rows", [[4, 4], [4, 2], [-1, 2], [2, 12]])
def test_removed_rows_that_are_none_are_refused(bundle_folder: Path, rows: list[int]) -> None:
    remove_items(bundle_folder, ["item-2", "item-4"])
    name = read_manifest(bundle_folder)[0].removed
    assert name is not None
    replace_file(bundle_folder, name, npy(np.array(rows)))
    with pytest.raises(ValueError, match="lists rows that do not rise from 0 to 11"):
        Bundle.open(bundle_folder)


def test_another_index_file_is_refused(full_folder: Path) -> None:
    name = read_manifest(full_folder)[0].index.file
    assert name is not None
    for data in (b"", b"nothing", b"IxF2" + b"\xff" * 100):
        replace_file(full_folder, name, data)
        with pytest.raises(ValueError, match=r"the index of the bundle in .* cannot be used"):
            Bundle.open(full_folder)


def test_another_encoder_is_refused(bundle_folder: Path) -> None:
    other = json.dumps({"image_size_px": 64, "fit": "stretch", "embedding_dim": 8}).encode()
    opened = Bundle.open(bundle_folder)
    (bundle_folder / "encoder.onnx").write_bytes(other)
    with pytest.raises(ValueError, match="the embeddings were made by another encoder"):
        _ = opened.encoder
    replace_file(bundle_folder, "encoder.onnx", other)
    with pytest.raises(ValueError, match="were made by the encoder"):
        Bundle.open(bundle_folder)
    sha256 = read_sha256(bundle_folder, "encoder.onnx")
    change_manifest(bundle_folder, set_to("encoder", "sha256", value=sha256))
    change_manifest(bundle_folder, set_to("index", "made_by", value=sha256))
    with pytest.raises(ValueError, match=r"'embedding_dim': 8.* and the bundle says .*: 4"):
        _ = Bundle.open(bundle_folder).encoder


def test_items_of_another_encoder_are_refused(bundle_folder: Path) -> None:
    with pytest.raises(ValueError, match="8 wide, the bundle's 4"):
        add_items(bundle_folder, items_of(["a"], dim=8))
    with pytest.raises(ValueError, match="embedded by the encoder '222222222222'"):
        add_items(bundle_folder, items_of(["a"]), made_by="2" * 64)
    sha256 = read_manifest(bundle_folder)[0].encoder.sha256
    assert add_items(bundle_folder, items_of(["a"]), made_by=sha256).num_added == 1
    with pytest.raises(ValueError, match="are 4 wide, and the encoder gives 8"):
        create(bundle_folder.parent / "b", ["a"], encoder_onnx=encoder_file(bundle_folder, 8))


def read_sha256(folder: Path, name: str) -> str:
    return str(json.loads((folder / MANIFEST_FILE).read_text())["files"][name]["sha256"])
