"""Which product is drawn how: everything follows from the seed, the category and the index."""

from __future__ import annotations

import colorsys
import difflib
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.synthetic.drawing import (
    GOLD,
    SILVER,
    Look,
    Pen,
    Point,
    Pose,
    Rgb,
    read_drawings,
)

GENERATOR_VERSION = 1  # raise it with every change of a drawing: caches are keyed by it

COLOURS: dict[str, Rgb] = {
    "beige": (214, 192, 158),
    "black": (38, 38, 42),
    "blue": (44, 92, 190),
    "brown": (118, 74, 42),
    "gray": (140, 142, 148),
    "green": (44, 138, 72),
    "orange": (236, 128, 36),
    "pink": (240, 140, 178),
    "purple": (122, 62, 158),
    "red": (202, 36, 44),
    "white": (242, 241, 238),
    "yellow": (244, 206, 56),
}
PATTERNS = ("plain", "plain", "striped", "dotted", "checked")  # plain is twice as frequent


DRAWINGS = read_drawings()
CATEGORIES = tuple(DRAWINGS)

_SECOND_VIEW_SHARE = 0.05  # of the items at an odd index: so many show the product before them


def synthetic(
    items_per_category: int = 100,
    categories: Sequence[str] | None = None,
    image_size_px: int = 128,
    background_noise: float = 0.0,
    seed: int = 0,
) -> Catalog:
    """Returns a catalogue of drawn products; pictures are drawn when they are loaded.

    An item depends on the seed, its category and its index alone: more items or other categories
    change none. About one item in twenty shares its ``group`` with another: both show the same
    product in another pose, so that a split by group has something to hold together.

    Args:
        items_per_category: How many of each.
        categories: Some of ``CATEGORIES``; ``None`` takes all 16.
        image_size_px: Side of the square pictures, 16 to 1024.
        background_noise: From 0 (a plain, nearly white ground) to 1 (strong colour, clutter and
            grain behind the product); the product itself is drawn the same.
        seed: Another seed gives other products.

    Returns:
        Items with the attributes ``colour``, ``pattern`` (plain, striped, dotted, checked) and
        ``style`` (of the silhouette, by category); no split assigned.

    Raises:
        ValueError: A number is out of its range, or a category is unknown or stands twice.
    """
    if items_per_category < 1:
        raise ValueError(f"items_per_category is {items_per_category}; expected at least 1")
    chosen = list(CATEGORIES if categories is None else categories)
    for category in chosen:
        if category not in DRAWINGS:
            near = difflib.get_close_matches(category.title(), CATEGORIES, n=1, cutoff=0)
            raise ValueError(
                f"category {category!r} cannot be drawn; did you mean {near[0]!r}? "
                f"Expected some of {list(CATEGORIES)}"
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"categories is {chosen}; expected at least one, each once")
    source = SyntheticSource(image_size_px, float(background_noise), seed)
    rows = []
    for category in chosen:
        for index in range(items_per_category):
            product = _product_index(seed, category, index)
            look = _look(seed, category, product)
            name = _name(category, index)
            rows.append(
                {
                    "item_id": name,
                    "image": name,
                    "category": category,
                    "group": _name(category, product),
                    "split": "",
                    "colour": look.colour,
                    "pattern": look.pattern,
                    "style": look.style,
                }
            )
    return Catalog("synthetic", pd.DataFrame(rows), source)


@dataclass(frozen=True)
class SyntheticSource:
    """Draws the pictures of ``synthetic``; a name says which, as ``dresses-00012``.

    Raises:
        ValueError: The size or the noise is out of its range.
    """

    image_size_px: int
    background_noise: float
    seed: int

    def __post_init__(self) -> None:
        if not 16 <= self.image_size_px <= 1024:
            raise ValueError(f"image_size_px is {self.image_size_px}; expected 16 to 1024")
        if not 0 <= self.background_noise <= 1:
            raise ValueError(f"background_noise is {self.background_noise}; expected 0 to 1")

    def load(self, image: str) -> NDArray[np.uint8]:
        """Returns the drawn picture, ``[image_size_px, image_size_px, 3]`` uint8 RGB.

        Raises:
            FileNotFoundError: The name is none of this source's.
        """
        look, pose, light = self._parameters(image)
        size = self.image_size_px
        pen = Pen(look, pose, size)
        pen.draw(DRAWINGS[look.category].strokes)
        product = pen.canvas.resize((size, size), Image.Resampling.BOX)
        ground = _ground(_stream(self.seed, image, "ground"), size, self.background_noise)
        shadow = product.getchannel("A").filter(ImageFilter.GaussianBlur(size / 40))
        offset = max(1, size // 50)
        dark = Image.new("RGB", (size, size), (60, 60, 70))
        ground.paste(dark, (offset, offset), shadow.point(lambda alpha: int(alpha * 0.3)))
        # the light falls from the left or the right and models the product a little
        ramp = np.linspace(1 + light, 1 - light, size, dtype=np.float32)[None, :, None]
        lit = np.clip(np.asarray(product.convert("RGB")) * ramp, 0, 255).astype(np.uint8)
        ground.paste(Image.fromarray(lit), mask=product.getchannel("A"))
        return np.array(ground, dtype=np.uint8)

    def load_keyed(self, image: str) -> tuple[NDArray[np.uint8], str]:
        """Returns the drawn picture and its content key.

        Raises:
            FileNotFoundError: The name is none of this source's.
        """
        return self.load(image), self.content_keys([image])[0]

    def content_keys(self, images: Sequence[str]) -> list[str]:
        """Returns a hash of all that the drawing depends on.

        Raises:
            FileNotFoundError: A name is none of this source's.
        """
        keys = []
        for image in images:
            look, pose, light = self._parameters(image)
            everything = (GENERATOR_VERSION, image, self, astuple(look), astuple(pose), light)
            keys.append(hashlib.sha256(repr(everything).encode()).hexdigest())
        return keys

    def _parameters(self, image: str) -> tuple[Look, Pose, float]:
        category, _, digits = image.rpartition("-")
        category = category.title()
        if (
            category not in DRAWINGS
            or not digits.isdecimal()
            or image != _name(category, int(digits))
        ):
            raise FileNotFoundError(
                f"no picture {image!r} can be drawn; expected a name as {_name('Dresses', 12)!r}"
            )
        look = _look(self.seed, category, _product_index(self.seed, category, int(digits)))
        chance = _stream(self.seed, image, "pose")
        scale = _between(chance, 0.78, 0.97)
        room = 50 * (1 - scale) * 0.6
        pose = Pose(
            scale=scale,
            angle_deg=_between(chance, -9, 9),
            shift=(_between(chance, -room, room), _between(chance, -room, room)),
            flip=chance.random() < 0.5,
        )
        return look, pose, _between(chance, -0.06, 0.06)


def _name(category: str, index: int) -> str:
    return f"{category.lower()}-{index:05d}"


def _stream(seed: int, *purpose: object) -> random.Random:
    # seeded by text: SHA-512 of it, the same on every machine and in every version of Python
    return random.Random("/".join(map(str, (seed, *purpose))))


def _between(chance: random.Random, low: float, high: float) -> float:
    return low + (high - low) * chance.random()


def _pick(chance: random.Random, choices: Sequence[str]) -> str:
    return choices[int(chance.random() * len(choices))]


def _product_index(seed: int, category: str, index: int) -> int:
    """Returns the index of the item that shows this product first."""
    is_second = (
        index % 2 == 1 and _stream(seed, category, index, "view").random() < _SECOND_VIEW_SHARE
    )
    return index - 1 if is_second else index


def _look(seed: int, category: str, product: int) -> Look:
    chance = _stream(seed, category, product, "look")
    drawing = DRAWINGS[category]
    colour = _pick(chance, tuple(COLOURS))
    style = _pick(chance, drawing.styles)
    pattern = _pick(chance, PATTERNS)
    hue, saturation, value = colorsys.rgb_to_hsv(*(part / 255 for part in COLOURS[colour]))
    hue += _between(chance, -0.012, 0.012)
    value *= _between(chance, 0.9, 1.06)
    saturation *= _between(chance, 0.88, 1.08)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return Look(
        category=category,
        colour=colour,
        rgb=(round(red * 255), round(green * 255), round(blue * 255)),
        pattern=pattern if drawing.has_pattern else "plain",
        style=style,
        pattern_size=_between(chance, 6.5, 10),
        metal=GOLD if chance.random() < 0.5 else SILVER,
    )


def _ground(chance: random.Random, size: int, noise: float) -> Image.Image:
    """Returns the background: plain, or the more coloured, cluttered and grainy the more noise."""
    white = round(_between(chance, 244, 252))
    tint = [round(white + (_between(chance, 90, 255) - white) * noise) for _ in range(3)]
    ground = Image.new("RGB", (size, size), (tint[0], tint[1], tint[2]))
    if noise == 0:
        return ground
    draw = ImageDraw.Draw(ground, "RGBA")
    for _ in range(round(26 * noise)):
        fill = (*(int(256 * chance.random()) for _ in range(3)), round(40 + 150 * noise))
        x, y = size * chance.random(), size * chance.random()
        radius = size * _between(chance, 0.03, 0.16)
        if chance.random() < 0.3:
            end = (
                x + 3 * radius * _between(chance, -1, 1),
                y + 3 * radius * _between(chance, -1, 1),
            )
            draw.line([(x, y), end], fill=fill, width=max(1, size // 40))
        else:
            sides = 3 + int(4 * chance.random())
            turn = chance.random()
            corners: list[Point] = [
                (
                    x + radius * math.cos(2 * math.pi * (turn + side / sides)),
                    y + radius * math.sin(2 * math.pi * (turn + side / sides)),
                )
                for side in range(sides)
            ]
            draw.polygon(corners, fill=fill)
    grain = np.frombuffer(chance.randbytes(size * size), np.uint8).reshape(size, size, 1)
    pixels = np.asarray(ground, np.float32) + (grain.astype(np.float32) - 127.5) * 0.25 * noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
