"""Columns as numbers, as the training split knows them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from visual_search.catalog.cache import CachedCatalog
from visual_search.catalog.catalog import Catalog
from visual_search.training.labels import Labels, label_values


@pytest.fixture
def catalog(cached: CachedCatalog) -> Catalog:
    """The colour ``blue`` is in no training item, and some items have none."""
    table = cached.catalog.table.copy()
    train = table["split"] == "train"
    table.loc[train & (table["colour"] == "blue"), "colour"] = ""
    table.loc[[0, 57], "colour"] = ""
    return dataclasses.replace(cached.catalog, table=table)


def test_labels_count_the_values_of_the_training_split(catalog: Catalog) -> None:
    assert label_values(catalog, "colour") == ["green", "red"]
    labels = Labels.of_catalog(catalog, ["colour", "category"])
    colours = catalog.table["colour"].tolist()
    for row, number in enumerate(labels.numbers["colour"].tolist()):
        expected = {"green": 0, "red": 1}.get(colours[row], -1)
        assert number == expected
    assert labels.numbers["category"].min() == 0
    assert list(labels.values["category"]) == sorted(set(catalog.table["category"]))


def test_a_batch_gets_the_labels_of_its_rows(catalog: Catalog) -> None:
    labels = Labels.of_catalog(catalog, ["colour"])
    found = labels.of_rows(torch.tensor([3, 0, 1]), ["colour"])
    assert found["colour"].dtype == torch.int64
    np.testing.assert_array_equal(found["colour"], labels.numbers["colour"][[3, 0, 1]])
    assert labels.of_rows(torch.tensor([3]), []) == {}


def test_unknown_and_empty_columns_are_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match=r"'color', expected one of .*category, .*colour"):
        label_values(catalog, "color")
    empty = dataclasses.replace(catalog, table=catalog.table.assign(colour=""))
    with pytest.raises(ValueError, match="'colour' has no value in the training split"):
        Labels.of_catalog(empty, ["colour"])
