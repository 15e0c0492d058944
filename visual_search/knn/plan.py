"""What was decided about a search index, as plain values that are stored beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visual_search.wording import many

KINDS = ("flat", "hnsw", "ivf", "ivfpq", "auto")
"""The names of a search index's kinds; ``auto`` chooses one of the first four."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    "flat": (),
    "hnsw": ("num_links", "ef_construction", "code_bits", "ef_search", "num_candidates"),
    "ivf": ("num_lists", "code_bits", "num_probes", "num_candidates"),
    "ivfpq": ("num_lists", "num_parts", "part_bits", "num_probes", "num_candidates"),
}
"""The parameters of each kind, all whole numbers of at least 1.

``num_links``, ``ef_construction`` and ``ef_search`` are HNSW's M, efConstruction and efSearch;
``num_lists`` and ``num_probes`` are IVF's nlist and nprobe; ``num_parts`` parts of an embedding
have ``part_bits`` bits each in a product quantiser; ``code_bits`` is 32 (as given) or 8 (rounded)
a number. ``num_candidates`` of them are compared exactly for a search of ``recall_k`` neighbours.
"""


@dataclass(frozen=True)
class SearchPlan:
    """How a search index answers, and what that costs in recall.

    Attributes:
        kind: One of `KINDS` but ``auto``.
        reason: One sentence: why this kind, with the numbers.
        params: The kind's parameters, by name (see `PARAMETERS`).
        target_recall: The recall that the parameters were tuned to, above 0 and at most 1.
        recall_k: Neighbours that the recall counts.
        recall: Measured share of the ``recall_k`` exact nearest that were found, the mean over
            ``num_sample`` items that were asked before they were added; a neighbour as near as the
            last exact one counts as found. None where the search is exact.
        num_sample: Items that it was measured on.
        num_trained_rows: Rows that the index was made for; what was added since had no influence
            on the parameters.

    Raises:
        ValueError: The kind is unknown, or a number is out of its range.

    Example:
        >>> plan = SearchPlan("flat", "3 items are searched exactly")
        >>> SearchPlan.from_json(plan.to_json()) == plan
        True
    """

    kind: str
    reason: str
    params: Mapping[str, int | float] = dataclasses.field(default_factory=dict)
    target_recall: float = 0.95
    recall_k: int = 10
    recall: float | None = None
    num_sample: int = 0
    num_trained_rows: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.kind == "auto":
            raise ValueError(
                f"kind is {self.kind!r}; expected one of {', '.join(KINDS[:-1])}: 'auto' is "
                "decided before a plan is made"
            )
        check_targets(self.target_recall, self.recall_k)
        if self.recall is not None and not 0 <= self.recall <= 1:
            raise ValueError(f"recall is {self.recall}; expected a share between 0 and 1, or None")
        if self.num_sample < 0 or self.num_trained_rows < 0:
            raise ValueError(
                f"num_sample is {self.num_sample} and num_trained_rows {self.num_trained_rows}; "
                "expected 0 or more"
            )
        names = PARAMETERS[self.kind]
        if set(names) != set(self.params):
            raise ValueError(
                f"the parameters of {self.kind} are {sorted(self.params)}; expected "
                f"{sorted(names)}: build the index again"
            )
        for name in names:
            value = self.params[name]
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 2**31:
                raise ValueError(
                    f"{name} of {self.kind} is {value!r}; expected a whole number of at least 1: "
                    "build the index again"
                )

    def sentence(self, num_rows: int | None = None) -> str:
        """Says the kind, why it was chosen and what it finds of the exact neighbours.

        Args:
            num_rows: Rows in the index now, which may be more than it was chosen for; None where
                they are those.

        Example:
            >>> plan = SearchPlan("flat", "3 items are searched exactly", num_trained_rows=3)
            >>> plan.sentence()
            'flat; 3 items are searched exactly'
            >>> plan.sentence(5)
            'flat, chosen for 3 of its 5 rows; 3 items are searched exactly'
        """
        kind = self.kind
        if num_rows is not None and num_rows != self.num_trained_rows:
            kind += f", chosen for {self.num_trained_rows:,} of its {many(num_rows, 'row')}"
        if self.recall is None:
            return f"{kind}; {self.reason}"
        return (
            f"{kind}; {self.reason}; recall@{self.recall_k} {self.recall:.3f} of the exact "
            f"neighbours, measured on {many(self.num_sample, 'item')}"
        )

    def to_json(self) -> dict[str, object]:
        """Returns the plan as plain values for JSON."""
        return {**dataclasses.asdict(self), "params": dict(self.params)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SearchPlan:
        """Reads what `to_json` gave.

        Raises:
            ValueError: A field is missing, unknown or of another type, or out of its range.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if set(values) != fields:
            raise ValueError(
                f"a search plan has the fields {sorted(values)}; expected {sorted(fields)}: it was "
                "written by another version, build the index again"
            )
        kinds: dict[str, tuple[type, ...]] = {
            "kind": (str,),
            "reason": (str,),
            "params": (Mapping,),
            "target_recall": (int, float),
            "recall_k": (int,),
            "recall": (int, float, type(None)),
            "num_sample": (int,),
            "num_trained_rows": (int,),
        }
        for name, expected in kinds.items():
            if isinstance(values[name], bool) or not isinstance(values[name], expected):
                names = " or ".join(kind.__name__ for kind in expected)
                raise ValueError(
                    f"{name} of the search plan is {values[name]!r}; expected {names}: build the "
                    "index again"
                )
        return cls(**{**values, "params": dict(values["params"])})


def check_targets(target_recall: float, recall_k: int) -> None:
    """Checks what an index is tuned to.

    Raises:
        ValueError: ``target_recall`` is not above 0 and at most 1, or ``recall_k`` is below 1.
    """
    if not 0 < target_recall <= 1:
        raise ValueError(
            f"target_recall is {target_recall}; expected a share above 0 and at most 1, such as "
            "0.95"
        )
    if recall_k < 1:
        raise ValueError(f"recall_k is {recall_k}; expected at least 1 neighbour to count")
