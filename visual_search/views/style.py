"""One quiet style for every figure: colours, fonts, the names of metrics.

Nothing here changes matplotlib's global settings; figures are built inside `quiet_style()`.
"""

from __future__ import annotations

import contextlib
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from visual_search.views.scripts import font_families, number_names, texts_of

INK = "#222222"
MUTED = "#6b6b6b"
RULE = "#e4e4e4"
BAR = "#4a7fb0"
MICRO = "#222222"
MACRO = "#b8480b"
RIGHT = "#00795c"  # bluish green and vermilion stay apart for every kind of colour blindness
WRONG = "#c8450b"
OTHER = "#b9b9b9"
OTHER_NAME = "other"
MAX_CATEGORIES = 50  # TensorBoard's projector offers no colours beyond 50 different values

# Ten colours to a marker, so that no category is told from another by its hue alone. The first six
# are Okabe and Ito's (jfly.uni-koeln.de/color) without black and yellow, which vanish on white and
# in text. The others were searched for the largest distance between any two of one marker as
# people see them with all cones and with deuteranopia, protanopia and tritanopia (Machado 2009):
# CIE76 is at least 16 everywhere (with ten hues made lighter and darker it was 3 under
# deuteranopia).
_COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9",
    "#e69f00", "#701010", "#621dc9", "#56294d", "#d7c375",
    "#631d1d", "#36e2c0", "#c9c91d", "#7e63e9", "#b46464",
    "#c93f1d", "#dc8fef", "#4f288a", "#1d4763", "#9cd775",
    "#632b1d", "#36e236", "#b8ccea", "#3636e2", "#8a7728",
    "#ce63e9", "#288a77", "#293b56", "#e2c69c", "#67169c",
    "#562929", "#7be236", "#f4aff4", "#c036e2", "#e97e63",
    "#9464b4", "#107070", "#b4b4b4", "#28288a", "#9c3116",
    "#3a7847", "#7b36e2", "#e2c036", "#5c1070", "#36e27b",
    "#a9d6bb", "#e963e9", "#e2369d", "#3c3c3c", "#8a8a28",
)  # fmt: skip
_MARKERS = ("o", "^", "s", "D", "v")


@contextlib.contextmanager
def quiet_style() -> Iterator[None]:
    """Sets the style for the figures that are built in the block; afterwards all is as before."""
    settings: Any = {
        "font.family": font_families(),
        "font.size": 10.0,
        "text.color": INK,
        "text.parse_math": False,
        "text.usetex": False,
        "axes.unicode_minus": False,  # as everywhere: see `wording`
        "axes.formatter.useoffset": False,  # it would stand above the axis, where keys are
        "axes.edgecolor": "#bbbbbb",
        "axes.facecolor": "white",
        "axes.labelcolor": MUTED,
        "axes.grid": False,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "figure.facecolor": "white",
        "figure.dpi": 100.0,
        "figure.autolayout": False,
        "figure.constrained_layout.use": False,
        "image.cmap": "viridis",
        "legend.frameon": False,
        "xtick.color": MUTED,
        "ytick.color": INK,
        "xtick.labelsize": 9.0,
        "ytick.labelsize": 10.0,
        "xtick.major.size": 0.0,
        "ytick.major.size": 0.0,
    }
    with matplotlib.rc_context(settings):
        yield


def bold(text: str) -> dict[str, Any]:
    """Returns the settings that print ``text`` bold, or plain ones where a gap font has no bold.

    Matplotlib logs a line for every font in the list that lacks a weight; DejaVu Sans has it.
    """
    needs_other_fonts = any(unicodedata.east_asian_width(c) in "WF" for c in text)
    return {} if needs_other_fonts else {"fontweight": "bold", "fontfamily": "DejaVu Sans"}


def show_literally(figure: Figure) -> Figure:
    """Lets every text of the figure stand as it is: no formulas, no boxes for missing letters.

    ``$...$`` is not read as a formula; for words that no installed font has see `number_names`.
    """
    for text in texts_of(figure):
        text.set_parse_math(False)
    number_names(figure)
    return figure


def category_styles(num_categories: int) -> list[tuple[str, str]]:
    """Returns ``(colour, marker)`` for each of ``num_categories`` categories, different up to 50.

    Beyond 50 the styles repeat; group the rest with `group_rare` first.

    Example:
        >>> category_styles(2)
        [('#0072b2', 'o'), ('#d55e00', 'o')]
        >>> len(set(category_styles(50)))
        50
    """
    return [
        (_COLOURS[number % len(_COLOURS)], _MARKERS[number // 10 % len(_MARKERS)])
        for number in range(num_categories)
    ]


def styles_by_category(categories: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns ``(colour, marker)`` by category, in alphabetical order, "other" last and grey.

    The same categories get the same styles in every view. Group the rare ones first.

    Example:
        >>> styles_by_category(["shoe", "other", "hat", "shoe"])
        {'hat': ('#0072b2', 'o'), 'shoe': ('#d55e00', 'o'), 'other': ('#b9b9b9', 'o')}
    """
    names = alphabetical(list(set(categories) - {OTHER_NAME}))
    styles = dict(zip(names, category_styles(len(names)), strict=True))
    if OTHER_NAME in categories:
        styles[OTHER_NAME] = (OTHER, "o")
    return styles


def group_rare(categories: Sequence[str], max_categories: int = MAX_CATEGORIES) -> list[str]:
    """Returns categories with the rarest ones renamed "other", so that at most so many are left.

    Among equally frequent categories the alphabetically first are kept. Nothing changes where
    there are few enough.

    Example:
        >>> group_rare(["hat", "hat", "shoe", "ring", "sock"], max_categories=3)
        ['hat', 'hat', 'other', 'ring', 'other']
    """
    counts = Counter(categories)
    if len(counts) <= max_categories:
        return list(categories)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    kept = set(ranked[: max_categories - 1])
    return [name if name in kept else OTHER_NAME for name in categories]


def alphabetical(names: Sequence[str]) -> list[str]:
    """Sorts names as a reader expects: without regard to case, then with it."""
    return sorted(names, key=lambda name: (name.casefold(), name))


def metric_title(metric: str) -> str:
    """Returns a metric's name as it is written in print.

    Example:
        >>> metric_title("map_at_5"), metric_title("precision_at_10"), metric_title("map_at_r")
        ('mAP@5', 'precision@10', 'mAP@R')
    """
    name, at, k = metric.partition("_at_")
    known = {"map": "mAP", "ndcg": "nDCG", "mrr": "MRR", "reciprocal_rank": "MRR", "ap": "AP"}
    return known.get(name, name.replace("_", " ")) + (f"@{k.upper()}" if at else "")


PAPER = "#ffffff"  # what lies behind everything; also the rim of marks that cover others
BAR_PALE = "#a9c3dc"  # a bar with few queries behind it
FLOOR = "#9aa0a6"  # what needs no training, beside a run
FLOOR_MARK = "#f0b429"  # a floor on the run's own bar; with a rim of INK

# Runs beside each other and curves differ by colour and by marker.
RUN_STYLES = (
    ("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"),
    ("#cc79a7", "D"), ("#56b4e9", "v"), ("#882255", "P"),
)  # fmt: skip

# ColorBrewer's Blues (colorbrewer2.org): each step is darker than the one before, so they are also
# told apart in black and white. HEAT_INK and HEAT_PAPER are the writing on light and dark steps:
# like the steps they stay what they are on a dark page, hence they are neither INK nor PAPER.
HEAT = (
    "#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c",
    "#08306b",
)  # fmt: skip
HEAT_INK = "#0b1a2b"
HEAT_PAPER = "#fdfeff"
