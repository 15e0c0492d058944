"""Size against quality: what each codec costs on the queries that a gallery was measured with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from visual_search.knn.codecs import (
    CannotEncodeError,
    Codec,
    Floats,
    decoded_gallery,
    is_unit_length,
)
from visual_search.knn.device import Device
from visual_search.knn.gallery_index import EmbeddingIndex
from visual_search.knn.principal_axes import principal_axes
from visual_search.reading import number_in
from visual_search.retrieval.comparison import ComparedBy, headline_of
from visual_search.retrieval.measure import find_neighbours, score
from visual_search.retrieval.protocol import Protocol, Selection
from visual_search.retrieval.report import RetrievalReport
from visual_search.retrieval.resampling import Draws
from visual_search.retrieval.statistics import (
    NUM_RESAMPLES,
    bootstrap_interval,
    paired_difference,
)
from visual_search.wording import (
    SAME_ANSWERS,
    difference,
    file_size,
    many,
    number,
    rough_text,
    signed,
    three_digits,
)

ROUNDING = 1e-12  # means that are equal in exact arithmetic differ by less


@dataclass(frozen=True, eq=False)
class SizeQuality:
    """What codecs cost. Intervals have the confidence that was asked for.

    Attributes:
        table: One row a codec, flat first, as given: ``codec`` (its name), ``title``, ``family``,
            ``series``, ``definition``, ``bytes_per_item``, ``shared_bytes``, ``times_smaller``
            (than flat, shared bytes apart), ``value`` (the headline, by its own ``statistic``),
            ``value_low``, ``value_high``, ``micro``, ``macro``, and of the paired difference to
            flat ``difference`` (below 0 where something is lost), ``low``, ``high``.
        left_out: Codec -> why it could not be measured.
        headline: ``column``, ``mean``, ``title``, ``statistic`` and ``definition``.
        unit_length: All embeddings had length 1, and decoded ones were scaled to it.
        num_queries: Scored queries.
        num_groups: Their groups, which intervals flip whole.
        effective_groups: How many carry the mean, as in `statistics.Interval`.
        rough: They are few, as there.
    """

    table: pd.DataFrame
    left_out: Mapping[str, str]
    headline: ComparedBy
    unit_length: bool
    num_queries: int
    num_groups: int
    effective_groups: float = math.nan
    rough: bool = False


@dataclass(frozen=True)
class Verdict:
    """Whether a gallery can be stored in less.

    Attributes:
        max_loss: The most that may be lost, such as 0.01.
        times_smaller: The goal, such as 8.
        goal_bytes: Flat's bytes an item divided by it.
        smallest: The smallest codec whose mean loses at most that; flat's where none does.
        smallest_sure: The smallest whose interval's lower end stays above that too; None where no
            codec's does.
        reached: A codec of at most ``goal_bytes`` loses at most ``max_loss``.
        reached_surely: And the lower end of its interval stays above that.
        sentence: All this in words.
    """

    max_loss: float
    times_smaller: float
    goal_bytes: float
    smallest: str
    smallest_sure: str | None
    reached: bool
    reached_surely: bool
    sentence: str


def search_decoded(
    decoded: Floats,
    queries: Floats,
    table: pd.DataFrame,
    protocol: Protocol,
    selection: Selection,
    *,
    device: Device = "auto",
) -> RetrievalReport:
    """Returns the numbers of exact queries against a decoded gallery, under the protocol's rules.

    Items that a codec makes equal are at the same distance, and ranked by their ids.

    Args:
        decoded: ``[N, D] float32``, row i is ``selection.gallery_rows[i]``.
        queries: ``[Q, D] float32``, in the order of ``selection.query_rows``.
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        device: Who answers; it changes no answer.

    Raises:
        TypeError: Embeddings are no float32 array.
        ValueError: They do not fit the sides, or no query can be given k neighbours.
    """
    ids = table["item_id"].to_numpy(dtype=object)[selection.gallery_rows]
    index = EmbeddingIndex.build(decoded, ids.tolist(), device=device)
    found = find_neighbours(index, table, protocol, selection, queries)
    return score(table, protocol, selection, found)


def measure_codecs(
    codecs: Sequence[Codec],
    gallery: Floats,
    queries: Floats,
    table: pd.DataFrame,
    protocol: Protocol,
    selection: Selection,
    *,
    flat: RetrievalReport | None = None,
    device: Device = "auto",
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = 0.95,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> SizeQuality:
    """Measures every codec on the same queries, each beside flat float32.

    The interval of a difference is `statistics.paired_difference`'s: over the same queries, so it
    is far narrower than that of either mean. It is not corrected for the number of codecs.

    Args:
        codecs: From `compression.codecs_for`, flat first.
        gallery: ``[N, D] float32``, row i is ``selection.gallery_rows[i]``; codecs are trained on
            it alone.
        queries: ``[Q, D] float32``; they stay as they are.
        table: The catalogue's table.
        protocol: The rules.
        selection: The sides.
        flat: The report of flat, where it is known.
        device: Who answers; it changes no answer.
        num_resamples: As `statistics.bootstrap_interval`.
        confidence: Of the intervals.
        seed: Of the draws.
        on_progress: Called with (codecs done, codecs) after each that
            could be measured.

    Raises:
        TypeError: As `search_decoded`.
        ValueError: As there, the first codec is not flat, no query is scored, or a setting is none
            of those of `statistics.bootstrap_interval`.
    """
    if not codecs or codecs[0].family != "flat":
        first = codecs[0].name if codecs else "none"
        raise ValueError(
            f"the first codec is {first!r}; expected flat float32, which all others are measured "
            "against: pass what codecs_for gives"
        )
    flat = flat or search_decoded(gallery, queries, table, protocol, selection, device=device)
    headline = headline_of(flat.summary)
    column, statistic = headline["column"], headline["statistic"]
    exact = flat.per_query[column].to_numpy(dtype=np.float64)  # [Q]
    if np.isnan(exact).all():
        raise ValueError(
            f"none of the {len(exact)} queries is scored; expected a query with a relevant gallery "
            "item: there is nothing to lose, so check the gallery's categories"
        )
    labels = flat.per_query["group"].tolist(), flat.per_query["category"].tolist()
    draws = Draws(num_resamples=num_resamples, confidence=confidence, seed=seed)
    axes = principal_axes(gallery) if any(codec.on_axes for codec in codecs) else None
    lines, left_out = [], {}
    for done, codec in enumerate(codecs, start=1):
        try:
            decoded = decoded_gallery(gallery, codec, axes)
        except CannotEncodeError as error:
            left_out[codec.title] = str(error)
            continue
        report = flat
        if codec.family != "flat":
            report = search_decoded(decoded, queries, table, protocol, selection, device=device)
        values = report.per_query[column].to_numpy(dtype=np.float64)  # [Q]
        ends = bootstrap_interval(values, *labels, statistic, **draws)
        lost = paired_difference(
            values, exact, *labels, statistic, num_permutations=num_resamples, **draws
        )
        is_flat = codec.family == "flat"
        lines.append(
            {
                "codec": codec.name,
                "title": codec.title,
                "family": codec.family,
                "series": codec.series,
                "definition": codec.definition,
                "bytes_per_item": codec.bytes_per_item,
                "shared_bytes": codec.shared_bytes,
                "times_smaller": codecs[0].bytes_per_item / codec.bytes_per_item,
                "value": ends.mean,
                "value_low": ends.low,
                "value_high": ends.high,
                "micro": number_in(report.summary, f"micro_{headline['mean']}"),
                "macro": number_in(report.summary, f"macro_{headline['mean']}"),
                "difference": lost.difference,
                "low": 0.0 if is_flat else lost.low,  # also of one group or few queries
                "high": 0.0 if is_flat else lost.high,
            }
        )
        if on_progress is not None:
            on_progress(done, len(codecs))
    sizes = (ends.num_queries, ends.num_groups, ends.effective_groups, ends.rough)
    return SizeQuality(pd.DataFrame(lines), left_out, headline, is_unit_length(gallery), *sizes)


def verdict(measured: SizeQuality, max_loss: float = 0.01, times_smaller: float = 8.0) -> Verdict:
    """Says which codec is the smallest that loses little, and whether the goal is reached.

    Among codecs of one size the one that loses least is taken. A mean that lies within ``max_loss``
    says what was seen on these queries; the interval's lower end, what cannot be ruled out.

    Args:
        measured: From `measure_codecs`.
        max_loss: The most that the headline may lose, 0 or more.
        times_smaller: How many times fewer bytes an item than flat are aimed at, above 1.

    Raises:
        ValueError: ``max_loss`` is negative or ``times_smaller`` not above 1, or one is no number.
    """
    if not (0 <= max_loss < math.inf):
        raise ValueError(f"max_loss is {max_loss}; expected 0 or more, such as 0.01: set it so")
    if not (1 < times_smaller < math.inf):
        raise ValueError(
            f"times_smaller is {times_smaller}; expected above 1, such as 8: set it so"
        )
    table = measured.table.sort_values(
        ["bytes_per_item", "difference"], ascending=[True, False], kind="stable"
    )
    flat_bytes = int(measured.table["bytes_per_item"].iloc[0])
    goal_bytes = flat_bytes / times_smaller
    within = table[table["difference"] >= -max_loss - ROUNDING]
    sure = within[(within["low"] >= -max_loss - ROUNDING) & (within["family"] != "flat")]
    small = table[table["bytes_per_item"] <= goal_bytes]
    smallest = within.iloc[0]
    surest = sure.iloc[0] if len(sure) else None
    reached = bool(smallest["bytes_per_item"] <= goal_bytes)
    reached_surely = surest is not None and bool(surest["bytes_per_item"] <= goal_bytes)
    limit = signed(-max_loss)
    if smallest["family"] == "flat":
        clauses = [f"nothing smaller loses at most {number(max_loss)}"]
    else:
        clauses = [f"the smallest that loses at most {number(max_loss)} is {_told(within)}"]
        if surest is None:
            clauses.append(f"no codec's interval stays above {limit}")
        elif surest["codec"] == smallest["codec"]:
            if smallest["low"] or smallest["high"]:  # else: same answers
                clauses.append(f"its interval stays above {limit}")
        else:
            clauses.append(
                f"its interval reaches below {limit}, and the smallest whose does not is "
                f"{_told(sure)}"
            )
    goal = f"the goal, {three_digits(times_smaller)} times smaller ({goal_bytes:,.0f} bytes), is "
    if reached_surely:
        goal += "reached"
    elif reached:
        goal += "reached by the mean alone: no interval of that size stays above the limit"
    elif len(small):
        best_first = small.sort_values("difference", ascending=False, kind="stable")
        goal += f"not reached: the best of that size is {_told(best_first)}"
    else:
        goal += "not reached: no codec is that small"
    clauses.append(goal)
    flat = measured.table.iloc[0]
    if rough := rough_text(vars(measured)):
        clauses.append(f"intervals are {rough.replace('carry it', 'carry them')}")
    sentence = (
        f"{measured.headline['title']} by {measured.headline['statistic']} mean over "
        f"{many(measured.num_queries, 'query', 'queries')} is {number(flat['value'])} at "
        f"{flat_bytes:,} bytes an item "
        f"(flat float32); {'; '.join(clauses)}."
    )
    return Verdict(
        max_loss,
        times_smaller,
        goal_bytes,
        smallest["codec"],
        None if surest is None else surest["codec"],
        reached,
        reached_surely,
        sentence,
    )


def _told(table: pd.DataFrame) -> str:
    """A table's first codec in words: its size, what all items share, and what it loses."""
    line = table.iloc[0]
    shared = f" beside {file_size(line['shared_bytes'])} shared" if line["shared_bytes"] else ""
    lost = difference(line["difference"], line["low"], line["high"])
    told = lost if lost == SAME_ANSWERS else f"difference {lost}"
    times = three_digits(line["times_smaller"])
    return (
        f"{line['title']} ({line['bytes_per_item']:,} bytes{shared}, {times} times smaller, {told})"
    )
