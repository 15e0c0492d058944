"""``bundle.json``: what belongs to a bundle, and what makes it refuse to open.

The file is the only truth about a bundle. It is written last, by a rename, and carries a checksum
over its own content; what it says is compared with itself before any other file is looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from visual_search.atomic import write_text
from visual_search.bundle.files import DamagedError, check_name, sync_folder
from visual_search.knn.plan import SearchPlan
from visual_search.reading import FileRecord, sealed, unsealed

FORMAT = "visual_search.bundle/1"
MANIFEST_FILE = "bundle.json"
MAX_MANIFEST_BYTES = 32 * 2**20
MAX_ROWS = 2**31 - 1  # FAISS's graphs number their rows in 32 bits
MAX_DIM = 65_536
MAX_COLUMNS = 256


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder that made the embeddings, and what it takes; see `OnnxEncoder`."""

    file: str
    sha256: str
    image_size_px: int
    fit: str
    embedding_dim: int


@dataclass(frozen=True)
class IndexRecord:
    """The index over all rows.

    Attributes:
        file: Its file; None where the embeddings are all that is needed.
        num_rows: The first rows that the file knows; the others are added when it is opened.
        made_by: SHA-256 of the encoder that made the embeddings.
        asked: What was asked for, ``kind`` and ``target_recall``: rebuilding asks for it again.
        plan: `SearchPlan` as plain values: what was chosen, why, and the recall that was measured.
    """

    file: str | None
    num_rows: int
    made_by: str
    asked: Mapping[str, Any]
    plan: Mapping[str, object]


@dataclass(frozen=True)
class SegmentRecord:
    """A part of the rows: its folder and how many there are, removed ones included."""

    folder: str
    num_rows: int


@dataclass(frozen=True)
class RetiredFile:
    """A file that an earlier generation names, and since when, in seconds since 1970."""

    file: str
    since: float


@dataclass(frozen=True)
class BundleManifest:
    """What ``bundle.json`` says.

    Attributes:
        generation: Counts the writes, from 1.
        name: The bundle's name, for people.
        created: When the bundle was created, ISO 8601.
        written: When this generation was written, ISO 8601.
        facts: Plain JSON about the run that it came from.
        columns: The item table's text columns, ``category`` first.
        num_items: Items that can be found: all rows but the removed ones.
        num_removed: Removed rows.
        encoder: The encoder.
        index: The index.
        segments: The rows, in order.
        removed: The file that lists the removed rows; None where there is none.
        files: File name -> record, of every file but ``bundle.json`` itself.
        retired: Files of earlier generations that are still kept, for those who read them.
        product_column: The column that says whose picture an item is, where products may have
            several: a search then answers by product. None where every item is a product; the
            file then says nothing of it, as earlier ones do not.
    """

    generation: int
    name: str
    created: str
    written: str
    facts: Mapping[str, object]
    columns: tuple[str, ...]
    num_items: int
    num_removed: int
    encoder: EncoderRecord
    index: IndexRecord
    segments: tuple[SegmentRecord, ...]
    removed: str | None
    files: Mapping[str, FileRecord]
    retired: tuple[RetiredFile, ...] = ()
    product_column: str | None = None

    @property
    def num_rows(self) -> int:
        """All rows, removed ones included."""
        return sum(segment.num_rows for segment in self.segments)

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return self.encoder.embedding_dim


def write_manifest(manifest: BundleManifest, folder: Path) -> None:
    """Writes ``bundle.json``: with it, the generation is the one that is read."""
    held = asdict(manifest)
    if manifest.product_column is None:
        del held["product_column"]
    content = sealed(FORMAT, held)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if len(text.encode()) > MAX_MANIFEST_BYTES:
        raise ValueError(
            f"{MANIFEST_FILE} would have {len(text.encode()):,} bytes, expected at most "
            f"{MAX_MANIFEST_BYTES:,}; give fewer facts, or rebuild the bundle"
        )
    write_text(folder / MANIFEST_FILE, text)
    sync_folder(folder)


def read_manifest(folder: Path) -> tuple[BundleManifest, str]:
    """Reads ``bundle.json`` and gives it with the SHA-256 of its bytes.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is of another format or a newer version, was changed after it was written,
            or does not fit itself.
    """
    data = read_manifest_bytes(folder)
    return parsed_manifest(data, folder / MANIFEST_FILE), hashlib.sha256(data).hexdigest()


def parsed_manifest(data: bytes, place: object) -> BundleManifest:
    """Returns what the bytes of a ``bundle.json`` say; ``place`` is where they lie, for messages.

    Raises:
        ValueError: As `read_manifest`.
    """
    try:
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        held = unsealed(FORMAT, content)
        manifest = BundleManifest(
            encoder=EncoderRecord(**held.pop("encoder")),
            index=_index_record(held.pop("index")),
            files={name: FileRecord(**record) for name, record in held.pop("files").items()},
            columns=tuple(held.pop("columns")),
            segments=tuple(SegmentRecord(**one) for one in held.pop("segments")),
            retired=tuple(RetiredFile(**one) for one in held.pop("retired")),
            **held,
        )
        _check(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(
            f"{place} cannot be used: {str(error)[:500]}; expected what creating a bundle writes: "
            "copy the whole bundle again, or create it again"
        ) from error
    return manifest


def _index_record(held: dict[str, Any]) -> IndexRecord:
    """Returns what is said of an index; a LanceDB table of an earlier version is passed over.

    Its bundle is searched exactly, by the embeddings, until it is rebuilt.
    """
    plan_held = held["plan"]
    if not isinstance(plan_held, dict) or plan_held.get("kind") != "lancedb":
        return IndexRecord(**held)
    reason = "its LanceDB table is not read any more: `index rebuild` makes another index"
    plan = SearchPlan("flat", reason, num_trained_rows=held["num_rows"])
    return IndexRecord(
        **{**held, "file": None, "plan": plan.to_json(), "asked": {**held["asked"], "kind": "auto"}}
    )


def read_manifest_bytes(folder: Path) -> bytes:
    """Reads ``bundle.json`` as it stands.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no file, such as a pipe, at which nobody may wait; or larger than any
            that was written.
    """
    path = folder / MANIFEST_FILE
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DamagedError(
            f"{path} is no file; expected what creating a bundle writes: check the path"
        )
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"no {MANIFEST_FILE} in {folder}; expected the folder of a search bundle: check the "
            "path, or create a bundle there"
        ) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise DamagedError(
            f"{path} has more than {MAX_MANIFEST_BYTES:,} bytes; expected what creating a bundle "
            "writes: check the path"
        )
    return data


def _check(manifest: BundleManifest) -> None:
    """Compares a manifest with itself."""
    _check_kinds(manifest)
    for name in (*manifest.files, *(one.file for one in manifest.retired)):
        check_name(name)
        if name == MANIFEST_FILE:
            raise ValueError(f"it lists {name} itself")
    needed: list[str | None] = [manifest.encoder.file, manifest.removed, manifest.index.file]
    needed += [file for one in manifest.segments for file in segment_files(one.folder)]
    for file in needed:
        if file is not None and file not in manifest.files:
            raise ValueError(f"it needs the file {file!r} and does not list it")
    if manifest.num_items + manifest.num_removed != manifest.num_rows:
        raise ValueError(
            f"it counts {manifest.num_items} item(s) and {manifest.num_removed} removed row(s), "
            f"and the segments have {manifest.num_rows} row(s)"
        )
    if (manifest.removed is None) != (manifest.num_removed == 0):
        raise ValueError(f"it removes {manifest.num_removed} row(s) by {manifest.removed!r}")
    if manifest.index.num_rows > manifest.num_rows:
        raise ValueError(f"its index knows {manifest.index.num_rows} row(s) of {manifest.num_rows}")
    found = manifest.files[manifest.encoder.file].sha256
    if not manifest.index.made_by == manifest.encoder.sha256 == found:
        raise ValueError(
            f"the embeddings were made by the encoder {manifest.index.made_by[:12]!r}, and the "
            f"bundle holds the encoder {manifest.encoder.sha256[:12]!r} in a file with SHA-256 "
            f"{found[:12]!r}; embed the items with the encoder of the bundle"
        )


def segment_files(folder: str) -> tuple[str, str, str, str]:
    """Returns the names of a segment's item table, embeddings, thumbnails and their offsets."""
    return (
        f"{folder}/items.parquet",
        f"{folder}/embeddings.npy",
        f"{folder}/thumbnails.bin",
        f"{folder}/thumbnails.npy",
    )


def _check_kinds(manifest: BundleManifest) -> None:
    encoder, index = manifest.encoder, manifest.index
    texts = {
        "name": manifest.name,
        "created": manifest.created,
        "written": manifest.written,
        "encoder.file": encoder.file,
        "encoder.sha256": encoder.sha256,
        "encoder.fit": encoder.fit,
        "index.made_by": index.made_by,
        **{f"columns[{n}]": name for n, name in enumerate(manifest.columns)},
        **{f"segments[{n}].folder": one.folder for n, one in enumerate(manifest.segments)},
        **{f"files[{name!r}].sha256": one.sha256 for name, one in manifest.files.items()},
    }
    for field, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{field} is {text!r}, expected text")
    numbers = {
        "generation": (manifest.generation, 2**53),
        "num_items": (manifest.num_items, MAX_ROWS),
        "num_removed": (manifest.num_removed, MAX_ROWS),
        "encoder.image_size_px": (encoder.image_size_px, MAX_DIM),
        "encoder.embedding_dim": (encoder.embedding_dim, MAX_DIM),
        "index.num_rows": (index.num_rows, MAX_ROWS),
        **{
            f"segments[{n}].num_rows": (one.num_rows, MAX_ROWS)
            for n, one in enumerate(manifest.segments)
        },
        **{f"files[{n!r}].num_bytes": (o.num_bytes, 2**53) for n, o in manifest.files.items()},
    }
    for field, (number, most) in numbers.items():
        if type(number) is not int or not 0 <= number <= most:
            raise ValueError(f"{field} is {number!r}, expected an integer of 0..{most}")
    for field, given in (("facts", manifest.facts), ("plan", index.plan), ("asked", index.asked)):
        if not isinstance(given, dict):
            raise ValueError(f"{field} is {given!r}, expected an object")
    columns = manifest.columns
    if columns[:1] != ("category",) or len(set(columns)) < len(columns) or "item_id" in columns:
        raise ValueError(f"its columns are {list(columns)[:20]}; 'category' stands first, once")
    column = manifest.product_column
    if column is not None and (column == "category" or column not in columns):
        raise ValueError(
            f"its product_column is {column!r}; expected one of {list(columns)[1:20]}, or nothing"
        )
    if not manifest.segments:
        raise ValueError("it has no segment")
    if len(columns) > MAX_COLUMNS or manifest.num_rows > MAX_ROWS or not encoder.embedding_dim:
        raise ValueError(
            f"it has {len(columns)} columns and {manifest.num_rows} rows of width "
            f"{encoder.embedding_dim}; expected at most {MAX_COLUMNS} and {MAX_ROWS}, and a width"
        )
    if not all(isinstance(one.since, int | float) for one in manifest.retired):
        raise ValueError("a retired file has no time")
