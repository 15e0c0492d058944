"""What each picture of a catalogue is: size, mode, format, bytes, and what tells copies apart.

Facts are found by the picture's content and kept beside the store of decoded pictures, as
``facts-v1.parquet``: a second look at 44,000 pictures reads one small file.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import ExifTags

from visual_search.atomic import atomic_path
from visual_search.catalog.cache import Pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.duplicates import perceptual_hashes, pixel_keys
from visual_search.catalog.images import open_header
from visual_search.catalog.streaming import num_reading

# Raise it whenever a fact is found in another way than before: it is in the file's name.
FACTS_VERSION = 1
COLUMNS = (
    "width_px", "height_px", "mode", "format", "num_bytes", "orientation", "animated",
    "transparent", "pixels", "hash",
)  # fmt: skip
_CHUNK = 1024
_ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")  # a JPEG's further frames are previews


def facts_path(pictures: Pictures) -> Path:
    """Returns where the facts of pictures are kept that were decoded to this size and fit."""
    return pictures.path.parent / f"facts-v{FACTS_VERSION}.parquet"


def picture_facts(
    catalog: Catalog,
    pictures: Pictures,
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Returns one row an item, in the catalogue's order, and keeps what it found.

    Args:
        catalog: Items whose pictures all decode, as `cache_pictures` leaves them.
        pictures: Its decoded pictures, in the same order.
        on_progress: Called with (done, total) pictures whose facts were not yet known; not called
            where there is none.

    Returns:
        ``width_px``, ``height_px`` (as stored, before the EXIF orientation is applied), ``mode``
        (Pillow's name), ``format`` (``array`` where the data comes decoded), ``num_bytes`` (of the
        encoded file), ``orientation`` (EXIF, 1 is upright), ``animated``, ``transparent`` (bool),
        ``pixels`` (the key of `duplicates.pixel_keys`) and ``hash`` (uint64, of
        `duplicates.perceptual_hashes`; 0 where the picture has too little contrast).

    Raises:
        ValueError: Catalogue and pictures are not equally many.
        OSError: A picture cannot be read, or the facts cannot be written.
    """
    if len(catalog) != len(pictures):
        raise ValueError(
            f"the catalogue has {len(catalog)} items and there are {len(pictures)} pictures; "
            "expected one a row: give both as cache_pictures gave them"
        )
    images = list(catalog.table["image"])
    keys = catalog.source.content_keys(images)
    path = facts_path(pictures)
    known = _read(path)
    row_of_key = {key: row for row, key in enumerate(keys)}
    missing = [key for key in row_of_key if key not in known.index]
    if missing:
        rows = np.array([row_of_key[key] for key in missing], dtype=np.int64)
        added = _measure(catalog, pictures, rows, on_progress)
        added.index = pd.Index(missing, name="content_key")
        latest = _read(path)  # another process may have added some meanwhile
        latest = latest[~latest.index.isin(added.index)]
        known = pd.concat([latest, added]) if len(latest) else added
        with atomic_path(path) as temporary:
            known.reset_index().to_parquet(temporary, index=False)
    return known.loc[keys].reset_index(drop=True)


def _read(path: Path) -> pd.DataFrame:
    """Returns facts that are kept, by content key; none where the file is missing or damaged."""
    from pyarrow import ArrowException

    empty = pd.DataFrame(columns=list(COLUMNS), index=pd.Index([], name="content_key"))
    try:
        kept = pd.read_parquet(path)
    except (OSError, ValueError, ArrowException):  # they can be found again
        return empty
    if set(kept.columns) != {"content_key", *COLUMNS}:
        return empty
    return kept.set_index("content_key")[list(COLUMNS)]


def _measure(
    catalog: Catalog,
    pictures: Pictures,
    rows: NDArray[np.int64],
    on_progress: Callable[[int, int], None] | None,
) -> pd.DataFrame:
    images = list(catalog.table["image"])
    facts: list[tuple[object, ...]] = []
    threads = num_reading(catalog.source, num_cores=2)  # headers are little work for a core
    with ThreadPoolExecutor(threads, thread_name_prefix="facts") as pool:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            seen = list(
                pool.map(lambda row: _header(catalog.source.load(images[row])), chunk.tolist())
            )
            same = pixel_keys(pictures, chunk)
            hashes = perceptual_hashes(pictures, chunk)
            facts += [
                (*header, key, np.uint64(value))
                for header, key, value in zip(seen, same, hashes, strict=True)
            ]
            if on_progress is not None:
                on_progress(len(facts), len(rows))
    return pd.DataFrame(facts, columns=list(COLUMNS)).astype({"hash": np.uint64})


def _header(loaded: bytes | NDArray[np.uint8]) -> tuple[object, ...]:
    """Returns a picture's facts without decoding its pixels."""
    if not isinstance(loaded, bytes):
        height, width = loaded.shape[:2]
        mode = "L" if loaded.ndim == 2 else "RGB"
        return width, height, mode, "array", loaded.nbytes, 1, False, False
    with open_header(loaded) as image:
        kind = str(image.format)
        width, height = image.size
        transparent = image.has_transparency_data
        animated = kind in _ANIMATED_FORMATS and bool(getattr(image, "is_animated", False))
        mode = image.mode
        try:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        except (SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError):
            orientation = 1  # junk in the EXIF block; the picture is shown as stored
        # a TIFF's size is that of the picture as it is shown
        turned = orientation if orientation in range(1, 9) and kind != "TIFF" else 1
        return width, height, mode, kind, len(loaded), int(turned), animated, transparent
