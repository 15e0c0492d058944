"""What is given away names no place and no person: paths as their last name, URLs without a login.

A run's own ``config.yaml`` keeps its paths, since with them it goes on. Whatever is shown or handed
over, such as a page, a bundle, the typed command, passes through here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visual_search.catalog.catalog import RefusedItem

_PATH = re.compile(r"(?:file://)?(?:[/~]|[A-Za-z]:[\\/]|\.\.(?:[\\/]|$))|.*[\\/]\.\.(?:[\\/]|$)")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
# Of an override: a quoted text, or what stands between the signs of lists and dictionaries.
_PIECE = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|[^'\"\[\]{}(),=]+")
# In a sentence: from where a path begins up to a blank or a sign that ends it.
_IN_TEXT = re.compile(
    r"(?<![\w.~/\\:-])(?:file://)?(?:~?/|[A-Za-z]:\\)(?:[^\s'\"<>|;,:)\]}]|:(?=\S))+"
)


def without_place(value: str) -> str:
    r"""Returns a value's last name where it is an absolute path, or one that leaves its folder.

    >>> [without_place(value) for value in ("/home/anna/my products.csv", "~/shop/", "../x/photos")]
    ['my products.csv', 'shop', 'photos']
    >>> without_place(r"C:\Users\anna\a.csv"), without_place("data/photos"), without_place("/")
    ('a.csv', 'data/photos', '/')
    >>> without_place("https://anna:secret@shop.example/x")
    'https://shop.example/x'
    """
    value = _LOGIN.sub("", value)
    if not _PATH.match(value):
        return value
    names = [name for name in re.split(r"[\\/]+", value.removeprefix("file://")) if name]
    return names[-1] if names and names[-1] not in ("~", "..") else value[:1]


def settings_without_places(settings: object) -> Any:
    """Returns the same settings with each text as `without_place` gives it.

    >>> settings_without_places({"data": {"path": "/home/anna/a.csv", "k": [5, "/x/y"]}})
    {'data': {'path': 'a.csv', 'k': [5, 'y']}}
    """
    if isinstance(settings, Mapping):
        return {name: settings_without_places(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [settings_without_places(value) for value in settings]
    return without_place(settings) if isinstance(settings, str) else settings


def override_without_places(override: str) -> str:
    """Returns an override as it was typed, but for the places in it.

    >>> override_without_places("data.path=/home/anna/a.csv")
    'data.path=a.csv'
    >>> override_without_places("runs=[/home/anna/a,'/home/anna, b/c']")
    "runs=[a,'c']"
    """

    def piece(found: re.Match[str]) -> str:
        text = found[0]
        quote = text[0] if text[0] in "'\"" and len(text) > 1 else ""
        inner = text[1:-1] if quote else text
        start, key, value = "", "", inner.lstrip()
        start = inner[: len(inner) - len(value)]
        if not quote and (pair := re.match(r"([^/~\\]*:\s+)(.*)", value, re.DOTALL)):
            key, value = pair[1], pair[2]
        return f"{quote}{start}{key}{without_place(value)}{quote}"

    return _PIECE.sub(piece, override)


def command_without_places(words: Sequence[str]) -> str:
    """Returns a command as one would type it.

    Args:
        words: As ``sys.argv``: the first is the program's path.

    >>> command_without_places(["/home/anna/visual_search/train.py", "-m", "seed=1", "name=a b"])
    "python -m visual_search.train -m seed=1 'name=a b'"
    """
    if not words:
        return ""
    program = Path(words[0])
    ours = program.suffix == ".py" and program.parent.name == "visual_search"
    start = ["python", "-m", f"visual_search.{program.stem}"] if ours else [program.name]
    return shlex.join([*start, *(override_without_places(word) for word in words[1:])])


def text_without_places(text: str) -> str:
    """Returns a sentence in which every absolute path is its last name.

    >>> text_without_places("no picture 'a.png' in /home/anna/shop/photos; check data.path=/x/y.")
    "no picture 'a.png' in photos; check data.path=y."
    """

    def shortened(found: re.Match[str]) -> str:
        path = found[0].rstrip(".")
        return without_place(path) + found[0][len(path) :]

    return _IN_TEXT.sub(shortened, _LOGIN.sub("", text))


def refused_without_places(refused: Sequence[RefusedItem]) -> list[dict[str, str]]:
    """Returns refused items for a file, their reasons as `text_without_places` gives them."""
    return [{**vars(item), "reason": text_without_places(item.reason)} for item in refused]
