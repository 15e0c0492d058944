"""What ``styles/<id>.json`` says, in the large edition of Fashion Product Images.

A file holds the shop's own answer: an object ``data`` with texts (``brandName``, ``ageGroup``),
with ``articleAttributes`` by kind (``Pattern``, ``Sleeve Length``), and with ``styleImages``, the
URLs of views (``default``, ``front``, ``back``, ``left``, ...) by name. The default view is the
picture that is published beside it. Source of the format: Kaggle's page of the data set, and public
programs that read these keys of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from visual_search.catalog.catalog import Choice
from visual_search.catalog.readers.json_files import is_number, read_json
from visual_search.catalog.readers.listings import attribute_column, left_out_choice
from visual_search.catalog.readers.products import is_url
from visual_search.catalog.readers.sources import FileSource
from visual_search.wording import many

TEXTS = ("brandName", "ageGroup", "fashionType", "colour1", "colour2", "price")
NO_VIEWS = ("default", "search", "size_representation")  # the published picture, and a chart
MIN_SHARE = 0.01  # of the products, which a kind of attribute is to have to be one
_EXPECTED = "styles/<id>.json as published, with an object 'data'"


@dataclass(frozen=True)
class Style:
    """What a file says of a product.

    Attributes:
        attributes: By their columns.
        views: URLs of further pictures, each once.
    """

    attributes: Mapping[str, str]
    views: tuple[str, ...]


def read_style(source: FileSource, inner: str, taken: Collection[str]) -> Style:
    """Returns what a file says of its product.

    Args:
        source: Where it lies.
        inner: Its path there.
        taken: Columns that the product has already.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such JSON.
    """
    content = read_json(source, inner, _EXPECTED)
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict):
        raise ValueError(f"{inner} holds no object 'data'; expected {_EXPECTED}")
    texts = {key: _text(data.get(key)) for key in TEXTS if key not in taken}
    kinds = data.get("articleAttributes")
    for kind, value in kinds.items() if isinstance(kinds, dict) else ():
        texts.setdefault(attribute_column(kind, [*taken, *TEXTS]), _text(value))
    views = data.get("styleImages")
    urls = {
        name: str(view.get("imageURL") or "").strip()
        for name, view in (views.items() if isinstance(views, dict) else ())
        if isinstance(view, dict)
    }
    shown = {urls.get(name) for name in NO_VIEWS}
    further = [url for name, url in urls.items() if is_url(url) and url not in shown]
    return Style({key: text for key, text in texts.items() if text}, tuple(dict.fromkeys(further)))


def columns_of(styles: Sequence[Style], num_products: int) -> tuple[list[str], tuple[Choice, ...]]:
    """Returns the columns of what enough products have, and what to say of the others.

    Args:
        styles: Of the products that have one.
        num_products: Also of those without one.
    """
    counts = Counter(column for style in styles for column in style.attributes)
    kept = [column for column in counts if counts[column] >= MIN_SHARE * num_products]
    choices = left_out_choice(
        {*counts} - {*kept}, f"under {MIN_SHARE:.0%} of the products have such an attribute"
    )
    if without := num_products - len(styles):
        what = f"{many(without, 'product')} without styles/<id>.json"
        choices += (Choice("", what, "what it would say of them is empty"),)
    return kept, choices


def _text(value: object) -> str:
    if isinstance(value, str):
        return " ".join(value.split())
    return f"{value:g}" if is_number(value) else ""
