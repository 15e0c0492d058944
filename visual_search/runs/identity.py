"""Which run a config asks for: what of it can change the result, and the folder that it names."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import sys
from pathlib import Path

from visual_search.config.schemas import Node, TrainSchema
from visual_search.reading import record_file
from visual_search.runs.code import Code, changes, code_of_run
from visual_search.runs.run import Run, open_run

# Keys of the config that cannot change a result: the machine, the place, where it is logged.
NOT_PART_OF_THE_RESULT = (
    "name",
    "rerun",
    "explain",
    "outputs",
    "logger",
    "profiler",
    "pictures.cache_dir",
    "loader.num_workers",
    "index",
    "floors",
    "near_duplicates",
    "trainer.accelerator",
    "trainer.benchmark",
    "trainer.log_every_n_steps",
    "trainer.enable_progress_bar",
    "training.checkpoint_every_n_seconds",
    "split.kept",  # what it keeps is part of the catalogue's fingerprint
    "split.allow_few",
    # Where the data lies; its content is part of the hash as the catalogue's fingerprint.
    "data.root",
    "data.path",
    "data.download",
    # How its file is written; what is read of it is in the fingerprint as well.
    "data.separator",
    "data.sep",
    "data.encoding",
    # Whether its folders are products, likewise.
    "data.products",
)

# What names a place within a node: the pictures' folder, files beside a table, a callback's folder.
# What lies there is part of the catalogue's fingerprint.
PLACES = ("data.pictures", "data.categories", "data.dataset_root", "callbacks.*.dirpath")

# Keys that runs of an earlier version do not have, with the value that changes nothing: with it
# they are no part of the hash, so that the same command finds the earlier run.
ADDED: dict[str, object] = {
    "training.start_from": None,
    "trainer.accumulate_grad_batches": 1,
    "trainer.deterministic": False,
    "data.category": None,
    "data.further_pictures": True,
    "data.product": None,
    "data.category_depth": None,
    "data.files": [],
    "data.sides": False,
    "data.styles": False,
    "data.views": False,
}


# Our own configurable callbacks only draw; others, such as EarlyStopping, decide the result.
DRAWING_CALLBACKS = "visual_search.training.callbacks."


@dataclasses.dataclass(frozen=True)
class Named:
    """Which run a command means.

    Attributes:
        run: Its folder, whether or not it exists.
        settings_hash: What names it, but for its code.
        code: Of what it is built from, as it is now.
        note: What is to be said of its code: that it has changed since another run of the same
            settings, or is unknown; mostly nothing.
    """

    run: Run
    settings_hash: str
    code: Code
    note: str = ""


def run_hash(
    settings: TrainSchema,
    catalog_fingerprint: str,
    code: Code | None = None,
    *,
    with_places: bool = False,
) -> str:
    """Returns ten hexadecimal digits that change with whatever can change the result.

    Args:
        settings: Of the run.
        catalog_fingerprint: `Catalog.fingerprint` of the data as read.
        code: Of what it is built from; None as an earlier version did, which kept none.
        with_places: As an earlier version did, for which `PLACES` changed a run.
    """
    kept = result_settings(settings, with_places=with_places)
    kept["model"] = _weights_by_content(kept["model"])
    kept["training"] = _start_by_content(kept["training"])
    parts = [kept, catalog_fingerprint, *([] if code is None else [code])]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def result_settings(settings: TrainSchema, *, with_places: bool = False) -> Node:
    """Returns what of a config can change the result, with files by their paths."""
    from visual_search.training.devices import find_num_nodes, num_devices

    kept = _without(dataclasses.asdict(settings), NOT_PART_OF_THE_RESULT)
    kept["callbacks"] = _deciding_callbacks(settings)
    # Where every group is, is part of the catalogue's fingerprint: who draws the same has the same.
    if kept["split"]["method"] == "stratified":
        kept["split"]["method"] = "hash"
    if kept["data"].get("on_bad_item") == "skip_any":  # other items are refused, none is given
        kept["data"]["on_bad_item"] = "skip"
    if "devices" in kept["trainer"]:  # how many, not which
        accelerator = settings.trainer.get("accelerator", "auto")
        num_nodes = find_num_nodes(kept["trainer"].pop("num_nodes", 1))  # nor on how many nodes
        kept["trainer"]["devices"] = num_nodes * num_devices(
            accelerator, kept["trainer"]["devices"]
        )
    if not with_places:
        kept = _without_places(kept)
    elif str(kept["data"].get("_target_", "")).endswith(".open_metric_learning"):
        data = settings.data  # then a part of the hash, and a comma where it is found out now
        kept["data"]["sep"] = data.get("sep") or data.get("separator") or ","
    return _without_added(kept)


def _deciding_callbacks(settings: TrainSchema) -> Node:
    return {
        name: node
        for name, node in settings.callbacks.items()
        if node and not str(node.get("_target_", "")).startswith(DRAWING_CALLBACKS)
    }


def find_run(
    outputs: str | Path, experiment: str, settings: TrainSchema, catalog_fingerprint: str
) -> Named:
    """Returns the run of these settings and this code, whether or not its folder exists.

    One of an earlier version has another name, as its code is unknown, or where a place is named;
    one whose first weights are gone by now is known by its settings.

    Args:
        outputs: Where the experiments' folders lie.
        experiment: The folder's name.
        settings: Of the run.
        catalog_fingerprint: `Catalog.fingerprint` of the data as read.

    Raises:
        ValueError: The experiment's name would not be a plain folder name.
    """
    code = code_of_run(settings, _deciding_callbacks(settings))
    settings_hash = run_hash(settings, catalog_fingerprint)
    run = open_run(outputs, experiment, run_hash(settings, catalog_fingerprint, code))
    named = Named(run, settings_hash, code)
    if run.is_there:
        return named
    for name in (settings_hash, run_hash(settings, catalog_fingerprint, with_places=True)):
        found = open_run(outputs, experiment, name)
        if found.is_there and is_of_code(found, code):
            return dataclasses.replace(named, run=found, note=unknown_code(found))
    if begun := _without_its_start(run, settings, catalog_fingerprint, code):
        return dataclasses.replace(named, run=begun, note=unknown_code(begun))
    return dataclasses.replace(named, note=_changed_code(named, settings))


def is_of_code(run: Run, code: Code) -> bool:
    """Returns whether a run was built from this code, as far as it is known."""
    return run.status().get("code", code) == code


def unknown_code(run: Run) -> str:
    """Returns what is to be said of what an earlier version left; nothing where its code is known.

    Args:
        run: A run, or a measurement.
    """
    if "code" in run.status():
        return ""
    return (
        f"{run.folder} is of a version that kept no record of its code: whether that has changed "
        "since is unknown; rerun=true makes it again"
    )


def _changed_code(named: Named, settings: TrainSchema) -> str:
    """Returns what has changed since the newest run of the same settings, or nothing."""
    others: list[tuple[str, Run, Code]] = []
    for path in sorted(named.run.folder.parent.glob("*/status.json")):
        other = Run(path.parent)
        try:
            status = other.status()
        except (OSError, ValueError):  # whoever opens that run is told
            continue
        if status.get("settings_hash") == named.settings_hash and "code" in status:
            others.append((status.get("since", ""), other, status["code"]))
    if not others:
        return ""
    _, other, code = max(others, key=lambda one: one[0])
    return f"{changes(code, named.code, settings)} since {other.folder}: this is a new run"


def _without_its_start(
    run: Run, settings: TrainSchema, catalog_fingerprint: str, code: Code
) -> Run | None:
    """Returns the finished run that began with weights that are gone, the newest if there are more.

    What they held is in the run's name, and can no longer be asked; their place is in its settings.
    """
    if not (_gone_weights(settings) or _gone_start(settings)):
        return None
    asked = _as_text(settings)
    found: list[tuple[str, Run]] = []
    for path in sorted(run.folder.parent.glob("*/status.json")):
        other = Run(path.parent)
        try:
            status = other.status()
            is_it = (
                status.get("state") == "finished"
                and status.get("catalog_fingerprint") == catalog_fingerprint
                and status.get("code", code) == code
                and _as_text(other.settings()) == asked
            )
        except (OSError, ValueError, KeyError, AttributeError) as error:
            print(f"left out: {other.folder}: {error}", file=sys.stderr)
            continue
        if is_it:
            found.append((str(status.get("since", "")), other))
    return max(found, key=lambda one: one[0])[1] if found else None


def _as_text(settings: TrainSchema) -> str:
    return json.dumps(result_settings(settings), sort_keys=True, default=str)


def _gone_start(settings: TrainSchema) -> bool:
    start = settings.training.start_from
    return start is not None and not Run(Path(start)).checkpoint.is_file()


def _gone_weights(settings: TrainSchema) -> bool:
    from visual_search.models.backbone_weights import PACKAGED

    weights = settings.model.get("weights")
    return weights not in (None, PACKAGED) and not Path(str(weights)).is_file()


def _without(node: Node, dropped: tuple[str, ...], prefix: str = "") -> Node:
    return {
        key: _without(value, dropped, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if f"{prefix}{key}" not in dropped
    }


def _without_places(node: Node, prefix: str = "") -> Node:
    """Returns the same node with nothing where it names a place."""
    found: Node = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found[key] = _without_places(value, f"{name}.")
        elif isinstance(value, str) and any(fnmatch.fnmatchcase(name, one) for one in PLACES):
            found[key] = None
        else:
            found[key] = value
    return found


def _without_added(node: Node, prefix: str = "") -> Node:
    """Returns the same node without the keys of `ADDED` that change nothing."""
    return {
        key: _without_added(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if f"{prefix}{key}" not in ADDED or value != ADDED[f"{prefix}{key}"]
    }


def _start_by_content(training: Node) -> Node:
    """Returns the node of training with what the run to start from has learned, not its folder."""
    start = training.get("start_from")
    path = Run(Path(start or "")).checkpoint
    if start is None or not path.is_file():
        return dict(training)
    return {**training, "start_from": record_file(path).sha256}


def _weights_by_content(model: Node) -> Node:
    """Returns a model's node with the SHA-256 of a weights file in place of its path."""
    node = dict(model)
    path = Path(str(node.get("weights") or ""))
    if path.is_file():
        node["weights"] = record_file(path).sha256
    return node
