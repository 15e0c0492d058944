"""The pages' templates: everything that is written into them is escaped."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from visual_search.wording import many, one_line, three_digits

if TYPE_CHECKING:
    from jinja2 import Environment

STATIC = Path(__file__).parent / "static"
_TEMPLATES = Path(__file__).parent / "templates"
# Characters that HTML forbids: controls, and halves of characters that UTF-8 cannot write
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render(template: str, **context: object) -> str:
    """Returns a template of ``templates/`` filled in."""
    return _environment().get_template(template).render(**context)


def clean(value: object) -> object:
    r"""Puts a replacement character where a text holds what a page may not.

    Example:
        >>> clean("shoe\x00") == "shoe\ufffd"
        True
    """
    from markupsafe import Markup

    if isinstance(value, str) and not isinstance(value, Markup):
        return _FORBIDDEN.sub("\ufffd", value)
    return value


def link(path: str, **parameters: object) -> str:
    """Returns a path with its query; lists become repeated parameters, None is left out.

    Example:
        >>> link("/", item="a&b", where=["category:Hats"], bundle=None)
        '/?item=a%26b&where=category%3AHats'
    """
    given = {name: value for name, value in parameters.items() if value not in (None, "", [], ())}
    return f"{path}?{urlencode(given, doseq=True, errors='replace')}" if given else path


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
        three_digits=three_digits, many=many, short=one_line, thousands="{:,}".format
    )
    environment.globals.update(link=link)
    return environment
