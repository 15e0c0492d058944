"""Bundles of drawn products, for tests: with a true if simple encoder, in NumPy or in ONNX."""

from __future__ import annotations

import functools
import io
import itertools
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from visual_search.bundle.bundle import Bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.items import BundleItems
from visual_search.catalog import images
from visual_search.catalog.identity import picture_id
from visual_search.catalog.images import PictureLimits

SIDE = 32
COLOURS = {
    "red": (196, 52, 45), "blue": (43, 91, 168), "green": (66, 138, 79), "black": (40, 40, 44),
    "sand": (214, 188, 150), "rose": (222, 140, 160),
}  # fmt: skip
SHAPES = ("Shoes", "Dresses", "Bags", "Hats")
MATERIALS = ("cotton", "leather", "wool")
EVIL = "\"><script>alert(1)</script>&'x"
Rows = Mapping[str, Mapping[str, str]]  # item id -> column -> text


class GridEncoder:
    """Embeds a picture as its colours on a grid of 4 x 4; stands in the place of an ONNX file's."""

    image_size_px = SIDE
    fit = "letterbox"
    embedding_dim = 48

    def __init__(
        self, model: bytes = b"", num_threads: int | None = None, accelerator: str = "cpu"
    ) -> None:
        self.batches: list[int] = []
        self.gate: threading.Event | None = None  # set: waits for it, at every batch

    def decode(self, data: bytes, limits: PictureLimits) -> NDArray[np.uint8]:
        return images.decode(data, SIDE, "letterbox", limits)

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pictures))
        if self.gate is not None:
            assert self.gate.wait(120)
        cells = pictures.reshape(len(pictures), 3, 4, SIDE // 4, 4, SIDE // 4)
        return (cells.mean(axis=(3, 5)) / 255).reshape(len(pictures), -1).astype(np.float32)


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


@functools.cache
def products(num_items: int = 48, evil: bool = False) -> BundleItems:
    """Returns products ``p0``, ``p1``...; with ``evil`` one more, whose texts are HTML."""
    colours = list(COLOURS)
    kinds = [(SHAPES[n % 4], colours[n // 4 % 6], n // 24 * 12) for n in range(num_items)]
    ids = [f"p{n}" for n in range(num_items)]
    columns = {
        "category": [shape for shape, _, _ in kinds],
        "colour": [colour for _, colour, _ in kinds],
        "material": [MATERIALS[(n + n // 4) % 3] for n in range(num_items)],
    }
    thumbnails = [drawn(*kind) for kind in kinds]
    if evil:
        ids.append(EVIL)
        for name, text in zip(columns, (f"<b>{EVIL}</b>", "red", "{{ 7 * 7 }}"), strict=True):
            columns[name].append(text)
        thumbnails.append(b"")
    return BundleItems(ids, columns, embedded(thumbnails), thumbnails)


@functools.cache
def several_pictures(num_products: int = 24) -> BundleItems:
    """Returns products ``p0``, ``p1``... of 1, 2, 3, ... 7, 1, 2 ... pictures, drawn in turn."""
    base = products(num_products)
    owners = [n for n in range(num_products) for _ in range(1 + n % 7)]
    numbers = [number for n in range(num_products) for number in range(1, 2 + n % 7)]
    pictures = [_again(base.thumbnails[n], k) for n, k in zip(owners, numbers, strict=True)]
    ids = [picture_id(base.item_ids[n], k) for n, k in zip(owners, numbers, strict=True)]
    columns = {name: [texts[n] for n in owners] for name, texts in base.columns.items()}
    columns["product"] = [base.item_ids[n] for n in owners]
    return BundleItems(ids, columns, embedded(pictures), pictures)


def _again(picture: bytes, number: int) -> bytes:
    """Returns a further picture of what one shows: mirrored, near, turned."""
    with Image.open(io.BytesIO(picture)) as image:
        turned = image.rotate(8 * (number - 3), fillcolor="white") if number > 3 else image.copy()
        if number == 2:
            turned = ImageOps.mirror(image)
        if number == 3:
            turned = image.crop((30, 30, 130, 130)).resize(image.size)
    file = io.BytesIO()
    turned.save(file, "JPEG", quality=90)
    return file.getvalue()


def embedded(pictures: list[bytes]) -> NDArray[np.float32]:
    encoder, blank = GridEncoder(), drawn("Hats", "sand")
    decoded = [encoder.decode(one or blank, PictureLimits()) for one in pictures]
    return encoder.embed(np.stack(decoded))


def write_bundle(
    folder: Path, name: str = "real", *, num_items: int = 48, items: BundleItems | None = None,
    encoder: bytes = b"", **more: Any,
) -> Path:  # fmt: skip
    """Writes a bundle of `products`, by default with an ONNX file that embeds as `GridEncoder`."""
    from tests.bundle.small_encoders import grid_encoder

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "encoder.onnx"
    file.write_bytes(encoder or grid_encoder(SIDE, 4, 1 / 255, "letterbox"))
    given = {"name": name, "encoder_onnx": file, "items": items or products(num_items), **more}
    create_bundle(folder / "bundle", kind="flat", **given)
    return folder / "bundle"


@functools.cache
def _place() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bundles-")


def drawn_bundle(
    name: str = "drawn", *, num_items: int = 48, evil: bool = False, rows: Rows | None = None,
    items: BundleItems | None = None, files: Mapping[str, str] | None = None, **more: Any,
) -> Bundle:  # fmt: skip
    """Returns a bundle, whose encoder is a `GridEncoder`, of products or of rows of one picture."""
    items = items or products(num_items, evil)
    if rows is not None:
        names = dict.fromkeys(itertools.chain.from_iterable(rows.values()))
        columns = {column: [row.get(column, "") for row in rows.values()] for column in names}
        thumbnails = [drawn("Hats", "sand")] * len(rows)
        picture = np.repeat(embedded(thumbnails[:1]), len(rows), axis=0)
        items = BundleItems(list(rows), columns, picture, thumbnails)
    folder = Path(tempfile.mkdtemp(dir=_place().name))
    own = folder.name.encode()  # an encoder file that no other bundle has
    return Bundle.open(
        write_bundle(folder, name, items=items, encoder=own, files=files or {}, **more)
    )
