"""How numbers, lists, names from the data and cells are written, wherever they are read.

One form for the terminal, pages, figures and files: fractions have 3 digits, a minus is the one of
the keyboard, an interval is ``[low, high]``, ~ marks a rough one, a dash stands for no value.

Standard library alone, so that every room may use it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias

Number: TypeAlias = float | None  # None is what JSON keeps of NaN
MISSING = "–"  # noqa: RUF001 (the dash that stands for no value)
SAME_ANSWERS = "same answers"  # of a difference that is 0 for every query
ALPHA = 0.05  # a corrected p-value below this shows a difference
ISOLATE, END_OF_ISOLATE = "\u2068", "\u2069"  # Unicode's FSI and PDI
# Joiners within emoji and Persian words: they do nothing by themselves, and look like controls.
_JOINERS = "\u200c\u200d"
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
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


def holding(num_items: int, num_products: int | None) -> str:
    """Returns in words what a bundle holds; None where every item is a product.

    Example:
        >>> holding(12, None), holding(12, 5)
        ('12 items', '5 products with 12 pictures')
    """
    if num_products is None:
        return many(num_items, "item")
    return f"{many(num_products, 'product')} with {many(num_items, 'picture')}"


def listed(names: Iterable[object], at_most: int) -> str:
    """Returns the first names, and how many more there are.

    Example:
        >>> listed(["bags", "hats", "shoes"], 3), listed(["bags", "hats", "shoes"], 1)
        ('bags, hats, shoes', 'bags and 2 more')
    """
    texts = [str(name) for name in names]
    rest = len(texts) - at_most
    return ", ".join(texts[:at_most]) + (f" and {rest:,} more" if rest > 0 else "")


def is_missing(value: object) -> bool:
    """Returns whether there is no number: None (as JSON keeps NaN), NaN, infinity, pandas' NA.

    Example:
        >>> is_missing(None), is_missing(math.nan), is_missing(0.0), is_missing("")
        (True, True, False, False)
    """
    if isinstance(value, Real):
        return not math.isfinite(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def as_float(value: Number) -> float:
    """Returns a number that may be missing, NaN where it is.

    Raises:
        TypeError: It is neither a number nor a text of one.
        ValueError: It is another text.

    Example:
        >>> as_float(3), as_float(None)
        (3.0, nan)
    """
    return math.nan if value is None or is_missing(value) else float(value)


def number(value: Number, digits: int = 3) -> str:
    """Returns a fraction, such as a metric, to so many digits, a dash where there is none.

    Example:
        >>> number(0.49533), number(None)
        ('0.495', '–')
    """
    return MISSING if is_missing(value) else f"{as_float(value):.{digits}f}"


def count(value: Number) -> str:
    """Returns a number of things with separators between thousands, a dash where there is none.

    Example:
        >>> count(11029), count(None)
        ('11,029', '–')
    """
    return MISSING if is_missing(value) else f"{round(as_float(value)):,}"


def three_digits(value: Number) -> str:
    """Returns three digits of a distance, a ratio or a loss: never 0 for what is not, nor 1.2e+03.

    Everything here ranks by squared Euclidean distances, and everything that a person reads shows
    these, as "d²" or "squared distance".

    Example:
        >>> [three_digits(value) for value in (0.0, 0.0000123, 0.25, 12.345, 1234.5, None)]
        ['0', '1.23e-05', '0.25', '12.3', '1,234', '–']
    """
    found = as_float(value)
    if math.isnan(found):
        return MISSING
    return f"{found:,.0f}" if abs(found) >= 100 else f"{found:.3g}"


def file_size(num_bytes: Number) -> str:
    """Returns a number of bytes in the unit that suits, a dash where there is none.

    Example:
        >>> file_size(512), file_size(12_345_678), file_size(180_775_246), file_size(None)
        ('512 bytes', '12.3 MB', '181 MB', '–')
    """
    size = as_float(num_bytes)
    if math.isnan(size):
        return MISSING
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{three_digits(size / limit)} {unit}"
    return f"{size:.0f} bytes"


def duration(seconds: Number) -> str:
    """Returns a time in the two largest units, a dash where there is none.

    Example:
        >>> duration(42), duration(75.2), duration(7322), duration(None)
        ('42 s', '1 min 15 s', '2 h 02 min', '–')
    """
    time = as_float(seconds)
    if math.isnan(time):
        return MISSING
    minutes, rest = divmod(round(time), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def signed(value: Number) -> str:
    """Returns a difference with its sign, a dash where there is none; only 0 reads 0.

    Example:
        >>> signed(0.07211), signed(-0.0004), signed(-0.0)
        ('+0.072', '-0.0004', '+0.000')
    """
    return MISSING if is_missing(value) else _written([as_float(value)], "+")[0]


def _written(values: Sequence[float], sign: str) -> list[str]:
    """Numbers with 3 digits, or with as many as keep one other than 0 from reading 0.

    What 7 digits do not tell from 0 is one: means of fractions leave it by some 1e-17.
    """
    for digits in range(3, 8):
        texts = [f"{value:{sign}z.{digits}f}" for value in values]
        if all(float(text) or abs(value) < 5e-8 for text, value in zip(texts, values, strict=True)):
            break
    return texts


def interval(
    low: Number, high: Number, sign: str = "-", *, rough: bool | None = False, none: str = MISSING
) -> str:
    """Returns an interval's ends, with more digits where one would otherwise round to 0.

    Both ends of a difference are 0 where every answer is the same: that is said instead.

    Args:
        low: Lower end.
        high: Upper end.
        sign: ``+`` to write the plus of a positive end, as for a difference.
        rough: Few groups carry it: ~ stands before it.
        none: What stands for no interval.

    Example:
        >>> interval(0.3041, 0.3489), interval(0.00021, 0.01, "+"), interval(None, None)
        ('[0.304, 0.349]', '[+0.0002, +0.0100]', '–')
        >>> interval(0.25, 0.5, rough=True), interval(0.0, 0.0, "+")
        ('~[0.250, 0.500]', 'same answers')
    """
    ends = [as_float(low), as_float(high)]
    if any(map(math.isnan, ends)):
        return none
    if sign == "+" and not any(ends):
        return SAME_ANSWERS
    return "~" * bool(rough) + "[{}, {}]".format(*_written(ends, sign))


def difference(
    value: Number, low: Number, high: Number, *, rough: bool | None = False, none: str = MISSING
) -> str:
    """Returns a difference with its interval, or that every answer is the same.

    Args:
        value: The difference.
        low: Lower end of its interval.
        high: Upper end.
        rough: Few groups carry the interval: ~ stands before it.
        none: What stands for no interval.

    Example:
        >>> difference(0.1, 0.05, 0.2), difference(0.0, 0.0, 0.0), difference(0.1, None, None)
        ('+0.100 [+0.050, +0.200]', 'same answers', '+0.100 –')
    """
    numbers = [as_float(one) for one in (value, low, high)]
    if math.isnan(numbers[0]):
        return MISSING
    if any(map(math.isnan, numbers)):
        return f"{signed(value)} {none}"
    if not any(numbers):
        return SAME_ANSWERS
    at, *ends = _written(numbers, "+")
    return f"{at} {'~' * bool(rough)}[{', '.join(ends)}]"


def p_value(value: Number) -> str:
    """Returns a p-value with as many digits as keep it on its side of `ALPHA`, or a dash.

    Example:
        >>> p_value(0.0001), p_value(0.0312), p_value(0.0496), p_value(1.0), p_value(None)
        ('< 0.001', '0.031', '0.0496', '1.000', '–')
    """
    p = as_float(value)
    if math.isnan(p):
        return MISSING
    if p < 0.001:
        return "< 0.001"
    for digits in range(3, 8):
        text = f"{p:.{digits}f}"
        if (float(text) < ALPHA) == (p < ALPHA):
            break
    return text


def sign_shown(value: float, low: float, high: float, p: float) -> int:
    """Returns 1 or -1 where a difference is shown, with its sign, and 0 where it is not.

    It is shown where p < `ALPHA` and the interval leaves 0 out. Both come from one test
    (`paired_difference` of `retrieval.statistics`), so where p is not corrected each says the same;
    of numbers that an older version stored in two ways, none is claimed alone. 0 never means
    "equal".
    Empty case: 0 where a number is NaN, since one group tells nothing of the next.

    Args:
        value: Mean of a - b.
        low: Lower end of its interval.
        high: Upper end.
        p: Corrected where there was more than one test.

    Example:
        >>> sign_shown(-0.4, -0.5, -0.3, 0.001), sign_shown(0.1, -0.01, 0.2, 0.04)
        (-1, 0)
    """
    if p < ALPHA and (low > 0 or high < 0):
        return int(value > 0) - int(value < 0)
    return 0


def seed_text(summary: Mapping[str, Any], statistic: str) -> str:
    """Returns how far runs of other seeds lie apart, and how many there are; a dash for one.

    Args:
        summary: Of a measurement, or the mean of several.
        statistic: Of which mean, ``micro`` or ``macro``.

    Example:
        >>> seed_text({"seeds": {"num_runs": 3, "micro": 0.0213}}, "micro"), seed_text({}, "micro")
        ('0.021 (3)', '– (1)')
    """
    seeds = summary.get("seeds") or {"num_runs": 1}
    return f"{number(seeds.get(statistic))} ({count(seeds['num_runs'])})"


def rough_text(ends: Mapping[str, object]) -> str:
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
    if not ends.get("rough") or not isinstance(number, int | float) or math.isnan(number):
        return ""
    return f"rough: {number:.1f} effective groups of {ends['num_groups']:,} carry it"


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


def escaped(text: str) -> str:
    r"""Returns text as Markdown that shows it and does nothing else, on one line.

    Example:
        >>> escaped("plus_layer"), escaped("_x_ | <b>")
        ('plus_layer', '\\_x\\_ &#124; &lt;b&gt;')
    """
    plain = "".join(
        " " if unicodedata.category(char) in ("Cc", "Zl", "Zp") or char in _BIDI_CONTROLS else char
        for char in encodable(text)
    )
    marks = r"[\\`*\[\]~#$!]|@(?=[\w-]+\.\w)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=www)\."
    plain = re.sub(marks, lambda found: f"\\{found[0]}", plain, flags=re.IGNORECASE)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
        plain = plain.replace(char, entity)
    return plain


def encodable(text: str) -> str:
    """Returns the text without lone surrogates, which a file name may hold and UTF-8 does not."""
    return text.encode("utf-8", "replace").decode("utf-8")


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
