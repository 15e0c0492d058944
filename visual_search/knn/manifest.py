"""What a saved index says about itself, and what makes it refuse to load.

A folder holds ``index.faiss`` (the embeddings as they were given), ``items.parquet`` (row -> item
id and further columns) and ``manifest.json``. The manifest is written last: a folder whose writing
was cut short has none, or one that does not fit, and is refused either way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from visual_search.atomic import write_text
from visual_search.reading import (
    DamagedFileError,
    FileRecord,
    difference,
    read_json,
    sealed,
    unsealed,
)

FORMAT = "visual_search.embedding_index/1"
INDEX_FILE = "index.faiss"
ITEMS_FILE = "items.parquet"
MANIFEST_FILE = "manifest.json"
_AGAIN = "build and save the index again"
_EXPECTED = f"the manifest that saving an index writes: {_AGAIN}"


@dataclass(frozen=True)
class IndexManifest:
    """What a saved index says about itself.

    Attributes:
        metric: How distances are measured; ``l2``.
        dim: Embedding width D.
        count: Items N.
        model_hash: Whatever names the weights that made the embeddings, or None.
        preprocessing_hash: Whatever names the way from picture to network input, or None.
        embedding_hash: Whatever names the way from the network's values to the embedding (layer,
            pooling, PCA, length), or None.
        versions: Library name -> version that wrote the files.
        files: File name -> record.
    """

    metric: str
    dim: int
    count: int
    model_hash: str | None
    preprocessing_hash: str | None
    embedding_hash: str | None
    versions: Mapping[str, str]
    files: Mapping[str, FileRecord]

    @property
    def num_bytes(self) -> int:
        """Size of the index file and the item table on disk, in bytes."""
        return sum(record.num_bytes for record in self.files.values())

    @property
    def bytes_per_item(self) -> float:
        """Size of the index file on disk over the number of items: 4 D and a little."""
        return self.files[INDEX_FILE].num_bytes / self.count


def write_manifest(manifest: IndexManifest, folder: Path) -> None:
    """Writes ``manifest.json``, with a checksum over its own content."""
    text = json.dumps(sealed(FORMAT, asdict(manifest)), indent=2, ensure_ascii=False)
    write_text(folder / MANIFEST_FILE, text + "\n")


def read_manifest(folder: Path) -> IndexManifest:
    """Reads ``manifest.json``.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is no manifest of this format, or was changed after it was written.
    """
    path = _present(folder, MANIFEST_FILE)
    content = read_json(path, _EXPECTED)
    try:
        content = unsealed(FORMAT, content)
        files = {name: FileRecord(**record) for name, record in content.pop("files").items()}
        if set(files) != {INDEX_FILE, ITEMS_FILE}:
            raise ValueError(f"it lists the files {sorted(files)}")
        content.setdefault("embedding_hash", None)  # older ones do not have it
        return IndexManifest(**content, files=files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(path, str(error), _EXPECTED) from error


def check_files(manifest: IndexManifest, folder: Path) -> None:
    """Compares the files with the manifest's records.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is not the one that was written.
    """
    for name, expected in manifest.files.items():
        if found := difference(_present(folder, name), expected):
            raise ValueError(f"{folder / name} {found}: {_AGAIN}")


def _present(folder: Path, name: str) -> Path:
    if not (folder / name).exists():
        raise FileNotFoundError(
            f"{folder / name} is missing; a saved index holds {INDEX_FILE}, {ITEMS_FILE} and "
            f"{MANIFEST_FILE}: save the index again, or name the folder that holds it"
        )
    return folder / name


def check_expected(manifest: IndexManifest, folder: Path, expected: Mapping[str, object]) -> None:
    """Compares the manifest's fields with what the caller needs; None asks nothing.

    Raises:
        ValueError: A field has another value.
    """
    for field, value in expected.items():
        found = getattr(manifest, field)
        if value is not None and found != value:
            raise ValueError(
                f"the index in {folder} has {field} {found!r}, expected {value!r}; it was built "
                "for something else: load the model that it belongs to, or embed and build again"
            )
