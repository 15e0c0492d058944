"""What all pages share: the templates' environment, how values are written, the size limit.

A page is one file: its styles, scripts and pictures are within it, and its content security policy
lets it load nothing and run only the scripts whose hashes it names. So a script that came in with
a label would not run even if it were not escaped.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from visual_search.views.drawing import DrawnFigure
from visual_search.views.html_figures import (
    figure_picture,
    figure_pixels,
    inline_svg,
    picture_uri,
)
from visual_search.views.picture_grids import SearchRow, check_pictures
from visual_search.views.scripts import name_key
from visual_search.views.style import (
    metric_title,
)
from visual_search.wording import (
    MISSING,
    Number,
    as_float,
    count,
    difference,
    file_size,
    interval,
    is_missing,
    many,
    number,
    one_line,
    p_value,
    three_digits,
)

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

MAX_BYTES = 5_000_000
MAX_IN_KEY = 300  # words below a figure whose letters no font has
_TEMPLATES = Path(__file__).parent / "templates"
# Characters that HTML forbids: controls, and halves of characters that UTF-8 cannot write
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Detail:
    """How much of the pictures and tables a page takes; the next one is tried where it is large."""

    max_points: int
    sprite_px: int
    picture_px: int
    figure_px: int
    quality: int
    max_search_rows: int
    max_table_rows: int
    max_figures: int
    max_text: int


DETAILS = (
    Detail(3000, 40, 128, 1600, 72, 400, 3000, 24, 100_000),
    Detail(2500, 36, 112, 1300, 60, 250, 2000, 16, 100_000),
    Detail(2000, 32, 96, 1000, 50, 150, 1000, 10, 60_000),
    Detail(1000, 28, 80, 800, 40, 80, 500, 6, 30_000),
    Detail(300, 20, 64, 480, 30, 25, 150, 2, 10_000),
)


class PictureWriter:
    """Draws figures once, whatever number of details is tried, and writes pictures as data URIs."""

    def __init__(self) -> None:
        self._drawn: dict[int, tuple[Figure | DrawnFigure, NDArray[np.uint8]]] = {}
        self._charts: dict[tuple[int, str, bool], tuple[Figure, Markup]] = {}
        self._made: dict[object, Figure] = {}

    def figure(self, figure: Figure | DrawnFigure, alt: str, detail: Detail) -> Markup:
        """Returns a figure that consists of pictures as a picture."""
        drawn = figure_picture(
            figure, alt, max_width_px=detail.figure_px, quality=detail.quality,
            pixels_of=self._pixels,
        )  # fmt: skip
        return drawn + key_below(figure)

    def chart(self, figure: Figure, alt: str, *, themed: bool = True) -> Markup:
        """Returns a chart as a drawing."""
        key = (id(figure), alt, themed)
        if key not in self._charts:
            drawn = inline_svg(figure, alt, themed=themed) + key_below(figure)
            self._charts[key] = (figure, drawn)
        return self._charts[key][1]

    def made(self, key: object, make: Callable[[], Figure]) -> Figure:
        """Returns the figure that ``make`` gave when it was first asked for under this key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _pixels(self, figure: Figure | DrawnFigure) -> NDArray[np.uint8]:
        if id(figure) not in self._drawn:  # the figure is kept beside, so that its id stays its own
            self._drawn[id(figure)] = (figure, figure_pixels(figure))
        return self._drawn[id(figure)][1]


def key_below(figure: Figure | DrawnFigure) -> Markup:
    """Returns what the numbers in a figure stand for, where letters were missing; else nothing."""
    from markupsafe import Markup

    key = list(name_key(figure).items())
    if not key:
        return Markup("")
    named = Markup(" · ").join(
        Markup("{} <bdi>{}</bdi>").format(number, clean(word)) for number, word in key[:MAX_IN_KEY]
    )
    more = f" and {len(key) - MAX_IN_KEY:,} more" if len(key) > MAX_IN_KEY else ""
    return Markup('<p class="note">{}{}</p>').format(named, more)


def picture(pixels: NDArray[np.uint8], detail: Detail) -> str:
    """Returns ``[3, S, S] uint8`` as a data URI of the detail's size."""
    check_pictures(np.asarray(pixels)[None], "picture[None]")
    shown = np.asarray(pixels).transpose(1, 2, 0)  # [3, S, S] -> [S, S, 3]
    return picture_uri(shown, detail.picture_px, detail.quality)[0]


def search_row(row: SearchRow, detail: Detail) -> dict[str, object]:
    """Returns a query and its neighbours as the template ``macros.html`` shows them."""
    return {
        "picture": picture(row.query_image, detail),
        "label": row.query_label,
        "category": row.query_category,
        "score": row.score,
        "neighbours": [
            {
                "picture": picture(row.neighbour_images[rank], detail),
                "label": row.neighbour_labels[rank],
                "category": row.neighbour_categories[rank],
                "squared_distance": float(row.squared_distances[rank]),
                "right": bool(row.correct[rank]),
            }
            for rank in range(len(row.neighbour_labels))
        ],
    }


def render(
    template: str, context: Callable[[Detail], Mapping[str, object]], scripts: Sequence[str] = ()
) -> str:
    """Renders a page with the most detail that stays within 5,000,000 bytes.

    Args:
        template: A file of ``templates/``.
        context: Gives what the template needs for a detail.
        scripts: JavaScript to write into the page after its own, in this order.
    """
    from markupsafe import Markup

    written = [asset("page.js"), *scripts]
    for script in written:
        assert not re.search(r"</script|<!--", script, re.IGNORECASE), "would end its element"
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_source_hash, written))}; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    page = ""
    for detail in DETAILS:
        page = (
            _environment()
            .get_template(template)
            .render(
                **context(detail),
                policy=policy,
                css=Markup(asset("page.css")),
                scripts=[Markup(script) for script in written],
            )
        )
        if len(page.encode()) <= MAX_BYTES:
            break
    return page


def asset(name: str) -> str:
    """Returns the text of a file in ``templates/``."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _source_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def script_json(value: object) -> Markup:
    r"""Returns JSON that may stand in a ``<script type="application/json">``.

    Whatever could end the element, or is no JavaScript, is written as ``\u``.

    Example:
        >>> print(script_json({"name": "</script>\u2028&"}))
        {"name":"\u003c/script\u003e\u2028\u0026"}
    """
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def relative_link(path: str) -> str:
    """Returns a path beside the page as a link that cannot lead elsewhere.

    Raises:
        ValueError: The path is absolute or empty.

    Example:
        >>> relative_link("plus layer/1a#2/report.html"), relative_link("javascript:alert(1)")
        ('./plus%20layer/1a%232/report.html', './javascript%3Aalert%281%29')
    """
    if not path or path.startswith("/"):
        raise ValueError(
            f"href is {path!r}, expected a path relative to the page's folder; give such as "
            "'baseline/179231a1fb/report.html'."
        )
    quoted = quote(_FORBIDDEN.sub("\ufffd", path), safe="/")
    return quoted if quoted.startswith("../") else f"./{quoted}"


def clean(value: object) -> Any:
    """Puts a replacement character where a text holds what a page may not."""
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return _FORBIDDEN.sub("\ufffd", value)
    return value


def cell(value: object) -> str:
    """Returns whatever stands in a table as a reader expects it."""
    if is_missing(value):
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or MISSING
    if isinstance(value, float | np.floating):
        return three_digits(float(value))
    if isinstance(value, int | np.integer):
        return f"{int(value):,}"
    return str(value)


def is_number(value: object) -> bool:
    """Whether a table's cell is set to the right."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, count=count, p_value=p_value, file_size=file_size, interval=interval,
        difference=difference, three_digits=three_digits, cell=cell, short=one_line,
        metric_title=metric_title, many=many,
    )  # fmt: skip
    environment.tests["number_like"] = is_number
    environment.tests["missing"] = is_missing
    return environment


def mark(mean: Number, low: Number, high: Number, limit: float) -> dict[str, float] | None:
    """Returns where a table's small bar and its interval stand, in percent of its width.

    Args:
        mean: The value.
        low: The interval's lower end, missing where there is none.
        high: Its upper end.
        limit: The value at the right end.
    """
    if is_missing(mean) or limit <= 0:
        return None

    def place(value: Number) -> float:
        return round(min(max(as_float(value) / limit, 0.0), 1.0) * 100, 2)

    at, zero = place(mean), place(0.0)
    ends = (at, at) if is_missing(low) or is_missing(high) else (place(low), place(high))
    return {
        "mean": at,
        "bar": min(at, zero),
        "bar_width": round(abs(at - zero), 2),
        "low": ends[0],
        "width": round(ends[1] - ends[0], 2),
        "zero": zero,
    }


def scale_limit(values: Sequence[Number]) -> float:
    """Returns the next tenth above all values, at least 0.1, for marks that share a scale.

    Example:
        >>> scale_limit([0.495, 0.519, None])
        0.6
    """
    largest = max((as_float(v) for v in values if not is_missing(v)), default=0.0)
    return max(math.ceil(round(largest * 10, 6)) / 10, 0.1)
