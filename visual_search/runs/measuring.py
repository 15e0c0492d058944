"""Measurements after training: a run by another protocol or data, embeddings from outside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search.config.builders import BUILDERS, ConfigError, nearest
from visual_search.reading import DamagedFileError
from visual_search.runs.embeddings import (
    RunEmbedding,
    changed_embedding,
    own_embedding,
    precision_here,
)
from visual_search.runs.machine import device_facts, device_summary
from visual_search.runs.moved import telling_moved_data
from visual_search.runs.run import A_CONFIG, EVALUATIONS, Run, State, open_run

if TYPE_CHECKING:
    import numpy as np
    from lightning import Trainer
    from numpy.typing import NDArray

    from visual_search.catalog.cache import CachedCatalog
    from visual_search.catalog.catalog import Catalog
    from visual_search.retrieval.protocol import Protocol
    from visual_search.training.evaluation import Evaluation
    from visual_search.training.floors import Floors
    from visual_search.training.query_gallery import Sides

# What an evaluation takes over from the run that it measures.
OF_THE_RUN = ("epochs", "embedding_dim", "num_parameters", "num_training", "weights")


@dataclass(frozen=True)
class Measured:
    """A measurement and where it lies.

    Attributes:
        run: Folder with ``metrics``, ``report.html`` and ``status.json``.
        is_new: False where it had been measured before.
    """

    run: Run
    is_new: bool


def measure_run(settings: dict[str, Any]) -> Measured:
    """Measures a finished run; without another protocol or data that is its own measurement.

    Args:
        settings: The composed ``conf/evaluate.yaml``.

    Raises:
        ConfigError: No run is named, or it is not finished, or a setting is wrong.
    """
    from visual_search.reports.tables import run_label
    from visual_search.runs.parts import (
        cache,
        check_hardware,
        embedding_settings,
        new_protocol,
        read_catalog,
    )
    from visual_search.runs.results import num_trained_on

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
    with _working(place, merged, catalog, settings, run=run_label(run.folder)) as is_left:
        if not is_left:
            return Measured(place, is_new=False)
        cached = cache(merged, catalog)
        sides = _sides(protocol, cached, settings["query_split"])
        embedding = RunEmbedding(run, own, merged, settings, precision)
        embeddings, seconds = embedding.of_sides(cached, sides)
        facts = {fact: summary.get(fact) for fact in OF_THE_RUN}
        device = device_facts(embedding.trainer)
        place.save_environment(device)
        facts |= device_summary(device)
        facts["embedding_dim"] = embeddings.shape[1]
        facts["num_queries_trained_on"] = num_trained_on(run.folder, cached.pictures, sides)
        _measure(
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
    return Measured(place, is_new=True)


def _place(run: Run, name: str, asked: list[Any]) -> Run:
    return Run(run.folder / EVALUATIONS / f"{name}-{_digest(asked)[:8]}")


def _floors(settings: dict[str, Any]) -> Floors:
    """Gives the floors of a finished run, without the one whose first weights are gone."""
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
    with _working(place, merged, catalog, settings, **given_by) as is_left:
        if not is_left:
            return Measured(place, is_new=False)
        cached = cache(merged, catalog)
        broken = len(cached.catalog.refused) - len(catalog.refused)
        check_left_out(merged["data"], broken, len(cached.catalog))
        sides = _sides(protocol, cached, settings["query_split"])
        selection = sides.selection
        rows = np.union1d(selection.gallery_rows, selection.query_rows)
        table = np.zeros((len(cached.catalog), given.dim), dtype=np.float32)
        table[rows] = given.of_items(cached.catalog.table["item_id"].iloc[rows].tolist())
        _measure(
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
    return Measured(place, is_new=True)


def finished_run(path: str | None) -> Run:
    """Gives the finished run of a folder.

    Raises:
        ConfigError: None is named, the folder is none of a run, or the run is not finished.
    """
    if not path:
        raise ConfigError(
            "no run is named; expected run=PATH, the folder of a finished run such as "
            "outputs/plus_layer/0123456789, or embeddings=FILE"
        )
    run = Run(Path(path))
    if run.state == "new":
        inside = sorted(str(found.parent) for found in Path(path).glob("*/status.json"))[:3]
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise ConfigError(f"{path} is no run's folder (no status.json); expected one{hint}")
    if run.folder.resolve().parent.name == EVALUATIONS:
        raise ConfigError(
            f"{path} is a further measurement; expected its run: run={run.folder.parent.parent}"
        )
    if run.state != "finished":
        raise ConfigError(
            f"run {path} is {run.state}; expected a finished one: start its command again"
        )
    if not run.summary() or not run.checkpoint.is_file():
        what = "numbers (a dry run?)" if not run.summary() else "network"
        raise ConfigError(f"run {path} has no {what}; expected one that was trained: name another")
    _check_settings(run)
    return run


def _check_settings(run: Run) -> None:
    """Checks that a run's settings are whole and name what this package has.

    Raises:
        DamagedFileError: Names the file, and what lacks.
    """
    path, settings = run.folder / "config.yaml", run.config()
    for part in ("data", "pictures", "loader", "model", "trainer"):  # of every version
        node = settings.get(part)
        if not isinstance(node, dict) or not node:
            raise DamagedFileError(path, f"{part} is {node!r} in it", A_CONFIG)
        target = node.get("_target_")
        if part in BUILDERS and target not in BUILDERS[part]:
            close = nearest(str(target), BUILDERS[part])
            raise DamagedFileError(path, f"{part}._target_ is {target!r}{close}", A_CONFIG)


def _merged(own: Mapping[str, Any] | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Gives a run's config with what the evaluation replaces."""
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


@contextlib.contextmanager
def _working(
    place: Run,
    merged: Mapping[str, Any],
    catalog: Catalog,
    settings: Mapping[str, Any],
    **facts: Any,
) -> Iterator[bool]:
    """Holds a measurement's folder, and leaves a status that tells how it ended.

    Yields:
        Whether there is work left: another command may have finished it just before.
    """
    import yaml

    from visual_search.atomic import telling_full_disk, write_text

    facts |= {
        "catalog": catalog.name,
        "catalog_fingerprint": catalog.fingerprint(),
        "query_split": settings["query_split"],
    }
    started = time.time()
    state: State = "failed"
    error = ""
    place.lock()
    if not settings["rerun"] and place.state == "finished":
        place.unlock()
        yield False
        return
    try:
        place.clear()
        text = yaml.safe_dump(dict(merged), sort_keys=False, allow_unicode=True)
        write_text(place.folder / "config.yaml", text)
        place.save_environment()
        place.set_state("running", **facts)
        with telling_full_disk(place.folder):
            yield True
        state = "finished"
    except (KeyboardInterrupt, SystemExit):
        state = "interrupted"
        raise
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
        raise
    finally:
        place.set_state(state, seconds=time.time() - started, error=error, **facts)
        place.unlock()


def _sides(protocol: Protocol, cached: CachedCatalog, split: str) -> Sides:
    from visual_search.runs.parts import progress_bar
    from visual_search.training.query_gallery import check_depth, choose_sides

    with progress_bar("Looking for leaks", " pictures") as advance:
        sides = choose_sides(protocol, cached.catalog, cached.pictures, split, advance)
    check_depth(protocol, cached.catalog, sides.selection, split)
    return sides


def _measure(
    place: Run,
    merged: dict[str, Any],
    cached: CachedCatalog,
    protocol: Protocol,
    sides: Sides,
    embeddings: NDArray[np.float32],
    *,
    floors: Floors,
    seconds_per_item: float,
    epoch: int,
    facts: dict[str, Any],
    trainer: Trainer | None = None,
) -> None:
    """Searches, scores, and writes everything into the folder.

    ``trainer`` tells where and how exactly the floor of a run's untrained network is embedded.
    """
    import numpy as np

    from visual_search.reports.run_page import write_run_report
    from visual_search.retrieval.report import with_intervals
    from visual_search.runs.parts import progress_bar
    from visual_search.runs.results import answering, save_evaluation
    from visual_search.training.evaluation import evaluate_embeddings, index_place

    device, gpu = merged["index"]["device"], 0
    if trainer is not None:
        device, gpu = index_place(device, trainer)
    selection = sides.selection
    evaluation: Evaluation = evaluate_embeddings(
        cached.catalog,
        protocol,
        sides,
        split=place.status()["query_split"],
        epoch=epoch,
        gallery_embeddings=np.ascontiguousarray(embeddings[selection.gallery_rows]),
        query_embeddings=np.ascontiguousarray(embeddings[selection.query_rows]),
        index_device=device,
        index_gpu=gpu,
        seconds_per_item=seconds_per_item,
    )
    evaluation = replace(evaluation, report=with_intervals(evaluation.report))
    if merged["floors"]:
        with progress_bar("Embedding the floors", " pictures") as advance:
            found = floors.measure(
                cached.catalog,
                cached.pictures,
                protocol,
                selection,
                device=trainer.strategy.root_device if trainer else "cpu",
                precision=trainer.precision_plugin if trainer else None,
                on_progress=advance,
            )
        evaluation = replace(evaluation, floors=found)
    index = evaluation.index
    facts["index"] = {
        "bytes": index.num_bytes,
        "bytes_per_item": index.bytes_per_item,
        **answering(index),
    }
    save_evaluation(place.folder, merged, cached.catalog, cached.pictures, evaluation, facts)
    write_run_report(place.folder, cached.catalog, cached.pictures)


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
