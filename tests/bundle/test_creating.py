"""A new bundle, with the stand-in and with a real encoder."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.bundle.small_bundles import IDS, check_content, create, embedding, encoder_file, files_in
from tests.bundle.small_encoders import grid_encoder
from visual_search.bundle import creating, indexing
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.items import BundleItems
from visual_search.bundle.writing import add_items
from visual_search.locking import FolderLock

MAKE_ENCODER = indexing.make_encoder


def test_the_folder_holds_what_the_manifest_names(tmp_path: Path) -> None:
    report = tmp_path / "given.html"
    report.write_text("<p>")
    files = {"report.html": report, "model_card.md": "# Café", "more/weights.bin": b"\0\1"}
    folder = create(tmp_path / "new" / "bundle", IDS, files=files, facts={"a": [1, None, {}]})
    manifest = json.loads((folder / "bundle.json").read_text())
    index = manifest["index"]
    assert (manifest["format"], manifest["generation"]) == ("visual_search.bundle/1", 1)
    assert manifest["facts"] == {"a": [1, None, {}]}
    assert index["plan"]["kind"] == "flat"
    assert index["asked"] == {"kind": "auto", "target_recall": 0.95}
    assert index["made_by"] == manifest["encoder"]["sha256"]
    assert set(manifest["files"]) == files_in(folder) - {"bundle.json", ".lock", ".reserve"}
    assert len(manifest["files"]) == 4 + 4
    bundle = Bundle.open(folder)
    assert bundle.file("model_card.md").read_text(encoding="utf-8") == "# Café"
    assert bundle.file("more/weights.bin").read_bytes() == b"\0\1"
    assert bundle.file("report.html").read_text() == "<p>"
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bundle", "given"]


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_content(Bundle.open(create(tmp_path / "empty", IDS)), IDS)
    with pytest.raises(FileExistsError, match="empty holds a bundle already; expected a new or"):
        create(tmp_path / "empty", IDS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="other holds something else already"):
        create(tmp_path / "other", IDS)
    with pytest.raises(FileExistsError, match="mine holds something else"):
        create(tmp_path / "other" / "mine", IDS)
    check_content(Bundle.open(tmp_path / "empty"), IDS)


@pytest.mark.parametrize("is_filled", [True, False])
def test_a_creation_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_filled: bool
) -> None:
    def interrupted(*arguments: Any, **more: Any) -> None:
        if not is_filled:
            raise KeyboardInterrupt
        (tmp_path / "bundle").mkdir()
        (tmp_path / "bundle" / "mine").write_text("x")
        build(*arguments, **more)

    build = creating.build_index
    monkeypatch.setattr(creating, "build_index", interrupted)
    error = FileExistsError if is_filled else KeyboardInterrupt
    with pytest.raises(error, match="holds something else already" if is_filled else None):
        create(tmp_path / "bundle", IDS)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"given", "bundle"} if is_filled else {"given"})
    assert not is_filled or files_in(tmp_path / "bundle") == {"mine"}


def test_what_killed_creators_left_is_deleted_and_others_stay(tmp_path: Path) -> None:
    dead, working = tmp_path / ".bundle.0123abcd.tmp", tmp_path / ".another.4567cdef.tmp"
    for room in (dead, working):
        (room / "segments").mkdir(parents=True)
    (tmp_path / ".bundle.89abcdef.tmp").symlink_to(tmp_path / "given")
    lock = FolderLock(working)
    lock.acquire()
    try:
        create(tmp_path / "bundle", IDS)
    finally:
        lock.release()
    assert not dead.exists()
    assert working.exists()
    assert (tmp_path / ".bundle.89abcdef.tmp").is_symlink()
    create(tmp_path / "new", IDS)
    assert not working.exists()  # nobody's any more, whatever it was to become
    assert any((tmp_path / "given").iterdir())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        *(({"name": name}, r"expected printable text of 1\.\.200")
          for name in ("", "a\n", "x" * 201, 3)),
        *(({"facts": facts}, "facts are no plain JSON")
          for facts in ({"a": float("nan")}, {"a": Path("x")}, {1: "a"}, {"a": (1,)})),
        ({"facts": {"a": "x" * 2**24}}, r"facts have .* bytes; expected at most 16,777,216"),
        ({"files": {"../x": b""}}, "lead out of the bundle"),
        ({"files": {"/x": b""}}, "lead out of the bundle"),
        *(({"files": {name: b""}}, "which the bundle itself writes")
          for name in ("bundle.json", "encoder.onnx", "segments/x")),
        ({"files": {"a.md": Path("gone.md")}}, r"no file at .*gone\.md; expected what is to"),
        ({"encoder_onnx": Path("gone.onnx")}, r"no file at .*gone\.onnx; expected the encoder"),
        ({"kind": "best"}, "kind is 'best'"),
        ({"target_recall": 0.0}, "target_recall is 0"),
    ],
)  # fmt: skip
def test_a_bundle_of_wrong_settings_is_refused_and_leaves_nothing(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        create(tmp_path / "bundle", IDS, **change)
    assert {path.name for path in tmp_path.iterdir()} == {"given"}


@pytest.fixture
def real_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(indexing, "make_encoder", MAKE_ENCODER)  # no stand-in
    file = tmp_path / "real.onnx"
    file.write_bytes(grid_encoder(8, 1, 1.0, "stretch"))  # each channel's mean
    colours = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
    embeddings = np.array(list(colours.values()), dtype=np.float32)
    items = BundleItems(list(colours), {"category": ["paint"] * 3}, embeddings)
    create_bundle(tmp_path / "real", name="real", encoder_onnx=file, items=items)
    return tmp_path / "real"


def picture(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 30), colour).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_found_with_a_real_encoder(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle, num_threads=1)
    encoder = bundle.encoder
    found = encoder.embed(encoder.decode(picture((0, 190, 5)))[None])
    [hits] = bundle.search(found, 2)
    assert [hit.item_id for hit in hits] == ["green", "blue"]
    assert hits[0].squared_distance == pytest.approx(125, abs=1e-3)
    more = BundleItems(["lime"], {"category": ["paint"]}, found)
    add_items(real_bundle, more)
    newer = bundle.refreshed()
    assert newer.encoder is encoder
    assert newer.search(found, 1)[0][0].item_id == "lime"


def test_a_foreign_encoder_is_refused_with_its_path(real_bundle: Path) -> None:
    stand_in = encoder_file(real_bundle.parent, 3)
    items = BundleItems(["a"], {"category": ["a"]}, embedding("a", 3)[None])
    with pytest.raises(ValueError, match=r"encoder-3-stretch\.onnx: the encoder cannot be used"):
        create_bundle(real_bundle.parent / "b", name="b", encoder_onnx=stand_in, items=items)


def test_a_real_search_and_a_write_load_nothing_that_trains(real_bundle: Path) -> None:
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "pandas", "matplotlib", "onnx"):
            asked.append(name)
            raise ModuleNotFoundError(name)
asked = []
sys.meta_path.insert(0, Refuse())
import visual_search.bundle.encoder
print(sorted({"onnxruntime", "pyarrow", "faiss"} & set(sys.modules)))  # until it is needed
from visual_search.bundle import creating, writing
from visual_search.bundle.bundle import Bundle
bundle = Bundle.open(sys.argv[1], num_threads=1)
data = open(sys.argv[2], "rb").read()
found = bundle.encoder.embed(bundle.encoder.decode(data)[None])
[hits] = bundle.search(found, 1, where={"category": ["paint"]}, exclude_ids=["red"])
writing.remove_items(sys.argv[1], ["red"])
print(hits[0].item_id, len(bundle.refreshed()), asked)
"""
    file = real_bundle.parent / "picture.png"
    file.write_bytes(picture((0, 0, 99)))
    done = subprocess.run(
        [sys.executable, "-c", code, str(real_bundle), str(file)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]", "blue", "2", "[]"]
