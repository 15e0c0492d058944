"""How fast pictures get into the cache and out of it, and what the fast way costs in pixels.

Three questions, the sides of each taken in turns in one run, the median of the rounds counting:

- build: the cache of JPEGs, against one process that opens, converts and resizes with Pillow;
- pixels: how far the cached pixels are from those of that plain loop, and whether retrieval
  notices: mAP@5 of HOG, PCA and unit length on both, every picture asking all others;
- read: pictures a second from the cache in random batches, and through the data module's loader.

``python benchmarks/pictures.py PHOTOS`` with a folder or zip of one sub-folder a category.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from visual_search.catalog.cache import Pictures, cache_pictures
from visual_search.catalog.catalog import Catalog
from visual_search.catalog.readers.folder import folder
from visual_search.catalog.readers.sources import ArraySource
from visual_search.runs.machine import processor_facts
from visual_search.runs.run import environment

BATCH = 128
NUM_READ = 16_384  # pictures a round, 800 MB at 128 px
AIM_BUILD, AIM_READ = 3.2, 20_000


def plain(catalog: Catalog, size_px: int) -> NDArray[np.uint8]:
    """What one writes first: ``[N, 3, S, S]``, one picture after the other."""
    found = []
    for name in catalog.table["image"]:
        data = catalog.source.load(name)
        assert isinstance(data, bytes)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        small = image.resize((size_px, size_px), Image.Resampling.BILINEAR)
        found.append(np.asarray(small).transpose(2, 0, 1))
    return np.stack(found)


def build(catalog: Catalog, size_px: int, where: Path) -> Pictures:
    """The cache, from nothing."""
    return cache_pictures(
        catalog, size_px=size_px, fit="stretch", cache_dir=where, on_bad_item="error"
    ).pictures


def map_at_5(pixels: NDArray[np.uint8], categories: NDArray[Any]) -> float:
    """MAP@5 of HOG + PCA-256 + unit length, each picture asking all others."""
    from sklearn.decomposition import PCA

    from visual_search.models.descriptors import hog

    values = hog(pixels)
    short = PCA(min(256, len(values) - 1), svd_solver="full").fit_transform(values)
    short /= np.linalg.norm(short, axis=1, keepdims=True)
    cosines = short @ short.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1)[:, :5]
    hits = categories[nearest] == categories[:, None]  # [N, 5]
    precision = np.cumsum(hits, axis=1) / np.arange(1, 6)
    _, inverse, counts = np.unique(categories, return_inverse=True, return_counts=True)
    relevant = np.minimum(5, counts[inverse] - 1)
    return float(((precision * hits).sum(axis=1) / relevant)[relevant > 0].mean())


def in_turns(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median seconds of each way, the ways taken in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    return {name: statistics.median(times) for name, times in seconds.items()}


def timed(work: Callable[[], object]) -> float:
    """Seconds that it took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_build(photos: Path, size_px: int, rounds: int) -> dict[str, Any]:
    """Seconds of both ways, their ratio, and what differs in the pixels."""
    catalog = folder(str(photos))
    kept: dict[str, NDArray[np.uint8]] = {}

    def fast() -> float:
        unread = folder(str(photos))  # a source remembers what it hashed: a new command has not
        with tempfile.TemporaryDirectory() as name:
            started = time.perf_counter()
            pictures = build(unread, size_px, Path(name))
            seconds = time.perf_counter() - started
            kept["cache"] = pictures[np.arange(len(pictures))]
        return seconds

    def slow() -> float:
        started = time.perf_counter()
        kept["plain"] = plain(catalog, size_px)
        return time.perf_counter() - started

    seconds = in_turns({"cache": fast, "plain": slow}, rounds)
    off = np.abs(kept["cache"].astype(np.int16) - kept["plain"])
    categories = catalog.table["category"].to_numpy()
    return {
        "size_px": size_px,
        "num_pictures": len(catalog),
        "seconds": seconds,
        "cache_to_plain": seconds["plain"] / seconds["cache"],
        "mean_difference_of_255": float(off.mean()),
        "mean_difference_of_the_worst_picture": float(off.mean(axis=(1, 2, 3)).max()),
        "map_at_5": {name: map_at_5(pixels, categories) for name, pixels in kept.items()},
    }


def measure_reading(size_px: int, rounds: int) -> dict[str, Any]:
    """Pictures a second, in random batches from the cache and from the data module's loader."""
    from visual_search.training.datamodule import CatalogDataModule

    rng = np.random.default_rng(0)
    names = [str(number) for number in range(NUM_READ)]
    arrays = rng.integers(0, 256, (NUM_READ, size_px, size_px, 3), dtype=np.uint8)
    table = pd.DataFrame(
        {"item_id": names, "image": names, "category": "noise", "group": names, "split": "train"}
    )
    catalog = Catalog("noise", table, ArraySource(arrays, names))
    order = rng.permutation(NUM_READ)
    with tempfile.TemporaryDirectory() as name:
        pictures = build(catalog, size_px, Path(name))
        datamodule = CatalogDataModule(catalog, pictures, batch_size=BATCH)

        def straight() -> None:
            for start in range(0, NUM_READ, BATCH):
                pictures[order[start : start + BATCH]]

        def loader() -> None:
            for _ in datamodule.evaluation_loader(order):
                pass

        seconds = in_turns(
            {"cache": lambda: timed(straight), "loader": lambda: timed(loader)}, rounds
        )
    return {
        "size_px": size_px,
        "num_pictures": NUM_READ,
        "pictures_per_second": {name: NUM_READ / value for name, value in seconds.items()},
    }


def main() -> None:
    """Measures and prints; ``--json`` keeps the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    arguments = parser.parse_args()
    built = [measure_build(arguments.photos, size_px, arguments.rounds) for size_px in (128, 64)]
    read = measure_reading(128, arguments.rounds)
    for found in built:
        print(
            f"build at {found['size_px']} px: {found['cache_to_plain']:.2f} times a plain loop "
            f"({found['seconds']['cache']:.2f} s, {found['seconds']['plain']:.2f} s for "
            f"{found['num_pictures']:,} pictures); values are off by "
            f"{found['mean_difference_of_255']:.2f} of 255, of the worst picture by "
            f"{found['mean_difference_of_the_worst_picture']:.2f}; mAP@5 of HOG "
            f"{found['map_at_5']['cache']:.4f}, of the plain pixels "
            f"{found['map_at_5']['plain']:.4f}"
        )
    for name, rate in read["pictures_per_second"].items():
        print(f"read at {read['size_px']} px, {name}: {rate:,.0f} pictures/s")
    print(f"aims: build at least {AIM_BUILD} times, read at least {AIM_READ:,} pictures/s")
    numbers: dict[str, Any] = {"command": "python benchmarks/pictures.py PHOTOS"}
    numbers |= {"build": built, "read": read}
    numbers["environment"] = processor_facts() | {"packages": environment()["packages"]}
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
