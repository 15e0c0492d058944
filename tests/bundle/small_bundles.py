"""Small bundles for the tests, with a stand-in for the encoder: an ONNX file is not needed here."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle import indexing
from visual_search.bundle.bundle import Bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.items import BundleItems
from visual_search.bundle.manifest import MANIFEST_FILE

IDS = [f"item-{n}" for n in range(12)]
DIM = 4
JPEG = b"\xff\xd8\xff\xe0 of "
COLOURS = ("red", "green", "")


class StandInEncoder:
    """Has the attributes of `OnnxEncoder`; its file is the JSON of them."""

    def __init__(self, model: bytes, num_threads: int | None, accelerator: str = "cpu") -> None:
        content = json.loads(model)
        self.image_size_px: int = content["image_size_px"]
        self.fit: str = content["fit"]
        self.embedding_dim: int = content["embedding_dim"]
        self.num_threads = num_threads


def use_stand_in() -> None:
    """Puts the stand-in in the encoder's place, in this process."""
    indexing.__dict__["make_encoder"] = StandInEncoder


def encoder_file(folder: Path, dim: int = DIM, fit: str = "stretch") -> Path:
    path = folder / f"encoder-{dim}-{fit}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"image_size_px": 64, "fit": fit, "embedding_dim": dim}))
    return path


@functools.cache
def embedding(item_id: str, dim: int = DIM) -> NDArray[np.float32]:
    """Returns an embedding that the id decides, so that any generation's content can be checked."""
    seed = int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big")
    return np.random.default_rng(seed).normal(size=dim).astype(np.float32)


def items_of(ids: Sequence[str], dim: int = DIM, mark: str = "") -> BundleItems:
    """Returns items whose content the id and a mark decide."""
    return BundleItems(
        item_ids=ids,
        columns={
            "category": [f"{mark}category-{len(one) % 2}" for one in ids],
            "colour": [COLOURS[sum(one.encode()) % 3] for one in ids],
        },
        embeddings=np.stack([embedding(mark + one, dim) for one in ids]),
        thumbnails=[b"" if one.endswith("0") else JPEG + (mark + one).encode() for one in ids],
    )


def create(folder: Path, ids: Sequence[str], **more: Any) -> Path:
    """Creates a bundle of `items_of` these ids."""
    settings = {"name": "shop", "encoder_onnx": encoder_file(folder.parent / "given"), **more}
    create_bundle(folder, items=items_of(ids), **settings)
    return folder


def check_content(bundle: Bundle, ids: Sequence[str], marks: dict[str, str] | None = None) -> None:
    """Compares everything that a bundle answers with what `items_of` gives of these ids."""
    found = bundle.item_ids()
    assert len(found) == len(set(found)) == len(bundle) == bundle.count()
    assert set(found) == set(ids)
    for item_id in found:
        wanted = items_of([item_id], mark=(marks or {}).get(item_id, ""))
        assert bundle.embedding_of(item_id).tobytes() == wanted.embeddings.tobytes()
        assert bundle.thumbnail(item_id) == wanted.thumbnails[0]
        texts = {name: values[0] for name, values in wanted.columns.items()}
        assert bundle.item(item_id) == {"item_id": item_id, **texts}
    if found:
        queries = np.stack([bundle.embedding_of(one) for one in found])
        for item_id, hits in zip(found, bundle.search(queries, len(found) + 1), strict=True):
            assert (hits[0].item_id, hits[0].squared_distance) == (item_id, 0)
            assert sorted(hit.item_id for hit in hits) == sorted(found)


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes ``bundle.json`` as somebody would who knows how to compute its checksum."""
    path = folder / MANIFEST_FILE
    content = json.loads(path.read_text())
    change(content)
    del content["sha256"]
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Replaces a file and its record, as somebody would who makes a hostile bundle."""
    (folder / name).write_bytes(data)
    record = {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}
    change_manifest(folder, lambda content: content["files"].update({name: record}))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def files_in(folder: Path) -> set[str]:
    """Returns the names of all files, hidden ones included."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Starts a process that runs code with the stand-in in place."""
    start = "from tests.bundle.small_bundles import *\nuse_stand_in()\n"
    command = [sys.executable, "-c", start + code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
