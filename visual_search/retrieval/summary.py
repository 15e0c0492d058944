"""What a measurement says of itself in ``summary.json``: the names and the kinds of its values.

Standard library alone: whoever writes, reads or shows a summary takes its type from here. JSON has
no NaN, so a number that may be missing is None in the file, and NaN once `load_report` read it. A
key that an older version did not write is missing, so ask with ``get`` where that may be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from visual_search.retrieval.resampling import Statistic
from visual_search.wording import as_float


class Headline(TypedDict):
    """The metric that a run is known by: column of ``per_query``, name of its mean, in print."""

    column: str
    mean: str
    title: str


class Ends(TypedDict, total=False):
    """A mean with its interval: the fields of `statistics.Interval`."""

    mean: float | None
    low: float | None
    high: float | None
    num_queries: int
    num_groups: int
    num_left_out: int
    confidence: float
    method: str
    effective_groups: float | None
    rough: bool


class Rules(TypedDict):
    """What decides a number once the sides are chosen: see `Protocol.rules`."""

    name: str
    k: int
    relevance: list[str]
    hierarchy: list[str]
    report_by: list[str]
    restrict_to: list[str]
    exclude: str


class Identity(TypedDict, total=False):
    """What two measurements must share before their numbers may be compared: see `identity`.

    `comparability.identity_of` adds ``k`` of the summary.
    """

    data: str
    gallery: str
    queries: str
    protocol: str
    protocol_name: str
    protocol_title: str
    protocol_settings: Mapping[str, object]
    rules: Rules
    num_gallery: int
    num_queries: int
    k: int


class SideLeaks(TypedDict):
    """What two sides share: pairs by kind, queries concerned, the first pairs."""

    num_pairs: dict[str, int]
    num_queries: int
    pairs: list[list[str]]


class FoundLeaks(TypedDict, total=False):
    """What was found on both sides, and what the protocol made of it."""

    on_leak: str
    num_dropped: int
    between_sides: SideLeaks
    with_training: SideLeaks


class NearCounts(TypedDict):
    """How many pairs only look the same."""

    definition: str
    num_pairs: int
    num_queries: int
    num_by_hash_alone: int
    num_by_embedding_alone: int


class IndexFacts(TypedDict, total=False):
    """The gallery's index: its size, and what searched."""

    bytes: int
    bytes_per_item: float
    device: str
    device_reason: str
    gpu_failed: bool


class MeasuredFloor(TypedDict, total=False):
    """An embedding that learns nothing, on the same queries: the columns of `floor_differences`.

    Its means by name (``micro_map_at_5``) stand beside them: see `number_in`.
    """

    name: str
    title: str
    dim: int
    definition: str
    statistic: Statistic
    micro: float | None
    micro_low: float | None
    micro_high: float | None
    macro: float | None
    macro_low: float | None
    macro_high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p_value: float | None
    p_holm: float | None


class DeviceFacts(TypedDict, total=False):
    """What computed a number, and how exactly."""

    device: str
    device_name: str
    num_devices: int
    precision: str
    num_threads: int
    bf16: str
    card: dict[str, object]


class Summary(DeviceFacts, total=False):
    """A measurement: a report's own numbers, then what a run adds.

    The means by name (``micro_map_at_5``, ``macro_map_at_5``) stand beside them: see `number_in`.
    """

    k: int
    num_gallery: int
    num_queries: int
    num_queries_scored: int
    num_left_out: int
    num_categories: int
    num_categories_scored: int
    headline: Headline
    definitions: dict[str, str]
    rules: dict[str, str]
    all_relevant: bool
    intervals: dict[str, Ends]

    kind: str
    val_loss: float | None
    test_loss: float | None
    loss_name: str
    embedding_dim: int
    num_parameters: int | None
    epochs: int | None
    num_training: int | None
    weights: str | None
    computed_before_on: list[str] | None
    num_queries_trained_on: int | None
    index: IndexFacts
    query_split: str
    embedding_ms_per_item: float | None
    refused: list[dict[str, str]]
    choices: list[object]
    identity: Identity
    catalog_fingerprint: str
    leaks: FoundLeaks
    floors: list[MeasuredFloor]
    standing: str
    near_duplicates: NearCounts


def number_in(measured: Mapping[str, Any], name: str) -> float:
    """Returns a number of a `Summary` or a `MeasuredFloor`, NaN where it has none.

    Args:
        measured: Either.
        name: A key that is put together, as ``micro_map_at_5`` of statistic, metric and k; of
            others ask the dict itself, where the type checker knows them.

    Example:
        >>> number_in({"micro_map_at_5": 0.5}, "micro_map_at_5"), number_in({}, "macro_map_at_5")
        (0.5, nan)
    """
    return as_float(measured.get(name))
