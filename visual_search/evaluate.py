"""Measures a finished run, or embeddings from outside, by any protocol on any catalogue.

``python -m visual_search.evaluate run=PATH protocol=leave_one_out``; ``--help`` lists what can be
set.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import EvaluateSchema
from visual_search.runs.embeddings import (
    RunEmbedding,
    changed_embedding,
    own_embedding,
    precision_here,
)
from visual_search.runs.finished import Measured, finished_run
from visual_search.runs.machine import device_facts, device_summary
from visual_search.runs.measuring import choose_query_gallery, measure, working
from visual_search.runs.moved import telling_moved_data
from visual_search.runs.run import EVALUATIONS, Run, open_run

if TYPE_CHECKING:
    from visual_search.training.floors import Floors


# What an evaluation takes over from the run that it measures.
OF_THE_RUN = ("epochs", "embedding_dim", "num_parameters", "num_training", "weights")


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("evaluate", evaluate_command)


def evaluate_command(given: EvaluateSchema) -> None:
    """Measures what the composed config describes; in a multirun one of its jobs."""
    from visual_search.cli.multirun import record_job
    from visual_search.reports.tables import print_evaluation

    with record_job(given) as job:
        settings = dataclasses.asdict(given)
        measured_by = measure_embeddings if settings["embeddings"] else measure_run
        job.measured = measured_by(settings)
        print_evaluation(job.measured)


def measure_run(settings: dict[str, Any]) -> Measured:
    """Measures a finished run; without another protocol or data that is its own measurement.

    Args:
        settings: The composed ``conf/evaluate.yaml``.

    Raises:
        ConfigError: No run is named, or it is not finished, or a setting is wrong.
    """
    from visual_search.reports.run_page import write_run_report
    from visual_search.runs.parts import (
        cache,
        check_hardware,
        embedding_settings,
        new_protocol,
        read_catalog,
    )
    from visual_search.runs.results import num_trained_on
    from visual_search.runs.run import run_label

    check_hardware(settings)
    run = finished_run(settings["run"])
    own, summary = run.config(), run.summary()
    merged = _merged(own, settings)
    if "_target_" not in merged["protocol"]:
        raise ConfigError(
            f"run {run.folder} is older than named protocols ({merged['protocol']}); expected one: "
            "give protocol=gallery_query, or another of conf/protocol/"
        )
    protocol = new_protocol(merged)
    with telling_moved_data("evaluate", run, merged["data"], settings["data"]):
        catalog = read_catalog(merged)
    asked = [merged["protocol"], settings["query_split"], catalog.fingerprint()]
    rules = _merged(own, settings | {"protocol": None})["protocol"]
    trained_with = [rules, "test", run.status().get("catalog_fingerprint")]
    if merged["embedding"] != own_embedding(own):
        embedding_settings(merged)  # refuses a wrong value
        asked.append(merged["embedding"])
    parts = ["+".join(protocol.relevance), *changed_embedding(own, merged)]
    name = f"{protocol.name}-" + re.sub(r"[^\w.+-]+", "_", "-".join(parts))
    own_precision = summary.get("precision")
    precision = settings["trainer"]["precision"]
    if precision in ("auto", own_precision):
        precision = own_precision
        if asked == trained_with and not settings["rerun"]:
            return Measured(run, is_new=False)
        place = _place(run, name, asked)
        if not settings["rerun"] and place.state == "finished":
            return Measured(place, is_new=False)
        if own_precision is not None:
            precision = precision_here(own_precision, settings["trainer"])
    if precision != own_precision:
        asked.append(precision)
    place = _place(run, name, asked)
    if not settings["rerun"] and place.state == "finished":
        return Measured(place, is_new=False)
    with working(place, merged, catalog, settings, run=run_label(run.folder)) as is_left:
        if not is_left:
            return Measured(place, is_new=False)
        cached = cache(catalog, merged["data"], **merged["pictures"])
        sides = choose_query_gallery(protocol, cached, settings["query_split"])
        embedding = RunEmbedding(run, own, merged, settings, precision)
        embeddings, seconds = embedding.of_sides(cached, sides)
        facts = {fact: summary.get(fact) for fact in OF_THE_RUN}
        device = device_facts(embedding.trainer)
        place.save_environment(device)
        facts |= device_summary(device)
        facts["embedding_dim"] = embeddings.shape[1]
        facts["num_queries_trained_on"] = num_trained_on(run.folder, cached.pictures, sides)
        measure(
            place,
            merged,
            cached,
            protocol,
            sides,
            embeddings,
            floors=_floors(
                own | {"pictures": merged["pictures"], "embedding": merged["embedding"]}
            ),
            seconds_per_item=seconds,
            epoch=int(summary.get("epochs") or 0),
            facts=facts,
            trainer=embedding.trainer,
        )
        write_run_report(place.folder, cached.catalog, cached.pictures)
    return Measured(place, is_new=True)


def _place(run: Run, name: str, asked: list[Any]) -> Run:
    return Run(run.folder / EVALUATIONS / f"{name}-{_digest(asked)[:8]}")


def _floors(settings: dict[str, Any]) -> Floors:
    """Returns the floors of a finished run, without the one whose first weights are gone."""
    from visual_search.models.backbone_weights import PACKAGED
    from visual_search.runs.parts import new_floors

    floors = new_floors(settings)
    weights = settings["model"].get("weights")
    if weights not in (None, PACKAGED) and not Path(weights).is_file():
        print(
            f"The first weights, {weights}, are gone: the floor 'own network, not adapted' is left "
            "out. Put the file back to see it."
        )
        floors.first_weights = None
    return floors


def measure_embeddings(settings: dict[str, Any]) -> Measured:
    """Measures embeddings that another program made.

    Args:
        settings: The composed ``conf/evaluate.yaml``.

    Raises:
        ConfigError: No data is named, a run is named as well, or a setting is wrong.
        ValueError: The file cannot be read, or an item that the protocol needs has no embedding.
    """
    import numpy as np

    from visual_search.reports.run_page import write_run_report
    from visual_search.runs.embedding_files import read_embeddings
    from visual_search.runs.parts import cache, check_left_out, new_protocol, read_catalog
    from visual_search.training.floors import Floors

    if settings["run"]:
        raise ConfigError(
            f"run={settings['run']} and embeddings={settings['embeddings']} are both given; "
            "expected one of them: measure them one after the other, then compare"
        )
    if not settings["data"]:
        raise ConfigError(
            "embeddings from outside need a catalogue to be measured on; expected data=...: "
            "choose one, such as data=table data.path=products.csv"
        )
    given = read_embeddings(settings["embeddings"], settings["ids"])
    print(given.sentence())
    merged = _merged(None, settings)
    protocol = new_protocol(merged)
    catalog = read_catalog(merged, bound_left_out=True)
    name = settings["name"] or Path(settings["embeddings"]).stem
    asked = [merged["protocol"], settings["query_split"], catalog.fingerprint(), given.digest()]
    asked += [merged["pictures"]["size_px"], merged["pictures"]["fit"]]  # what the floors see
    place = open_run(settings["outputs"], name, _digest(asked)[:10])
    if not settings["rerun"] and place.state == "finished":
        return Measured(place, is_new=False)
    given_by = {"embeddings": Path(settings["embeddings"]).name}
    with working(place, merged, catalog, settings, **given_by) as is_left:
        if not is_left:
            return Measured(place, is_new=False)
        cached = cache(catalog, merged["data"], **merged["pictures"])
        broken = len(cached.catalog.refused) - len(catalog.refused)
        check_left_out(merged["data"], broken, len(cached.catalog))
        sides = choose_query_gallery(protocol, cached, settings["query_split"])
        selection = sides.selection
        rows = np.union1d(selection.gallery_rows, selection.query_rows)
        table = np.zeros((len(cached.catalog), given.dim), dtype=np.float32)
        table[rows] = given.of_items(cached.catalog.table["item_id"].iloc[rows].tolist())
        measure(
            place,
            merged,
            cached,
            protocol,
            sides,
            table,
            floors=Floors(merged["pictures"]["cache_dir"]),
            seconds_per_item=math.nan,
            epoch=0,
            facts={
                "embedding_dim": given.dim,
                "embedding_columns": list(given.columns),
                "columns_left_out": list(given.left_out),
                "kind": "embeddings from outside",
            },
        )
        write_run_report(place.folder, cached.catalog, cached.pictures)
    return Measured(place, is_new=True)


def _merged(own: Mapping[str, Any] | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a run's config with what the evaluation replaces."""
    import copy

    from visual_search.runs.parts import protocol_in_full

    base: dict[str, Any] = copy.deepcopy(dict(own)) if own else {}
    defaults = {
        "split": {"method": "hash", "val_fraction": 0.05, "test_fraction": 0.05, "seed": 0},
        "protocol": {"_target_": "visual_search.retrieval.protocols.gallery_query"},
    }
    for part in ("data", "split", "protocol"):
        given = settings[part] or {}
        held: Any = {} if "_target_" in given else base.get(part) or defaults.get(part, {})
        base[part] = {**held, **given}  # +data.path=... alone changes what the run had
    loader = dict(settings["loader"])
    if not own or "_target_" in (settings["data"] or {}):
        loader["max_items_per_category"] = {"train": None, "val": None, "test": None}
    base["loader"] = {**base.get("loader", {}), **loader}
    base.setdefault("pictures", dict(settings["pictures"]))
    base["pictures"]["cache_dir"] = settings["pictures"]["cache_dir"]
    base["protocol"] = protocol_in_full(base["protocol"])
    chosen = {name: value for name, value in settings["embedding"].items() if value != "own"}
    base["embedding"] = own_embedding(base) | chosen
    return base | {part: settings[part] for part in ("floors", "near_duplicates", "index")}


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main()
