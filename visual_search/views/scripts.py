"""Names in scripts that no installed font has: numbers stand for them in a figure, a key tells.

Without this every letter becomes the same box, and matplotlib warns of each of them.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
import weakref
from collections.abc import Iterable, Iterator, Mapping

from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from visual_search.wording import isolated, listed, many

# Fonts that fill the gaps of DejaVu Sans (which travels with matplotlib), where installed.
FALLBACK_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Hiragino Sans", "PingFang SC",
    "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "WenQuanYi Zen Hei", "Droid Sans Fallback",
    "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Telugu",
    "Noto Sans Kannada", "Noto Sans Malayalam", "Noto Sans Gujarati", "Noto Sans Gurmukhi",
    "Noto Sans Sinhala", "Noto Sans Thai", "Noto Sans Lao", "Noto Sans Khmer", "Noto Sans Myanmar",
    "Noto Sans Ethiopic", "Symbola", "Noto Sans Symbols", "Noto Sans Symbols2", "Arial Unicode MS",
)  # fmt: skip
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH")
_KEY = "Names"  # of a PNG's texts
# Of a figure, or of one that was read back: `views.drawing.DrawnFigure`.
_keys: weakref.WeakKeyDictionary[object, dict[str, str]] = weakref.WeakKeyDictionary()


@functools.cache
def font_families() -> list[str]:
    """Returns the families that texts are drawn with; each fills the gaps of those before it."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


@functools.cache
def _drawable() -> frozenset[int]:
    found: set[int] = set()
    for family in font_families():
        font = font_manager.get_font(font_manager.findfont(family))
        found.update(font.get_charmap())
    return frozenset(found)


def missing_letters(text: str) -> str:
    r"""Returns the characters of a text that no installed font has, each once, sorted.

    Example:
        >>> missing_letters("Röcke, شال"), missing_letters("\U000102a0")
        ('', '\U000102a0')
    """
    if text.isascii():
        return ""
    return "".join(sorted({c for c in text if _is_missing(c)}))


def _is_missing(character: str) -> bool:
    # controls, joiners and blanks draw nothing
    return ord(character) not in _drawable() and unicodedata.category(character)[0] not in "CZ"


def texts_of(artist: Artist) -> Iterator[Text]:
    """Returns what `Artist.findobj` does, without the ticks of axes that show none.

    These are made when they are asked for, which takes 40 ms of axes.
    """
    if isinstance(artist, Text):
        yield artist
    hidden = isinstance(artist, Axes) and not artist.axison
    for child in artist.get_children():
        if not (hidden and isinstance(child, Axis)):
            yield from texts_of(child)


def number_names(figure: Figure) -> None:
    """Puts ``#1``, ``#2``, ... where the figure's texts hold words that no installed font has.

    They are numbered in alphabetical order; `name_key` gives what each stands for. What is read
    from right to left is isolated. Texts that come in afterwards are not looked at.
    """
    texts = [text for text in texts_of(figure) if not text.get_text().isascii()]
    words = {word for text in texts for word in _words(text.get_text())}
    numbers = {word: f"#{place}" for place, word in enumerate(sorted(words), start=1)}

    def drawn(written: str) -> str:
        return isolated(_replaced(written, numbers) if numbers else written)

    drawn_axes = [axes for axes in figure.axes if axes.axison]
    for axis in (axis for axes in drawn_axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        changed = [drawn(label) for label in labels]
        if changed != labels:  # an axis writes its labels again whenever it is drawn
            axis.set_ticks(axis.get_ticklocs(), labels=changed)
    for text in texts:
        text.set_text(drawn(text.get_text()))
    if numbers:
        _keys[figure] = {number: word for word, number in numbers.items()}
        width, height = figure.get_size_inches()
        note = "#: words in a script that no installed font has; the page's key spells them"
        figure.text(0.25 / width, 1 - 0.12 / height, note, fontsize=7, color="#6b6b6b")


def _stretches(text: str) -> list[tuple[int, int]]:
    """Returns from where to where the words lie that cannot be drawn, with blanks within."""
    found: list[tuple[int, int]] = []
    for place, character in enumerate(text):
        if not _is_missing(character):
            continue
        joins = found and not text[found[-1][1] : place].strip(" …\u200c\u200d\ufe0f")
        if joins:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return found


def _words(text: str) -> list[str]:
    return [text[start:end] for start, end in _stretches(text)]


def _replaced(text: str, numbers: Mapping[str, str]) -> str:
    for start, end in reversed(_stretches(text)):
        text = f"{text[:start]}{numbers[text[start:end]]}{text[end:]}"
    return text


def name_key(figure: object) -> dict[str, str]:
    """Returns what the numbers in a figure stand for: ``#1`` -> the words."""
    return _keys.get(figure, {})


def key_as_metadata(figure: Figure) -> dict[str, str]:
    """Returns a figure's key as texts of a PNG file, so that who opens it again has it."""
    key = name_key(figure)
    return {_KEY: json.dumps(key, ensure_ascii=True)} if key else {}


def take_key(figure: object, metadata: Mapping[str | tuple[int, int], object]) -> None:
    """Takes over the key that `key_as_metadata` wrote; what is no key is passed over."""
    try:
        key = json.loads(str(metadata.get(_KEY, "{}")))
    except json.JSONDecodeError:
        return
    if isinstance(key, dict) and all(re.fullmatch(r"#\d+", str(number)) for number in key):
        _keys[figure] = {str(number): str(word) for number, word in key.items()}


def font_advice(names: Iterable[str]) -> str:
    """Returns a line that says which package has the fonts that figures lack; empty if none does.

    Example:
        >>> font_advice(["shoes"])
        ''
    """
    lacking = {name: letters for name in set(names) if (letters := missing_letters(name))}
    if not lacking:
        return ""
    packages = sorted({_package(c) for letters in lacking.values() for c in letters})
    example = listed(sorted(lacking), 2)
    return (
        f"No installed font has {many(len(lacking), 'name')} ({example}): figures show #1, #2, ... "
        f"in their place, and the page spells them. To see them: apt-get install "
        f"{' '.join(packages)}, then draw again."
    )


def _package(character: str) -> str:
    """Returns the Debian package of fonts that has a character."""
    if unicodedata.name(character, "").split(" ")[0].split("-")[0] in _CJK:
        return "fonts-noto-cjk"
    if unicodedata.category(character) == "So" or ord(character) >= 0x1F000:
        return "fonts-symbola"  # matplotlib draws no coloured emoji
    return "fonts-noto-core"
