"""A bundle's encoder and index: loaded, and refused where they are not what the bundle says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.files import DamagedError, MissingFileError, inside
from visual_search.bundle.manifest import BundleManifest, EncoderRecord, IndexRecord
from visual_search.knn.plan import SearchPlan
from visual_search.knn.store import ArrayStore

if TYPE_CHECKING:
    from visual_search.bundle.encoder import Accelerator, OnnxEncoder
    from visual_search.knn.search_index import SearchIndex

# An index file that knows fewer rows than there are is completed when the bundle is opened. Beyond
# so many rows that would take seconds at every opening, and the file is written anew.
MAX_LATE_ROWS = 1_000
MAX_LATE_SHARE = 0.01


def make_encoder(
    data: bytes, num_threads: int | None, accelerator: Accelerator = "cpu"
) -> OnnxEncoder:
    """Returns the encoder of an ONNX file's bytes; ONNX Runtime is loaded here.

    Raises:
        ValueError: They are no encoder.
        NoGpuError: A GPU is asked for and not there.
    """
    from visual_search.bundle.encoder import OnnxEncoder

    return OnnxEncoder(data, num_threads=num_threads, accelerator=accelerator)


def open_encoder(
    path: Path, data: bytes, num_threads: int | None, accelerator: Accelerator = "cpu"
) -> OnnxEncoder:
    """Returns the encoder of a file that was read; what is wrong with it is said with its path.

    Raises:
        ValueError: It is no encoder.
    """
    try:
        return make_encoder(data, num_threads, accelerator)
    except ValueError as error:
        raise DamagedError(f"{path}: {error}") from error


def load_encoder(
    folder: Path,
    manifest: BundleManifest,
    num_threads: int | None,
    accelerator: Accelerator = "cpu",
) -> OnnxEncoder:
    """Reads the bundle's encoder.

    Args:
        folder: The bundle's.
        manifest: Its own.
        num_threads: That one call computes with; None for as many as there are cores.
        accelerator: Where it computes.

    Raises:
        FileNotFoundError: The file is gone.
        ValueError: It is another file than the manifest names, no encoder, or one that takes or
            gives something else.
        NoGpuError: A GPU is asked for and not there.
    """
    record = manifest.encoder
    path = inside(folder, record.file)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedError(
            f"{path} has SHA-256 {hashlib.sha256(data).hexdigest()[:12]}..., expected "
            f"{record.sha256[:12]}...; the embeddings were made by another encoder: copy the whole "
            "bundle again, or create it again"
        )
    encoder = open_encoder(path, data, num_threads, accelerator)
    found = encoder_facts(encoder)
    expected = {name: getattr(record, name) for name in found}
    if found != expected:
        raise DamagedError(
            f"{path} has {found}, and the bundle says {expected}; expected the encoder that the "
            "bundle was created with: create it again"
        )
    return encoder


def record_encoder(file: str, data: bytes, encoder: OnnxEncoder) -> EncoderRecord:
    """Returns what the manifest keeps of an encoder."""
    return EncoderRecord(file, hashlib.sha256(data).hexdigest(), **encoder_facts(encoder))


def encoder_facts(encoder: OnnxEncoder) -> dict[str, Any]:
    """Returns what an encoder takes and gives."""
    return {
        "image_size_px": int(encoder.image_size_px),
        "fit": str(encoder.fit),
        "embedding_dim": int(encoder.embedding_dim),
    }


def open_index(
    folder: Path,
    record: IndexRecord,
    embeddings: Sequence[NDArray[np.float32]],
    num_threads: int | None,
) -> SearchIndex:
    """Opens the index over all rows.

    Args:
        folder: The bundle's folder.
        record: What the manifest says of it.
        embeddings: ``[n, D]`` of each segment, in order.
        num_threads: Of the searches.

    Raises:
        FileNotFoundError: The file is gone.
        ValueError: It is damaged, or no index of these rows.
    """
    from visual_search.knn.indexes import load_index

    store = ArrayStore(embeddings)
    path = None if record.file is None else folder / record.file
    try:
        plan = SearchPlan.from_json(record.plan)
        return load_index(path, store, plan, num_threads=num_threads)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} is missing; it was there a moment ago") from error
    except (ValueError, TypeError, RuntimeError) as error:
        if path is not None and not path.exists():
            raise MissingFileError(f"{path} is missing; it was there a moment ago") from error
        raise DamagedError(
            f"the index of the bundle in {folder} cannot be used: {str(error)[:500]}; expected "
            f"one over {len(store)} row(s) of {store.dim} numbers: rebuild the bundle, or create "
            "it again"
        ) from error


def is_late(num_rows: int, num_known: int) -> bool:
    """Returns whether an index file knows so few of the rows that it is worth writing it anew.

    Example:
        >>> is_late(50_000, 49_999), is_late(50_000, 40_000)
        (False, True)
    """
    return num_rows - num_known > max(MAX_LATE_ROWS, MAX_LATE_SHARE * num_rows)
