"""What items must be before they enter a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.manifest import MAX_COLUMNS
from visual_search.catalog.identity import PRODUCT, id_problem
from visual_search.knn.embeddings import check_array, check_texts, check_values

MAX_TEXT_LENGTH = 10_000  # of an id or an attribute, in characters
MAX_THUMBNAIL_BYTES = 2**20
_JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True, eq=False)
class BundleItems:
    """Items with their embeddings and small pictures, as they go into a bundle.

    Attributes:
        item_ids: N different ids. The empty text stands for a further picture of the product that
            the column ``product`` names: the bundle that takes it gives it its id.
        columns: Column -> N texts. ``category`` is among them, which loses the white space around
            it, as in a catalogue, and is not empty; elsewhere the empty text stands for "none".
        embeddings: ``[N, D] float32``, made by the bundle's encoder.
        thumbnails: N JPEG files; ``b""`` where there is none. Left out, nobody has one.

    Raises:
        TypeError: The embeddings are no float32 array, an id or a column's value no text, or a
            thumbnail no bytes.
        ValueError: There is no item, an id or a category is empty, an id stands twice or could not
            be found again (see `visual_search.catalog.identity.id_problem`), a text is too long, a
            column has a wrong name or length, an embedding is not finite, or a thumbnail is no
            JPEG.

    Example:
        >>> items = BundleItems(
        ...     item_ids=["shoe-1", "hat-1"],
        ...     columns={"category": ["shoes", "hats"], "colour": ["red", ""]},
        ...     embeddings=np.eye(2, 4, dtype=np.float32),
        ... )
        >>> len(items), list(items.columns)
        (2, ['category', 'colour'])
    """

    item_ids: Sequence[str]
    columns: Mapping[str, Sequence[str]]
    embeddings: NDArray[np.float32]
    thumbnails: Sequence[bytes] = field(default=())

    def __post_init__(self) -> None:
        check_array(self.embeddings, "gallery")
        num_items = len(self.embeddings)
        if not num_items:
            raise ValueError("there is no item; expected at least one: check what was read")
        check_columns(self.columns)
        products = list(self.columns.get(PRODUCT, ()))
        ids = check_texts(self.item_ids, num_items, "item_ids", may_be_empty=bool(products))
        names = list(ids)
        for row, item_id in enumerate(ids):
            if not item_id and row < len(products) and products[row]:
                names[row] = f"picture {row} of {products[row]}"
            elif problem := id_problem(item_id):
                raise ValueError(f"the item id {item_id!r} {problem}")
        check_values(self.embeddings, names, "gallery")
        texts = {
            name: check_texts(values, num_items, f"column {name!r}", may_be_empty=True)
            for name, values in self.columns.items()
        }
        texts["category"] = [category.strip() for category in texts["category"]]
        for item_id, category in zip(names, texts["category"], strict=True):
            if not category:
                raise ValueError(
                    f"the category of item {item_id!r} is blank; expected its name: fill it"
                )
        for name, values in {"item_ids": ids, **texts}.items():
            _check_lengths(name, values)
        thumbnails = list(self.thumbnails) or [b""] * num_items
        _check_thumbnails(thumbnails, names)
        object.__setattr__(self, "item_ids", ids)
        object.__setattr__(self, "columns", texts)
        object.__setattr__(self, "thumbnails", thumbnails)

    def __len__(self) -> int:
        return len(self.item_ids)


def check_columns(names: Mapping[str, object]) -> None:
    """Checks the names of columns.

    Raises:
        ValueError: ``category`` is missing, ``item_id`` is among them, a name is no text of 1 to
            100 characters, or there are too many.
    """
    if "category" not in names or "item_id" in names:
        raise ValueError(
            f"the columns are {sorted(map(str, names))}; expected 'category' and attributes, "
            "without 'item_id', which has its own place: add or rename one"
        )
    for name in names:
        if not isinstance(name, str) or not 1 <= len(name) <= 100 or not name.isprintable():
            raise ValueError(
                f"a column is called {str(name)[:200]!r}; expected printable text of 1..100 "
                "characters: rename it"
            )
    if len(names) > MAX_COLUMNS:
        raise ValueError(
            f"there are {len(names)} columns; expected at most {MAX_COLUMNS}: leave some out"
        )


def _check_lengths(name: str, values: Sequence[str]) -> None:
    longest = max(values, key=len)
    if len(longest) > MAX_TEXT_LENGTH:
        raise ValueError(
            f"{name} holds a text of {len(longest):,} characters ({longest[:40]!r}...); expected "
            f"at most {MAX_TEXT_LENGTH:,}: shorten it"
        )
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} holds a text that is no Unicode ({error.reason}); expected UTF-8: read the "
            "source with its right encoding"
        ) from error


def _check_thumbnails(thumbnails: Sequence[object], ids: Sequence[str]) -> None:
    if len(thumbnails) != len(ids):
        raise ValueError(
            f"there are {len(thumbnails)} thumbnail(s) for {len(ids)} item(s); expected one each, "
            "b'' where there is none: align them"
        )
    for item_id, data in zip(ids, thumbnails, strict=True):
        if not isinstance(data, bytes):
            raise TypeError(
                f"the thumbnail of {item_id!r} is {type(data).__name__}; expected the bytes of a "
                "JPEG file, or b''"
            )
        if data and (not data.startswith(_JPEG_START) or len(data) > MAX_THUMBNAIL_BYTES):
            raise ValueError(
                f"the thumbnail of {item_id!r} has {len(data):,} bytes and starts with "
                f"{data[:4]!r}; expected a JPEG file of at most {MAX_THUMBNAIL_BYTES:,} bytes, or "
                "b'': save it as a small JPEG"
            )
