"""What to train on a catalogue: the experiment that docs/recipes.md has for one of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visual_search.catalog.catalog import Catalog

_MOST_VALUES = 200  # of a column that is worth learning
_ITEMS_OF_A_VALUE = 10  # that a network sees enough of
_SHARE_OF_ITEMS = 0.5  # that have such a value


@dataclass(frozen=True)
class Recipe:
    """An experiment, and why it is the one.

    Attributes:
        overrides: Of ``python -m visual_search.train``.
        why: What it makes of the catalogue, to stand behind "To train on it".
    """

    overrides: Sequence[str]
    why: str


def recipe_for(catalog: Catalog) -> Recipe:
    """Returns what finds most in a catalogue of this kind, by its labels.

    Args:
        catalog: With its splits.
    """
    labels = _learnable(catalog, "category")
    if labels < 2:
        why = "without labels"
        if catalog.table.loc[catalog.table["category"] != "", "category"].nunique() > 1:
            why = f"too few categories have {_ITEMS_OF_A_VALUE} items to learn from"
        return Recipe(["experiment=frozen_pretrained"], f"{why}: ImageNet weights as they are")
    return Recipe(
        ["experiment=best_pretrained"], f"ImageNet weights adapted to {labels} categories"
    )


def recipe_for_attributes(catalog: Catalog) -> Recipe | None:
    """Returns what learns a catalogue's attributes beside its category; None where it has none.

    An attribute that can be learned has words for values, and few that many items share.

    Args:
        catalog: With its splits.
    """
    found = [name for name in catalog.attributes if _is_learnable(catalog, name)]
    if not found or _learnable(catalog, "category") < 2:
        return None
    columns = ",".join(["category", *found])
    return Recipe(
        ["experiment=best_attributes", f"objective.columns=[{columns}]"],
        "one embedding for these columns too; leave out what no picture shows, as a season",
    )


def _is_learnable(catalog: Catalog, name: str) -> bool:
    from visual_search.catalog.identity import PRODUCT

    if name == PRODUCT or name.startswith("category_") or not name.isidentifier():
        return False
    values = catalog.table[name]
    if values.equals(catalog.table["category"].rename(name)):  # the column that it was read from
        return False
    filled = values[values != ""]
    if filled.str.fullmatch(r"[\d.,\s]*").all() or filled.nunique() > _MOST_VALUES:
        return False
    counts = filled.value_counts()
    shared = int(counts[counts >= _ITEMS_OF_A_VALUE].sum())
    return _learnable(catalog, name) >= 2 and shared >= _SHARE_OF_ITEMS * len(values)


def _learnable(catalog: Catalog, name: str) -> int:
    """Returns how many values of a column enough items of the training split have."""
    values = catalog.table[name].iloc[catalog.rows_of_split("train")]
    counts = values[values != ""].value_counts()
    return int((counts >= _ITEMS_OF_A_VALUE).sum())
