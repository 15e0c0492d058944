"""The protocols by name: each builder gives the rules of one way to ask a catalogue.

``split`` is the split that asks: ``val`` during training, ``test`` at its end. The arguments that
all of them share: ``k`` (how deep one looks), ``relevance`` (columns that must be equal),
``hierarchy`` (columns from coarse to fine, for graded nDCG), ``on_leak`` (``error``, ``drop`` the
queries, ``allow``); see `visual_search.retrieval.protocol.Protocol`, which refuses what it does not
know (TypeError for ``k``, else ValueError). One column or split may be given as plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from visual_search import builder
from visual_search.retrieval import protocol as sides
from visual_search.retrieval.protocol import (
    MAX_PER_CATEGORY,
    Exclude,
    OnLeak,
    Protocol,
    Rows,
    Select,
    Selection,
    check_columns,
    select_gallery,
    select_queries,
)

CATEGORY = ("category",)
YES = frozenset({"1", "true", "yes", "y", "t"})
NO = frozenset({"", "0", "false", "no", "n", "f", "nan", "none", "na"})


@builder("protocol")
def gallery_query(
    k: int = 5,
    relevance: Sequence[str] = CATEGORY,
    hierarchy: Sequence[str] = (),
    gallery: Literal["per_category", "random"] = "per_category",
    max_per_category: int | None = MAX_PER_CATEGORY,
    num_items: int | None = None,
    gallery_splits: Sequence[str] = ("train",),
    gallery_seed: int = 0,
    exclude: Exclude = "item",
    on_leak: OnLeak = "error",
) -> Protocol:
    """Returns the default: held-out queries search in the training split.

    Args:
        k: How deep one looks.
        relevance: Columns that must be equal.
        hierarchy: For graded nDCG.
        gallery: ``per_category`` or ``random``, as `protocol.select_gallery`.
        max_per_category: For ``per_category``; None takes all.
        num_items: For ``random``.
        gallery_splits: Where the gallery comes from; the split that asks is left out.
        gallery_seed: Another one chooses other gallery items.
        exclude: ``item`` or ``group``.
        on_leak: What a leak does.
    """
    return Protocol(
        name="gallery_query",
        question=f"Queries of the asking split search in {_listed(gallery_splits)}.",
        k=k,
        select=_into_splits(gallery, max_per_category, num_items, gallery_splits, gallery_seed),
        relevance=_names(relevance),
        hierarchy=_names(hierarchy),
        exclude=exclude,
        on_leak=on_leak,
    )


@builder("protocol")
def category_restricted(
    relevance: Sequence[str],
    k: int = 5,
    hierarchy: Sequence[str] = (),
    restrict_to: Sequence[str] = CATEGORY,
    max_per_category: int | None = MAX_PER_CATEGORY,
    gallery_splits: Sequence[str] = ("train",),
    gallery_seed: int = 0,
    exclude: Exclude = "item",
    on_leak: OnLeak = "error",
) -> Protocol:
    """Returns search of a shop's category page: only items of the query's category are searched.

    All of them have the right category, so relevance is by an attribute, such as the colour.

    Args:
        relevance: Attribute columns that must be equal.
        k: How deep one looks.
        hierarchy: For graded nDCG.
        restrict_to: Columns that a gallery item must share with the query to be searched.
        max_per_category: Gallery items a category; None takes all.
        gallery_splits: Where the gallery comes from; the split that asks is left out.
        gallery_seed: Another one chooses other gallery items.
        exclude: ``item`` or ``group``.
        on_leak: What a leak does.

    Raises:
        ValueError: Relevance is by what the search is restricted to already, so that every answer
            would be right, or it is restricted to nothing.
    """
    same, equal = _names(restrict_to), _names(relevance)
    if not same:
        nothing = "protocol.restrict_to is empty; expected a column such as [category]"
        raise ValueError(f"{nothing}: protocol=gallery_query searches everything")
    if equal and set(equal) <= set(same):
        raise ValueError(
            f"protocol.relevance is {list(equal)} and protocol.restrict_to {list(same)}:"
            " every item that is searched is relevant, and every embedding scores 1; expected an "
            "attribute, such as protocol.relevance=[baseColour]"
        )
    return Protocol(
        name="category_restricted",
        question=(
            f"Queries of the asking split search in {_listed(gallery_splits)}, each among the "
            f"items of its own {' and '.join(same)}."
        ),
        k=k,
        select=_into_splits("per_category", max_per_category, None, gallery_splits, gallery_seed),
        relevance=_names(relevance),
        hierarchy=_names(hierarchy),
        report_by=CATEGORY,
        restrict_to=same,
        exclude=exclude,
        on_leak=on_leak,
    )


@builder("protocol")
def leave_one_out(
    k: int = 5,
    relevance: Sequence[str] = CATEGORY,
    hierarchy: Sequence[str] = (),
    exclude: Exclude = "group",
    on_leak: OnLeak = "error",
) -> Protocol:
    """Returns leave-one-out: within the asking split, every item asks all the others.

    Args:
        k: How deep one looks.
        relevance: Columns that must be equal.
        hierarchy: For graded nDCG.
        exclude: ``group``: a query's own group is left out as well, since the second picture of a
            product is no find; ``item``: only the query itself.
        on_leak: What a leak does.
    """
    return Protocol(
        name="leave_one_out",
        question="Every item of the asking split searches among all the others of it.",
        k=k,
        select=_among_themselves,
        relevance=_names(relevance),
        hierarchy=_names(hierarchy),
        exclude=exclude,
        on_leak=on_leak,
    )


@builder("protocol")
def instance(
    k: int = 5,
    relevance: Sequence[str] = ("product",),
    hierarchy: Sequence[str] = (),
    exclude: Exclude = "item",
    on_leak: OnLeak = "error",
) -> Protocol:
    """Returns instance retrieval: a picture is to find the other pictures of its product.

    Within the asking split every picture asks all the others, as Stanford Online Products and
    In-shop are measured: hit@1 and hit@k are what their papers call Recall@1 and Recall@K, and
    mAP@R looks as deep as the product has other pictures. Pictures without another one of their
    product are searched and not scored.

    Args:
        k: How deep one looks.
        relevance: Columns that must be equal: ``product``, or ``group`` where that is the product.
        hierarchy: For graded nDCG.
        exclude: ``item``; by ``group`` nothing would be left to find.
        on_leak: What a leak does.
    """
    return Protocol(
        name="instance",
        question="Every picture of the asking split searches among all the others of it.",
        k=k,
        select=_among_themselves,
        relevance=_names(relevance),
        hierarchy=_names(hierarchy),
        report_by=CATEGORY,
        exclude=exclude,
        on_leak=on_leak,
        to_r=True,
    )


@builder("protocol")
def cold_start(
    k: int = 5,
    relevance: Sequence[str] = CATEGORY,
    hierarchy: Sequence[str] = (),
    unseen: Literal["categories", "groups"] = "categories",
    exclude: Exclude = "group",
    on_leak: OnLeak = "error",
) -> Protocol:
    """Returns cold start: both sides are new, nothing of them was trained on.

    Every item of the test split asks all the others of it. ``split=cold_start_categories`` or
    ``split=cold_start_newest`` makes such a split before training. During training the validation
    split asks in the same way; its categories may be known ones.

    Args:
        k: How deep one looks.
        relevance: Columns that must be equal.
        hierarchy: For graded nDCG.
        unseen: No test item's ``categories``, or only no ``groups``, are trained on.
        exclude: ``group`` or ``item``, as `leave_one_out`.
        on_leak: What a leak does, between the sides or between them and the training items.

    Raises:
        ValueError: ``unseen`` is another. From ``select``: a test category is trained on.
    """
    if unseen not in ("categories", "groups"):
        raise ValueError(
            f"protocol.unseen is {unseen!r}; expected 'categories' or 'groups': choose one"
        )

    def select(table: pd.DataFrame, split: str) -> Selection:
        check_columns(table, ("category", "split"))
        rows = select_queries(table, split)
        trained = np.flatnonzero((table["split"] == "train").to_numpy()).astype(np.int64)
        if unseen == "categories" and split == "test":
            known = sorted(set(table["category"].iloc[rows]) & set(table["category"].iloc[trained]))
            if known:
                raise ValueError(
                    f"{len(known)} categories of the test split are trained on, such as "
                    f"{known[:3]}; expected none: train with split=cold_start_categories, or give "
                    "protocol.unseen=groups for new items of known categories"
                )
        return Selection(rows, rows, apart_from=trained)

    new = "of categories" if unseen == "categories" else "items"
    return Protocol(
        name="cold_start",
        question=f"Every item of the asking split, {new} never trained on, searches all others.",
        k=k,
        select=select,
        relevance=_names(relevance),
        hierarchy=_names(hierarchy),
        exclude=exclude,
        on_leak=on_leak,
    )


@builder("protocol")
def cross_domain(
    column: str,
    query_value: str,
    gallery_value: str,
    k: int = 5,
    relevance: Sequence[str] = ("group",),
    hierarchy: Sequence[str] = (),
    gallery_splits: Sequence[str] = ("train", "val", "test"),
    exclude: Exclude = "item",
    on_leak: OnLeak = "error",
) -> Protocol:
    """Returns search from one source of pictures in another: scene crops ask for product pictures.

    By default the product itself is to be found (relevance by group). With relevance by category
    give ``exclude="group"``, or the query's own product is a leak.

    Args:
        column: The column that tells the sources apart.
        query_value: Its value for queries, such as ``scene``.
        gallery_value: Its value for gallery items, such as ``product``.
        k: How deep one looks.
        relevance: Columns that must be equal.
        hierarchy: For graded nDCG.
        gallery_splits: Splits of the gallery, the asking split among them.
        exclude: ``item`` or ``group``.
        on_leak: What a leak does.

    Raises:
        ValueError: From ``select``: a column is missing, or no item has such a value.
    """

    def select(table: pd.DataFrame, split: str) -> Selection:
        check_columns(table, (column, "split"))
        source, splits = table[column], table["split"]
        for value in (query_value, gallery_value):
            if not (source == value).any():
                found = sorted(set(source))
                raise ValueError(
                    f"no item has {value!r} in column {column!r}; expected one of {found[:8]}: set "
                    "protocol.query_value and protocol.gallery_value"
                )
        return Selection(
            _rows((source == gallery_value) & splits.isin(_names(gallery_splits))),
            _rows((source == query_value) & (splits == split)),
        )

    return Protocol(
        name="cross_domain",
        question=f"Items of the asking split whose {column} is {query_value!r} search among those "
        f"whose {column} is {gallery_value!r}.",
        k=k,
        select=select,
        relevance=_names(relevance),
        hierarchy=_names(hierarchy),
        exclude=exclude,
        on_leak=on_leak,
    )


@builder("protocol")
def published(
    query_column: str = "is_query",
    gallery_column: str = "is_gallery",
    k: int = 5,
    relevance: Sequence[str] = CATEGORY,
    hierarchy: Sequence[str] = (),
    exclude: Exclude = "item",
    on_leak: OnLeak = "error",
) -> Protocol:
    """Returns the sides that the data's authors published, as flags in the table.

    An item may be on both sides. During training, a validation split without flagged queries asks
    the training split as in `gallery_query`; or itself, where that has no answer to any of them.

    Args:
        query_column: Flags of the queries: 1, true or yes, and 0, false, no or nothing.
        gallery_column: Flags of the gallery.
        k: How deep one looks.
        relevance: Columns that must be equal.
        hierarchy: For graded nDCG.
        exclude: ``item`` or ``group``.
        on_leak: What a leak does.

    Raises:
        ValueError: From ``select``: a column is missing, or a flag has another value.
    """
    plain = _into_splits("per_category", MAX_PER_CATEGORY, None, ("train",), 0)

    def select(table: pd.DataFrame, split: str) -> Selection:
        check_columns(table, (query_column, gallery_column, "split"))
        asks = _flags(table, query_column) & (table["split"] == split).to_numpy()
        if split == "val" and not asks.any():
            return sides.answerable(plain(table, split), table, _names(relevance))
        return Selection(_rows(_flags(table, gallery_column)), _rows(asks))

    return Protocol(
        name="published",
        question=f"Items flagged {query_column} search among those flagged {gallery_column}.",
        k=k,
        select=select,
        relevance=_names(relevance),
        hierarchy=_names(hierarchy),
        exclude=exclude,
        on_leak=on_leak,
    )


@builder("protocol")
def reference_2023(k: int = 5, relevance: Sequence[str] = CATEGORY) -> Protocol:
    """Returns the rule of the study of 2023: everything asks everything, and finds itself.

    Its number is the macro mean of hits / k with the query counted as a hit; the study printed it
    as "mAP@5". It has a name of its own everywhere. Trained-on items ask as well. During training
    the validation split asks itself by the same rule.

    Args:
        k: How deep one looks.
        relevance: Columns that must be equal.
    """

    def select(table: pd.DataFrame, split: str) -> Selection:
        whole = np.arange(len(table), dtype=np.int64)
        rows = whole if split == "test" else select_queries(table, split)
        return Selection(rows, rows)

    return Protocol(
        name="reference_2023",
        question="Every item, trained on or not, searches among all items, itself included.",
        k=k,
        select=select,
        relevance=_names(relevance),
        exclude="nothing",
        on_leak="allow",
    )


def _among_themselves(table: pd.DataFrame, split: str) -> Selection:
    rows = select_queries(table, split)
    return Selection(rows, rows)


def _into_splits(
    kind: Literal["per_category", "random"],
    max_per_category: int | None,
    num_items: int | None,
    splits: Sequence[str],
    seed: int,
) -> Select:
    def select(table: pd.DataFrame, split: str) -> Selection:
        rows = select_gallery(
            table,
            splits=sides.gallery_splits(split, splits),
            kind=kind,
            max_per_category=max_per_category,
            num_items=num_items,
            seed=seed,
        )
        return Selection(rows, select_queries(table, split))

    return select


def _rows(mask: pd.Series | np.ndarray) -> Rows:
    return np.flatnonzero(np.asarray(mask)).astype(np.int64)


def _flags(table: pd.DataFrame, column: str) -> np.ndarray:
    texts = table[column].str.strip().str.lower()
    unknown = sorted(set(texts) - YES - NO)
    if unknown:
        raise ValueError(
            f"column {column!r} holds {unknown[0]!r}; expected a flag: 1, true or yes, or 0, "
            "false, no or nothing"
        )
    return texts.isin(YES).to_numpy()


def _names(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _listed(splits: Sequence[str]) -> str:
    names = _names(splits)
    return f"the {' and '.join(names)} split" + ("s" if len(names) > 1 else "")
