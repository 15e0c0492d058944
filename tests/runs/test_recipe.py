"""Which experiment a catalogue is told to be trained with."""

import numpy as np
import pandas as pd

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.sources import ArraySource
from visual_search.runs.recipe import recipe_for, recipe_for_attributes

NUM = 80


def catalog(**columns: list[str]) -> Catalog:
    ids = [f"i{number}" for number in range(NUM)]
    own = {"item_id": ids, "image": ids, "group": ids, "split": ["train"] * NUM}
    source = ArraySource(np.zeros((NUM, 8, 8, 3), np.uint8), ids)
    return Catalog("drawn", pd.DataFrame(own | columns), source)


def turns(*values: str) -> list[str]:
    return [values[number % len(values)] for number in range(NUM)]


def test_labels_are_learned_from_pretrained_weights() -> None:
    recipe = recipe_for(catalog(category=turns("hat", "shoe")))
    assert list(recipe.overrides) == ["experiment=best_pretrained"]
    assert "2 categories" in recipe.why


def test_without_labels_or_with_too_few_items_of_them_nothing_is_to_be_learned() -> None:
    rare = [f"kind {number // 4}" for number in range(NUM)]
    few = "too few categories have 10 items"
    for category, why in ((["all"] * NUM, "without labels"), (rare, few),
                          (["hat"] * (NUM - 5) + ["shoe"] * 5, few)):  # fmt: skip
        recipe = recipe_for(catalog(category=category))
        assert list(recipe.overrides) == ["experiment=frozen_pretrained"]
        assert recipe.why.startswith(why)


def test_attributes_are_those_of_few_words_that_many_share() -> None:
    table = catalog(
        category=turns("hat", "shoe"),
        colour=turns("red", "green", "", "blue"),
        title=[f"A fine thing, number {number}" for number in range(NUM)],
        price=turns("9,90", "19.90"),
        category_1=turns("women", "men"),
        product=turns("a", "b"),
        rarely=["leather", "silk"] * 15 + [""] * (NUM - 30),
        alike=["yes"] * NUM,
        kind=turns("hat", "shoe"),  # the category itself
    )
    recipe = recipe_for_attributes(table)
    assert recipe is not None
    assert list(recipe.overrides) == [
        "experiment=best_attributes",
        "objective.columns=[category,colour]",
    ]


def test_without_attributes_or_categories_there_is_no_recipe_for_them() -> None:
    assert recipe_for_attributes(catalog(category=turns("hat", "shoe"))) is None
    assert (
        recipe_for_attributes(catalog(category=["a"] * NUM, colour=turns("red", "green"))) is None
    )
