"""A run's folder: its name, its status, and opening it again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from visual_search.atomic import DiskFullError, write_text
from visual_search.locking import FileLock, is_held
from visual_search.machine import device_sentence, processor_facts

if TYPE_CHECKING:
    from visual_search.training.module import EncoderModule

State = Literal["new", "running", "interrupted", "failed", "finished"]

# Keys of the config that cannot change a result: the machine, the place, where it is logged.
NOT_PART_OF_THE_RESULT = (
    "name",
    "rerun",
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
    # Where the data lies; its content is part of the hash as the catalogue's fingerprint.
    "data.root",
    "data.path",
    "data.download",
    # How its file is written; what is read of it is in the fingerprint as well.
    "data.separator",
    "data.sep",
    "data.encoding",
)

STATUS = "status.json"
CLEARING = ".clearing"  # what lies beside it is of an earlier run, and being removed
MAX_ERROR_LENGTH = 1000  # of a status on a full disk: a block holds 4,096 bytes
LOCK_WAIT_SECONDS = 0.3  # who only looks whether the lock is held holds it for a moment
EVALUATIONS = "evaluations"  # folder of a run's further measurements
PROJECTION = "embeddings/projection.npz"  # of the embedding's PCA, in a run's folder

# Our own configurable callbacks only draw; others, such as EarlyStopping, decide the result.
DRAWING_CALLBACKS = "visual_search.training.callbacks."


class RunLockedError(RuntimeError):
    """Another process is working in the run's folder."""


@dataclass
class Run:
    """One run's folder, ``<outputs>/<experiment>/<hash>``.

    Attributes:
        folder: Where everything that the run leaves lies.
    """

    folder: Path
    _lock: FileLock | None = None

    @property
    def state(self) -> State:
        """What ``status.json`` says; ``new`` where there is none.

        A process that was killed could not say so: a run in whose folder nobody is any more was
        interrupted, whatever its status.
        """
        state: State = self.status().get("state", "new")
        return "interrupted" if state == "running" and not is_held(self._lock_file) else state

    @property
    def _lock_file(self) -> Path:
        return self.folder / ".lock"

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint, which may not exist yet."""
        return self.folder / "checkpoints" / "last.ckpt"

    def status(self) -> dict[str, Any]:
        """Gives the content of ``status.json``, empty where there is none."""
        return _read_json(self.folder / STATUS)

    def summary(self) -> dict[str, Any]:
        """Gives the content of ``metrics/summary.json``, empty where there is none."""
        return _read_json(self.folder / "metrics" / "summary.json")

    def seconds_so_far(self) -> float:
        """Gives the time spent on the run, in seconds; of a killed one, up to its checkpoint."""
        status = self.status()
        seconds = float(status.get("seconds", 0.0))
        if status.get("state") == "running" and self.checkpoint.is_file():
            since = datetime.fromisoformat(status["since"]).timestamp()
            seconds += max(0.0, self.checkpoint.stat().st_mtime - since)
        return seconds

    def seconds_until_now(self) -> float:
        """Gives the time spent on the run, in seconds; while it is worked on, up to this moment."""
        status = self.status()
        seconds = float(status.get("seconds", 0.0))
        if status.get("state") == "running":
            since = datetime.fromisoformat(status["since"]).timestamp()
            seconds += max(0.0, datetime.now(UTC).timestamp() - since)
        return seconds

    def set_state(self, state: State, **facts: Any) -> None:
        """Writes the state, and facts beside it, atomically; on a full disk over the one before.

        Raises:
            DiskFullError: There is no room, and no status before.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"state": state, "since": now, "pid": os.getpid(), **facts}
        path = self.folder / STATUS
        try:
            write_json(path, content)
        except DiskFullError:
            if not path.is_file():
                raise
            if "error" in content:
                content["error"] = content["error"][:MAX_ERROR_LENGTH]
            _overwrite(path, json.dumps(content, indent=2) + "\n")

    def computed_on(self) -> list[dict[str, Any]]:
        """Gives the devices that the run computed on, one after the other; mostly one."""
        found: list[dict[str, Any]] = _read_json(self.folder / "environment.json").get(
            "computed_on", []
        )
        return found

    def save_environment(self, device: Mapping[str, Any] | None = None) -> None:
        """Writes ``environment.json``: packages, machine, and what computed it, before and now.

        Args:
            device: As `visual_search.machine.device_facts`, once it is known.
        """
        devices = self.computed_on() if self.checkpoint.is_file() or device else []
        if device and device_sentence(device) not in map(device_sentence, devices[-1:]):
            devices.append(dict(device))
        write_json(self.folder / "environment.json", environment() | {"computed_on": devices})

    def lock(self) -> None:
        """Keeps other processes out of the folder until this one ends, however it ends.

        Raises:
            RunLockedError: Another process is in it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock_file)
        try:
            lock.acquire(LOCK_WAIT_SECONDS)
        except BlockingIOError as error:
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

    def config(self) -> dict[str, Any]:
        """Gives the content of ``config.yaml``, as plain containers.

        Raises:
            FileNotFoundError: There is none.
        """
        import yaml

        path = self.folder / "config.yaml"
        if not path.is_file():
            raise FileNotFoundError(f"no config at {path}; expected a run's folder; check the path")
        config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return config

    def load_module(self) -> EncoderModule:
        """Gives the trained module, rebuilt from the run's own config and checkpoint.

        The config is data: it can name nothing but the builders of `visual_search.config`, and the
        checkpoint holds tensors and plain values.

        Raises:
            FileNotFoundError: The config or the checkpoint is missing.
            ConfigError: The config names something else than a model of this package.
            ValueError: The checkpoint is damaged or belongs to other preprocessing.
            RuntimeError: The weights do not fit the network.
        """
        from visual_search.assembly import embedding_settings, preprocessing
        from visual_search.config import build
        from visual_search.models.embedding import EmbeddingHead
        from visual_search.training.checkpointing import load_checkpoint
        from visual_search.training.module import EncoderModule

        settings = self.config()
        checkpoint = load_checkpoint(self.checkpoint)
        model = build("model", _without_first_weights(settings["model"]))
        head = EmbeddingHead(model, embedding_settings(settings))
        module = EncoderModule(model, preprocessing(settings), head=head)
        module.on_load_checkpoint(checkpoint)
        # What only training needs, such as a classifier, stays in the checkpoint.
        own = {
            name.removeprefix("model."): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith("model.")
        }
        model.load_state_dict(own, strict=True)
        head.load(self.folder / PROJECTION)
        return module.eval()

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


def run_hash(config: Mapping[str, Any], catalog_fingerprint: str) -> str:
    """Gives ten hexadecimal digits that change with whatever can change the result.

    Args:
        config: The resolved config as plain containers.
        catalog_fingerprint: `Catalog.fingerprint` of the data as read.
    """
    kept = _without(config, NOT_PART_OF_THE_RESULT)
    kept["callbacks"] = {
        name: node
        for name, node in config["callbacks"].items()
        if node and not str(node.get("_target_", "")).startswith(DRAWING_CALLBACKS)
    }
    data = kept.get("data") or {}
    if data.get("on_bad_item") == "skip_any":  # it differs in what it refuses, not in what it gives
        data["on_bad_item"] = "skip"
    if "category" in data and data["category"] is None:  # as before it could be set
        del data["category"]
    kept["model"] = _weights_by_content(config["model"])
    kept["training"] = _start_by_content(kept["training"])
    kept["trainer"] = _trainer_in_brief(kept["trainer"], config["trainer"])
    text = json.dumps([kept, catalog_fingerprint], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def open_run(outputs: str | Path, experiment: str, digest: str) -> Run:
    """Gives the run of this name and hash, whether or not its folder exists.

    Raises:
        ValueError: The experiment's name would not be a plain folder name.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*(/[A-Za-z0-9][\w.+-]*)*", experiment):
        raise ValueError(
            f"got the name {experiment!r}, expected letters, digits, '_', '-', '.', '+' and '/' "
            "between them; set name=..."
        )
    return Run(Path(outputs) / experiment / digest)


def environment() -> dict[str, Any]:
    """Gives the versions and the machine that a run used, as plain values."""
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
        "command": sys.argv,
    }


def write_json(path: str | Path, content: Mapping[str, Any]) -> Path:
    """Writes readable JSON atomically; NaN is refused, since JSON has none."""
    return write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _overwrite(path: Path, text: str) -> None:
    """Writes a short file where it lies, in the block that it has: a full disk has no other."""
    with open(path, "r+b") as file:
        file.write(text.encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def _without(
    config: Mapping[str, Any], dropped: tuple[str, ...], prefix: str = ""
) -> dict[str, Any]:
    return {
        key: _without(value, dropped, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in config.items()
        if f"{prefix}{key}" not in dropped
    }


def _without_first_weights(model: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a model's node without what its checkpoint replaces: files, downloads."""
    first: dict[str, Any] = {"weights": None, "pretrained": False}
    return {name: first.get(name, value) for name, value in model.items()}


def _start_by_content(training: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the node of training with what the run to start from has learned, not its folder."""
    node = dict(training)
    start = node.pop("start_from", None)
    if start is not None:
        path = Run(Path(start)).checkpoint
        node["start_from"] = _sha256(path) if path.is_file() else start
    return node


def _trainer_in_brief(kept: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what is kept of the trainer's node, with how many devices it takes, not which.

    Keys that earlier runs did not have are left out at the value that these ran with.
    """
    from visual_search.training.devices import num_devices

    added = {"accumulate_grad_batches": 1, "deterministic": False}
    node = {name: v for name, v in kept.items() if name not in added or v != added[name]}
    if "devices" in node:
        node["devices"] = num_devices(trainer.get("accelerator", "auto"), node["devices"])
    return node


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights_by_content(model: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a model's node with the SHA-256 of a weights file in place of its path."""
    node = dict(model)
    path = Path(str(node.get("weights") or ""))
    if path.is_file():
        node["weights"] = _sha256(path)
    return node
