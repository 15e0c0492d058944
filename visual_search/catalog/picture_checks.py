"""What is wrong with the pictures of a catalogue: sizes, modes, copies, and what only looks alike.

Everything is told from `picture_facts.py`; no picture is decoded here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from visual_search.catalog.catalog import Catalog
from visual_search.catalog.checks import Finding, NamedItem, Severity, about
from visual_search.catalog.duplicates import NO_HASH
from visual_search.catalog.images import Fit
from visual_search.wording import many

TINY_SHARE = 0.25  # shorter side against the network's: below it a pixel becomes 16 or more
HUGE_PIXELS = 25_000_000  # some 0.3 s to decode, and the limit is 64 million
HUGE_BYTES = 10 * 2**20
ELONGATED = 3.0  # longer side against the shorter; stretched to a square a circle is no circle
MAX_BITS = 2  # as in retrieval/near_duplicates.py, where it was set by looking at pairs
MAX_LISTED = 1000  # pairs; all are counted
_SINGULAR = {"are": "is", "have": "has", "show": "shows"}
_USUAL_MODES = ("RGB", "L")
_MODE_ADVICE = {
    "CMYK": ("warning", "Print colours: they are converted without a profile; save as RGB."),
    "I;16": ("warning", "16-bit gray is scaled to 8 bits; save as 8-bit RGB if it looks wrong."),
    "1": ("warning", "Black and white without gray: is it a mask or a scan?"),
    "P": ("note", "A palette of at most 256 colours; it is converted to RGB."),
}
_BLOCK = 128  # rows of hashes at a time: 45 MB against 44,000 others


def check_pictures(
    catalog: Catalog, facts: pd.DataFrame, *, size_px: int, fit: Fit
) -> list[Finding]:
    """Checks sizes, shapes, modes and contrast.

    Args:
        catalog: Items whose pictures decode.
        facts: Of `picture_facts`, one row an item.
        size_px: What the network sees.
        fit: ``stretch`` distorts elongated pictures; ``letterbox`` does not.
    """
    width, height = (facts[name].to_numpy(dtype=np.int64) for name in ("width_px", "height_px"))
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    num_bytes = facts["num_bytes"].to_numpy(dtype=np.int64)
    sizes = [f"{w} x {h} px" for w, h in zip(width, height, strict=True)]
    tiny = shorter < TINY_SHARE * size_px
    huge = (width * height > HUGE_PIXELS) | (num_bytes > HUGE_BYTES)
    weights = [f"{size}, {n / 1e6:.1f} MB" for size, n in zip(sizes, num_bytes, strict=True)]
    findings = [
        *_found(
            catalog, tiny, sizes, "tiny", "warning",
            f"have a shorter side below {TINY_SHARE * size_px:.0f} px, a quarter of what the "
            "network sees.",
            "Look whether they are thumbnails or placeholders; fetch larger ones, or lower "
            "pictures.size_px.",
        ),
        *_found(
            catalog, (shorter < size_px) & ~tiny, sizes, "enlarged", "note",
            f"are smaller than the {size_px} px that the network sees, and enlarged.",
            "Nothing to do, unless larger ones exist.",
        ),
        *_found(
            catalog, huge, weights, "huge", "warning",
            f"have more than {HUGE_PIXELS / 1e6:.0f} million pixels or "
            f"{HUGE_BYTES / 2**20:.0f} MiB.",
            "They slow the first run down; save them at 2,000 px or less.",
        ),
        *_found(
            catalog, longer > ELONGATED * shorter, sizes, "elongated",
            "warning" if fit == "stretch" else "note",
            f"are more than {ELONGATED:g} times as long as wide"
            + (", and squeezed into a square." if fit == "stretch" else "."),
            "pictures.fit=letterbox keeps their shape." if fit == "stretch"
            else "They keep their shape between white bars.",
        ),
        *_found(
            catalog, facts["hash"].to_numpy(dtype=np.uint64) == NO_HASH, sizes, "plain", "warning",
            "show almost nothing: one colour, hardly any contrast.",
            "Look whether they are placeholders such as 'no picture yet'; leave those out.",
        ),
    ]  # fmt: skip
    return findings + _check_modes(catalog, facts)


def _check_modes(catalog: Catalog, facts: pd.DataFrame) -> list[Finding]:
    findings = []
    modes = facts["mode"].astype(str)
    formats = list(facts["format"])
    for mode in sorted(set(modes) - set(_USUAL_MODES)):
        advised: Severity = "note"
        advice = "It is converted to RGB."
        for start, (severity, text) in _MODE_ADVICE.items():
            if mode.startswith(start):
                advised, advice = ("warning" if severity == "warning" else "note"), text
                break
        findings += _found(
            catalog, (modes == mode).to_numpy(), formats, f"mode_{mode}", advised,
            f"have the colour mode {mode}.", advice,
        )  # fmt: skip
    gray = (modes == "L").to_numpy()
    if 0 < gray.sum() < len(gray):
        findings += _found(
            catalog, gray, formats, "gray", "note", "are gray among coloured ones.",
            "Nothing to do, if the shop has black-and-white photographs.",
        )  # fmt: skip
    for column, what, advice in (
        ("transparent", "have transparent parts.", "These become white."),
        ("animated", "are animated.", "Only the first frame is taken."),
    ):
        which = facts[column].to_numpy(dtype=np.bool_)
        findings += _found(catalog, which, formats, column, "note", what, advice)
    turned = facts["orientation"].to_numpy(dtype=np.int64)
    findings += _found(
        catalog, turned != 1, [f"EXIF orientation {value}" for value in turned], "turned", "note",
        "are stored turned; the EXIF orientation sets them upright.",
        "Whatever else reads the files must do the same.",
    )  # fmt: skip
    return findings


def _found(
    catalog: Catalog,
    which: NDArray[np.bool_],
    details: Sequence[str],
    kind: str,
    severity: Severity,
    what: str,
    advice: str,
) -> list[Finding]:
    rows = np.flatnonzero(which)
    ids = catalog.table["item_id"].to_numpy()
    items = [NamedItem(ids[row], details[row]) for row in rows.tolist()]
    share = f"Of {many(len(which), 'picture')}, {len(rows):,}"
    if len(rows) == 1:
        verb, _, rest = what.partition(" ")
        what = f"{_SINGULAR[verb]} {rest}"
    elif len(rows) == len(which):
        share = f"All {len(which):,} pictures"
    return about(items, kind, severity, f"{share} {what}", advice)


def check_copies(catalog: Catalog, facts: pd.DataFrame) -> list[Finding]:
    """Names the items whose pictures are the same in every pixel, as the network sees them.

    Copies of one picture under several categories contradict each other, and are told apart.
    Where a copy stands in another split is a leak, which `retrieval/leaks.py` finds.
    """
    table = catalog.table.assign(pixels=facts["pixels"].to_numpy())
    copies = table[table["pixels"].duplicated(keep=False)]
    same: list[NamedItem] = []
    other: list[NamedItem] = []
    for _, rows in copies.groupby("pixels", sort=False):
        ids, categories = list(rows["item_id"]), list(rows["category"])
        # the first item of another category than the first one's, if there is any
        second = next((i for i, name in enumerate(categories) if name != categories[0]), 0)
        for item_id, category in zip(ids[1:], categories[1:], strict=True):
            beside = 0 if category != categories[0] else second
            if category != categories[beside]:
                why = f"{category!r}, beside {categories[beside]!r}"
                other.append(NamedItem(item_id, why, ids[beside]))
            else:
                same.append(NamedItem(item_id, category, ids[0]))
    return [
        *about(
            other,
            "copies_other_category",
            "warning",
            f"{many(len(other), 'item')} with the very picture of an item of another category.",
            "One of the two labels is wrong, the picture shows several products, or it stands for "
            "those without one; mend the label, keep one of them, or leave them out.",
        ),
        *about(
            same,
            "copies",
            "warning",
            f"{many(len(same), 'item')} with the very picture of another item of the category.",
            "They are found without any skill; keep one, or give them one group, so that no split "
            "tears them apart.",
        ),
    ]


def check_near_copies(
    catalog: Catalog,
    facts: pd.DataFrame,
    *,
    max_bits: int = MAX_BITS,
    max_listed: int = MAX_LISTED,
) -> list[Finding]:
    """Names pairs that are likely one picture: another crop, size or compression.

    Judged by the 64-bit perceptual hash, which errs in both directions; copies in every pixel are
    left to `check_copies`. Of items with the same pixels, category and split one stands for all.

    Args:
        catalog: Items with their splits.
        facts: Of `picture_facts`.
        max_bits: So many bits may differ.
        max_listed: Pairs to name in each finding; all are counted.

    Raises:
        ValueError: ``max_bits`` is not in 0..64, or ``max_listed`` is negative.
    """
    if not 0 <= max_bits <= 64 or max_listed < 0:
        raise ValueError(
            f"max_bits is {max_bits} and max_listed {max_listed}; expected 0 to 64 and 0 or more: "
            f"leave them out for {MAX_BITS} and {MAX_LISTED}"
        )
    table = catalog.table[["item_id", "category", "split"]].assign(
        pixels=facts["pixels"].to_numpy(), hash=facts["hash"].to_numpy(dtype=np.uint64)
    )
    table = table[table["hash"] != NO_HASH].drop_duplicates(["pixels", "category", "split"])
    pixels, category, split = (
        pd.factorize(table[name])[0] for name in ("pixels", "category", "split")
    )
    hashes = table["hash"].to_numpy(dtype=np.uint64)
    # 0: same category and split, 1: other category, 2: other split
    num_pairs = np.zeros(3, dtype=np.int64)
    listed: list[list[tuple[int, int, int]]] = [[], [], []]
    for start in range(0, len(hashes), _BLOCK):
        block = hashes[start : start + _BLOCK, None]  # [b, 1]
        bits = np.bitwise_count(block ^ hashes[None, start:])  # [b, n - start] uint8
        first, second = np.nonzero(bits <= max_bits)
        distances = bits[first, second]
        first, second = first + start, second + start
        apart = (second > first) & (pixels[first] != pixels[second])
        first, second, distances = first[apart], second[apart], distances[apart]
        case = np.where(
            split[first] != split[second], 2, (category[first] != category[second]).astype(np.int64)
        )
        num_pairs += np.bincount(case, minlength=3)
        for place in range(3):
            chosen = np.flatnonzero(case == place)
            chosen = chosen[np.argsort(distances[chosen], kind="stable")[:max_listed]]
            found = zip(distances[chosen], first[chosen], second[chosen], strict=True)
            kept = sorted([*listed[place], *((int(d), int(a), int(b)) for d, a, b in found)])
            listed[place] = kept[:max_listed]
    rows = table.to_dict("records")
    texts: tuple[tuple[str, Severity, str, str], ...] = (
        ("near_copies", "note", "look alike within one category and split", ""),
        (
            "near_copies_other_category", "warning", "look alike and are of two categories",
            "Look at them: a wrong label, or products of one outline. ",
        ),
        (
            "near_copies_across_splits", "warning", "look alike and stand in two splits",
            "Look at them: if they are one product, give both one group. ",
        ),
    )  # fmt: skip
    findings = []
    for place in (2, 1, 0):
        kind, severity, what, advice = texts[place]
        if num_pairs[place]:
            items = tuple(
                NamedItem(
                    rows[second]["item_id"],
                    _pair_text(bits, rows[first], rows[second]),
                    rows[first]["item_id"],
                )
                for bits, first, second in listed[place]
            )
            findings.append(
                Finding(
                    kind,
                    severity,
                    f"{many(int(num_pairs[place]), 'pair')} of pictures that {what} (64-bit hashes "
                    f"that differ in at most {max_bits} bits).",
                    f"{advice}The hash errs: products on white share outlines.",
                    items,
                    int(num_pairs[place]),
                )
            )
    return findings


def _pair_text(
    bits: int, first: Mapping[Hashable, object], second: Mapping[Hashable, object]
) -> str:
    parts = [f"{bits} bits"]
    for name in ("category", "split"):
        if first[name] != second[name]:
            parts.append(f"{second[name]!r} beside {first[name]!r}")
    return ", ".join(parts)


def picture_table(facts: pd.DataFrame) -> pd.DataFrame:
    """Returns one row a format and mode: ``format``, ``mode``, ``pictures``, sizes, bytes.

    Returns:
        Besides ``smallest``, ``median`` and ``largest`` by the number of pixels, such as
        ``60 x 80``, and ``median_kb``; the commonest first.
    """
    lines = []
    for (kind, mode), rows in facts.groupby(["format", "mode"]):
        area = (rows["width_px"] * rows["height_px"]).to_numpy()
        order = np.argsort(area, kind="stable")
        chosen = rows.iloc[order[[0, len(order) // 2, -1]]]
        sizes = [f"{w} x {h}" for w, h in zip(chosen["width_px"], chosen["height_px"], strict=True)]
        lines.append(
            (kind, mode, len(rows), *sizes, round(float(rows["num_bytes"].median()) / 1e3, 1))
        )
    columns = ["format", "mode", "pictures", "smallest", "median", "largest", "median_kb"]
    table = pd.DataFrame(lines, columns=columns)
    return table.sort_values("pictures", ascending=False, kind="stable").reset_index(drop=True)
