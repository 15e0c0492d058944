"""Collects finished runs of experiments into results, and makes the tables of them.

    python benchmarks/laboratory.py collect outputs/best_supervised/* outputs/residual/*
    make results

``collect`` reads each run's folder (its numbers, its config, and its evaluation by
``reference_2023`` where there is one), puts the seeds of one experiment together and writes
``benchmarks/results/laboratory.json``, with the queries' values in ``laboratory/``. Seeds that
were collected before stay beside new ones of the same experiment, data and kind of device.
``table`` writes the Markdown tables between the markers of docs/results.md and
docs/experiments.md; that of the variants is made of ``benchmarks/results/autoencoder_study.json``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "laboratory.json"
QUERIES = RESULTS.with_suffix("")  # what each query scored, a file a seed
BENCHMARK = "complete-the-look-crops"
STUDY = RESULTS.with_name("autoencoder_study.json")
COLUMNS = (
    "experiment", "mAP@5 micro", "macro", "`reference_2023`", "px", "width", "epochs", "seeds",
    "time",
)  # fmt: skip
FLOOR = "HOG + PCA-256 + unit length"
ELSEWHERE_COLUMNS = (
    "catalogue", "experiment", "mAP@5 micro", "macro", FLOOR, "best floor", "seeds", "time",
)  # fmt: skip
VARIANT_COLUMNS = (
    "experiment", "labels", "mAP@5 micro", "macro", "untrained", "MSE", "width", "epochs",
)  # fmt: skip
KEY = ("experiment", "catalog", "relevance", "num_training", "gpu")
INTERVALS = ("micro_interval", "macro_interval")


def collect(
    folders: list[Path], old: list[dict[str, Any]] | None = None, queries: Path = QUERIES
) -> list[dict[str, Any]]:
    """Returns one entry an experiment, data and device, with all its seeds: new and older ones.

    A seed that is collected again takes the place of the older one.
    """
    entries = {tuple(entry[part] for part in KEY): entry for entry in old or []}
    runs: dict[tuple[Any, ...], dict[int, dict[str, Any]]] = defaultdict(dict)
    for folder in folders:
        run = read_run(folder)
        runs[tuple(run["entry"][part] for part in KEY)][run["seed"]["seed"]] = run
    for key, members in runs.items():
        for seed in entries.get(key, {"seeds": []})["seeds"]:
            if seed["seed"] not in members:
                before = earlier(entries[key], seed, queries)
                if before is not None:
                    members[seed["seed"]] = before
        entries[key] = joined(list(members.values()), queries)
    return sorted(entries.values(), key=lambda one: (one["catalog"], -one["micro_interval"][0]))


def earlier(entry: dict[str, Any], seed: dict[str, Any], queries: Path) -> dict[str, Any] | None:
    """Returns a seed that was collected before, or None (said) where its queries are gone."""
    path = queries / file_of(entry, seed)
    if not path.is_file():
        print(f"{entry['experiment']}, seed {seed['seed']}: left out, {path.name} is gone")
        return None
    shared = {name: entry[name] for name in entry if name not in ("seeds", *INTERVALS)}
    return {"entry": shared, "seed": seed, "per_query": pd.read_parquet(path)}


def file_of(entry: dict[str, Any], seed: dict[str, Any]) -> str:
    """Returns the name of the file with what each query of a seed scored."""
    parts = [entry[part] or "cpu" for part in KEY]
    return "-".join(str(part).replace(" ", "_") for part in [*parts, seed["seed"]]) + ".parquet"


def read_run(folder: Path) -> dict[str, Any]:
    """Returns what a finished run says of itself.

    Raises:
        ValueError: It is not finished.
    """
    status = json.loads((folder / "status.json").read_text())
    if status["state"] != "finished":
        raise ValueError(f"{folder} is {status['state']}, expected a finished run; finish it first")
    summary = json.loads((folder / "metrics" / "summary.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    config = yaml.safe_load((folder / "config.yaml").read_text())
    device = str(summary["device"])
    entry = {
        "experiment": folder.parent.name,
        "catalog": summary["identity"]["data"],
        "relevance": "+".join(config["protocol"].get("relevance", ["category"])),
        "gpu": None if device == "cpu" else summary.get("device_name", device),
        "command": command_of(environment["command"]),
        "catalog_fingerprint": summary["catalog_fingerprint"],
        "packages": environment["packages"],
        "embedding_dim": summary["embedding_dim"],
        "num_parameters": summary["num_parameters"],
        "epochs": summary["epochs"],
        "num_training": summary["num_training"],
        "num_queries": summary["num_queries_scored"],
        "num_gallery": summary["num_gallery"],
        "image_size_px": config["pictures"]["size_px"],
        "floors": {floor["title"]: floor["micro_map_at_5"] for floor in summary["floors"]},
        "standing": summary["standing"],
    }
    seed = {
        "seed": config["seed"],
        "micro_map_at_5": summary["micro_map_at_5"],
        "macro_map_at_5": summary["macro_map_at_5"],
        "micro_precision_at_5": summary["micro_precision_at_5"],
        "micro_hit_at_1": summary["micro_hit_at_1"],
        "reference_2023": reference_of(folder),
        "seconds": status["seconds"],
        "processor": environment["processor"],
        "num_cpus": environment["num_cpus"],
        "bf16": environment.get("bf16"),  # what computes it; older runs did not say
        "precision": summary.get("precision"),
        "num_threads": summary.get("num_threads"),
    }
    per_query = pd.read_parquet(folder / "metrics" / "per_query.parquet")
    per_query = per_query.rename(columns={summary["headline"]["column"]: "value"})
    return {
        "entry": entry,
        "seed": seed,
        "per_query": per_query[["query_id", "group", "category", "value"]],
    }


def reference_of(folder: Path) -> float | None:
    """Returns the study's number of a run, where it was evaluated by the study's rule."""
    for path in sorted(folder.glob("evaluations/reference_2023-*/metrics/summary.json")):
        summary = json.loads(path.read_text())
        return float(summary[f"macro_{summary['headline']['mean']}"])
    return None


def command_of(argv: list[str]) -> str:
    """Returns the command without the folders of one machine."""
    shown = []
    for part in argv[1:]:
        key, _, value = part.partition("=")
        if key in ("data.path", "data.root"):
            shown.append(f"{key}={Path(value).name}")
        elif key == "training.start_from":  # a run: its experiment and its hash
            shown.append(f"{key}={Path('outputs', *Path(value).parts[-2:])}")
        elif key not in ("outputs", "pictures.cache_dir"):
            shown.append(part)
    return " ".join(["python -m visual_search.train", *shown])


def joined(runs: list[dict[str, Any]], queries: Path) -> dict[str, Any]:
    """Returns the entry of several seeds; the interval is of the mean over them, query by query.

    Raises:
        ValueError: They were measured on different queries.
    """
    from visual_search.retrieval.statistics import bootstrap_interval

    runs = sorted(runs, key=lambda run: run["seed"]["seed"])
    first = runs[0]["per_query"].sort_values("query_id")
    values = []
    for run in runs:
        table = run["per_query"].sort_values("query_id")
        if table["query_id"].tolist() != first["query_id"].tolist():
            raise ValueError("the seeds have different queries; expected the same data and split")
        values.append(table["value"].to_numpy(dtype=np.float64))
    queries.mkdir(parents=True, exist_ok=True)
    for run in runs:
        run["per_query"].to_parquet(queries / file_of(run["entry"], run["seed"]), index=False)
    mean = np.mean(values, axis=0)
    groups, categories = first["group"].to_numpy(), first["category"].to_numpy()
    intervals = [
        bootstrap_interval(mean, groups, categories, statistic) for statistic in ("micro", "macro")
    ]
    return {
        **runs[0]["entry"],
        "seeds": [run["seed"] for run in runs],
        **{
            name: [interval.mean, interval.low, interval.high]
            for name, interval in zip(INTERVALS, intervals, strict=True)
        },
    }


def table(entries: list[dict[str, Any]], catalog: str) -> str:
    """Returns the Markdown table of the entries of one catalogue, the best first."""
    lines = [
        f"| {' | '.join(COLUMNS)} |",
        f"| {' | '.join('---' for _ in COLUMNS)} |",
    ]
    for entry in entries:
        if entry["catalog"] != catalog:
            continue
        seeds = entry["seeds"]
        micro, low, high = entry["micro_interval"]
        references = [s["reference_2023"] for s in seeds if s["reference_2023"] is not None]
        minutes = np.mean([s["seconds"] for s in seeds]) / 60
        cells = [
            f"`{entry['experiment']}`",
            f"{micro:.3f} [{low:.3f}, {high:.3f}]{_spread(seeds, 'micro_map_at_5')}",
            f"{entry['macro_interval'][0]:.3f}",
            f"{np.mean(references):.3f}" if references else "",
            str(entry["image_size_px"]),
            f"{entry['embedding_dim']:,}",
            str(entry["epochs"]),
            str(len(seeds)),
            f"{minutes:.0f} min",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def elsewhere(entries: list[dict[str, Any]]) -> str:
    """Returns the Markdown table of the entries of other catalogues than the benchmark."""
    lines = [
        f"| {' | '.join(ELSEWHERE_COLUMNS)} |",
        f"| {' | '.join('---' for _ in ELSEWHERE_COLUMNS)} |",
    ]
    for entry in entries:
        if entry["catalog"] == BENCHMARK:
            continue
        micro, low, high = entry["micro_interval"]
        floor = max(entry["floors"], key=entry["floors"].__getitem__)
        cells = [
            entry["catalog"],
            f"`{entry['experiment']}`",
            f"{micro:.3f} [{low:.3f}, {high:.3f}]{_spread(entry['seeds'], 'micro_map_at_5')}",
            f"{entry['macro_interval'][0]:.3f}",
            f"{entry['floors'][FLOOR]:.3f}" if FLOOR in entry["floors"] else "",
            f"{entry['floors'][floor]:.3f}: {floor}",
            str(len(entry["seeds"])),
            f"{np.mean([seed['seconds'] for seed in entry['seeds']]) / 60:.0f} min",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(seeds: list[dict[str, Any]], name: str) -> str:
    values = [seed[name] for seed in seeds]
    return f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""


def variants_table(variants: list[dict[str, Any]]) -> str:
    """Returns the Markdown table of what each variant reaches on validation queries, best first."""
    lines = [
        f"| {' | '.join(VARIANT_COLUMNS)} |",
        f"| {' | '.join('---' for _ in VARIANT_COLUMNS)} |",
    ]
    for variant in sorted(variants, key=lambda one: -one["micro"][0]):
        micro, low, high = variant["micro"]
        error, untrained = variant["error"], variant["untrained"]
        cells = [
            f"`{variant['name']}`",
            "yes" if variant["labels"] else "",
            f"{micro:.3f} [{low:.3f}, {high:.3f}]",
            f"{variant['macro']:.3f}",
            "" if untrained is None else f"{untrained:.3f}",
            "" if error is None else f"{error:.3f}",
            f"{variant['dim']:,}",
            str(variant["epochs"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(
    text: str, made: str, name: str = "docs/results.md", which: str = "laboratory"
) -> str:
    """Returns a page with the table between its markers.

    Raises:
        ValueError: The markers are missing.
    """
    begin, end = f"<!-- {which}: made by `make results` -->", f"<!-- /{which} -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{name} has no {begin} ... {end}; expected both; put them back")
    return f"{before}{begin}\n{made}\n{end}{after}"


def main() -> None:
    """Runs the verb of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    collecting = verbs.add_parser("collect", help="read runs into the results")
    collecting.add_argument("runs", nargs="+", type=Path)
    verbs.add_parser("table", help="write the tables of the pages")
    given = parser.parse_args()
    entries = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    if given.verb == "collect":
        entries = collect(given.runs, entries)
        RESULTS.write_text(json.dumps(entries, indent=1) + "\n")
        print(f"{len(entries)} experiments in {RESULTS.relative_to(ROOT)}")
    else:
        variants = json.loads(STUDY.read_text())["variants"]
        tables = (
            ("docs/results.md", "laboratory", table(entries, BENCHMARK)),
            ("docs/experiments.md", "laboratory", elsewhere(entries)),
            ("docs/experiments.md", "variants", variants_table(variants)),
        )
        for name, which, made in tables:
            text = (ROOT / name).read_text(encoding="utf-8")
            (ROOT / name).write_text(with_table(text, made, name, which), encoding="utf-8")
        print(f"docs/ has the tables of {RESULTS.parent.name}/")


if __name__ == "__main__":
    main()
