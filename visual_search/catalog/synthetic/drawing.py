"""The pen that draws a product stroke by stroke, as ``products.txt`` says in units of 0..100.

The pen maps every point through the product's pose, so that a stroke knows nothing of scale and
rotation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

Point = tuple[float, float]
Rgb = tuple[int, int, int]

SUPERSAMPLING = 4  # drawn this much larger and averaged: the edges come out smooth

GOLD: Rgb = (214, 172, 60)
SILVER: Rgb = (178, 184, 192)
SOLE: Rgb = (244, 242, 236)
DARK: Rgb = (52, 44, 40)


@dataclass(frozen=True)
class Drawing:
    """How a category is drawn: its styles, its strokes in order, whether it takes a pattern."""

    styles: tuple[str, ...]
    has_pattern: bool
    strokes: tuple[str, ...]


def read_drawings() -> dict[str, Drawing]:
    """Returns the categories of ``products.txt``, in its order; its head says how it is read."""
    text = Path(__file__).with_name("products.txt").read_text(encoding="utf-8")
    drawings = {}
    for section in re.split(r"^\[", re.sub(r"(?m)^#.*\n", "", text), flags=re.MULTILINE)[1:]:
        title, *strokes = section.strip().splitlines()
        category, *styles = title.replace("]", "").split()
        has_pattern = "plain" not in styles
        drawings[category] = Drawing(
            tuple(styles if has_pattern else styles[:-1]), has_pattern, tuple(strokes)
        )
    return drawings


@dataclass(frozen=True)
class Look:
    """What a product is: equal for every picture of it."""

    category: str
    colour: str
    rgb: Rgb
    pattern: str
    style: str
    pattern_size: float
    metal: Rgb


@dataclass(frozen=True)
class Pose:
    """How one picture shows the product.

    Attributes:
        scale: Size of the product, 1 fills the picture.
        angle_deg: Rotation, clockwise.
        shift: How far the middle moves to the right and down, in units of 0..100.
        flip: Whether left and right are swapped.
    """

    scale: float
    angle_deg: float
    shift: Point
    flip: bool


class Pen:
    """Draws one product onto a transparent canvas of ``size_px * SUPERSAMPLING`` pixels."""

    def __init__(self, look: Look, pose: Pose, size_px: int) -> None:
        self.look = look
        side = size_px * SUPERSAMPLING
        self._unit = side / 100 * pose.scale
        cos, sin = math.cos(math.radians(pose.angle_deg)), math.sin(math.radians(pose.angle_deg))
        mirror = -1 if pose.flip else 1
        self._xx, self._xy = self._unit * cos * mirror, -self._unit * sin
        self._yx, self._yy = self._unit * sin * mirror, self._unit * cos
        self._origin = ((50 + pose.shift[0]) * side / 100, (50 + pose.shift[1]) * side / 100)
        self.canvas = Image.new("RGBA", (side, side), (*look.rgb, 0))
        self._draw = ImageDraw.Draw(self.canvas)
        self._fabrics: dict[float, Image.Image] = {}
        bright = sum(look.rgb)
        self._colours = {
            "product": look.rgb,
            "metal": look.metal,
            "ink": shaded(look.rgb, 0.45) if bright > 200 else shaded(look.rgb, 2.2, add=40),
            "trim": SOLE if bright < 600 else shaded(look.rgb, 0.6),  # seen on white too
            "lace": DARK if bright > 300 else SOLE,
        }

    def draw(self, strokes: Sequence[str]) -> None:
        """Draws those strokes that belong to the product's style."""
        for stroke in strokes:
            head, _, shape = stroke.partition(": ")
            words = head.split()
            if words[0] not in _KINDS and words.pop(0) != self.look.style:
                continue
            times, step = 1, (0.0, 0.0)
            if repeat := re.search(r" x(\d+) (\S+),(\S+)", head):
                times, step = int(repeat[1]), (float(repeat[2]), float(repeat[3]))
                del words[-2:]
            is_pair = words[-1] == "both"
            values = [self._value(word) for word in words[1 : -1 if is_pair else None]]
            for i in range(times):
                points = outline(shape, (i * step[0], i * step[1]))
                for drawn in (points, flipped(points)) if is_pair else (points,):
                    _KINDS[words[0]](self, drawn, *values)

    def fabric(self, points: Sequence[Point], shade: float = 1.0, outline: float = 0.7) -> None:
        """Fills a shape with the product's colour and pattern; ``shade`` below 1 darkens it."""
        mask = Image.new("L", self.canvas.size)
        ImageDraw.Draw(mask).polygon(self._pixels(points), fill=255)
        self.canvas.paste(self._fabric(shade), mask=mask)
        if outline:
            self.line([*points, points[0]], outline)

    def solid(self, points: Sequence[Point], rgb: Rgb, outline: float = 0.7) -> None:
        """Fills a shape with one colour that is not the product's."""
        self._draw.polygon(self._pixels(points), fill=(*rgb, 255))
        if outline:
            self.line([*points, points[0]], outline, shaded(rgb, 0.5))

    def line(self, points: Sequence[Point], width: float, rgb: Rgb | None = None) -> None:
        """Draws a line, ``width`` in units, with round joints; in ink by default."""
        fill = (*(rgb or self._colours["ink"]), 255)
        pixels = self._pixels(points)
        width_px = max(1, round(width * self._unit))
        self._draw.line(pixels, fill=fill, width=width_px, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            r = width_px / 2
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def hole(self, points: Sequence[Point], outline: float = 0.7) -> None:
        """Cuts a shape out, so that the background shows through."""
        self._draw.polygon(self._pixels(points), fill=(*self.look.rgb, 0))
        if outline:
            self.line([*points, points[0]], outline)

    def chain(
        self, points: Sequence[Point], width: float, rgb: Rgb, radius: float, every: float = 1
    ) -> None:
        """Draws a ring about every so many points of a curve."""
        for x, y in points[:: int(every)]:
            self.line(ellipse(x, y, radius, radius, 10), width, rgb)

    def pearls(self, points: Sequence[Point]) -> None:
        """Draws a pearl of the product's colour about each point, the largest in the middle."""
        for i, (x, y) in enumerate(points):
            radius = 3.0 + 2.6 * math.sin(math.pi * i / (len(points) - 1))
            self.solid(ellipse(x, y, radius, radius, 24), self.look.rgb, 0.6)
            shine = ellipse(x - radius / 3, y - radius / 3, radius / 4, radius / 4, 12)
            self.solid(shine, mixed(self.look.rgb, (255, 255, 255), 0.7), 0)

    def _value(self, word: str) -> float | Rgb:
        """Returns a number or a colour of a stroke's head."""
        name, _, factor = word.partition("*")
        first, _, second = name.partition("~")
        if first not in self._colours and first[0] != "#":
            return float(word)
        rgb = self._colours.get(first) or _hex(first)
        if second:
            return mixed(rgb, _hex(second), float(factor))
        return shaded(rgb, float(factor)) if factor else rgb

    def _pixels(self, points: Sequence[Point]) -> list[Point]:
        x0, y0 = self._origin
        return [
            (
                x0 + self._xx * (x - 50) + self._xy * (y - 50),
                y0 + self._yx * (x - 50) + self._yy * (y - 50),
            )
            for x, y in points
        ]

    def _fabric(self, shade: float) -> Image.Image:
        if shade not in self._fabrics:
            self._fabrics[shade] = self._woven(shaded(self.look.rgb, shade))
        return self._fabrics[shade]

    def _woven(self, rgb: Rgb) -> Image.Image:
        cloth = Image.new("RGBA", self.canvas.size, (*rgb, 255))
        draw = ImageDraw.Draw(cloth)
        bright = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]
        second: Rgb = (250, 248, 242) if bright < 170 else shaded(rgb, 0.5)
        step = self.look.pattern_size
        # 20 units beyond the picture on each side: the rotation turns the corners in
        starts = [-20 + i * step for i in range(int(140 / step) + 1)]

        def fill(points: Sequence[Point], rgb: Rgb = second) -> None:
            draw.polygon(self._pixels(points), fill=(*rgb, 255))

        if self.look.pattern == "striped":
            for start in starts:
                fill(box(-20, start, 120, start + step * 0.42))
        elif self.look.pattern == "dotted":
            for row, y in enumerate(starts):
                for x in starts:
                    fill(ellipse(x + step / 2 * (row % 2), y, step * 0.24, step * 0.24, 16))
        elif self.look.pattern == "checked":
            half = mixed(rgb, second, 0.45)
            for start in starts:
                fill(box(-20, start, 120, start + step / 2), half)
                fill(box(start, -20, start + step / 2, 120), half)
            for x in starts:
                for y in starts:
                    fill(box(x, y, x + step / 2, y + step / 2))
        return cloth


_KINDS: dict[str, Callable[..., None]] = {
    kind.__name__: kind
    for kind in (Pen.fabric, Pen.solid, Pen.line, Pen.hole, Pen.chain, Pen.pearls)
}


def _hex(text: str) -> Rgb:
    r, g, b = bytes.fromhex(text[1:])
    return r, g, b


def mixed(first: Rgb, second: Rgb, weight: float) -> Rgb:
    """Returns the colour ``weight`` of the way from the first to the second."""
    r, g, b = (round(a + (c - a) * weight) for a, c in zip(first, second, strict=True))
    return r, g, b


def shaded(rgb: Rgb, factor: float, add: int = 0) -> Rgb:
    """Returns the colour times ``factor`` plus ``add``, held within 0..255."""
    r, g, b = (max(0, min(255, round(value * factor + add))) for value in rgb)
    return r, g, b


def outline(text: str, move: Point = (0, 0)) -> list[Point]:
    """Returns the points of a shape, moved.

    Args:
        text: Of ``products.txt``.
        move: To the right and down; a path as a whole, of others the first two numbers.

    Example:
        >>> outline("box 10,10 20,30 + path 5,5")
        [(10.0, 10.0), (20.0, 10.0), (20.0, 30.0), (10.0, 30.0), (5.0, 5.0)]
    """
    return [point for part in text.split(" + ") for point in _part(part, move)]


def _part(text: str, move: Point) -> list[Point]:
    name, _, rest = text.partition(" ")
    if name == "flip":
        return flipped(_part(rest, move))
    values = [float(value) for value in re.findall(r"-?[\d.]+", rest)]
    if name == "lean":
        return [(x - values[0] * (y - 52) / -16, y) for x, y in _part(rest.split(" ", 1)[1], move)]
    if name == "shrink":
        factor, x0, y0 = values[:3]
        inner = _part(rest.split(" ", 2)[2], move)
        return [(x0 + (x - x0) * factor, y0 + (y - y0) * factor) for x, y in inner]
    if name in _ROUND:
        return _ROUND[name](values[0] + move[0], values[1] + move[1], *values[2:])
    points = [(x + move[0], y + move[1]) for x, y in zip(values[::2], values[1::2], strict=True)]
    return _THROUGH[name](points)


def ellipse(x: float, y: float, rx: float, ry: float, num_points: float = 48) -> list[Point]:
    """Returns the points of an ellipse about (x, y)."""
    return arc(x, y, rx, ry, 0, 360 - 360 / num_points, num_points)


def arc(
    x: float,
    y: float,
    rx: float,
    ry: float,
    start_deg: float,
    stop_deg: float,
    num_points: float = 24,
) -> list[Point]:
    """Returns the points of an arc; 0 degrees points to the right, 90 downwards."""
    num = int(num_points)
    steps = [start_deg + (stop_deg - start_deg) * i / (num - 1) for i in range(num)]
    return [
        (x + rx * math.cos(math.radians(step)), y + ry * math.sin(math.radians(step)))
        for step in steps
    ]


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> list[Point]:
    """Returns the points of a rectangle, its corners rounded by ``radius``."""
    if not radius:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    r = radius
    return [
        *arc(x0 + r, y0 + r, r, r, 180, 270, 8),
        *arc(x1 - r, y0 + r, r, r, 270, 360, 8),
        *arc(x1 - r, y1 - r, r, r, 0, 90, 8),
        *arc(x0 + r, y1 - r, r, r, 90, 180, 8),
    ]


def smooth(points: Sequence[Point], closed: bool = True, num_between: int = 8) -> list[Point]:
    """Returns a curve through the points (Catmull-Rom)."""
    n = len(points)
    curve: list[Point] = []
    for i in range(n if closed else n - 1):
        if closed:
            four = [points[(i + k) % n] for k in (-1, 0, 1, 2)]
        else:
            four = [points[min(max(i + k, 0), n - 1)] for k in (-1, 0, 1, 2)]
        for step in range(num_between):
            t = step / num_between
            weights = (
                (-t + 2 * t**2 - t**3) / 2,
                (2 - 5 * t**2 + 3 * t**3) / 2,
                (t + 4 * t**2 - 3 * t**3) / 2,
                (t**3 - t**2) / 2,
            )
            x = sum(w * p[0] for w, p in zip(weights, four, strict=True))
            y = sum(w * p[1] for w, p in zip(weights, four, strict=True))
            curve.append((x, y))
    return curve if closed else [*curve, points[-1]]


def mirrored(half: Sequence[Point]) -> list[Point]:
    """Returns the outline whose left half runs from the top down.

    The half gives each point by its distance to the left of the middle and its height.
    """
    left = [(50 - x, y) for x, y in half]
    right = [(50 + x, y) for x, y in reversed(half) if x]
    return left + right


def flipped(points: Sequence[Point]) -> list[Point]:
    """Returns the points with left and right swapped about the middle."""
    return [(100 - x, y) for x, y in points]


_ROUND: dict[str, Callable[..., list[Point]]] = {"ellipse": ellipse, "arc": arc, "box": box}
_THROUGH: dict[str, Callable[[list[Point]], list[Point]]] = {
    "path": list,
    "smooth": smooth,
    "curve": lambda points: smooth(points, closed=False),
    "curve5": lambda points: smooth(points, closed=False, num_between=5),
    "mirror": mirrored,
}
