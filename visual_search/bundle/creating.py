"""A new bundle: a folder that is there whole, or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from visual_search.atomic import atomic_path, scratch_folder
from visual_search.bundle.files import check_name, sync_folder
from visual_search.bundle.generation import FOLDERS, Draft
from visual_search.bundle.indexing import open_encoder, record_encoder
from visual_search.bundle.items import BundleItems
from visual_search.bundle.locking import write_lock
from visual_search.bundle.manifest import (
    MANIFEST_FILE,
    BundleManifest,
    EncoderRecord,
    IndexRecord,
)
from visual_search.bundle.products import check_pictures
from visual_search.bundle.remote import check_is_folder
from visual_search.bundle.segments import text_table
from visual_search.bundle.tidying import Progress, add_segment, build_index
from visual_search.reading import FileRecord, record_file

ENCODER_FILE = "encoder.onnx"
MAX_FACTS_BYTES = 2**24


def create_bundle(
    folder: str | os.PathLike[str],
    *,
    name: str,
    encoder_onnx: str | os.PathLike[str],
    items: BundleItems,
    kind: str = "auto",
    target_recall: float = 0.95,
    max_bytes: int | None = None,
    product_column: str | None = None,
    facts: Mapping[str, object] | None = None,
    files: Mapping[str, Path | bytes | str] | None = None,
    num_threads: int | None = None,
    on_progress: Progress | None = None,
) -> BundleManifest:
    """Writes a bundle beside its place and renames it there, complete.

    Args:
        folder: Where to; missing or empty.
        name: Its name, for people, 1 to 200 characters.
        encoder_onnx: The encoder's ONNX file.
        items: The items, embedded by that encoder.
        kind: The index: ``flat``, ``hnsw``, ``ivf``, ``ivfpq``, or ``auto``; see
            `visual_search.knn.search_index.SearchIndex`.
        target_recall: What an approximate index is tuned to, 0..1.
        max_bytes: Memory that an index of the kind ``auto`` may take; None for half of what is
            free.
        product_column: The column that says whose picture an item is; its ids are those of
            `visual_search.catalog.identity.picture_id`. None where every item is a product.
        facts: Plain JSON about the run: numbers, definitions.
        files: Further files, name -> a path to copy, bytes, or text, as ``model_card.md``.
        num_threads: Of the index's building.
        on_progress: Called with (rows in the index, rows).

    Returns:
        What ``bundle.json`` says.

    Raises:
        FileExistsError: The folder holds something already.
        FileNotFoundError: The encoder or a further file is not there.
        ValueError: The file is no encoder, the embeddings have another width than it gives, a
            name, a fact, a file's name, ``kind`` or ``target_recall`` is none, or an item is no
            picture of the product that ``product_column`` names.
    """
    target = Path(os.path.abspath(check_is_folder(folder)))
    _check_new(target)
    _check_name_and_facts(name, facts or {})
    check_pictures(items, product_column)
    given = dict(files or {})
    _check_files(given)
    source = Path(encoder_onnx)
    data = _read(source, "the encoder")
    encoder = record_encoder(ENCODER_FILE, data, open_encoder(source, data, num_threads))
    if items.embeddings.shape[1] != encoder.embedding_dim:
        raise ValueError(
            f"the embeddings are {items.embeddings.shape[1]} wide, and the encoder gives "
            f"{encoder.embedding_dim}; expected the same: embed the items with this encoder"
        )
    contents = {ENCODER_FILE: data, **given}
    with scratch_folder(target.parent, target.name) as room, write_lock(room, wait_seconds=0):
        records = {file: _write(room, file, content) for file, content in contents.items()}
        base = _base(name, facts or {}, encoder, items, records, product_column)
        draft = Draft(room, base, [], np.empty(0, np.int64), base.index)
        columns = {column: items.columns[column] for column in base.columns}
        table = text_table(items.item_ids, columns)
        add_segment(draft, table, [items.embeddings], items.thumbnails)
        build_index(
            draft,
            kind=kind,
            target_recall=target_recall,
            max_bytes=max_bytes,
            num_threads=num_threads,
            on_progress=on_progress,
        )
        manifest = draft.commit()
        try:
            os.rename(room, target)
        except OSError as error:
            _check_new(target)
            raise OSError(
                error.errno, f"{room} could not become {target} ({error.strerror})"
            ) from error
        sync_folder(target.parent)
    return manifest


def _base(
    name: str,
    facts: Mapping[str, object],
    encoder: EncoderRecord,
    items: BundleItems,
    records: Mapping[str, FileRecord],
    product_column: str | None,
) -> BundleManifest:
    """Returns the generation before the first."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return BundleManifest(
        generation=0,
        name=name,
        created=now,
        written=now,
        facts=facts,
        columns=("category", *(column for column in items.columns if column != "category")),
        num_items=0,
        num_removed=0,
        encoder=encoder,
        index=IndexRecord(None, 0, encoder.sha256, asked={}, plan={}),
        segments=(),
        removed=None,
        files=records,
        product_column=product_column,
    )


def _check_new(target: Path) -> None:
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        what = "a bundle" if (target / MANIFEST_FILE).exists() else "something else"
        raise FileExistsError(
            f"{target} holds {what} already; expected a new or empty folder: name another one, add "
            "to the bundle, or delete it first"
        )


def _check_name_and_facts(name: object, facts: Mapping[str, object]) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 200 or not name.isprintable():
        raise ValueError(
            f"name is {str(name)[:300]!r}; expected printable text of 1..200 characters"
        )
    try:
        text = json.dumps(facts, allow_nan=False)
        if json.loads(text) != facts:
            raise ValueError("keys that are no text")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"facts are no plain JSON ({str(error)[:200]}); expected texts, finite numbers, lists "
            "and mappings with texts as keys: convert them"
        ) from error
    if len(text) > MAX_FACTS_BYTES:
        raise ValueError(
            f"facts have {len(text):,} bytes; expected at most {MAX_FACTS_BYTES:,}: give long "
            "tables as further files"
        )


def _check_files(files: Mapping[str, Path | bytes | str]) -> None:
    for file, content in files.items():
        check_name(file)
        if file in (MANIFEST_FILE, ENCODER_FILE) or file.partition("/")[0] in FOLDERS:
            raise ValueError(
                f"files holds {file!r}, which the bundle itself writes; expected another name"
            )
        if isinstance(content, Path) and not content.is_file():
            raise FileNotFoundError(
                f"no file at {content}; expected what is to become {file} in the bundle: check the "
                "path"
            )


def _read(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}; expected {what}: check the path")
    return path.read_bytes()


def _write(room: Path, file: str, content: Path | bytes | str) -> FileRecord:
    path = room / file
    with atomic_path(path) as temporary:
        if isinstance(content, Path):
            shutil.copyfile(content, temporary)
        else:
            data = content.encode() if isinstance(content, str) else content
            temporary.write_bytes(data)
    sync_folder(path.parent)
    return record_file(path)
