"""Opens hostile files, each in a child of its own that is watched: its death is a result.

The process imports what is needed, starts no thread and computes nothing, so that its forks are
sound. Run as ``python -m benchmarks.reliability.opening``: each line of the input is the fields of
`Trial`, each line of the output those of `Outcome`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.child import Child, child

MAX_GROWTH_MIB = 2048
MAX_SECONDS = 120.0


@dataclass(frozen=True)
class Trial:
    """What is opened how.

    Attributes:
        how: A name of `WAYS`.
        path: A bundle, a folder of runs, a catalogue or embeddings.
        more: Further arguments of the way.
    """

    how: str
    path: str
    more: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        end: ``opened``, ``refused``, ``another error``, ``killed``, ``hung``, ``too much memory``.
        said: The error's text; or a digest of what was opened.
        seconds: Until then.
        growth_mib: By how much resident memory grew at most.
    """

    end: str
    said: str
    seconds: float
    growth_mib: int


def open_bundle(path: str, more: Mapping[str, Any]) -> str:
    """Opens a bundle, embeds a picture by its encoder, and searches."""
    import numpy as np

    from benchmarks.reliability.subjects import bundle_content, digest
    from visual_search.bundle.bundle import Bundle

    content = bundle_content(Path(path))
    encoder = Bundle.open(path).encoder
    side = encoder.image_size_px
    grey = np.full((1, 3, side, side), 127, np.uint8)
    return digest(repr((content, encoder.embed(grey).round(4).tolist())).encode())


def open_runs(path: str, more: Mapping[str, Any]) -> str:
    """Ranks all runs of a folder; gives what was left out, with the reasons."""
    from visual_search.reports.rankings import rank_runs

    ranked = rank_runs(composed("leaderboard", f"outputs={path}"))
    return "".join(f"{one}: {reason}\n" for one, reason in ranked.left_out)


def compare(path: str, more: Mapping[str, Any]) -> str:
    """Compares the runs of a folder."""
    from visual_search.compare import compare_runs

    runs = ",".join(f"{path}/{run}" for run in more["runs"])
    out = f"{path}/compared"
    compare_runs(composed("compare", f"runs=[{runs}]", f"out={out}", f"outputs={path}"))
    return ""


def evaluate(path: str, more: Mapping[str, Any]) -> str:
    """Measures a run by another protocol."""
    from visual_search.evaluate import measure_run

    settings = composed(
        "evaluate", f"run={path}/{more['runs'][0]}", "protocol=leave_one_out",
        "query_split=train", "floors=false", "near_duplicates=false",
        "trainer.accelerator=cpu", f"pictures.cache_dir={path}/../cache",
    )  # fmt: skip
    measure_run(asdict(settings))
    return ""


def open_catalog(path: str, more: Mapping[str, Any]) -> str:
    """Reads a catalogue and decodes its pictures; bad items are left out and named."""
    from visual_search.catalog.cache import cache_pictures
    from visual_search.catalog.readers.folder import folder
    from visual_search.catalog.readers.parquet import parquet
    from visual_search.catalog.readers.table import table
    from visual_search.catalog.readers.webdataset import webdataset

    readers = {"folder": folder, "parquet": parquet, "table": table, "webdataset": webdataset}
    read: Callable[..., Any] = readers[more["reader"]]
    catalog = read(path, on_bad_item="skip_any", **more.get("settings", {}))
    with tempfile.TemporaryDirectory() as cache:
        cached = cache_pictures(
            catalog, size_px=32, fit="stretch", cache_dir=cache, on_bad_item="skip_any"
        )
    return f"{len(cached.catalog.table)} items, {len(cached.catalog.refused)} refused"


def open_embeddings(path: str, more: Mapping[str, Any]) -> str:
    """Reads embeddings from outside, or the shards of the embed command."""
    from visual_search.runs.embedding_files import read_embeddings
    from visual_search.runs.embedding_shards import read_shards

    if more.get("shards"):
        return f"{sum(len(values) for _, values in read_shards(path))} embeddings"
    return read_embeddings(path, more.get("ids")).digest()


WAYS: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "bundle": open_bundle, "leaderboard": open_runs, "compare": compare, "evaluate": evaluate,
    "catalogue": open_catalog, "embeddings": open_embeddings,
}  # fmt: skip


def composed(command: str, *overrides: str) -> Any:
    """Returns a command's settings as its command line makes them."""
    from hydra import compose, initialize_config_dir

    from visual_search.cli.command_line import as_settings, with_keys
    from visual_search.config.builders import config_folder, register_schema

    register_schema()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose(command, with_keys(command, list(overrides)))
    return as_settings(command, config)


def run(trial: Trial) -> Outcome:
    """Opens in a child, and ends it where it takes too long or too much memory."""
    with tempfile.TemporaryFile() as told:
        began = time.monotonic()
        child = os.fork()
        if not child:
            _be(trial, told.fileno())
        start, most, why = _resident_mib(child), 0, ""
        while True:
            ended, how = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            most = max(most, _resident_mib(child) - start)
            late = time.monotonic() - began > MAX_SECONDS
            if not why and (late or most > MAX_GROWTH_MIB):
                why = "hung" if late else "too much memory"
                os.kill(child, signal.SIGKILL)
            time.sleep(0.003)
        seconds, status = time.monotonic() - began, os.waitstatus_to_exitcode(how)
        told.seek(0)
        said = told.read().decode(errors="replace")
    end, _, text = said.partition("\n")
    if why or status or not end:
        end, text = why or "killed", f"status {status}; {said[-500:]}"
    return Outcome(end, text[:2000], seconds, most)


def _be(trial: Trial, told: int) -> None:
    """Becomes the one that opens; never comes back."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    try:
        said = "opened\n" + WAYS[trial.how](trial.path, trial.more)
    except (ValueError, OSError, RuntimeError) as error:  # what a command turns into a message
        said = f"refused\n{type(error).__name__}: {error}"
    except BaseException:
        said = "another error\n" + traceback.format_exc()[-1500:]
    os.write(told, said.encode(errors="replace"))
    os._exit(0)


def _resident_mib(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4 // 1024
    except (OSError, IndexError):
        return 0


class Opener:
    """Opens what it is told, in a process of its own each."""

    def __init__(self, opening: Child) -> None:
        self._child = opening

    def open(self, how: str, path: Path, **more: Any) -> Outcome:
        """Comes back when it was opened, refused, or ended."""
        return Outcome(**self._child.ask(Trial(how, str(path), more)))


@contextmanager
def opener() -> Iterator[Opener]:
    """Yields one; ends it."""
    with child("benchmarks.reliability.opening") as opening:
        yield Opener(opening)


def main(lines: Sequence[str] | None = None) -> None:
    """Imports what is needed, then opens what it is told."""
    import hydra  # noqa: F401
    import lightning  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import onnxruntime  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import visual_search.bundle.bundle
    import visual_search.compare
    import visual_search.reports.rankings
    import visual_search.runs.measuring
    import visual_search.training.module  # noqa: F401

    for line in lines or sys.stdin:
        print(json.dumps(asdict(run(Trial(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
