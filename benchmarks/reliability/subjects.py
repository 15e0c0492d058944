"""What is killed, and what a killed command may leave: the old, the new, or a part that goes on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CATEGORIES = ("Hats", "Dresses", "Shoes")
DATA = (
    "data=synthetic", "data.items_per_category=12", f"data.categories=[{','.join(CATEGORIES)}]",
    "data.image_size_px=32",
)  # fmt: skip
CACHE = "pictures.cache_dir=cache"
FEW = ("floors=false", "near_duplicates=false")
TRAIN = (
    "visual_search.train", *DATA, *FEW, CACHE, "model=plain_encoder", "model.width=4",
    "objective=cross_entropy", "pictures.size_px=32", "budget=smoke", "trainer.max_epochs=2",
    "callbacks=none", "trainer=cpu", "outputs=outputs", "name=small",
)  # fmt: skip
CPU = "trainer.accelerator=cpu"
Content = dict[str, Any]
VOLATILE = re.compile(r"seconds|_ms_per_item|^since$|^pid$|created|written")
IN_BUNDLE = {"bundle.json", ".lock", ".reserve"}  # beside what its manifest names


class Lost(Exception):  # noqa: N818 - a result, not an error
    """Something was left that is neither old nor new, or that does not go on."""


@dataclass(frozen=True)
class Subject:
    """A command to kill.

    Attributes:
        name: For the table.
        share: Of all kills.
        needs: What of the prepared folder it starts from.
        command: Given the path of the finished run.
        content: Of a folder in which it has ended: what has to be the same each time. Raises
            `Lost`, or whatever the product raises, where something is not whole.
        is_there: Whether it has ended, by what it left.
        done_is_refused: Started again after it was done, it says so with status 1 or 2.
    """

    name: str
    share: int
    needs: tuple[str, ...]
    command: Callable[[str], tuple[str, ...]]
    content: Callable[[Path], Content]
    is_there: Callable[[Path], bool]
    done_is_refused: bool = False


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def steady(value: Any) -> Any:
    """Returns plain values without times."""
    if isinstance(value, dict):
        return {key: steady(one) for key, one in value.items() if not VOLATILE.search(str(key))}
    return [steady(one) for one in value] if isinstance(value, list) else value


def table_digest(path: Path) -> str:
    import pandas as pd

    return digest(pd.read_parquet(path).to_csv(index=False).encode())


def bundle_content(folder: Path) -> Content:
    from visual_search.bundle.bundle import Bundle

    bundle = Bundle.open(folder)
    items = {
        one: (
            dict(bundle.item(one)), digest(bundle.embedding_of(one).tobytes()),
            digest(bundle.thumbnail(one)),
        )
        for one in sorted(bundle.item_ids())
    }  # fmt: skip
    queries = np.stack([bundle.embedding_of(one) for one in items])
    for one, hits in zip(items, bundle.search(queries, 1), strict=True):
        if hits[0].squared_distance != 0:
            raise Lost(f"{one} does not find itself")
    kind = bundle.manifest.index.plan["kind"]
    return {"items": items, "kind": kind, "encoder": bundle.manifest.encoder.sha256}


def exported_content(folder: Path) -> Content:
    """Returns the bundle's; the encoder's files name when they were made: weights are compared."""
    from safetensors.numpy import load_file

    tensors = load_file(folder / "encoder.safetensors")
    weights = {name: digest(tensor.tobytes()) for name, tensor in sorted(tensors.items())}
    return bundle_content(folder) | {"encoder": weights}


def run_folders(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("outputs/small/*/status.json"))


def measured(folder: Path) -> Content:
    """Returns the numbers of a run or an evaluation."""
    summary = steady(json.loads((folder / "metrics/summary.json").read_text()))
    return {"summary": summary, "per_query": table_digest(folder / "metrics/per_query.parquet")}


def one_run(folder: Path) -> Content:
    import torch

    from visual_search.runs.run import Run

    if (state := Run(folder).state) != "finished":
        raise Lost(f"{folder.name} is {state}")
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    weights = {name: digest(v.numpy().tobytes()) for name, v in checkpoint["state_dict"].items()}
    arrays = {
        path.name: digest(np.load(path).tobytes())
        for path in sorted((folder / "embeddings").glob("*.npy"))
    }
    tables = {
        str(path.relative_to(folder)): table_digest(path)
        for name in ("index/items", "embeddings/gallery", "embeddings/queries")
        for path in [folder / f"{name}.parquet"]
    }
    return {**measured(folder), "weights": weights, "arrays": arrays, "tables": tables}


def runs_content(root: Path) -> Content:
    return {path.name: one_run(path) for path in run_folders(root)}


def all_finished(root: Path, number: int) -> bool:
    from visual_search.runs.run import Run

    states = [Run(folder).state for folder in run_folders(root)]
    return states.count("finished") == number


def evaluation_content(root: Path) -> Content:
    from visual_search.runs.run import Run

    (folder,) = (path.parent for path in root.glob("outputs/small/*/evaluations/*/status.json"))
    if (state := Run(folder).state) != "finished":
        raise Lost(f"the evaluation is {state}")
    return {**measured(folder), "run": runs_content(root)}


def evaluation_is_there(root: Path) -> bool:
    from visual_search.runs.run import Run

    found = root.glob("outputs/small/*/evaluations/*/status.json")
    return [Run(path.parent).state for path in found] == ["finished"]


def embedded_content(root: Path) -> Content:
    from visual_search.runs.embedding_shards import read_shard_manifest, read_shards

    manifest = steady(read_shard_manifest(root / "embedded"))
    found = [
        (digest(table.to_csv(index=False).encode()), digest(values.tobytes()))
        for table, values in read_shards(root / "embedded")
    ]
    return {"manifest": manifest, "shards": found}


def cache_rows(root: Path) -> dict[str, str]:
    """Returns what the picture cache holds: content key -> digest of the row."""
    (folder,) = root.glob("cache/*px-*")
    lines = (folder / "journal.txt").read_bytes().splitlines()
    data = (folder / "pictures.u8").read_bytes()
    size = 3 * 32 * 32
    rows: dict[str, str] = {}
    for line in lines:
        if re.fullmatch(rb"[0-9a-f]{36} [0-9]{10}", line):
            row = int(line[37:])
            if len(data) < (row + 1) * size:
                raise Lost(f"the journal names row {row}, and the cache ends before it")
            rows[line[:36].decode()] = digest(data[row * size : (row + 1) * size])
    return rows


def cache_content(root: Path) -> Content:
    findings = steady(json.loads((root / "checked/findings.json").read_text()))
    return {"rows": cache_rows(root), "findings": findings}


SUBJECTS = (
    Subject(
        "train", 24, (), lambda run: TRAIN, runs_content, lambda root: all_finished(root, 1)
    ),
    Subject(
        "train rerun=true", 16, ("outputs", "cache"), lambda run: (*TRAIN, "rerun=true"),
        runs_content, lambda root: all_finished(root, 1),
    ),
    Subject(
        "sweep (train -m)", 16, (), lambda run: (TRAIN[0], "-m", *TRAIN[1:], "seed=1,2"),
        runs_content, lambda root: all_finished(root, 2),
    ),
    Subject(
        "picture cache (check)", 26, ("pictures",),
        lambda run: (
            "visual_search.check", "data=folder", "data.root=pictures", CACHE, "out=checked",
            "pictures.size_px=32",
        ),
        cache_content, lambda root: (root / "checked/findings.json").is_file(),
    ),
    Subject(
        "index add", 26, ("shop", "new"),
        lambda run: (
            "visual_search.index", "add", "bundle=shop", "data=folder", "data.root=new", CACHE
        ),
        lambda root: bundle_content(root / "shop"), lambda root: True,
    ),
    Subject(
        "index remove", 20, ("shop",),
        lambda run: (
            "visual_search.index", "remove", "bundle=shop",
            "item=[hats-00000,hats-00001,shoes-00002]",
        ),
        lambda root: bundle_content(root / "shop"), lambda root: True, done_is_refused=True,
    ),
    Subject(
        "index rebuild", 20, ("shop",),
        lambda run: ("visual_search.index", "rebuild", "bundle=shop", "index=hnsw"),
        lambda root: bundle_content(root / "shop"), lambda root: True,
    ),
    Subject(
        "export", 18, ("outputs", "cache"),
        lambda run: ("visual_search.export", f"run={run}", "out=shop", CACHE, "num_checked=16"),
        lambda root: exported_content(root / "shop"), lambda root: (root / "shop").is_dir(),
        done_is_refused=True,
    ),
    Subject(
        "embed", 18, ("outputs",),
        lambda run: (
            "visual_search.embed", f"run={run}", "out=embedded", CPU, "shard_size=8",
            "loader.batch_size=4",
        ),
        embedded_content, lambda root: (root / "embedded/manifest.json").is_file(),
    ),
    Subject(
        "evaluate", 16, ("outputs", "cache"),
        lambda run: (
            "visual_search.evaluate", f"run={run}", "protocol=leave_one_out", "query_split=train",
            CPU, *FEW,
        ),
        evaluation_content, evaluation_is_there,
    ),
)  # fmt: skip
