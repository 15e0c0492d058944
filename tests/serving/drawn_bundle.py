"""A small bundle in memory, for tests: drawn products, a true if simple encoder, exact search.

It keeps the contract of `visual_search.bundle.bundle.Bundle` as far as serving uses it.
"""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from visual_search.catalog import images
from visual_search.catalog.images import PictureLimits

SIDE = 32
COLOURS = {
    "red": (196, 52, 45), "blue": (43, 91, 168), "green": (66, 138, 79), "black": (40, 40, 44),
    "sand": (214, 188, 150), "rose": (222, 140, 160),
}  # fmt: skip
SHAPES = ("Shoes", "Dresses", "Bags", "Hats")
MATERIALS = ("cotton", "leather", "wool")
EVIL = "\"><script>alert(1)</script>&'x"


@dataclass(frozen=True)
class Hit:
    rank: int
    item_id: str
    category: str
    squared_distance: float
    attributes: Mapping[str, str]


@dataclass(frozen=True)
class Manifest:
    generation: int = 1
    files: Mapping[str, Any] = field(default_factory=dict)


class GridEncoder:
    """Embeds a picture as its colours on a grid of 4 x 4."""

    image_size_px = SIDE
    fit = "letterbox"
    embedding_dim = 48

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds  # how long a batch takes
        self.batches: list[int] = []
        self.gate: threading.Event | None = None  # set: waits for it, at every batch
        self.entered = threading.Event()

    def decode(self, data: bytes, limits: PictureLimits) -> NDArray[np.uint8]:
        return images.decode(data, SIDE, "letterbox", limits)

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(120)
        time.sleep(self.seconds)
        cells = pictures.reshape(len(pictures), 3, 4, SIDE // 4, 4, SIDE // 4)
        return (cells.mean(axis=(3, 5)) / 255).reshape(len(pictures), -1).astype(np.float32)


class DrawnBundle:
    """Exact search over drawn products."""

    def __init__(
        self, name: str, items: Mapping[str, Mapping[str, str]], thumbnails: Mapping[str, bytes],
        encoder: GridEncoder | None = None, folder: Path = Path("nowhere"),
        manifest: Manifest | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.folder = folder
        self.manifest = manifest or Manifest()
        self.encoder = encoder or GridEncoder()
        self.dim = self.encoder.embedding_dim
        self._items = dict(items)
        self._thumbnails = dict(thumbnails)
        self._ids = list(items)
        names = [column for item in items.values() for column in item]
        self.columns = tuple(dict.fromkeys(["category", *names]))
        blank = drawn("Hats", "sand")
        pictures = [
            self.encoder.decode(thumbnails[one] or blank, PictureLimits()) for one in self._ids
        ]
        self._embeddings = GridEncoder().embed(np.stack(pictures)) if pictures else np.zeros((0, 1))
        self.newer: Callable[[], DrawnBundle] | None = None

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    def search(
        self, embeddings: NDArray[np.float32], k: int, *, where: Mapping[str, Sequence[str]] | None,
        exclude_ids: Sequence[str | None] | None,
    ) -> list[list[Hit]]:  # fmt: skip
        found = []
        for query, excluded in zip(embeddings, exclude_ids or [None], strict=True):
            allowed = [one for one in self.item_ids(where=where) if one != excluded]
            rows = [self._ids.index(one) for one in allowed]
            squared = ((self._embeddings[rows] - query) ** 2).sum(axis=1)
            nearest = np.argsort(squared, kind="stable")[:k]
            found.append([self._hit(r, allowed[n], squared[n]) for r, n in enumerate(nearest, 1)])
        return found

    def _hit(self, rank: int, item_id: str, squared: float) -> Hit:
        attributes = dict(self._items[item_id])
        return Hit(rank, item_id, attributes.pop("category"), float(squared), attributes)

    def embedding_of(self, item_id: str) -> NDArray[np.float32]:
        if item_id not in self._items:
            raise KeyError(item_id)
        return self._embeddings[self._ids.index(item_id)]

    def item(self, item_id: str) -> Mapping[str, str]:
        return {"item_id": item_id, **self._items[item_id]}

    def item_ids(
        self, *, where: Mapping[str, Sequence[str]] | None = None, start: int = 0,
        limit: int | None = None,
    ) -> list[str]:  # fmt: skip
        fitting = [
            item_id
            for item_id, item in self._items.items()
            if all(item.get(column, "") in values for column, values in (where or {}).items())
        ]
        return fitting[start : None if limit is None else start + limit]

    def count(self, where: Mapping[str, Sequence[str]] | None = None) -> int:
        return len(self.item_ids(where=where))

    def values_of(self, column: str) -> dict[str, int]:
        return dict(Counter(i.get(column, "") for i in self._items.values()).most_common())

    def has_more_values(self, column: str, than: int) -> bool:
        return len(self.values_of(column)) > than

    def thumbnail(self, item_id: str) -> bytes:
        return self._thumbnails[item_id]

    def file(self, name: str) -> Path:
        return self.folder / name

    def is_current(self) -> bool:
        return self.newer is None

    def refreshed(self) -> DrawnBundle:
        return self if self.newer is None else self.newer()


def drawn(shape: str, colour: str, shift: int = 0, side: int = 160) -> bytes:
    """Draws a product on white, as a JPEG file."""
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    red, green, blue = COLOURS[colour]
    fill = (red, max(0, green - shift), min(255, blue + shift))
    unit = side / 16

    def at(*corners: float) -> list[float]:
        return [corner * unit for corner in corners]

    if shape == "Shoes":
        pen.polygon(at(2, 11, 2, 7, 5, 7, 8, 9, 13, 10, 14.5, 12), fill)
        pen.rectangle(at(2, 12, 14.5, 13), (90, 80, 72))
    elif shape == "Dresses":
        pen.polygon(at(6, 2, 10, 2, 9.6, 6, 13, 14, 3, 14, 6.4, 6), fill)
    elif shape == "Bags":
        pen.arc(at(5, 2, 11, 10), 180, 360, fill, round(unit * 0.7))
        pen.rounded_rectangle(at(2.5, 6, 13.5, 14), unit, fill)
    else:
        pen.pieslice(at(4, 3, 12, 13), 180, 360, fill)
        pen.rounded_rectangle(at(1.5, 8, 14.5, 9.4), unit / 2, fill)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def drawn_bundle(
    name: str = "drawn", *, encoder: GridEncoder | None = None, num_items: int = 48,
    evil: bool = False, **further: Any,
) -> DrawnBundle:  # fmt: skip
    """Returns ``num_items`` products ``p0``, ``p1``...; with ``evil`` one whose texts are HTML."""
    items, thumbnails = {}, {}
    for n in range(num_items):
        shape, colour = SHAPES[n % 4], list(COLOURS)[(n // 4) % 6]
        material = MATERIALS[(n + n // 4) % 3]
        items[f"p{n}"] = {"category": shape, "colour": colour, "material": material}
        thumbnails[f"p{n}"] = drawn(shape, colour, shift=n // 24 * 12)
    if evil:
        items[EVIL] = {"category": f"<b>{EVIL}</b>", "colour": "red", "material": "{{ 7 * 7 }}"}
        thumbnails[EVIL] = b""
    return DrawnBundle(name, items, thumbnails, encoder, **further)


def bundle_of(categories: Sequence[str], **columns: str) -> DrawnBundle:
    """Returns a product ``p0``, ``p1``... of each category, all of one picture."""
    items = {f"p{n}": {"category": name, **columns} for n, name in enumerate(categories)}
    return DrawnBundle("shop", items, dict.fromkeys(items, drawn("Hats", "sand")))


def next_generation(bundle: DrawnBundle, *, without: str) -> DrawnBundle:
    """Returns a newer generation that lacks an item."""
    items = {one: {k: v for k, v in bundle.item(one).items() if k != "item_id"}
             for one in bundle.item_ids() if one != without}  # fmt: skip
    thumbnails = {one: bundle.thumbnail(one) for one in items}
    manifest = replace(bundle.manifest, generation=bundle.manifest.generation + 1)
    return DrawnBundle(bundle.name, items, thumbnails, bundle.encoder, bundle.folder, manifest)
