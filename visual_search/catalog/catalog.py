"""The catalogue: one validated table of products, and where their pictures come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.catalog.identity import PRODUCT, id_problem, is_by_picture

SPLITS = ("train", "val", "test")
REQUIRED_COLUMNS = ("item_id", "image", "category", "group", "split")


class PictureSource(Protocol):
    """Where the pictures of a catalogue come from: a folder, a zip, arrays in memory.

    A source is safe to share between threads and can be pickled.
    """

    def load(self, image: str) -> bytes | NDArray[np.uint8]:
        """Returns the encoded file, or an already decoded ``[H, W]`` or ``[H, W, 3]`` uint8 array.

        Raises:
            FileNotFoundError: No picture of this name is here.
        """
        ...

    def load_keyed(self, image: str) -> tuple[bytes | NDArray[np.uint8], str]:
        """Returns what `load` does and the content key of these very bytes; remembers nothing."""
        ...

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns one key a picture that changes if, and only if, the picture's bytes change."""
        ...


@dataclass(frozen=True)
class RefusedItem:
    r"""An item that did not make it into the catalogue, and why.

    What is no UTF-8 in a file's name is spelled out (``caf\xe9.jpg``), so that it can be printed.
    """

    item_id: str
    image: str
    reason: str

    def __post_init__(self) -> None:
        for name in ("item_id", "image", "reason"):
            text = getattr(self, name).encode("utf-8", "surrogateescape")
            object.__setattr__(self, name, text.decode("utf-8", "backslashreplace"))


@dataclass(frozen=True)
class Choice:
    """What a reader found out or chose by itself, to be printed and kept with what is made of it.

    Attributes:
        key: The setting that says otherwise, as ``data.separator``; empty where there is none.
        value: What was chosen.
        why: The reason.
        setting: What the key is set to for the same data to be read in the same way again; None
            where that is not kept.
    """

    key: str
    value: str
    why: str
    setting: str | bool | tuple[str, ...] | None = None

    def __str__(self) -> str:
        return f"{self.key}={self.value} ({self.why})" if self.key else f"{self.value}: {self.why}"


class BadItemsError(ValueError):
    """Items of a catalogue cannot be used; the message lists the first ten and the count."""

    def __init__(self, refused: Sequence[RefusedItem], source: str) -> None:
        self.refused = tuple(refused)
        self.source = source
        shown = "\n".join(f"  {r.item_id!r} ({r.image}): {r.reason}" for r in self.refused[:10])
        more = f"\n  ... and {len(refused) - 10} more" if len(refused) > 10 else ""
        super().__init__(
            f"{len(refused)} bad item(s) in {source}:\n{shown}{more}\n"
            "Mend them, or leave them out (they stay counted and listed) with "
            "data.on_bad_item=skip."
        )

    def __reduce__(self) -> tuple[type[BadItemsError], tuple[tuple[RefusedItem, ...], str]]:
        return type(self), (self.refused, self.source)


@dataclass(frozen=True)
class Catalog:
    """Products and their pictures: what every reader gives and everything else takes.

    Attributes:
        name: Short name of the data, as ``fashion_mnist``.
        table: One row an item, index 0..n-1. Columns ``item_id``, ``image``, ``category``,
            ``group``, ``split`` hold non-empty ``str`` (``group`` is the item id where the data has
            no groups; ``split`` is one of ``train``, ``val``, ``test``, or ``""`` where not yet
            assigned). Every further column is an attribute, of ``str``, possibly empty; where
            products have several pictures, ``product`` names the product of each.
        source: Loads a picture by its ``image`` name.
        refused: Items that were left out, with the reason.
        choices: What the reader found out or chose by itself.

    Raises:
        ValueError: A column is missing, a value is no text or empty, an item id stands twice or
            cannot be found again (see `visual_search.catalog.identity.id_problem`), or a split has
            another name.
    """

    name: str
    table: pd.DataFrame
    source: PictureSource
    refused: tuple[RefusedItem, ...] = field(default=())
    choices: tuple[Choice, ...] = field(default=())

    def __post_init__(self) -> None:
        missing = [column for column in REQUIRED_COLUMNS if column not in self.table.columns]
        if missing:
            raise ValueError(
                f"catalogue {self.name!r} lacks the column(s) {missing}; expected at least "
                f"{list(REQUIRED_COLUMNS)}; let the reader fill them"
            )
        if not self.table.index.equals(pd.RangeIndex(len(self.table))):
            raise ValueError(
                f"catalogue {self.name!r} has an index other than 0..{len(self.table) - 1}; "
                "call reset_index(drop=True) on the table first"
            )
        for column in self.table.columns:
            texts = [isinstance(value, str) for value in self.table[column]]
            if not all(texts):
                row = texts.index(False)
                value = self.table[column].iloc[row]
                raise ValueError(
                    f"catalogue {self.name!r}, row {row}, column {column!r} holds {value!r} "
                    f"({type(value).__name__}); expected text; read the table with dtype=str"
                )
        for column in ("item_id", "image", "category", "group"):
            empty = np.flatnonzero(self.table[column].to_numpy() == "")
            if len(empty):
                raise ValueError(
                    f"catalogue {self.name!r}, row {int(empty[0])}, column {column!r} is empty "
                    f"({len(empty)} such row(s)); fill it or leave the row out"
                )
        for item_id in self.table["item_id"]:
            if problem := id_problem(item_id):
                raise ValueError(f"catalogue {self.name!r}: the item id {item_id!r} {problem}")
        twice = self.table["item_id"][self.table["item_id"].duplicated()]
        if len(twice):
            raise ValueError(
                f"catalogue {self.name!r} has {len(twice)} duplicate item id(s), first "
                f"{twice.iloc[0]!r}; an id names one item"
            )
        unknown = sorted(set(self.table["split"]) - {*SPLITS, ""})
        if unknown:
            raise ValueError(
                f"catalogue {self.name!r} has the split(s) {unknown}; expected one of "
                f"{list(SPLITS)}, or '' where none is assigned yet"
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def categories(self) -> list[str]:
        """The categories, sorted alphabetically."""
        return sorted(set(self.table["category"]))

    @property
    def attributes(self) -> list[str]:
        """The names of the attribute columns, in the table's order."""
        return [c for c in self.table.columns if c not in REQUIRED_COLUMNS]

    @property
    def products(self) -> list[str] | None:
        """The product of each row, where products have several pictures; else None."""
        if PRODUCT not in self.table.columns:
            return None
        products = self.table[PRODUCT].tolist()
        several = len(set(products)) < len(products)
        return (
            products
            if several and is_by_picture(self.table["item_id"].tolist(), products)
            else None
        )

    @property
    def settings(self) -> dict[str, object]:
        """Arguments of the reader, found out by it, with which it reads the same data so again."""
        found = {c.key.partition(".")[2]: c.setting for c in self.choices if c.setting is not None}
        return {key: [*one] if isinstance(one, tuple) else one for key, one in found.items()}

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Catalog:
        """Returns the catalogue of these rows of the table, in this order."""
        table = self.table.iloc[np.asarray(rows, dtype=np.int64)].reset_index(drop=True)
        return replace(self, table=table)

    def rows_of_split(self, split: str) -> NDArray[np.int64]:
        """Returns the row numbers of one split, ascending (``[n] int64``)."""
        return np.flatnonzero(self.table["split"].to_numpy() == split).astype(np.int64)

    def fingerprint(self) -> str:
        """Returns a SHA-256 (hex) of the table and of every picture's content key."""
        digest = hashlib.sha256()
        digest.update("\x1f".join(self.table.columns).encode())
        for row in self.table.itertuples(index=False, name=None):
            digest.update("\x1f".join(row).encode() + b"\x1e")
        for key in self.source.content_keys(list(self.table["image"])):
            digest.update(key.encode() + b"\x1e")
        return digest.hexdigest()
