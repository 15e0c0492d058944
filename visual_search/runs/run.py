"""A run's folder: its name, its status, and opening it again."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from filelock import BaseFileLock, Timeout

from visual_search.atomic import DiskFullError, write_text
from visual_search.config.schemas import Node, TrainSchema, filled, known
from visual_search.locking import file_lock, is_held
from visual_search.reading import DamagedFileError, read_json, read_text
from visual_search.runs.machine import ProcessorFacts, device_sentence, processor_facts
from visual_search.runs.places import command_without_places

if TYPE_CHECKING:
    from visual_search.reading import DeviceFacts, Summary

State = Literal["new", "running", "interrupted", "failed", "finished"]
STATES = get_args(State)
A_STATUS = (
    "a status as a run writes it: delete the file, and the run's own command goes on from its "
    "newest checkpoint"
)
A_SUMMARY = "the numbers as a run writes them: start its command again with rerun=true"
AN_ENVIRONMENT = "the machine as a run writes it: delete the file, it is written anew"
A_CONFIG = "the settings as a run writes them, plain YAML: restore the file, or name another run"

STATUS = "status.json"
CLEARING = ".clearing"  # what lies beside it is of an earlier run, and being removed
MAX_ERROR_LENGTH = 1000  # of a status on a full disk: a block holds 4,096 bytes
LOCK_WAIT_SECONDS = 0.3  # who only looks whether the lock is held holds it for a moment
EVALUATIONS = "evaluations"  # folder of a run's further measurements
PROJECTION = "embeddings/projection.npz"  # of the embedding's PCA, in a run's folder


class Status(TypedDict, total=False):
    """``status.json``: how far a run or a measurement is, and what was measured."""

    state: State
    since: str
    pid: int
    seconds: float
    error: str
    catalog: str
    catalog_fingerprint: str
    query_split: str
    settings_hash: str  # the run's name, but for its code
    code: dict[str, str]  # see `runs.code`


class Environment(ProcessorFacts, total=False):
    """``environment.json``: the versions, the machine, and what computed, one after the other."""

    python: str
    platform: str
    packages: dict[str, str | None]
    command: str | list[str]  # of an earlier version, its words
    computed_on: list[DeviceFacts]


class RunLockedError(RuntimeError):
    """Another process is working in the run's folder."""


@dataclasses.dataclass
class Run:
    """One run's folder, ``<outputs>/<experiment>/<hash>``.

    Attributes:
        folder: Where everything that the run leaves lies.
    """

    folder: Path
    _lock: BaseFileLock | None = None

    @property
    def state(self) -> State:
        """What ``status.json`` says; ``new`` where there is none.

        A process that was killed could not say so: a run in whose folder nobody is any more was
        interrupted, whatever its status.

        Raises:
            DamagedFileError: As `status`.
        """
        state = self.status().get("state", "new")
        return "interrupted" if state == "running" and not is_held(self._lock_file) else state

    @property
    def _lock_file(self) -> Path:
        return self.folder / ".lock"

    @property
    def is_there(self) -> bool:
        """Whether the folder holds a run, begun or finished."""
        return (self.folder / STATUS).exists() or self.checkpoint.exists()

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint, which may not exist yet."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def split(self) -> Path:
        """Which group is in which split, where that was drawn; of a run's measurement the run's."""
        is_within = self.folder.parent.name == EVALUATIONS
        return (self.folder.parents[1] if is_within else self.folder) / "split.csv"

    def status(self) -> Status:
        """Returns the content of ``status.json``, empty where there is none.

        Raises:
            DamagedFileError: It is torn, or of something else than a run.
        """
        path = self.folder / STATUS
        status: Status = _read_json(path, A_STATUS)
        if path.is_file():
            _check_status(path, status)
        return status

    def summary(self) -> Summary:
        """Returns the content of ``metrics/summary.json``, empty where there is none.

        Raises:
            DamagedFileError: It is torn, or no JSON object.
        """
        found: Summary = _read_json(self.folder / "metrics" / "summary.json", A_SUMMARY)
        return found

    def seconds_so_far(self) -> float:
        """Returns the time spent on the run, in seconds; of a killed one, up to its checkpoint."""
        status = self.status()
        seconds = float(status.get("seconds", 0.0))
        if status.get("state") == "running" and "since" in status and self.checkpoint.is_file():
            since = datetime.fromisoformat(status["since"]).timestamp()
            seconds += max(0.0, self.checkpoint.stat().st_mtime - since)
        return seconds

    def seconds_until_now(self) -> float:
        """Returns time spent on the run, in seconds; while it is worked on, up to this moment."""
        status = self.status()
        seconds = float(status.get("seconds", 0.0))
        if status.get("state") == "running":
            since = datetime.fromisoformat(status["since"]).timestamp()
            seconds += max(0.0, datetime.now(UTC).timestamp() - since)
        return seconds

    def set_state(self, state: State, **facts: object) -> None:
        """Writes the state, and facts beside it, atomically; on a full disk over the one before.

        Raises:
            DiskFullError: There is no room, and no status before.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content: dict[str, object] = {"state": state, "since": now, "pid": os.getpid(), **facts}
        path = self.folder / STATUS
        try:
            write_json(path, content)
        except DiskFullError:
            if not path.is_file():
                raise
            if "error" in content:
                content["error"] = str(content["error"])[:MAX_ERROR_LENGTH]
            _overwrite(path, json.dumps(content, indent=2) + "\n")

    def environment(self) -> Environment:
        """Returns the content of ``environment.json``, empty where there is none.

        Raises:
            DamagedFileError: It is torn, or no JSON object.
        """
        found: Environment = _read_json(self.folder / "environment.json", AN_ENVIRONMENT)
        return found

    def computed_on(self) -> list[DeviceFacts]:
        """Returns the devices that the run computed on, one after the other; mostly one."""
        return self.environment().get("computed_on", [])

    def save_environment(self, device: DeviceFacts | None = None) -> None:
        """Writes ``environment.json``: packages, machine, and what computed it, before and now.

        Args:
            device: As `visual_search.runs.machine.device_facts`, once it is known.
        """
        devices = self.computed_on() if self.checkpoint.is_file() or device else []
        if device and device_sentence(device) not in map(device_sentence, devices[-1:]):
            devices.append(device)
        write_json(self.folder / "environment.json", environment() | {"computed_on": devices})

    def lock(self) -> None:
        """Keeps other processes out of the folder until this one ends, however it ends.

        Raises:
            RunLockedError: Another process is in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = file_lock(self._lock_file, LOCK_WAIT_SECONDS)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunLockedError(
                f"{self.folder} is in use by process {self.status().get('pid', '?')}; expected to "
                "be alone there; wait for it, or change a setting to get a run of your own"
            ) from error
        self._lock = lock
        if (self.folder / CLEARING).exists():
            self.clear()

    def unlock(self) -> None:
        """Lets other processes into the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def config(self) -> Node:
        """Returns the content of ``config.yaml``, as plain containers.

        Raises:
            FileNotFoundError: There is none.
            DamagedFileError: It is torn, names code, or holds no settings.
        """
        import yaml

        path = self.folder / "config.yaml"
        if not path.exists():
            raise FileNotFoundError(f"no config at {path}; expected a run's folder; check the path")
        text = read_text(path, A_CONFIG)
        try:
            config = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise DamagedFileError(path, reason, A_CONFIG) from error
        if not isinstance(config, dict) or not config:
            kind = type(config).__name__
            raise DamagedFileError(path, f"it holds no settings but {kind}", A_CONFIG)
        return config

    def settings(self) -> TrainSchema:
        """Returns ``config.yaml`` as today's schema has it.

        What an earlier version did not have has today's default, and what it had beyond that is
        left aside. Its groups are where they were in it.

        Raises:
            FileNotFoundError: There is none.
            DamagedFileError: It is torn, names code, holds no settings, or a value of a wrong type.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        own = self.config()
        try:
            merged = OmegaConf.merge(OmegaConf.structured(TrainSchema), known(TrainSchema, own))
            content: Any = OmegaConf.to_container(merged, throw_on_missing=False)
        except (OmegaConfBaseException, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DamagedFileError(self.folder / "config.yaml", reason, A_CONFIG) from error
        settings = filled(TrainSchema, content)
        if self.split.is_file():
            settings.split.kept = str(self.split)
        return settings

    def clear(self) -> None:
        """Removes what an earlier run left, but for the lock, which has to be held.

        The status goes first, and those of the measurements within: a folder in which some of it
        is gone must not count as finished. Who takes the lock after a kill goes on with it.
        """
        import shutil

        marker = self.folder / CLEARING
        marker.touch()
        for status in (self.folder / STATUS, *self.folder.rglob(STATUS)):
            status.unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name in (self._lock_file.name, CLEARING):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        marker.unlink()


def open_run(outputs: str | Path, experiment: str, digest: str) -> Run:
    """Returns the run of this name and hash, whether or not its folder exists.

    Raises:
        ValueError: The experiment's name would not be a plain folder name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*", experiment):
        raise ValueError(
            f"got the name {experiment!r}, expected letters, digits, '_', '-', '.', '+' and '/' "
            "between them; set name=..."
        )
    return Run(Path(outputs) / experiment / digest)


def environment() -> dict[str, object]:
    """Returns the versions and the machine that a run used, as plain values."""
    packages = ["torch", "torchvision", "lightning", "hydra-core", "faiss-gpu", "faiss-cpu"]
    packages += ["numpy", "pandas", "pillow", "umap-learn", "visual-search"]
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **processor_facts(),
        "packages": versions,
        "command": command_without_places(sys.argv),
    }


def write_json(path: str | Path, content: Mapping[str, object]) -> Path:
    """Writes readable JSON atomically; NaN is refused, since JSON has none."""
    return write_text(path, json_text(content))


def json_text(content: Mapping[str, object]) -> str:
    """Returns readable JSON; NaN is refused, since JSON has none."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _overwrite(path: Path, text: str) -> None:
    """Writes a short file where it lies, in the block that it has: a full disk has no other."""
    with open(path, "r+b") as file:
        file.write(text.encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path, expected: str) -> Any:
    try:
        return read_json(path, expected)
    except FileNotFoundError:
        return {}


def _check_status(path: Path, status: Status) -> None:
    """Refuses a status of something else, which would be read as a run that has not begun."""
    if status.get("state") not in STATES:
        raise DamagedFileError(path, f"its state is {status.get('state')!r}", A_STATUS)
    seconds = status.get("seconds", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        raise DamagedFileError(path, f"its seconds are {seconds!r}", A_STATUS)
    try:
        datetime.fromisoformat(status.get("since", "2026-01-01"))
    except (TypeError, ValueError) as error:
        raise DamagedFileError(path, f"its since is {status['since']!r}", A_STATUS) from error


def run_name(folder: Path) -> str:
    """Returns what a run is called: its experiment; for a further evaluation the run's.

    >>> run_name(Path("outputs/plus_layer/0123456789"))
    'plus_layer'
    >>> run_name(Path("outputs/plus_layer/0123456789/evaluations/leave_one_out-01234567"))
    'plus_layer'
    """
    return run_root(folder).parent.name


def run_root(folder: Path) -> Path:
    """Returns the run's own folder, also of one of its further evaluations.

    >>> run_root(Path("outputs/plus_layer/0123456789/evaluations/leave_one_out-01234567")).name
    '0123456789'
    """
    return folder.parent.parent if folder.parent.name == "evaluations" else folder


def run_label(folder: Path) -> str:
    """Returns which run a folder holds, whatever place it lies in.

    >>> run_label(Path("/home/anna/outputs/plus_layer/0123456789"))
    'plus_layer/0123456789'
    >>> run_label(Path("outputs/plus_layer/0123456789/evaluations/leave_one_out-01234567"))
    'plus_layer/0123456789/evaluations/leave_one_out-01234567'
    """
    root = run_root(folder)
    return str(folder.relative_to(root.parent.parent))
