"""Why an autoencoder retrieves no better than it does: the numbers of docs/experiments.md.

    python benchmarks/autoencoder_study.py collect --curve outputs/plus_layer/0123456789 \
        --embeddings outputs/plus_layer/0123456789 outputs/untrained/0123456789 \
        --variants outputs/residual/* outputs/denoising/*
    python benchmarks/autoencoder_study.py draw

``collect`` reads finished runs and their evaluations on validation queries and writes
``benchmarks/results/autoencoder_study.json``; a part that is not given stays as it was. ``draw``
makes ``docs/images/study_*.png`` of that file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from visual_search.runs.run import Run
from visual_search.views.style import BAR, INK, MACRO, MUTED, OTHER, RIGHT, WRONG, quiet_style
from visual_search.views.training_curves import spread

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "autoencoder_study.json"
IMAGES = ROOT / "docs" / "images"
MSE = "MSE in -1..1"
CROWDED = 0.04  # of mAP@5: a label below its line where another line is so near above it
LABEL_APART, LABEL_REACH = 0.045, 0.06  # of the axes: between lines of text, to what is beside it
USUAL_DIM = 512
SHOWN_FLOORS = ("untrained", "pixels_32_pca_64", "hog_pca_256_unit")


def laboratory() -> ModuleType:
    """Returns the neighbouring script, which shows commands without the folders of a machine."""
    spec = importlib.util.spec_from_file_location("laboratory", ROOT / "benchmarks/laboratory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def facts(run: Path) -> dict[str, Any]:
    """Returns what every part says of its run: command, device, packages.

    Raises:
        ValueError: It is not finished.
    """
    status = json.loads((run / "status.json").read_text())
    if status["state"] != "finished":
        raise ValueError(f"{run} is {status['state']}, expected a finished run; finish it first")
    environment = json.loads((run / "environment.json").read_text())
    summary = json.loads((run / "metrics" / "summary.json").read_text())
    return {
        "command": laboratory().command_of(environment["command"]),
        "device": summary["device"],
        "processor": environment["processor"],
        "num_cpus": environment["num_cpus"],
        "bf16": environment.get("bf16"),  # what computes it; older runs did not say
        "precision": summary.get("precision"),
        "num_threads": summary.get("num_threads"),
        "packages": environment["packages"],
        "seconds": status["seconds"],
    }


def validation_summary(run: Path) -> dict[str, Any]:
    """Returns the numbers of a run's own embedding on validation queries, by its own protocol.

    Raises:
        FileNotFoundError: It was not evaluated with ``query_split=val``.
    """
    own = Run(run).settings()
    for path in sorted(run.glob("evaluations/*/metrics/summary.json")):
        summary: dict[str, Any] = json.loads(path.read_text())
        asked = Run(path.parent.parent).settings()
        alike = asked.embedding == own.embedding and asked.protocol == own.protocol
        if summary.get("query_split") == "val" and alike:
            return summary
    raise FileNotFoundError(
        f"{run} has no evaluation on validation queries; expected one: "
        f"python -m visual_search.evaluate run={run} query_split=val"
    )


def curve_of(run: Path) -> dict[str, Any]:
    """Returns loss and mAP@5 over the epochs, and the floors of the same queries."""
    history = pd.read_csv(run / "metrics" / "history.csv")
    measured = history.dropna(subset=["val/map_at_5"])
    summary = validation_summary(run)
    floors = {
        floor["name"]: {
            "title": floor["title"],
            "micro": floor["micro_map_at_5"],
            "macro": floor["macro_map_at_5"],
        }
        for floor in summary["floors"]
    }
    return {
        **facts(run),
        "epochs": history["epoch"].tolist(),
        "val_loss": history["val/loss"].round(6).tolist(),
        "measured_epochs": measured["epoch"].tolist(),
        "micro": measured["val/map_at_5"].round(4).tolist(),
        "macro": measured["val/macro_map_at_5"].round(4).tolist(),
        "num_queries": summary["num_queries_scored"],
        "floors": floors,
    }


def embeddings_of(run: Path) -> dict[str, Any]:
    """Returns a run's mAP@5 by what of its network was indexed, on validation queries."""
    found = []
    for path in sorted(run.glob("evaluations/*/metrics/summary.json")):
        summary = json.loads(path.read_text())
        if summary.get("query_split") != "val":
            continue
        config = yaml.safe_load((path.parent.parent / "config.yaml").read_text())
        interval = summary["intervals"]["micro"]
        found.append(
            {
                **{name: config["embedding"][name] for name in ("layer", "pool", "normalize")},
                **{name: config["embedding"][name] for name in ("pca", "whiten")},
                "dim": summary["embedding_dim"],
                "micro": [interval["mean"], interval["low"], interval["high"]],
                "macro": summary["macro_map_at_5"],
            }
        )
    return {**facts(run), "name": run.parent.name, "embeddings": found}


def variant_of(run: Path) -> dict[str, Any]:
    """Returns a run's reconstruction error beside its mAP@5, on validation queries."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    own = json.loads((run / "metrics" / "summary.json").read_text())
    measured = validation_summary(run)
    interval = measured["intervals"]["micro"]
    untrained = [floor for floor in measured["floors"] if floor["name"] == "untrained"]
    module, _, objective = config["objective"]["_target_"].rpartition(".")
    return {
        **facts(run),
        "name": run.parent.name,
        "objective": objective,
        "labels": module.endswith(".supervised"),
        "dim": own["embedding_dim"],
        "epochs": own["epochs"],
        "error": own["val_loss"] if own.get("loss_name") == MSE else None,
        "micro": [interval["mean"], interval["low"], interval["high"]],
        "macro": measured["macro_map_at_5"],
        "untrained": untrained[0]["micro_map_at_5"] if untrained else None,
    }


def draw_curve(curve: dict[str, Any]) -> Figure:
    """Draws mAP@5 over the epochs above the validation loss, floors as lines."""
    with quiet_style():
        figure = Figure(figsize=(8.5, 6.0))
        above, below = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": [2.2, 1], "hspace": 0.12}
        )
        start = curve["floors"].get("untrained")  # the same network before its first step
        for name, colour in (("micro", INK), ("macro", MACRO)):
            epochs, values = curve["measured_epochs"], curve[name]
            if start is not None:
                epochs, values = [0, *epochs], [start[name], *values]
            above.plot(epochs, values, color=colour, marker="o", ms=3.5)
            above.annotate(
                name,
                (epochs[-1], values[-1]),
                (6, -10 if name == "micro" else -3),
                textcoords="offset points",
                color=colour,
            )
        shown = [curve["floors"][name] for name in SHOWN_FLOORS if name in curve["floors"]]
        for floor in shown:
            is_crowded = any(0 < other["micro"] - floor["micro"] < CROWDED for other in shown)
            above.axhline(floor["micro"], color=OTHER, lw=1.2, ls="--", zorder=0)
            above.annotate(
                f"{floor['title']}  {floor['micro']:.3f}",
                (max(curve["epochs"]) / 10, floor["micro"]),
                (2, -3 if is_crowded else 3),
                textcoords="offset points",
                va="top" if is_crowded else "bottom",
                color=MUTED,
                fontsize=9,
            )
        above.set_ylabel("mAP@5")
        above.set_ylim(0, above.get_ylim()[1] + CROWDED)
        above.set_title(
            f"{curve['num_queries']:,} validation queries; dashed: micro of what learns nothing",
            loc="left",
            fontsize=10,
            color=MUTED,
        )
        below.plot(curve["epochs"], curve["val_loss"], color=BAR)
        below.set_ylabel("validation MSE")
        below.set_ylim(0, None)
        below.set_xlabel("epoch")
        below.set_xlim(0, max(curve["epochs"]) * 1.08)
        return figure


def draw_embeddings(runs: list[dict[str, Any]]) -> Figure:
    """Draws mAP@5 by layer and pooling, one panel a run, the same scale in all."""
    colours = {"flatten": INK, "average": BAR, "max": WRONG, "gem": RIGHT}
    used = {e["pool"] for run in runs for e in run["embeddings"]}
    pools = [pool for pool in colours if pool in used]
    with quiet_style():
        figure = Figure(figsize=(8.5, 1.0 + 2.4 * len(runs)))
        axes = figure.subplots(len(runs), 1, squeeze=False)[:, 0]
        for axis, run in zip(axes, runs, strict=True):
            plain = [e for e in run["embeddings"] if e["pca"] is None and e["normalize"]]
            layers = [*sorted({e["layer"] for e in plain if e["layer"]}, key=_natural), None]
            for place, pool in enumerate(pools):
                shown = [e for e in plain if e["pool"] == pool]
                axis.errorbar(
                    [layers.index(e["layer"]) + 0.1 * (place - len(pools) / 2) for e in shown],
                    [e["micro"][0] for e in shown],
                    yerr=_bars([e["micro"] for e in shown]),
                    fmt="o",
                    ms=4.5,
                    color=colours[pool],
                    label=pool,
                    elinewidth=1,
                )
            axis.set_xticks(range(len(layers)), [layer or "embedding" for layer in layers])
            axis.set_ylabel("mAP@5")
            axis.set_title(run["name"], loc="left", fontsize=10)
            axis.set_ylim(0, None)
        axes[0].legend(loc="upper left", ncols=len(pools), title="pooling (all of length 1)")
        figure.subplots_adjust(hspace=0.45)
        return figure


def draw_variants(variants: list[dict[str, Any]]) -> Figure:
    """Draws mAP@5 against reconstruction error, one point a run."""
    shown = [variant for variant in variants if variant["error"] is not None]
    low = min(variant["micro"][1] for variant in shown) - CROWDED
    high = max(variant["micro"][2] for variant in shown) + CROWDED
    errors = [variant["error"] for variant in shown]
    left, right = 0.4 * min(errors), 1.2 * max(errors)  # room for names on both sides
    step = 0.02 * (right - left)
    with quiet_style():
        figure = Figure(figsize=(8.5, 5.0))
        axis = figure.subplots()
        for variant in shown:
            mean, least, most = variant["micro"]
            axis.plot([variant["error"]] * 2, [least, most], color=OTHER, lw=1, zorder=1)
            axis.plot(variant["error"], mean, "o", color=BAR, ms=6, zorder=2)
        for number, beside in enumerate(_clusters(shown, LABEL_REACH * (right - left))):
            # The names of the smallest errors stand at the left, all others at the right.
            places = [variant["error"] for variant in beside]
            x = max(places) + step if number else min(places) - step
            heights = spread(
                [variant["micro"][0] for variant in beside], LABEL_APART * (high - low)
            )
            for variant, height in zip(beside, heights, strict=True):
                axis.plot(
                    [variant["error"], x], [variant["micro"][0], height],
                    color=OTHER, lw=0.7, zorder=0,
                )  # fmt: skip
                dim = "" if variant["dim"] == USUAL_DIM else f", {variant['dim']:,}-d"
                axis.annotate(
                    f"{variant['name']}{dim}",
                    (x, height),
                    (2 if number else -2, -3),
                    textcoords="offset points",
                    ha="left" if number else "right",
                    fontsize=9,
                )
        axis.set_xlabel(
            "reconstruction error of validation pictures (MSE in -1..1): left is better"
        )
        axis.set_ylabel("mAP@5 of validation queries: up is better")
        axis.set_ylim(low, high)
        axis.set_xlim(left, right)
        return figure


def _clusters(variants: list[dict[str, Any]], reach: float) -> list[list[dict[str, Any]]]:
    """Returns variants whose errors are within reach of the next one together, upwards in mAP@5."""
    found: list[list[dict[str, Any]]] = []
    for variant in sorted(variants, key=lambda one: float(one["error"])):
        if found and variant["error"] - found[-1][-1]["error"] < reach:
            found[-1].append(variant)
        else:
            found.append([variant])
    return [sorted(cluster, key=lambda one: float(one["micro"][0])) for cluster in found]


def _bars(intervals: list[list[float]]) -> list[list[float]]:
    return [
        [mean - low for mean, low, _ in intervals],
        [high - mean for mean, _, high in intervals],
    ]


def _natural(name: str) -> tuple[bool, str, int]:
    letters = name.rstrip("0123456789")
    return name != "stem", letters, int(name[len(letters) :] or 0)  # a stem comes before stages


def main() -> None:
    """Runs the verb of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    collecting = verbs.add_parser("collect", help="read runs into the results")
    collecting.add_argument("--curve", type=Path)
    collecting.add_argument("--embeddings", nargs="+", type=Path)
    collecting.add_argument("--variants", nargs="+", type=Path)
    verbs.add_parser("draw", help="draw the figures")
    given = parser.parse_args()
    study: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if given.verb == "collect":
        if given.curve:
            study["curve"] = curve_of(given.curve)
        if given.embeddings:
            study["embeddings"] = [embeddings_of(run) for run in given.embeddings]
        if given.variants:
            study["variants"] = [variant_of(run) for run in given.variants]
        RESULTS.write_text(json.dumps(study, indent=1) + "\n")
        print(f"{', '.join(study)} in {RESULTS.relative_to(ROOT)}")
        return
    drawing: dict[str, Callable[[Any], Figure]] = {
        "curve": draw_curve,
        "embeddings": draw_embeddings,
        "variants": draw_variants,
    }
    for name, draw in drawing.items():
        if name in study:
            path = IMAGES / f"study_{name}.png"
            draw(study[name]).savefig(path, dpi=110, bbox_inches="tight")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
