"""What is wrong with a catalogue before anybody trains on it: its table, categories and groups.

A finding is an *error* where training or measuring would stop, or give a number that means
nothing; a *warning* where somebody should look; a *note* where the data is merely as it is. What
the pictures tell is in `picture_checks.py`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.catalog.catalog import SPLITS, Catalog, Choice, RefusedItem
from visual_search.wording import many

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # the gravest first

FEW_QUERIES = 20  # below it the tables mark a category's mean
IMBALANCE = 10.0  # largest category against the median one
LARGE_GROUP = 0.1  # share of the items; a group is never split, so it moves a fraction by itself
MAX_LEFT_OUT = 0.1  # share of the data without which a result still speaks of it
SPARSE = 0.5  # share of items for which an attribute is filled


@dataclass(frozen=True)
class NamedItem:
    """An item that a finding is about.

    Attributes:
        item_id: The item, or where a whole category, group or attribute is meant its name.
        why: What it has, in a few words.
        other_id: The other item of a pair, or "".
    """

    item_id: str
    why: str = ""
    other_id: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that somebody should know before training.

    Attributes:
        kind: A short name for programs, such as ``leak_pixels``.
        severity: ``error``, ``warning`` or ``note``.
        what: One sentence for people, with the numbers.
        advice: What to do about it.
        items: Who is concerned, perhaps only the first of them.
        num_items: All who are concerned (of pairs: pairs).

    Raises:
        ValueError: The severity is another word.
    """

    kind: str
    severity: Severity
    what: str
    advice: str
    items: tuple[NamedItem, ...] = field(default=())
    num_items: int = 0

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ValueError(
                f"severity is {self.severity!r}; expected one of {list(SEVERITIES)}: choose one"
            )

    @property
    def names_pictures(self) -> bool:
        """Whether what stands beside an item is its own picture, and no other item."""
        return self.kind in ("refused_rows", "broken_pictures")


def gravest_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Returns the findings by severity; within one they keep their order.

    Example:
        >>> found = [Finding("a", "note", "", ""), Finding("b", "error", "", "")]
        >>> [finding.kind for finding in gravest_first(found)]
        ['b', 'a']
    """
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def about(
    items: Sequence[NamedItem], kind: str, severity: Severity, what: str, advice: str
) -> list[Finding]:
    """Returns one finding about items; none where there is no item.

    Example:
        >>> about([], "copies", "warning", "0 copies.", "Keep one.")
        []
        >>> about([NamedItem("a")], "copies", "warning", "1 copy.", "Keep one.")[0].num_items
        1
    """
    return [Finding(kind, severity, what, advice, tuple(items), len(items))] if items else []


def left_out(num_left_out: int, num_items: int) -> str:
    """Returns what of the data is left out, in words.

    Example:
        >>> left_out(1, 39), left_out(0, 4)
        ('1 of 40 left out (2.5 %)', '0 of 4 left out (0.0 %)')
    """
    total = num_left_out + num_items
    share = num_left_out / total if total else 0.0
    return f"{num_left_out:,} of {total:,} left out ({100 * share:.1f} %)"


def check_left_out(num_left_out: int, num_items: int, on_bad_item: str) -> list[Finding]:
    """Says where so much is left out that what is measured is another catalogue.

    Args:
        num_left_out: Refused rows and pictures.
        num_items: The others.
        on_bad_item: Of the data's config.
    """
    if num_left_out <= MAX_LEFT_OUT * (num_items + num_left_out) or on_bad_item == "error":
        return []
    return [
        Finding(
            "left_out",
            "warning" if on_bad_item == "skip_any" else "error",
            f"{left_out(num_left_out, num_items)}, more than {MAX_LEFT_OUT:.0%}: what is trained "
            "and measured is another catalogue.",
            "Mend them; data.on_bad_item=skip_any allows any number.",
        )
    ]


def check_choices(choices: Sequence[Choice]) -> list[Finding]:
    """Names what the reader found out or chose by itself."""
    return about(
        [NamedItem(choice.key or choice.value, str(choice)) for choice in choices],
        "choices",
        "note",
        f"The reader found out {many(len(choices), 'thing')} by itself: "
        f"{'; '.join(map(str, choices))}.",
        "Give a setting that it names to have it otherwise.",
    )


def check_refused(
    rows: Sequence[RefusedItem], pictures: Sequence[RefusedItem], severity: Severity
) -> list[Finding]:
    """Names what did not become an item: rows that the reader refused, pictures that are broken.

    Args:
        rows: Refused from the listing alone.
        pictures: Refused since the picture is missing or does not decode.
        severity: ``error`` where training would stop because of them.
    """
    advice = "They are left out (data.on_bad_item=skip); mend them to have them."
    if severity == "error":
        advice = "Mend them, or leave them out, counted and listed: data.on_bad_item=skip."
    findings = []
    for kind, refused, what in (
        ("refused_rows", rows, "refused: no item can be made of what the data says"),
        ("broken_pictures", pictures, "refused: the picture cannot be read or does not decode"),
    ):
        items = [NamedItem(each.item_id, each.reason, each.image) for each in refused]
        findings += about(items, kind, severity, f"{many(len(refused), 'item')} {what}.", advice)
    return findings


def torn_groups(catalog: Catalog) -> list[Finding]:
    """Names the groups that the data itself puts into several splits.

    Example:
        >>> columns = {"item_id": ["a", "b"], "image": ["a", "b"], "category": ["hat", "hat"]}
        >>> columns |= {"group": ["x", "x"], "split": ["train", "test"]}
        >>> [found] = torn_groups(Catalog("shop", pd.DataFrame(columns), None))
        >>> found.severity, found.items[0]
        ('error', NamedItem(item_id='x', why='train, test', other_id=''))
    """
    given = catalog.table[catalog.table["split"] != ""]
    several = given.groupby("group")["split"].nunique()
    torn = sorted(several.index[several > 1])
    splits = given[given["group"].isin(torn)].groupby("group")["split"].agg(set)
    items = [
        NamedItem(group, ", ".join(split for split in SPLITS if split in splits[group]))
        for group in torn
    ]
    return about(
        items,
        "leak_groups_given",
        "error",
        f"The data puts {many(len(torn), 'group')} into several splits, so that what is trained on "
        "is measured too.",
        "Mend the split column, or read the data without it: whole groups are drawn then.",
    )


def check_splits(catalog: Catalog) -> list[Finding]:
    """Names the splits without an item, but for a benchmark, all of which is ``test``."""
    findings: list[Finding] = []
    if len(catalog.rows_of_split("test")) == len(catalog):
        what = f"All {many(len(catalog), 'item')} are in the test split, as the data has it."
        advice = "It is a benchmark: measure a run on it that was trained on something else."
        return [Finding("benchmark", "note", what, advice)]
    for split in SPLITS:
        if not len(catalog.rows_of_split(split)):
            advice = f"Raise split.{split}_fraction, give more groups, or name it in the data."
            if split == "train":
                advice = "Lower split.val_fraction and split.test_fraction, or give more groups."
            what = f"The {split} split holds no item of {len(catalog):,}."
            findings.append(
                Finding(f"empty_{split}", "warning" if split == "val" else "error", what, advice)
            )
    return findings


def check_categories(
    catalog: Catalog,
    gallery_rows: NDArray[np.int64],
    query_rows: NDArray[np.int64],
) -> list[Finding]:
    """Checks whether the categories can be told apart, trained and measured.

    Args:
        catalog: Items with their splits.
        gallery_rows: Rows that the protocol searches; empty where it could not choose.
        query_rows: Rows that ask.
    """
    table = catalog.table
    counts = table["category"].value_counts()
    findings: list[Finding] = []
    if len(counts) == 1:
        findings.append(
            Finding(
                "one_category",
                "error",
                f"{many(len(catalog), 'item')}, all of one category, {counts.index[0]!r}: every "
                "neighbour is right, and a search cannot be measured by category.",
                "Name another column by data.category, or give the folder above the categories.",
            )
        )
    alike = _alike(list(counts.index))
    findings += about(
        [NamedItem(name, _difference(name, other)) for name, other in alike],
        "categories_alike",
        "warning",
        f"{many(len(alike), 'category', 'categories')} with the name of another one, but for "
        "capitals, blanks, signs, or how its letters are put together.",
        "If they mean the same, write them alike in the data.",
    )
    lonely = sorted(counts.index[counts < 2]) if len(counts) > 1 else []
    findings += about(
        [NamedItem(name, "1 item") for name in lonely],
        "categories_of_one",
        "warning",
        f"{many(len(lonely), 'category', 'categories')} with a single item: nothing relevant can "
        "be found.",
        "Merge them into a wider category, or leave them out.",
    )
    median = counts.median()
    findings += about(
        [
            NamedItem(str(name), many(number, "item"))
            for name, number in counts.items()
            if number > IMBALANCE * median
        ],
        "imbalance",
        "warning",
        f"The largest category, {counts.index[0]!r}, has {many(int(counts.iloc[0]), 'item')}, "
        f"{counts.iloc[0] / median:,.0f} times the median of {median:,.0f}; the smallest has "
        f"{counts.iloc[-1]:,}.",
        "Read macro means beside micro means; sampler=balanced trains all categories equally "
        "often.",
    )
    return findings + _measurable(table, gallery_rows, query_rows)


def _measurable(
    table: pd.DataFrame, gallery_rows: NDArray[np.int64], query_rows: NDArray[np.int64]
) -> list[Finding]:
    held = table["category"].iloc[gallery_rows].value_counts()
    asking = table["category"].iloc[query_rows].value_counts()

    def queries_of(names: Sequence[str]) -> list[NamedItem]:
        return [NamedItem(name, many(int(asking[name]), "query", "queries")) for name in names]

    unanswered = sorted(set(asking.index) - set(held.index)) if len(held) else []
    few = sorted(asking.index[asking < FEW_QUERIES], key=lambda name: (asking[name], name))
    return [
        *about(
            queries_of(unanswered),
            "categories_unanswered",
            "warning",
            f"{many(len(unanswered), 'category', 'categories')} with queries and without an item "
            f"in the gallery: {many(int(asking[unanswered].sum()), 'query', 'queries')} cannot be "
            "scored.",
            "Give more items of them, or another split.seed.",
        ),
        *about(
            queries_of(few),
            "few_queries",
            "note",
            f"{len(few):,} of {many(len(asking), 'category', 'categories')} with queries "
            f"{'has' if len(few) == 1 else 'have'} fewer than {FEW_QUERIES} queries: "
            f"{'its own mean' if len(few) == 1 else 'their own means'} will be rough.",
            "Raise split.test_fraction, or read the overall means.",
        ),
    ]


def _alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the names that are another one but for how they are written, and that one.

    Capitals, blanks, signs, and how Unicode puts a letter together (NFC or NFD, wide or narrow)
    are looked past; a letter with an accent is another one than without.
    """
    first: dict[str, str] = {}
    alike = []
    for name in names:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        bare = "".join(sign for sign in plain if unicodedata.category(sign)[0] in "LMN") or plain
        if bare in first:
            alike.append((name, first[bare]))
        first.setdefault(bare, name)
    return alike


def _difference(name: str, other: str) -> str:
    """Names the other one, and how a name is written where the two look the same."""

    def seen(text: str) -> str:
        visible = (sign for sign in text if unicodedata.category(sign)[0] != "C")
        return unicodedata.normalize("NFC", " ".join("".join(visible).split()))

    if seen(name) != seen(other):
        return f"beside {other!r}"
    signs = (s if s.isascii() and s.isalnum() else f"U+{ord(s):04X}" for s in name)
    return f"beside {other!r}, written as {' '.join(signs)} here"


def check_groups(catalog: Catalog) -> list[Finding]:
    """Checks how large groups are, and whether they mix categories."""
    counts = catalog.table["group"].value_counts()
    large = counts[counts > max(LARGE_GROUP * len(catalog), 1)]
    categories = catalog.table.groupby("group")["category"].nunique()
    mixed = sorted(categories.index[categories > 1])
    return [
        *about(
            [NamedItem(str(group), many(number, "item")) for group, number in large.items()],
            "large_groups",
            "warning",
            f"{many(len(large), 'group')} with more than {LARGE_GROUP:.0%} of the items each: a "
            "group is never split, so the shares of the splits hang on where they fall.",
            "Check the group column; it should name one product, look or board.",
        ),
        *about(
            [
                NamedItem(group, many(categories[group], "category", "categories"))
                for group in mixed
            ],
            "groups_mixed",
            "note",
            f"{len(mixed):,} of {many(len(counts), 'group')} "
            f"{'holds' if len(mixed) == 1 else 'hold'} items of several categories.",
            "Right for looks and boards; for products it is a mistake in the labels.",
        ),
    ]


def check_attributes(catalog: Catalog) -> list[Finding]:
    """Names the attributes that say nothing, or that most items lack."""
    facts = attribute_table(catalog)
    findings: list[Finding] = []
    cases: tuple[tuple[str, Callable[[pd.DataFrame], pd.Series], str], ...] = (
        ("attributes_empty", lambda f: f["num_filled"] == 0, "empty for every item"),
        ("attributes_constant", lambda f: f["num_values"] == 1, "with a single value"),
        (
            "attributes_sparse",
            lambda f: (
                f["num_filled"].between(1, SPARSE * len(catalog), inclusive="left")
                & (f["num_values"] > 1)
            ),
            f"filled for less than {SPARSE:.0%} of the items",
        ),
    )
    for kind, which, what in cases:
        concerned = facts[which(facts)]
        findings += about(
            [
                NamedItem(name, f"filled for {many(filled, 'item')}")
                for name, filled in zip(
                    concerned["attribute"], concerned["num_filled"], strict=True
                )
            ],
            kind,
            "note",
            f"Of {many(len(facts), 'attribute')}, {len(concerned):,} {what}.",
            "Do not measure relevance by them, or fill them.",
        )
    return findings


def attribute_table(catalog: Catalog) -> pd.DataFrame:
    """Returns a row an attribute: ``attribute``, ``num_filled``, ``num_values``, ``commonest``."""
    rows = []
    for name in catalog.attributes:
        values = catalog.table[name]
        counts = values[values != ""].value_counts()
        commonest = f"{counts.index[0]} ({counts.iloc[0]:,})" if len(counts) else ""
        rows.append((name, int(counts.sum()), len(counts), commonest))
    return pd.DataFrame(rows, columns=["attribute", "num_filled", "num_values", "commonest"])


def category_table(
    catalog: Catalog, gallery_rows: NDArray[np.int64], query_rows: NDArray[np.int64]
) -> pd.DataFrame:
    """Returns one row a category, the largest first.

    Returns:
        ``category``, ``items``, ``groups``, ``train``, ``val``, ``test``, ``gallery`` (what the
        protocol's rule keeps of it) and ``queries``.
    """
    table = catalog.table
    by_category = table.groupby("category")
    counted = pd.DataFrame({"items": by_category.size(), "groups": by_category["group"].nunique()})
    parts = {split: catalog.rows_of_split(split) for split in SPLITS}
    for name, rows in {**parts, "gallery": gallery_rows, "queries": query_rows}.items():
        counted[name] = table["category"].iloc[rows].value_counts()
    counted = counted.fillna(0).astype(np.int64).rename_axis("category").reset_index()
    counted = counted.sort_values(["items", "category"], ascending=[False, True])
    return counted.reset_index(drop=True)
