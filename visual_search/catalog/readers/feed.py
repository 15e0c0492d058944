"""Feeds of products in XML, as Google Merchant's: RSS, Atom, or any list of elements; safely.

Somebody else wrote the file: one that declares a document type, by which entities would grow or
read other files, is refused, and so is one that is nested deeper or repeats more than feeds do.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from visual_search.catalog.readers.delimited import MAX_VALUES, RawTable

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

GOOGLE = "http://base.google.com/ns/1.0"
_ENTRIES = ("item", "entry")  # of RSS and Atom
_MAX_DEPTH = 64
_MOST = 10_000  # elements of one product
_MAX_PATHS = 1_000  # different ones, where the products are looked for


def read_feed(data: bytes) -> RawTable:
    """Returns the texts of a feed: a row for each of its products, a column for each element.

    Names lose their prefix: ``g:id`` is ``id``; where both stand in a product, Google's counts.
    What is repeated is a list; what is nested stays together, as JSON.

    Args:
        data: The file's bytes; its encoding is what it declares.

    Raises:
        ValueError: It is no well-formed XML, declares a document type, holds no products, or more
            than a table may.

    Example:
        >>> feed = b"<rss><channel><item><id>7</id><url>a</url><url>b</url></item></channel></rss>"
        >>> table = read_feed(feed)
        >>> table.columns, table.rows, table.lists
        (['id', 'url'], [['7', 'a, b']], {'url': [('a', 'b')]})
    """
    place = _place_of_products(data)
    records: list[dict[str, tuple[str, ...]]] = []
    places: list[str] = []
    columns: dict[str, None] = {}
    found = (element for path, element, _ in _walk(data, place) if path == place)
    for number, element in enumerate(found, 1):
        record = _record(element)
        columns.update(dict.fromkeys(record))
        records.append(record)
        places.append(f"product {number}")
        if len(records) * len(columns) > MAX_VALUES:
            raise ValueError(
                f"the feed has over {MAX_VALUES:,} values in {len(columns):,} element(s); expected "
                "at most that: split it"
            )
    several = {name for record in records for name, texts in record.items() if len(texts) > 1}
    rows = [[", ".join(record.get(name, ())) for name in columns] for record in records]
    lists = {
        name: [record.get(name, ()) for record in records] for name in columns if name in several
    }
    return RawTable(list(columns), rows, places, lists=lists)


def _place_of_products(data: bytes) -> tuple[str, ...]:
    """Returns the names of the elements from the root to a product.

    Raises:
        ValueError: Nothing repeats as products do.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for path, _, num_within in _walk(data, ()):
        if num_within and _local(path[-1]) in _ENTRIES:
            return path
        if num_within and (path in counts or len(counts) < _MAX_PATHS):
            counts[path] += 1
    # what is nested in a product repeats at least as often, deeper
    repeated = [path for path, number in counts.items() if number > 1]
    if not repeated:
        root = next(iter(counts), ("",))[0]
        raise ValueError(
            f"it is XML of <{_local(root) or '?'}> without products; expected a feed: RSS with "
            "<item>, Atom with <entry>, or another element for each product"
        )
    return min(repeated, key=lambda path: (len(path), -counts[path]))


def _walk(data: bytes, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Element, int]]:
    """Yields each element when it ends: the names from the root to it, it, how many are in it.

    Args:
        data: The file's bytes.
        place: Elements below it are kept until it ends; of the others nothing is.

    Raises:
        ValueError: It is no well-formed XML, or more than feeds have.
    """
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import iterparse

    names: list[str] = []
    opened: list[tuple[Element, int]] = []  # and how many elements of the file began before it
    num = 0
    try:
        for event, element in iterparse(io.BytesIO(data), ("start", "end"), forbid_dtd=True):
            if event == "start":
                names.append(element.tag)
                opened.append((element, num))
                num += 1
                if len(names) > _MAX_DEPTH:
                    raise ValueError(f"it is nested over {_MAX_DEPTH} deep; expected a feed")
                if num > MAX_VALUES:
                    raise ValueError(
                        f"it has over {MAX_VALUES:,} elements; expected fewer: split it"
                    )
                if place and len(names) > len(place) and num - opened[len(place) - 1][1] > _MOST:
                    raise ValueError(
                        f"<{_local(place[-1])}> holds over {_MOST:,} elements; expected a product"
                    )
                continue
            path = tuple(names)
            yield path, element, num - opened[-1][1] - 1
            names.pop()
            opened.pop()
            if opened and not (place and len(path) > len(place) and path[: len(place)] == place):
                opened[-1][0].remove(element)
    except ParseError as error:
        raise ValueError(f"it is no whole XML ({error}); fetch it again") from error
    except DefusedXmlException as error:
        raise ValueError(
            f"it declares a document type, which a feed has no need of, and is not read ({error}); "
            "expected RSS or Atom: write it without"
        ) from error
    except LookupError as error:
        raise ValueError(f"its encoding is unknown ({error}); write it in UTF-8") from error


def _record(element: Element) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[tuple[bool, str]]] = {}
    for child in element:
        text = _text(child)
        if text:
            found.setdefault(_local(child.tag), []).append(
                (child.tag.startswith(f"{{{GOOGLE}}}"), text)
            )
    record = {}
    for name, texts in found.items():
        is_googles = any(own for own, _ in texts)
        record[name] = tuple(text for own, text in texts if own == is_googles)
    return record


def _text(element: Element) -> str:
    if len(element):
        inner = [(_local(child.tag), _text(child)) for child in element]
        return json.dumps(dict(inner), ensure_ascii=False)
    # Atom's links are empty but for their address
    return (element.text or "").strip() or element.attrib.get("href", "").strip()


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
