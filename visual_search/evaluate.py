"""Measures a finished run, or embeddings from outside, by any protocol on any catalogue.

``python -m visual_search.evaluate run=PATH protocol=leave_one_out``; ``--help`` lists what can be
set.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search import called_as_well
from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import EvaluateSchema, ItemLimits, Node, TrainSchema
from visual_search.reports.sweep_summary import conclude
from visual_search.runs.code import Code, code_of
from visual_search.runs.embeddings import RunEmbedding, changed_embedding, precision_here
from visual_search.runs.finished import Measured, finished_run
from visual_search.runs.identity import is_of_code, unknown_code
from visual_search.runs.machine import device_facts, device_summary
from visual_search.runs.measuring import Embedded, measure, working
from visual_search.runs.moved import replaced, telling_moved_data
from visual_search.runs.results import num_trained_on
from visual_search.runs.run import EVALUATIONS, Run, open_run

if TYPE_CHECKING:
    from visual_search.runs.embedding_files import GivenEmbeddings
    from visual_search.runs.parts import Parts
    from visual_search.training.floors import Floors
    from visual_search.training.query_gallery import Sides


# What an evaluation takes over from the run that it measures.
OF_THE_RUN = ("epochs", "embedding_dim", "num_parameters", "num_training", "weights")


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("evaluate", evaluate_command, conclude)


def evaluate_command(settings: EvaluateSchema) -> None:
    """Measures what the composed config describes; in a multirun one of its jobs."""
    from visual_search.cli.multirun import record_job
    from visual_search.reports.tables import explains, print_evaluation

    with record_job(settings) as job:
        from_outside = settings.embeddings or settings.embedder
        job.measured = (measure_from_outside if from_outside else measure_run)(settings)
        print_evaluation(job.measured, explain=explains(settings))


def measure_run(settings: EvaluateSchema) -> Measured:
    """Measures a finished run; without another protocol or data that is its own measurement.

    Args:
        settings: The composed ``conf/evaluate.yaml``.

    Raises:
        ConfigError: No run is named, or it is not finished, or a setting is wrong.
    """
    from visual_search.runs.parts import Parts, check_hardware
    from visual_search.runs.run import run_label

    check_hardware(**vars(settings.trainer), index_device=settings.index.device)
    run = finished_run(settings.run)
    own, summary = run.settings(), run.summary()
    parts = Parts(_merged(own, settings))
    merged = parts.settings
    if "_target_" not in merged.protocol:
        raise ConfigError(
            f"run {run.folder} is older than named protocols ({merged.protocol}); expected one: "
            "give protocol=gallery_query, or another of conf/protocol/"
        )
    protocol = parts.protocol
    with telling_moved_data("evaluate", run, merged.data, settings.data):
        catalog = parts.catalog
    asked: list[object] = [merged.protocol, settings.query_split, catalog.fingerprint()]
    code = _code(protocol=merged.protocol, model=merged.model)
    rules = _merged(own, dataclasses.replace(settings, protocol={})).protocol
    trained_with = [rules, "test", run.status().get("catalog_fingerprint")]
    if merged.embedding != own.embedding:
        asked.append(vars(merged.embedding))
    names = ["+".join(protocol.relevance), *changed_embedding(own.embedding, merged.embedding)]
    name = f"{protocol.name}-" + re.sub(r"[^\w.+-]+", "_", "-".join(names))
    own_precision = summary.get("precision")
    precision: str | None = settings.trainer.precision
    if precision in ("auto", own_precision):
        precision = own_precision
        is_own = asked == trained_with and is_of_code(run, run.status().get("code", {}) | code)
        if is_own and not settings.rerun:
            return Measured(run, is_new=False)
        place = _place(run, name, asked, code)
        if not settings.rerun and place.state == "finished":
            return Measured(place, is_new=False)
        if own_precision is not None:
            precision = precision_here(
                own_precision, settings.trainer.accelerator, settings.trainer.devices
            )
    if precision != own_precision:
        asked.append(precision)

    def embed(sides: Sides) -> Embedded:
        embedding = RunEmbedding(run, own, merged, settings, precision)
        embeddings, seconds = embedding.of_sides(parts.cached, sides)
        facts: dict[str, object] = {fact: summary.get(fact) for fact in OF_THE_RUN}
        device = device_facts(embedding.trainer)
        place.save_environment(device)
        facts |= device_summary(device)
        facts["embedding_dim"] = embeddings.shape[1]
        facts["num_queries_trained_on"] = num_trained_on(run.folder, parts.cached.pictures, sides)
        epoch = int(summary.get("epochs") or 0)
        return Embedded(embeddings, facts, seconds, epoch, embedding.trainer)

    place = _place(run, name, asked, code)
    floors = _floors(parts)
    return measured(place, parts, settings, embed, floors, run=run_label(run.folder), code=code)


def _place(run: Run, name: str, asked: list[object], code: Code) -> Run:
    folder = run.folder / EVALUATIONS
    return _known(lambda digest: Run(folder / f"{name}-{digest[:8]}"), asked, code)


def _known(place: Callable[[str], Run], asked: list[object], code: Code) -> Run:
    """Returns where a measurement lies; one of an earlier version kept no record of its code."""
    now, earlier = place(_digest([*asked, code])), place(_digest(asked))
    if now.is_there or not (earlier.is_there and is_of_code(earlier, code)):
        return now
    if note := unknown_code(earlier):
        print(f"{note}.")
    return earlier


def _code(**nodes: Node) -> Code:
    found = {name: code_of(str(node.get("_target_", ""))) for name, node in nodes.items()}
    return {name: code for name, code in found.items() if code}


def _floors(parts: Parts) -> Floors:
    """Returns the floors of a finished run, without the one whose first weights are gone."""
    from visual_search.models.backbone_weights import PACKAGED

    floors = parts.floors
    weights = parts.settings.model.get("weights")
    if weights not in (None, PACKAGED) and not Path(weights).is_file():
        print(
            f"The first weights, {weights}, are gone: the floor 'own network, not adapted' is left "
            "out. Put the file back to see it."
        )
        floors.first_weights = None
    return floors


def measure_from_outside(settings: EvaluateSchema) -> Measured:
    """Measures embeddings that another program made, or makes.

    Args:
        settings: The composed ``conf/evaluate.yaml``.

    Raises:
        ConfigError: No data is named, a run is named as well, or a setting is wrong.
        ValueError: The file cannot be read, or an item that the protocol needs has no embedding.
    """
    from visual_search.runs.embedding_files import read_embeddings
    from visual_search.runs.parts import Parts

    sources = {name: getattr(settings, name) for name in ("run", "embeddings", "embedder")}
    named = [name for name, value in sources.items() if value]
    if len(named) != 1:
        raise ConfigError(
            f"given to be measured: {' and '.join(named) or 'nothing'}; expected one of "
            f"{', '.join(sources)}: measure them one after the other, then compare"
        )
    if not settings.data:
        raise ConfigError(
            "embeddings from outside need a catalogue to be measured on; expected data=...: "
            "choose one, such as data=table data.path=products.csv"
        )
    parts = Parts(settings_of_given(settings), bound_left_out=True)
    if settings.embeddings is not None:
        given = read_embeddings(settings.embeddings, settings.ids)
        print(given.sentence())
    else:
        given = _embedded(parts, settings)
    return measure_given(parts, given, settings)


def _embedded(parts: Parts, settings: EvaluateSchema) -> GivenEmbeddings:
    """Returns what an embedder makes of the pictures that the protocol needs."""
    from visual_search.config.builders import build
    from visual_search.runs.embedders import made_by

    assert settings.embedder is not None
    node = settings.embedder
    kind = str(node["_target_"]).rpartition(".")[2]
    name = str(node.get("model") or kind).rstrip("/").rpartition("/")[2]
    settings.name = settings.name or re.sub(r"[^\w+-]+", "_", name)
    parts.check_measuring(settings.query_split)
    try:
        embedder = build("embedder", node)
    except ModuleNotFoundError as error:
        package = str(error.name).replace("_", "-")
        raise ConfigError(
            f"embedder={kind} needs {package}, which is not installed; expected it here: pip "
            f"install {package}"
        ) from error
    return made_by(embedder, parts, settings.query_split, settings.name)


def settings_of_given(settings: EvaluateSchema) -> TrainSchema:
    """Returns the settings of a measurement of embeddings from outside."""
    return _merged(None, settings)


def measure_given(parts: Parts, given: GivenEmbeddings, settings: EvaluateSchema) -> Measured:
    """Measures embeddings by item id.

    Args:
        parts: Of the catalogue and the rules.
        given: The embeddings.
        settings: Of the command.

    Raises:
        ValueError: An item that the protocol needs has no embedding, or the protocol cannot be met.
    """
    import numpy as np

    from visual_search.training.floors import Floors

    merged, source = parts.settings, given.path
    asked: list[object] = [merged.protocol, settings.query_split, parts.catalog.fingerprint()]
    asked.append(given.digest())
    asked += [merged.pictures.size_px, merged.pictures.fit]  # what the floors see
    code, name = _code(protocol=merged.protocol), settings.name or source.stem
    place = _known(lambda digest: open_run(settings.outputs, name, digest[:10]), asked, code)

    def embed(sides: Sides) -> Embedded:
        rows = np.union1d(sides.selection.gallery_rows, sides.selection.query_rows)
        item_ids = parts.cached.catalog.table["item_id"]
        table = np.zeros((len(item_ids), given.dim), dtype=np.float32)
        table[rows] = given.of_items(item_ids.iloc[rows].tolist())
        facts = {
            "embedding_dim": given.dim,
            "embedding_columns": list(given.columns),
            "columns_left_out": list(given.left_out),
            "kind": "embeddings from outside",
        }
        return Embedded(table, facts)

    floors = Floors(merged.pictures.cache_dir)
    return measured(place, parts, settings, embed, floors, embeddings=source.name, code=code)


def measured(
    place: Run,
    parts: Parts,
    settings: EvaluateSchema,
    embed: Callable[[Sides], Embedded],
    floors: Floors,
    **facts: object,
) -> Measured:
    """Measures in a folder what is not there yet, and writes its page.

    Args:
        place: The folder.
        parts: Of what is measured.
        settings: Of the command.
        embed: Gives the embeddings of the sides.
        floors: Of the same sides.
        facts: What the folder's status should say.

    Raises:
        ValueError: The protocol cannot be met.
    """
    from visual_search.reports.run_page import write_run_report

    if not settings.rerun and place.state == "finished":
        return Measured(place, is_new=False)
    parts.check_measuring(settings.query_split)
    with working(place, parts, settings, **facts) as is_left:
        if not is_left:
            return Measured(place, is_new=False)
        sides = parts.sides(settings.query_split)
        measure(place, parts, sides, embed(sides), floors)
        write_run_report(place.folder, parts.cached.catalog, parts.cached.pictures)
    return Measured(place, is_new=True)


def _merged(own: TrainSchema | None, settings: EvaluateSchema) -> TrainSchema:
    """Returns a run's settings with what the evaluation replaces."""
    from visual_search.runs.parts import protocol_in_full

    merged = copy.deepcopy(own) if own else TrainSchema(pictures=settings.pictures)
    if own is None:
        merged.protocol = {"_target_": "visual_search.retrieval.protocols.gallery_query"}
    if own is None or "_target_" in settings.data:
        merged.loader.max_items_per_category = ItemLimits()
    merged.data = replaced(merged.data, settings.data)
    merged.split = settings.split or merged.split
    merged.protocol = protocol_in_full(replaced(merged.protocol, settings.protocol))
    merged.loader.batch_size = settings.loader.batch_size
    merged.loader.num_workers = settings.loader.num_workers
    merged.pictures.cache_dir = settings.pictures.cache_dir
    chosen = {name: value for name, value in vars(settings.embedding).items() if value != "own"}
    merged.embedding = dataclasses.replace(merged.embedding, **chosen)
    merged.floors, merged.near_duplicates = settings.floors, settings.near_duplicates
    merged.index = settings.index
    return merged


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    main()
else:
    called_as_well(__name__)
