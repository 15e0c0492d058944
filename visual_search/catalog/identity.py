"""What an item may be called: one rule for catalogues, bundles, the API and outside embeddings.

An item is one picture. Where products have several, a column `PRODUCT` names the product of each,
whose first picture has its id, and the further ones `picture_id`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

PRODUCT = "product"
_MAX_DIGITS = 9


def id_problem(item_id: str) -> str:
    """Says why no item can have this id; nothing where one can.

    An id stands in addresses, in lists with one id a line, in tables and on pages, and has to be
    found from each. Slashes, blanks within and at the ends, signs and every script are fine.

    Args:
        item_id: The text, which is not changed.

    Returns:
        What is wrong, to stand after the id, with what to do; or the empty text.

    Example:
        >>> id_problem("coats/1 (ä).jpg")
        ''
        >>> id_problem("12" + chr(10))
        'holds the control character U+000A; expected one line of text: take it out'
        >>> id_problem(" ")
        'is blank; expected text that can be seen: give another'
    """
    if item_id.isprintable() and not item_id.isspace() and item_id not in ("", ".", ".."):
        return ""
    categories = [unicodedata.category(character) for character in item_id]
    for character, category in zip(item_id, categories, strict=True):
        if category in ("Cc", "Zl", "Zp"):
            return (
                f"holds the control character U+{ord(character):04X}; expected one line of text: "
                "take it out"
            )
        if category == "Cs":
            return "is no Unicode; expected UTF-8: write it anew with its right encoding"
    if all(category[0] in "ZC" for category in categories):
        return "is blank; expected text that can be seen: give another"
    if item_id in (".", ".."):
        return "means a folder in an address; expected a name: give another"
    return ""


def picture_id(product: str, number: int) -> str:
    """Returns the item id of a product's picture, the first of which has the product's own.

    Example:
        >>> picture_id("shoe-7", 1), picture_id("shoe-7", 2)
        ('shoe-7', 'shoe-7~2')
    """
    return product if number == 1 else f"{product}~{number}"


class PictureIds:
    """Gives the pictures of products their ids, in the order in which a listing names them.

    A picture that is refused later keeps its number, so that it moves no other's.

    Example:
        >>> ids = PictureIds()
        >>> [ids.of_next(product) for product in ("shoe-7", "hat", "shoe-7")]
        ['shoe-7', 'hat', 'shoe-7~2']
    """

    def __init__(self) -> None:
        self._named: Counter[str] = Counter()

    def of_next(self, product: str) -> str:
        """Returns the id of the next picture of a product."""
        self._named[product] += 1
        return picture_id(product, self._named[product])


def picture_number(item_id: str, product: str) -> int:
    """Returns which of a product's pictures an item is, from 1; 0 where it is none.

    Example:
        >>> [picture_number(one, "shoe-7") for one in ("shoe-7", "shoe-7~2", "shoe-7~02", "hat")]
        [1, 2, 0, 0]
    """
    if not product or item_id == product:
        return int(bool(product))
    start, _, digits = item_id.rpartition("~")
    if start != product or not digits.isascii() or not digits.isdecimal():
        return 0
    if len(digits) > _MAX_DIGITS or digits.startswith("0") or digits == "1":
        return 0
    return int(digits)


def is_by_picture(item_ids: Sequence[str], products: Sequence[str]) -> bool:
    """Returns whether every item is, by its id, a picture of the product beside it.

    A column may be called ``product`` and say something else, as the line that a brand sells.

    Args:
        item_ids: N ids.
        products: N texts of the column `PRODUCT`.

    Example:
        >>> is_by_picture(["shoe", "shoe~2"], ["shoe", "shoe"])
        True
        >>> is_by_picture(["shoe", "boot"], ["Air", "Air"])
        False
    """
    return len(item_ids) > 0 and all(map(picture_number, item_ids, products))
