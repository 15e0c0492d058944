"""Opens TensorBoard over all runs of a folder, each by its name.

``python -m visual_search.board outputs/``; ``--help`` lists what can be set.

TensorBoard names a run by its folder below the one that it is opened on, and a run's folder of
curves repeats the run's name, so that it has one where it is opened by itself. Over all of them
that would be ``plus_layer/0123456789/tensorboard/plus_layer/0123456789``: TensorBoard is opened on
a folder of links instead, renewed while it runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError
from visual_search.config.schemas import BoardSchema
from visual_search.runs.run import STATUS
from visual_search.wording import many

CURVES = "tensorboard"  # a run's folder of event files
RENEWED_EVERY = 5.0  # seconds, as TensorBoard looks for new points


def main() -> None:
    """Runs the command with ``sys.argv``; a bare path is the folder with the runs."""
    run_command("board", board_command)


def board_command(settings: BoardSchema) -> None:
    """Serves TensorBoard until the process is told to stop.

    Args:
        settings: The composed ``conf/board.yaml``.

    Raises:
        ConfigError: There is no such folder, or the port is taken.
    """
    outputs = Path(settings.outputs)
    if not outputs.is_dir():
        raise ConfigError(f"no folder at {outputs}; expected the folder with the runs")
    with TemporaryDirectory(prefix="visual-search-board-") as shown:
        found = link_runs(outputs, Path(shown))
        print(f"{many(len(found), 'run')} in {outputs}; new ones show up as they begin", flush=True)
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(RENEWED_EVERY):
                link_runs(outputs, Path(shown))

        renewal = threading.Thread(target=renew, daemon=True)
        renewal.start()
        try:
            _serve(shown, settings)
        finally:
            ended.set()
            renewal.join()


def _serve(folder: str, settings: BoardSchema) -> None:
    from tensorboard import default, program

    told = ["--logdir", folder, "--host", settings.host]
    if settings.port is not None:
        told += ["--port", str(settings.port)]
    board = program.TensorBoard(default.get_plugins())
    board.configure(["tensorboard", *told])
    if status := board.main():  # it has said why
        raise SystemExit(status)


def link_runs(outputs: Path, shown: Path) -> dict[str, Path]:
    """Makes a folder in which TensorBoard finds every run by its short name.

    It may be called again at any time: what began is linked, what is gone is unlinked.

    Args:
        outputs: Searched for folders with event files, at any depth.
        shown: Made, or renewed; empty where it is there for the first time.

    Returns:
        Name in TensorBoard -> folder with the event files. What was logged without a run's folder
        keeps its path below ``outputs``.
    """
    found: dict[str, Path] = {}
    for folder in sorted(_with_events(outputs)):
        name = _name(folder, outputs)
        found[name if name not in found else folder.relative_to(outputs).as_posix()] = folder
    for name, folder in found.items():
        around = any(folder in other.parents for other in found.values())
        holds = any(other.startswith(f"{name}/") for other in found)
        with suppress(FileNotFoundError):  # a run that is deleted or begun anew meanwhile
            _link(folder.absolute(), shown / name, whole=not around and not holds)
    for place, _, files in os.walk(shown):
        for link in (Path(place, name) for name in files):
            if not link.exists():
                link.unlink()
    return found


def _link(source: Path, target: Path, *, whole: bool) -> None:
    """Links a folder; where another run lies in it, here or there, only the files in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if whole and not target.exists():
        target.unlink(missing_ok=True)  # of a run that was begun anew elsewhere
        target.symlink_to(source)  # as a whole: the projector opens nothing outside its folder
    if whole:
        return
    if target.is_symlink():
        target.unlink()
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_file() and not (target / entry.name).is_symlink():
            (target / entry.name).symlink_to(entry)


def _with_events(outputs: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(outputs):
        if any("tfevents" in name for name in files):
            yield Path(place)
        if STATUS in files:  # a run: its pictures and embeddings need not be gone through
            folders[:] = [name for name in folders if name == CURVES]


def _name(folder: Path, outputs: Path) -> str:
    """Returns ``plus_layer/0123456789``, also where ``outputs`` is that run's folder itself."""
    whole, below = folder.absolute().parts, folder.relative_to(outputs).parts
    if CURVES not in whole[-3:]:
        return "/".join(below) or whole[-1]
    run = max(number for number, part in enumerate(whole) if part == CURVES)
    return "/".join(whole[min(len(whole) - len(below), run - 2) : run])


if __name__ == "__main__":
    main()
