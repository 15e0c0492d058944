"""The values of a catalogue's columns as numbers, for objectives that learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visual_search.catalog.catalog import Catalog


@dataclass(frozen=True, eq=False)
class Labels:
    """Numbers of the values in some columns, as the training split has them.

    Attributes:
        values: Column -> its values in the training split, sorted; a label is a place in them.
        numbers: Column -> label of every catalogue row, ``[N] int64``; -1 where the row has no
            value, or one that the training split does not know.
    """

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbers: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def of_catalog(cls, catalog: Catalog, columns: Sequence[str]) -> Labels:
        """Returns the labels of these columns.

        Raises:
            ValueError: The catalogue has no such column, or the training split no value in it.
        """
        values: dict[str, list[str]] = {}
        numbers: dict[str, NDArray[np.int64]] = {}
        for column in dict.fromkeys(columns):
            values[column] = label_values(catalog, column)
            place = {value: number for number, value in enumerate(values[column])}
            texts = _texts(catalog, column)
            found = [-1 if text is None else place.get(text, -1) for text in texts]
            numbers[column] = np.array(found, dtype=np.int64)
        return cls(values, numbers)

    def of_rows(self, rows: Tensor, columns: Sequence[str]) -> dict[str, Tensor]:
        """Returns the labels ``[B] int64`` of catalogue rows ``[B] int64``, on the rows' device."""
        wanted = rows.cpu().numpy()
        return {
            column: torch.from_numpy(self.numbers[column][wanted]).to(rows.device)
            for column in columns
        }


def label_values(catalog: Catalog, column: str) -> list[str]:
    """Returns the values that a column has in the training split, sorted; missing ones left out.

    Raises:
        ValueError: The catalogue has no such column, or the training split no value in it.
    """
    if column not in catalog.table.columns:
        known = [
            name for name in catalog.table.columns if name not in ("item_id", "image", "split")
        ]
        raise ValueError(
            f"got the label column {column!r}, expected one of the catalogue's: "
            f"{', '.join(known)}; set objective.column or objective.columns"
        )
    texts = _texts(catalog, column)
    values = {texts[row] for row in catalog.rows_of_split("train").tolist()}
    found = sorted(value for value in values if value is not None)
    if not found:
        raise ValueError(
            f"column {column!r} has no value in the training split; expected at least two; name "
            "another objective.column"
        )
    return found


def _texts(catalog: Catalog, column: str) -> list[str | None]:
    return [cell if cell.strip() else None for cell in catalog.table[column].tolist()]
