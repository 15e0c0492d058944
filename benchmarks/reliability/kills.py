"""Kills of every command that writes: the old or the new is left, and the same command goes on."""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.reliability.starting import End, Order, Starter, starter
from benchmarks.reliability.subjects import (
    CACHE,
    IN_BUNDLE,
    SUBJECTS,
    TRAIN,
    Content,
    Lost,
    Subject,
)

KILLED = -9
MAX_TRIES = 6  # to meet a process that ended before its moment
# What differs between two runs: times, processes, random parts of names.
VARIABLE = (
    (re.compile(r"(?m)^.*events\.out\.tfevents.*$"), "EVENTS"),  # a start that goes on writes more
    (re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?"), "TIME"),
    (re.compile(r"(segments|index|removed)/\d{6}-[0-9a-f]{8}"), r"\1/NUMBER"),
)


@dataclass(frozen=True)
class Point:
    """Where a command is killed: at a step, or at a share of the way from first to last step."""

    subject: str
    step: int | None = None
    share: float | None = None

    def __str__(self) -> str:
        where = f"step {self.step}" if self.share is None else f"{self.share:.3f} of the time"
        return f"{self.subject} @ {where}"


@dataclass
class Outcomes:
    """What became of the kills of one command."""

    subject: str
    num_steps: int = 0
    tried: int = 0
    left: dict[str, int] = field(default_factory=lambda: {"old": 0, "part": 0, "new": 0})
    losses: list[dict[str, Any]] = field(default_factory=list)

    @property
    def plain(self) -> dict[str, Any]:
        """The row of the results."""
        lost = len({loss["point"] for loss in self.losses})
        return {
            "kind": self.subject, "tried": self.tried, "survived": self.tried - lost,
            "lost": lost, "steps": self.num_steps, "left": self.left, "losses": self.losses,
        }  # fmt: skip


class Field:
    """A prepared folder, from which each trial starts."""

    def __init__(self, folder: Path, commands: Starter) -> None:
        self.folder, self._commands = folder, commands
        self.prepared, self.trial = folder / "prepared", folder / "trial"
        self.log = folder / "log.txt"

    def prepare(self) -> None:
        """Makes a finished run, its bundle, and folders of pictures."""
        self.prepared.mkdir(parents=True)
        self._must(TRAIN)
        command = ("visual_search.export", f"run={self.run}", "out=shop", CACHE, "num_checked=16")
        self._must(command)
        rng = np.random.default_rng(0)
        for name, number in (("pictures", 400), ("new", 9)):
            for n in range(number):
                path = self.prepared / name / f"kind_{n % 4}" / f"{name}{n:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(path)

    def _must(self, command: Sequence[str]) -> None:
        end = self._commands.run(Order(command, str(self.prepared), str(self.log)))
        if end.status:
            raise SystemExit(f"{' '.join(command)} ended with {end.status}:\n{self.said()}")

    @property
    def run(self) -> str:
        """The finished run, from the folder on."""
        (run,) = (self.prepared / "outputs/small").iterdir()
        return str(run.relative_to(self.prepared))

    def said(self) -> str:
        """Returns the end of what the last command printed."""
        return self.log.read_text(errors="replace")[-1500:]

    def start(self, subject: Subject) -> None:
        """Puts back what a subject starts from."""
        shutil.rmtree(self.trial, ignore_errors=True)
        self.trial.mkdir()
        for name in subject.needs:
            shutil.copytree(self.prepared / name, self.trial / name)

    def command(
        self, command: Sequence[str], *, step: int | None = None, seconds: float | None = None
    ) -> End:
        """Runs a command in the trial's folder."""
        return self._commands.run(
            Order(command, str(self.trial), str(self.log), step=step, seconds=seconds)
        )


def tree(root: Path) -> set[str]:
    """Returns the names of all files, without what differs between two runs."""
    paths = sorted(path for path in root.rglob("*") if not path.is_dir())
    text = "\n".join(path.relative_to(root).as_posix() for path in paths)
    for pattern, name in VARIABLE:
        text = pattern.sub(name, text)
    return set(text.splitlines())


def check_bundle_files(folder: Path) -> None:
    """Refuses a bundle beside whose files lies something that nobody names."""
    from visual_search.bundle.manifest import read_manifest

    manifest = read_manifest(folder)[0]
    named = set(manifest.files) | {one.file for one in manifest.retired} | IN_BUNDLE
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if found != named:
        raise Lost(f"the bundle's folder holds {sorted(found ^ named)} beside what it names")


def check_whole(root: Path) -> None:
    """Refuses a file that has its name and is torn: it was to be renamed when it was whole."""
    import pyarrow.parquet

    for path in root.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".npy":
                np.load(path)
            elif path.suffix == ".parquet":
                pyarrow.parquet.read_table(path)
        except Exception as error:
            raise Lost(f"{path.relative_to(root)} is torn: {error}") from error


def what_is_left(place: Field, subject: Subject, old: Content | None, new: Content) -> str:
    """Returns ``old``, ``part`` or ``new``, or raises what an opened torn thing raises."""
    root = place.trial
    check_whole(root)
    if not subject.is_there(root):
        return "old" if tree(root) == tree_of_start(place, subject) else "part"
    found = subject.content(root)
    if found == new:
        return "new"
    if old is not None and found == old:
        return "old"
    raise Lost(f"what is left is neither old nor new: {difference(found, new)}")


def tree_of_start(place: Field, subject: Subject) -> set[str]:
    return {f"{name}/{one}" for name in subject.needs for one in tree(place.prepared / name)}


def difference(found: Any, expected: Any, where: str = "") -> str:
    """Returns the first place where two contents differ."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted({*found, *expected}, key=str):
            if found.get(key) != expected.get(key):
                return difference(found.get(key), expected.get(key), f"{where}.{key}")
    return f"{where.lstrip('.')}: {str(found)[:200]} instead of {str(expected)[:200]}"


def campaign(
    subject: Subject, place: Field, number: int, seed: int, only: Sequence[str]
) -> Outcomes:
    """Kills one command so many times, or at the points that losses named."""
    outcomes = Outcomes(subject.name)
    command = subject.command(place.run)
    place.start(subject)
    old = subject.content(place.trial) if "shop" in subject.needs else None
    whole = place.command(command)
    if whole.status:
        raise SystemExit(f"{' '.join(command)} ended with {whole.status}:\n{place.said()}")
    outcomes.num_steps = whole.num_steps
    new, files = subject.content(place.trial), tree(place.trial)
    wanted = [read_point(one) for one in only if one.startswith(f"{subject.name} @ ")]
    for point in wanted or points(subject, number, whole.num_steps, seed):
        try_one(place, subject, point, whole, old, new, files, outcomes)
    return outcomes


def read_point(text: str) -> Point:
    """Reads a point as a loss names it."""
    subject, _, where = text.partition(" @ ")
    if where.startswith("step "):
        return Point(subject, step=int(where.removeprefix("step ")))
    return Point(subject, share=float(where.split()[0]))


def points(subject: Subject, number: int, num_steps: int, seed: int) -> Iterator[Point]:
    """Returns every second kill at a step, evenly spread, and the others at random moments."""
    draw = random.Random(f"{seed} {subject.name}")
    at_steps = (number + 1) // 2
    for n in range(number):
        if n % 2:
            yield Point(subject.name, share=draw.random())
        else:
            yield Point(subject.name, step=1 + (n // 2) * (num_steps - 1) // max(1, at_steps - 1))


def try_one(
    place: Field, subject: Subject, point: Point, whole: End, old: Content | None, new: Content,
    files: set[str], outcomes: Outcomes,
) -> None:  # fmt: skip
    """Kills once, looks at what is left, goes on, and compares."""
    killed = kill(place, subject, point, whole)
    outcomes.tried += 1
    seen: dict[str, Any] = {"point": str(point), "about_to": killed.step}
    try:
        left = what_is_left(place, subject, old, new)
        outcomes.left[left] += 1
        end = place.command(subject.command(place.run))
        refused = left == "new" and subject.done_is_refused and end.status in (1, 2)
        if end.status and not (refused and "Traceback" not in place.said()):
            raise Lost(f"the same command again ended with {end.status}: {place.said()}")
        found = subject.content(place.trial)
        if found != new:
            raise Lost(f"it did not come to the same: {difference(found, new)}")
        check_left_over(place, subject, files)
    except Exception as error:
        outcomes.losses.append(seen | {"seen": f"{type(error).__name__}: {error}"})
    marker = "LOST" if outcomes.losses and outcomes.losses[-1]["point"] == str(point) else "ok"
    print(f"{point} (about to {killed.step}): {marker}", flush=True)
    if marker == "LOST":
        print(f"  {outcomes.losses[-1]['seen']}", flush=True)


def kill(place: Field, subject: Subject, point: Point, whole: End) -> End:
    """Starts from the prepared folder and kills; again where it ended before its moment."""
    share = point.share
    for _ in range(MAX_TRIES):
        place.start(subject)
        seconds = None if share is None else share * whole.seconds
        end = place.command(subject.command(place.run), step=point.step, seconds=seconds)
        if end.status == KILLED:
            return end
        if share is None:
            break
        share *= 0.7
    raise SystemExit(f"{point} met nobody: it ended with {end.status}\n{place.said()}")


def check_left_over(place: Field, subject: Subject, files: set[str]) -> None:
    """Refuses files that a run without a kill does not leave.

    A bundle tidies at its next change: that one comes first.
    """
    bundle = place.trial / "shop"
    if bundle.is_dir() and subject.needs[:1] == ("shop",):
        end = place.command(("visual_search.index", "remove", "bundle=shop", "item=hats-00004"))
        if end.status:
            raise Lost(f"the next change ended with {end.status}: {place.said()}")
        check_bundle_files(bundle)
    names = {name for name in tree(place.trial) if not name.startswith("shop/")}
    expected = {name for name in files if not name.startswith("shop/")}
    if more := names - expected:
        raise Lost(f"left for ever: {sorted(more)[:5]}")


def run_kills(number: int, seed: int, only: Sequence[str]) -> list[dict[str, Any]]:
    """Kills so many times in all, by the subjects' shares.

    Args:
        number: Of kills.
        seed: Of the random moments.
        only: Names of subjects; or points, as a loss names them, to repeat it. Empty: everything.
    """
    chosen = [s for s in SUBJECTS if not only or any(o.split(" @ ")[0] == s.name for o in only)]
    if not chosen:
        raise SystemExit(f"{list(only)} names none of {[s.name for s in SUBJECTS]}")
    shares = sum(subject.share for subject in SUBJECTS)
    rows = []
    with tempfile.TemporaryDirectory() as folder, starter() as commands:
        place = Field(Path(folder), commands)
        place.prepare()
        for subject in chosen:
            count = max(1, round(number * subject.share / shares))
            rows.append(campaign(subject, place, count, seed, only).plain)
    return rows
