"""Collects finished runs of experiments into results, and makes the README's table from them.

    python benchmarks/laboratory.py collect outputs/best_supervised/* outputs/residual/*
    make results

``collect`` reads each run's folder (its numbers, its config, and its evaluation by
``reference_2023`` where there is one), puts the seeds of one experiment together and writes
``benchmarks/results/laboratory.json``; what it had of the same experiment, data and device is
replaced. ``table`` writes the Markdown table between the README's markers.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "laboratory.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- laboratory: made by `make results` -->", "<!-- /laboratory -->"
COLUMNS = (
    "experiment", "mAP@5 micro", "macro", "`reference_2023`", "px", "width", "epochs", "seeds",
    "time",
)  # fmt: skip
KEY = ("experiment", "catalog", "relevance", "processor", "num_cpus", "gpu")


def collect(folders: list[Path]) -> list[dict[str, Any]]:
    """Gives one entry an experiment, data and device, with all its seeds."""
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for folder in folders:
        run = read_run(folder)
        runs[tuple(run["entry"][part] for part in KEY)].append(run)
    return [joined(members) for members in runs.values()]


def read_run(folder: Path) -> dict[str, Any]:
    """Gives what a finished run says of itself.

    Raises:
        ValueError: It is not finished.
    """
    import pandas as pd
    import yaml

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
        "processor": environment["processor"],
        "num_cpus": environment["num_cpus"],
        "gpu": None if device == "cpu" else device,
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
    }
    return {
        "entry": entry,
        "seed": seed,
        "per_query": pd.read_parquet(folder / "metrics" / "per_query.parquet"),
        "column": summary["headline"]["column"],
    }


def reference_of(folder: Path) -> float | None:
    """Gives the study's number of a run, where it was evaluated by the study's rule."""
    for path in sorted(folder.glob("evaluations/reference_2023-*/metrics/summary.json")):
        summary = json.loads(path.read_text())
        return float(summary[f"macro_{summary['headline']['mean']}"])
    return None


def command_of(argv: list[str]) -> str:
    """Gives the command without the folders of one machine."""
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


def joined(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Gives the entry of several seeds; the interval is of the mean over them, query by query."""
    from visual_search.retrieval.statistics import bootstrap_interval

    runs = sorted(runs, key=lambda run: run["seed"]["seed"])
    first = runs[0]["per_query"].sort_values("query_id")
    values = []
    for run in runs:
        table = run["per_query"].sort_values("query_id")
        if table["query_id"].tolist() != first["query_id"].tolist():
            raise ValueError("the seeds have different queries; expected the same data and split")
        values.append(table[run["column"]].to_numpy(dtype=np.float64))
    mean = np.mean(values, axis=0)
    intervals = {
        statistic: bootstrap_interval(
            mean, first["group"].to_numpy(), first["category"].to_numpy(), statistic
        )
        for statistic in ("micro", "macro")
    }
    return {
        **runs[0]["entry"],
        "seeds": [run["seed"] for run in runs],
        **{
            f"{statistic}_interval": [interval.mean, interval.low, interval.high]
            for statistic, interval in intervals.items()
        },
    }


def merge(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Gives all entries, newer ones in the place of older ones of the same key."""
    entries = {tuple(entry[part] for part in KEY): entry for entry in [*old, *new]}
    return sorted(
        entries.values(), key=lambda entry: (entry["catalog"], -entry["micro_interval"][0])
    )


def table(entries: list[dict[str, Any]], catalog: str) -> str:
    """Gives the Markdown table of the entries of one catalogue, the best first."""
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


def _spread(seeds: list[dict[str, Any]], name: str) -> str:
    values = [seed[name] for seed in seeds]
    return f" ({min(values):.3f}-{max(values):.3f})" if len(values) > 1 else ""


def with_table(readme: str, entries: list[dict[str, Any]], catalog: str) -> str:
    """Gives the README with the table between its markers.

    Raises:
        ValueError: The markers are missing.
    """
    before, found, rest = readme.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"README.md has no {BEGIN} ... {END}; expected both; put them back")
    return f"{before}{BEGIN}\n{table(entries, catalog)}\n{END}{after}"


def main() -> None:
    """Runs the verb of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    collecting = verbs.add_parser("collect", help="read runs into the results")
    collecting.add_argument("runs", nargs="+", type=Path)
    verbs.add_parser("table", help="write the README's table")
    given = parser.parse_args()
    entries = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    if given.verb == "collect":
        entries = merge(entries, collect(given.runs))
        RESULTS.write_text(json.dumps(entries, indent=1) + "\n")
        print(f"{len(entries)} experiments in {RESULTS.relative_to(ROOT)}")
    else:
        text = README.read_text(encoding="utf-8")
        README.write_text(with_table(text, entries, "complete-the-look-crops"), encoding="utf-8")
        print("README.md has the table of benchmarks/results/laboratory.json")


if __name__ == "__main__":
    main()
