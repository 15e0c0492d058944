"""How counts, lists, distances, names from the data and cells are written, wherever they are read.

Standard library alone, so that every room may use it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

ISOLATE, END_OF_ISOLATE = "\u2068", "\u2069"  # Unicode's FSI and PDI
# Joiners within emoji and Persian words: they do nothing by themselves, and look like controls.
_JOINERS = "\u200c\u200d"
_RIGHT_TO_LEFT = ("R", "AL")  # letters, by their class in Annex 9
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")


def many(number: int, one: str, more: str = "") -> str:
    """Returns a number of things in words.

    Example:
        >>> many(1, "item"), many(1200, "item"), many(2, "category", "categories")
        ('1 item', '1,200 items', '2 categories')
    """
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def listed(names: Iterable[object], at_most: int) -> str:
    """Returns the first names, and how many more there are.

    Example:
        >>> listed(["bags", "hats", "shoes"], 3), listed(["bags", "hats", "shoes"], 1)
        ('bags, hats, shoes', 'bags and 2 more')
    """
    texts = [str(name) for name in names]
    rest = len(texts) - at_most
    return ", ".join(texts[:at_most]) + (f" and {rest:,} more" if rest > 0 else "")


def squared_distance(value: float) -> str:
    """Returns three digits of a squared distance: never 0 for what is not, and never 1.2e+03.

    Everything here ranks by squared Euclidean distances, and everything that a person reads shows
    these, as "d²" or "squared distance".

    Example:
        >>> [squared_distance(value) for value in (0.0, 0.0000123, 0.25, 12.345, 1234.5)]
        ['0', '1.23e-05', '0.25', '12.3', '1,234']
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rough_text(ends: Mapping[str, Any]) -> str:
    """Returns what must stand beside an interval that few groups carry, or nothing.

    Args:
        ends: Of an interval: ``rough``, ``effective_groups`` and ``num_groups``, as
            `statistics.Interval` has them; an older one, without, says nothing.

    Example:
        >>> rough_text({"rough": True, "effective_groups": 1.02, "num_groups": 1150})
        'rough: 1.0 effective groups of 1,150 carry it'
        >>> rough_text({"rough": False, "effective_groups": 31.0, "num_groups": 40})
        ''
    """
    number = ends.get("effective_groups")
    if not ends.get("rough") or number is None or math.isnan(number):
        return ""
    return f"rough: {number:.1f} effective groups of {int(ends['num_groups']):,} carry it"


def shown(text: str) -> str:
    r"""Returns a name, or a sentence with names, from the data as it may stand in a terminal.

    Control characters do nothing, and what is read from right to left is isolated, so that the
    numbers beside it keep their place (Unicode Standard Annex 9).

    Example:
        >>> shown("red\x1b[2J"), shown(""), shown("\u05d0\u05d1") == "\u2068\u05d0\u05d1\u2069"
        ('red�[2J', '(empty)', True)
    """
    clean = "".join(
        c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return isolated(clean) or "(empty)"


def isolated(text: str) -> str:
    """Returns a text in which every stretch that is read from right to left is isolated.

    Example:
        >>> name = "\u05d0\u05d1 12 \u05d2"
        >>> isolated("shoes"), isolated(f"no {name}: 3") == f"no \u2068{name}\u2069: 3"
        ('shoes', True)
    """
    if text.isascii():
        return text
    kinds = [unicodedata.bidirectional(c) for c in text]
    parts: list[str] = []
    start = 0
    places = [place for place, kind in enumerate(kinds) if kind in _RIGHT_TO_LEFT]
    while places:
        first = last = places.pop(0)
        # what stands between two words of a stretch belongs to it, unless it is read the other way
        while places and "L" not in kinds[last + 1 : places[0]]:
            last = places.pop(0)
        while last + 1 < len(kinds) and kinds[last + 1] == "NSM":  # marks over the last letter
            last += 1
        parts += [text[start:first], ISOLATE, text[first : last + 1], END_OF_ISOLATE]
        start = last + 1
    return "".join([*parts, text[start:]])


def is_formula(text: str) -> bool:
    """Returns whether a spreadsheet would run a text; a number with a sign is none.

    Example:
        >>> is_formula("=cmd()"), is_formula("-1+cmd()"), is_formula("-3.5"), is_formula("Hats")
        (True, True, False, False)
    """
    return text.startswith(_FORMULA_SIGNS) and not _NUMBER.fullmatch(text)


def as_cell(text: str) -> str:
    """Returns a text as a CSV cell that no spreadsheet runs as a formula.

    Example:
        >>> as_cell("=cmd()"), as_cell("-1"), as_cell("Hats")
        ("'=cmd()", '-1', 'Hats')
    """
    return f"'{text}" if is_formula(text) or text.startswith("'") else text


def from_cell(cell: str) -> str:
    """Returns the text that `as_cell` was given, or gave before it knew numbers.

    Example:
        >>> from_cell(as_cell("'t Hooft")), from_cell("'-1"), from_cell("Hats")
        ("'t Hooft", '-1', 'Hats')
    """
    return (
        cell[1:] if cell.startswith("'") and cell[1:].startswith((*_FORMULA_SIGNS, "'")) else cell
    )


def of_all(num_shown: int, num_all: int, one: str, more: str = "") -> str:
    """Returns how many of how many are shown.

    Example:
        >>> of_all(3, 3, "item"), of_all(100, 3000, "category", "categories")
        ('3 items', '100 of 3,000 categories')
    """
    whole = many(num_all, one, more)
    return whole if num_shown >= num_all else f"{num_shown:,} of {whole}"


def first_by_size(names: Sequence[str], sizes: Sequence[float], at_most: int) -> list[int]:
    """Returns the places of the largest, in their order; equal ones by name.

    Example:
        >>> first_by_size(["a", "b", "c", "d"], [1, 3, 1, 2], 3)
        [0, 1, 3]
    """
    if len(names) <= at_most:
        return list(range(len(names)))
    ranked = sorted(range(len(names)), key=lambda i: (-sizes[i], names[i]))
    return sorted(ranked[:at_most])


def one_line(text: str, max_width: int, cut: Literal["end", "middle"] = "middle") -> str:
    """Returns the text on one line, cut with an ellipsis beyond ``max_width`` columns.

    East Asian characters count two columns. Control characters and line breaks become blanks.
    Names are cut in the middle, since they often differ only at their end; a sentence may end.

    Example:
        >>> one_line("65960fb1a4c3eac2_Shoes_15", 12)
        '65960…oes_15'
        >>> one_line("Coats & Jackets", 12, cut="end")
        'Coats & Jac…'
    """
    clean = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()
    widths = [2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in clean]
    if sum(widths) <= max_width:
        return clean
    tail_width = (max_width - 1 + 1) // 2 if cut == "middle" else 0
    head = _take(clean, widths, max_width - 1 - tail_width)
    tail = _take(clean[::-1], widths[::-1], tail_width)[::-1]
    return f"{head.rstrip() if not tail else head}…{tail}"


def _take(text: str, widths: list[int], max_width: int) -> str:
    used = 0
    for position, width in enumerate(widths):
        used += width
        if used > max_width:
            return text[:position]
    return text
