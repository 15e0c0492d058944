"""Figures and pictures as parts of a page: inline SVG that follows the theme, and data URIs."""

from __future__ import annotations

import base64
import colorsys
import hashlib
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.views.drawing import DrawnFigure
from visual_search.views.figures import figure_to_array
from visual_search.views.style import BAR, INK, MACRO, MUTED, RIGHT, RULE, WRONG, quiet_style

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_SVG_BYTES = 400_000  # a drawing of thousands of marks is smaller, and faster, as a picture
DARK_PAGE = "#15181b"  # as --page in templates/page.css
_MIN_CONTRAST = 3.5  # of a mark on the page; 3 is WCAG 2.2's least for graphics
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
# What a drawing is made of; anything else that a figure may bring (scripts, styles, links,
# metadata) stays behind.
_ELEMENTS = {
    "svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "circle", "image",
    "linearGradient", "stop", "pattern",
}  # fmt: skip
_ATTRIBUTES = {
    "viewBox", "d", "x", "y", "dx", "dy", "x1", "x2", "y1", "y2", "r", "cx", "cy", "width",
    "height", "transform", "style", "id", "clip-path", "offset", "preserveAspectRatio",
    "gradientUnits", "patternUnits", "text-anchor",
}  # fmt: skip
_THEME = {
    INK: "--ink", MUTED: "--muted", RULE: "--rule", BAR: "--bar", MACRO: "--macro",
    RIGHT: "--right", WRONG: "--wrong", "#ffffff": "--page", "#bbbbbb": "--edge",
    "#000000": "--ink",
}  # fmt: skip
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_FONT = re.compile(r"(font: [^;']*?px )[^;]*")
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML 1.0, 2.2


def inline_svg(figure: Figure, alt: str, *, themed: bool = True) -> Markup:
    """Returns the figure as an ``<svg>`` to stand in a page, the same for the same figure.

    Texts stay texts, in the page's font. The style's colours become the page's CSS variables and
    every other colour gets a counterpart for a dark page. Ids are the figure's own, so that two
    drawings on a page do not clash. A drawing above 400 kB becomes a picture (`figure_picture`).

    Args:
        figure: Any figure of this room.
        alt: What it shows, for those who do not see it.
        themed: Whether colours follow the page. A heat map must keep its own, since the colour of
            the numbers in it was chosen for the cells; it then stands on white.

    Raises:
        ValueError: ``alt`` is empty.

    Example:
        >>> from matplotlib.figure import Figure
        >>> text = inline_svg(Figure(figsize=(2, 1)), "An empty figure")
        >>> str(text[:26]), "<script" in text
        ('<svg viewBox="0 0 144 72" ', False)
    """
    from markupsafe import Markup

    if not alt.strip():
        raise ValueError("alt is empty, expected what the figure shows, in a sentence; write one.")
    drawn = io.StringIO()
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "visual_search",
        "svg.image_inline": True,
    }
    with quiet_style(), matplotlib.rc_context(settings):
        before = figure.canvas
        FigureCanvasSVG(figure)
        figure.savefig(drawn, format="svg", facecolor="white", metadata={"Date": None})
        figure.set_canvas(before)
    text = _FORBIDDEN.sub("\ufffd", drawn.getvalue())
    name = hashlib.sha256(f"{alt}\n{text}".encode()).hexdigest()[:8]
    # matplotlib's own output: no document type, no entities
    root = ElementTree.fromstring(text[text.index("<svg") :])
    kept = _kept(root, _references(root), name)
    width = float(kept.get("viewBox", "0 0 1 1").split()[2]) * 96 / 72
    colours = sorted(_recolour(kept)) if themed else []
    kept.attrib = {"viewBox": kept.get("viewBox", ""), "class": f"chart chart-{name}"}
    kept.set("role", "img")
    kept.set("aria-label", alt)
    kept.set("style", f"--width: {width:.0f}px")
    if not themed:
        kept.set("class", "chart plain")
    elif colours:
        rules = " ".join(f"--c-{c[1:]}: {dark_variant(c)};" for c in colours)
        style = ElementTree.Element("style")
        style.text = (
            f"@media screen and (prefers-color-scheme: dark) {{ .chart-{name} {{ {rules} }} }}"
        )
        kept.insert(0, style)
    text = ElementTree.tostring(kept, encoding="unicode", short_empty_elements=False)
    if len(text) > MAX_SVG_BYTES:
        return figure_picture(figure, alt)
    return Markup(text)


def _references(root: ElementTree.Element) -> set[str]:
    found: set[str] = set()
    for element in root.iter():
        for value in element.attrib.values():
            found.update(re.findall(r"url\(#([^)]+)\)", value))
            if value.startswith("#"):
                found.add(value[1:])
    return found


def _kept(element: ElementTree.Element, needed: set[str], name: str) -> ElementTree.Element:
    """Copies what a drawing is made of, without namespaces; ids that nothing points to go."""
    copy = ElementTree.Element(element.tag.removeprefix(_SVG))
    copy.text, copy.tail = element.text, element.tail
    for key, value in element.attrib.items():
        if key == "id":
            if value in needed:
                copy.set("id", f"{name}-{value}")
        elif key == _LINK:
            if value.startswith("#"):
                copy.set("href", f"#{name}-{value[1:]}")
            elif value.startswith("data:image/"):
                copy.set("href", value)
        elif key in _ATTRIBUTES:
            value = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", value)
            copy.set(key, _FONT.sub(r"\1var(--sans)", value) if key == "style" else value)
    for child in element:
        if child.tag.removeprefix(_SVG) in _ELEMENTS:
            copy.append(_kept(child, needed, name))
    if element.tag not in (f"{_SVG}text", f"{_SVG}tspan"):
        copy.text = None  # the line breaks between elements
    if element.tag != f"{_SVG}tspan":
        copy.tail = None
    return copy


def _recolour(element: ElementTree.Element) -> set[str]:
    """Puts variables in the place of colours; gives those that are not the style's own."""
    others: set[str] = set()

    def variable(match: re.Match[str]) -> str:
        colour = match.group()
        if colour in _THEME:
            return f"var({_THEME[colour]})"
        others.add(colour)
        return f"var(--c-{colour[1:]}, {colour})"

    for each in element.iter():
        if "style" in each.attrib:
            each.set("style", _COLOUR.sub(variable, each.attrib["style"]))
    return others


def dark_variant(colour: str) -> str:
    """Returns the colour that plays the same part on a dark page.

    Greys are turned round (light becomes dark), tints become deep, and a strong colour is made
    lighter until it stands out.

    Example:
        >>> dark_variant("#332288"), dark_variant("#eeeeee"), dark_variant("#e69f00")
        ('#715dd7', '#2a2a2a', '#e69f00')
    """
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if max(red, green, blue) - min(red, green, blue) < 0.06:
        turned = _hex(0.0, 0.11 + (1 - lightness) * 0.8, 0.0)
        return readable(turned, DARK_PAGE) if lightness < 0.8 else turned
    if lightness > 0.85:
        return _hex(hue, 0.3, min(saturation, 0.5))
    return readable(colour, DARK_PAGE)


def readable(colour: str, background: str, min_contrast: float = _MIN_CONTRAST) -> str:
    """Moves a colour towards white or black until it stands out from the background.

    Example:
        >>> readable("#e69f00", "#ffffff"), readable("#0072b2", "#ffffff")
        ('#b37c00', '#0072b2')
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(
        *(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    )
    step = 0.01 if _luminance(background) < 0.18 else -0.01
    while contrast(colour, background) < min_contrast and 0 < lightness + step < 1:
        lightness += step
        colour = _hex(hue, lightness, saturation)
    return colour


def contrast(first: str, second: str) -> float:
    """Returns the contrast ratio of two colours, 1 to 21 (WCAG 2.2).

    Example:
        >>> contrast("#000000", "#ffffff")
        21.0
    """
    low, high = sorted((_luminance(first), _luminance(second)))
    return round((high + 0.05) / (low + 0.05), 3)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _hex(hue: float, lightness: float, saturation: float) -> str:
    parts = colorsys.hls_to_rgb(hue, lightness, saturation)
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)


def picture_uri(pixels: NDArray[np.uint8], max_side_px: int, quality: int) -> tuple[str, int, int]:
    """Returns a picture as a WebP data URI, with its width and height in pixels.

    Args:
        pixels: ``[H, W, 3] uint8``.
        max_side_px: Larger pictures are made smaller.
        quality: WebP's, 1 to 100.

    Raises:
        ValueError: ``pixels`` is not ``[H, W, 3] uint8``.
    """
    from PIL import Image

    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"pixels are {list(pixels.shape)} {pixels.dtype}, expected [H, W, 3] uint8 (channels "
            "last); transpose a picture [3, S, S]."
        )
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.save(written, "WEBP", quality=quality, method=4)
    text = base64.b64encode(written.getvalue()).decode("ascii")
    return f"data:image/webp;base64,{text}", image.width, image.height


def figure_picture(
    figure: Figure | DrawnFigure,
    alt: str,
    *,
    max_width_px: int = 1600,
    quality: int = 70,
    pixels_of: Callable[[Figure | DrawnFigure], NDArray[np.uint8]] | None = None,
) -> Markup:
    """Returns the figure as an ``<img>`` on white, for what consists of pictures.

    Args:
        figure: Any figure of this room, or one that was drawn before.
        alt: What it shows.
        max_width_px: The longer side in pixels at most.
        quality: WebP's, 1 to 100.
        pixels_of: Draws a figure to ``[H, W, 3] uint8``; None takes `figure_to_array` at 150 dpi.

    Raises:
        ValueError: ``alt`` is empty.
    """
    from markupsafe import Markup

    if not alt.strip():
        raise ValueError("alt is empty, expected what the figure shows, in a sentence; write one.")
    draw = pixels_of or figure_pixels
    uri, width, height = picture_uri(draw(figure), max_width_px, quality)
    if isinstance(figure, DrawnFigure):
        width_in = figure.width_in
    else:
        width_in = float(figure.get_size_inches()[0])
    return Markup(
        '<img class="chart plain" src="{}" alt="{}" width="{}" height="{}" '
        'style="--width: {}px" decoding="async">'
    ).format(uri, alt, width, height, f"{width_in * 96:.0f}")


def figure_pixels(figure: Figure | DrawnFigure) -> NDArray[np.uint8]:
    """Draws a figure at 150 dpi, at most 3,000 pixels a side, unless it is: ``[H, W, 3] uint8``."""
    if isinstance(figure, DrawnFigure):
        return figure.pixels
    return figure_to_array(figure, dpi=max(1, int(min(150, 3000 / max(figure.get_size_inches())))))
