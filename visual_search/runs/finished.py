"""What is over: a finished run, and what was measured in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visual_search.config.builders import GROUPS, ConfigError, builders, nearest
from visual_search.config.plugins import how_to_name
from visual_search.reading import DamagedFileError
from visual_search.runs.run import A_CONFIG, EVALUATIONS, Run


def measured_in(path: str) -> Run:
    """Returns what was measured in a folder: a run, an evaluation of one, embeddings from outside.

    Raises:
        ConfigError: Nothing was, or not to the end.
    """
    run = Run(Path(path))
    if run.state != "finished" or not run.summary():
        state = "no run's folder (no status.json)" if run.state == "new" else run.state
        raise ConfigError(
            f"{path} is {state}; expected the folder of a finished run or evaluation with numbers: "
            "start its command again, it goes on where it was"
        )
    return run


@dataclass(frozen=True)
class Measured:
    """A measurement and where it lies.

    Attributes:
        run: Folder with ``metrics``, ``report.html`` and ``status.json``.
        is_new: False where it had been measured before.
    """

    run: Run
    is_new: bool


def finished_run(path: str | None) -> Run:
    """Returns the finished run of a folder.

    Raises:
        ConfigError: None is named, the folder is none of a run, the run is not finished, or a
            plug-in that it needs is not here.
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
        ConfigError: A plug-in that it needs is not here.
        DamagedFileError: Names the file, and what lacks.
    """
    path, settings = run.folder / "config.yaml", run.config()
    for part in ("data", "pictures", "loader", "model", "trainer"):  # of every version
        node = settings.get(part)
        if not isinstance(node, dict) or not node:
            raise DamagedFileError(path, f"{part} is {node!r} in it", A_CONFIG)
        target = node.get("_target_")
        if part in GROUPS and target not in (known := builders(part)):
            if hint := how_to_name(part, str(target)):
                raise ConfigError(f"{path} names {target} as its {part}{hint}")
            close = nearest(str(target), known)
            raise DamagedFileError(path, f"{part}._target_ is {target!r}{close}", A_CONFIG)
