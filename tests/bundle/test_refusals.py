"""Damaged, foreign, mismatched and hostile bundles: refused with the reason."""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bundle.small_bundles import (
    IDS,
    change_manifest,
    create,
    encoder_file,
    files_in,
    flip_last_byte,
    items_of,
    replace_file,
)
from visual_search import reading
from visual_search.bundle.arrow import text_array
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, read_manifest
from visual_search.bundle.segments import text_table
from visual_search.bundle.writing import add_items, rebuild_bundle, remove_items

Damage = Callable[[Path], object]


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("import builtins; builtins.exploded = True",))


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), (1, 0), allow_pickle=allow_pickle)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.array([Bomb()], dtype=object), allow_pickle=True)
    return file.getvalue()


def parquet(table: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def segment_of(folder: Path) -> str:
    return read_manifest(folder)[0].segments[0].folder


def set_to(*keys: str | int, value: Any) -> Damage:
    """Sets a value in the manifest as somebody would who knows how to compute its checksum."""

    def change(content: Any) -> None:
        *above, last = keys
        for key in above:
            content = content[key]
        content[last] = value

    return lambda folder: change_manifest(folder, change)


def written(text: str) -> Damage:
    return lambda folder: (folder / MANIFEST_FILE).write_text(text)


def in_segment(name: str, data: bytes) -> Damage:
    return lambda folder: replace_file(folder, f"{segment_of(folder)}/{name}", data)


def named(name: str) -> Damage:
    return set_to("files", name, value={"sha256": "0" * 64, "num_bytes": 1})


def piped(name: str) -> Damage:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def linked(name: str) -> Damage:
    def change(folder: Path) -> None:
        (folder / name).rename(folder.parent / "outside")
        (folder / name).symlink_to(folder.parent / "outside")

    return change


def huge(folder: Path) -> None:
    with (folder / MANIFEST_FILE).open("wb") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)


def edited(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    path.write_text(path.read_text().replace("0.5", "0.9"))


def cut(place: int | slice, at: int) -> Damage:
    def change(folder: Path) -> None:
        ends = np.load(folder / segment_of(folder) / "thumbnails.npy")
        ends[place] = at
        in_segment("thumbnails.npy", npy(ends))(folder)

    return change


def removed(rows: list[int]) -> Damage:
    def change(folder: Path) -> None:
        remove_items(folder, ["item-2", "item-4"])
        replace_file(folder, str(read_manifest(folder)[0].removed), npy(rows))

    return change


ZEROS = np.zeros((12, 4), np.float32)
COLUMNS = {"category": ["a"] * 12, "colour": [""] * 12}
TABLE = text_table(IDS, COLUMNS)
SHORT = text_table(IDS[1:], {name: values[1:] for name, values in COLUMNS.items()})
HOLE = pa.array(["a"] * 11 + [None], pa.large_string())
OBJECTS = npy(np.array([Bomb()] * 12, dtype=object), allow_pickle=True)
REFUSED: list[tuple[Damage, str]] = [
    # another format
    (written(""), "Expecting value"),
    (written("[1]"), "it holds no object"),
    (written("{}"), "its format is 'None'"),
    (written("[" * 100_000), "cannot be used"),
    (written('{"format": "visual_search.embedding_index/1"}'), "embedding_index/1', not"),
    (written('{"format": "visual_search.bundle/2"}'), "newer than .*; update visual-search"),
    (written('{"format": "visual_search.bundle/1"}'), "does not fit its own checksum"),
    (edited, "does not fit its own checksum"),
    (huge, "has more than 33,554,432 bytes"),
    # what does not fit
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
    (set_to("columns", value=["colour", "category"]), "'category' stands first"),
    (set_to("columns", value=["category", "colour", "size"]), "item table .* size"),
    (set_to("columns", value=["category", 3]), r"columns\[1\] is 3"),
    (set_to("removed", value="note.md"), r"removes 0 row\(s\) by 'note.md'"),
    (set_to("surprise", value=1), "unexpected keyword argument 'surprise'"),
    (set_to("files", value={}), "needs the file 'encoder.onnx'"),
    (set_to("files", value=[]), "cannot be used"),
    (set_to("generation", value="1"), "generation is '1'"),
    (set_to("retired", value=[{"file": "a", "since": "x"}]), "has no time"),
    # a way out of the folder
    *((named(name), "may lead out of the bundle's folder")
      for name in ("../secret", "/etc/hostname", "a/../../secret", "a\\..\\b", "C:/x", ".lock",
                   "a//b", "", "a\0b")),
    (set_to("segments", 0, "folder", value="../other"), r"needs the file '\.\./other/items"),
    (linked("note.md"), "is a link that leads out of the bundle"),
    (linked("segments"), "is a link that leads out of the bundle"),
    # what nobody waits at
    (piped(MANIFEST_FILE), rf"{MANIFEST_FILE} is no file"),
    (piped("note.md"), "missing, or no regular file"),
    # code
    *((in_segment(name, data), f"{name} cannot be read as a plain array")
      for name in ("embeddings.npy", "thumbnails.npy")
      for data in (OBJECTS, pickle.dumps(Bomb()), archive())),
    # arrays and tables of another kind
    *((in_segment("embeddings.npy", data), r"embeddings\.npy cannot be read .*expected float32")
      for data in (npy(ZEROS.astype(float)), npy(np.zeros((12, 5), np.float32)), npy(ZEROS[1:]),
                   npy(np.asfortranarray(ZEROS)), npy(ZEROS)[:-4],
                   npy(ZEROS).replace(b"(12, 4)", b"(9**9,)"), b"\x93NUMPY\x01\x00\xff\xff", b"")),
    *((cut(place, at), r"not cut thumbnails\.bin")
      for place, at in ((slice(2), 1), (1, 999), (-1, 999))),
    *((in_segment("items.parquet", data), reason) for data, reason in (
        (parquet(SHORT), "it has 11 row"),
        (parquet(TABLE.set_column(1, "category", pa.array(range(12)))), "'category' holds int64"),
        (parquet(TABLE.set_column(1, "category", HOLE)), "a text is missing"),
        (parquet(text_table(["a"] * 12, COLUMNS)), "different ids"),
        (parquet(text_table(IDS, {"category": ["a"] * 12})), "colour"),
        (b"PAR1 nothing PAR1", r"items\.parquet cannot be used"))),
    *((removed(rows), "lists rows that do not rise from 0 to 11")
      for rows in ([4, 4], [4, 2], [-1, 2], [2, 12])),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "reason"), REFUSED)
def test_what_is_no_sound_bundle_is_refused_and_runs_no_code(
    bundle_folder: Path, damage: Damage, reason: str
) -> None:
    (bundle_folder.parent / "secret").write_bytes(b"x")
    damage(bundle_folder)
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        Bundle.open(bundle_folder)
    assert not hasattr(builtins, "exploded")


def test_a_bundle_may_show_less_than_its_tables_hold_and_in_other_types(
    bundle_folder: Path,
) -> None:
    texts = text_array(["a"] * 12).dictionary_encode()  # Arrow's other types of text
    table = pa.table({"item_id": IDS, "category": texts, "colour": [""] * 12})
    in_segment("items.parquet", parquet(table))(bundle_folder)
    set_to("columns", value=["category"])(bundle_folder)
    found = Bundle.open(bundle_folder)
    assert found.columns == ("category",)
    assert found.values_of("category") == {"a": 12}


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
        path.unlink()
        wrong = {"changed": bytes(changed), "cut": data[:-1], "longer": data + b"\0"}.get(damage)
        if wrong is not None:
            path.write_bytes(wrong)
        reason = {"changed": "has SHA-256", "missing": "is missing"}.get(damage, "has .* bytes, ex")
        with pytest.raises((ValueError, FileNotFoundError), match=f"{path.name} {reason}"):
            Bundle.open(full_folder)
        if damage in ("cut", "longer"):
            with pytest.raises(ValueError, match=r"bytes, expected .* it was cut or"):
                Bundle.open(full_folder, verify="sizes")
        path.write_bytes(data)
    Bundle.open(full_folder)


def test_a_writer_does_not_copy_damage_under_a_new_hash(full_folder: Path) -> None:
    flip_last_byte(full_folder / segment_of(full_folder) / "embeddings.npy")
    before = files_in(full_folder)
    with pytest.raises(ValueError, match=r"embeddings\.npy has SHA-256"):
        rebuild_bundle(full_folder)
    assert files_in(full_folder) == before


def test_no_bundle_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"no bundle\.json in .*check the path"):
            Bundle.open(folder)
        with pytest.raises(FileNotFoundError, match=r"no bundle\.json"):
            remove_items(folder, ["a"])
    assert not list(tmp_path.iterdir())  # no lock file in a folder that is no bundle


@pytest.mark.parametrize("name", ["segments", "index", "removed", ".lock"])
def test_a_writer_follows_no_link(bundle_folder: Path, name: str) -> None:
    place, outside = bundle_folder / name, bundle_folder.parent / "outside"
    if place.is_dir():
        place.rename(outside)
    else:
        place.unlink(missing_ok=True)
        outside.mkdir()
    (outside / "mine").write_text("mine")
    place.symlink_to(outside / "mine" if name == ".lock" else outside)
    before = files_in(outside)
    with pytest.raises(ValueError, match=f"{name} is a link"):
        add_items(bundle_folder, items_of(["x"]))
    with pytest.raises(ValueError, match=f"{name} is a link"):
        rebuild_bundle(bundle_folder)
    assert files_in(outside) == before
    assert (outside / "mine").read_text() == "mine"


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


@pytest.mark.parametrize("data", [b"", b"nothing", b"IxF2" + b"\xff" * 100])
def test_another_index_file_is_refused(full_folder: Path, data: bytes) -> None:
    replace_file(full_folder, str(read_manifest(full_folder)[0].index.file), data)
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
    sha256 = json.loads((bundle_folder / MANIFEST_FILE).read_text())["files"]["encoder.onnx"]
    set_to("encoder", "sha256", value=sha256["sha256"])(bundle_folder)
    set_to("index", "made_by", value=sha256["sha256"])(bundle_folder)
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
