"""What an item may be called: one rule for catalogues, bundles, the API and outside embeddings."""

from __future__ import annotations

import unicodedata


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
