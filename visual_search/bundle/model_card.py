"""What a bundle tells its readers: where it comes from, what was measured, how, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from visual_search.reading import Summary
from visual_search.wording import (
    MISSING,
    as_float,
    escaped,
    holding,
    interval,
    isolated,
    listed,
    many,
    number,
)

# What searching and serving a bundle needs; neither torch nor lightning is among it.
SERVING = (
    "numpy", "pillow", "pyarrow", "onnxruntime", "hydra-core", "omegaconf", "pydantic", "pyyaml",
    "rich", "tqdm", "jinja2", "markupsafe", "fastapi", "starlette", "uvicorn", "python-multipart",
    "prometheus-client", "filelock",
)  # fmt: skip


class EncoderCheck(TypedDict):
    """How far an exported encoder is from PyTorch's: see `models.export_check.ExportCheck`."""

    num_pictures: int
    largest_difference: float
    allowed_difference: float
    k: int


class BundleFacts(Summary, total=False):
    """What a bundle says of the run that it comes from; NaN is None in it."""

    experiment: str
    run: str
    catalog: str
    left_out: list[str]
    export_check: EncoderCheck
    measured_again: float | None
    packages: dict[str, str | None]


def model_card(
    name: str,
    facts: BundleFacts,
    counts: Mapping[str, int],
    columns: Sequence[str],
    num_products: int | None = None,
) -> str:
    """Returns the card as Markdown.

    Args:
        name: The bundle's.
        facts: As `visual_search.export` collects them from a run.
        counts: Category -> items in the bundle.
        columns: What items can be filtered by.
        num_products: Of several pictures each, the items; None where every item is a product.
    """
    what = _what(facts, counts, columns, num_products)
    parts = [f"# {name}", what, *_numbers(facts), _check(facts), _limits()]
    return "\n\n".join(part for part in parts if part) + "\n"


MAX_CATEGORIES = 50  # named in the card, the largest; the report and the index name all


def _what(
    facts: BundleFacts,
    counts: Mapping[str, int],
    columns: Sequence[str],
    num_products: int | None,
) -> str:
    largest = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    if len(largest) <= MAX_CATEGORIES:
        largest = sorted(counts.items())
    lines = [
        f"A search bundle of visual_search: an encoder, "
        f"{holding(sum(counts.values()), num_products)} and their index.",
        "",
        f"- Run: `{facts['experiment']}/{facts['run']}`, trained for "
        f"{many(facts.get('epochs') or 0, 'epoch')} on "
        f"{many(facts.get('num_training') or 0, 'picture')} of `{facts['catalog']}`",
        f"- Encoder: {facts.get('num_parameters') or 0:,} parameters; weights "
        f"`{str(facts.get('weights', ''))[:12]}`",
        *(f"- {line}" for line in facts.get("left_out", ()) if not line.startswith(" ")),
        f"- Items can be filtered by: {', '.join(map(escaped, columns))}",
        f"- {many(len(counts), 'category', 'categories')}: "
        + listed([f"{isolated(escaped(each))} ({num:,})" for each, num in largest], MAX_CATEGORIES),
    ]
    return "\n".join(lines)


def _numbers(facts: BundleFacts) -> list[str]:
    """Returns the section of the run's numbers, with what they mean and the floors beside them."""
    from visual_search.wording import rough_text

    intervals = facts.get("intervals") or {}
    if not intervals:
        return []
    title, mean = facts["headline"]["title"], facts["headline"]["mean"]
    rows = [f"| {title} | mean | 95 % interval |", "| --- | --- | --- |"]
    for kind in ("micro", "macro"):
        found = intervals.get(kind)
        if found and found["mean"] is not None:
            ends = interval(found["low"], found["high"])
            rough = f" ({note})" if (note := rough_text(found)) and ends != MISSING else ""
            rows.append(f"| {kind} | {number(found['mean'])} | {ends}{rough} |")
    if products := facts.get("products"):
        ends = interval(products["low"], products["high"])
        rows.append(f"| {products['title']} | {number(products['mean'])} | {ends} |")
    parts = [
        "## What was measured",
        f"{facts['num_queries_scored']:,} of {many(facts['num_queries'], 'query', 'queries')} "
        f"among {many(facts['num_gallery'], 'gallery item')}.",
        "\n".join(rows),
    ]
    if facts.get("measured_again") is not None:
        parts.append(
            f"With the embeddings in this bundle, computed in float32 by the exported encoder: "
            f"{number(facts['measured_again'])} micro."
        )
    if standing := facts.get("standing"):
        parts.append(f"Beside embeddings that learn nothing: {standing}")
    if products and (standing := products.get("standing")):
        parts.append(standing)
    if floors := facts.get("floors"):
        rows = [f"| embedding that learns nothing | {title} micro | macro |", "| --- | --- | --- |"]
        ordered = sorted(floors, key=lambda one: -as_float(one["micro"]))
        rows += [
            f"| {one['title']} | {number(one['micro'])} | {number(one['macro'])} |"
            for one in ordered
        ]
        parts.append("\n".join(rows))
    meaning = [f"- {title}: {facts['definitions'].get(mean, '')}"]
    for rule, text in facts["rules"].items():
        name = rule.replace("_", " ")
        meaning.append(f"- {name}: {text.removeprefix(f'{name}: ')}")
    return [*parts, "What the numbers mean:", "\n".join(meaning)]


def _check(facts: BundleFacts) -> str:
    check = facts["export_check"]
    return (
        "## The exported encoder\n\n"
        "`encoder.onnx` takes RGB pictures as `[B, 3, S, S]` of bytes; scaling, network and "
        "everything behind it are inside. `encoder.safetensors` has the same weights for PyTorch. "
        f"On {many(check['num_pictures'], 'picture')} the two differed by at most "
        f"{check['largest_difference']:.1e} (allowed {check['allowed_difference']:.1e}) and "
        f"found the same {many(check['k'], 'neighbour')}."
    )


def _limits() -> str:
    return (
        "## Limits\n\n"
        "- Similar means what the training called similar: look at the rules above, and at the "
        "report of the run, before the numbers.\n"
        "- The numbers hold for pictures like those that were measured: of other shops, other "
        "cameras or whole scenes they say nothing.\n"
        "- Who may use the pictures and what was learned from them is decided by the licence of "
        "the data."
    )


def requirements(kind: str, package: str) -> str:
    """Returns what has to be installed to search and serve a bundle, pinned, without PyTorch.

    Args:
        kind: Of the bundle's index. FAISS is the one for CPUs, also where this machine has the one
            for GPUs: that brings 1.5 GB of CUDA, and a bundle is searched by the CPU.
        package: This one, as ``visual-search==1.0+serve``; its wheel lies beside the file.
    """
    import faiss

    lines = ["# What a search needs: pip install -r of this file, from any folder"]
    lines += ["--find-links .", package]
    lines += [_pinned(name) for name in SERVING]
    lines.append(f"faiss-cpu=={faiss.__version__}")
    return "\n".join(lines) + "\n"


def _pinned(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:  # an extra that this machine exports without
        return name
