"""Files that somebody damaged or made to do harm: opened right, or refused by name."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.catalogs import hostile_catalogs, hostile_embeddings
from benchmarks.reliability.opening import Opener, Outcome, opener
from benchmarks.reliability.starting import Order, starter
from benchmarks.reliability.subjects import CACHE, CPU, TRAIN
from tests.bundle.small_bundles import change_manifest

DEEP = b"[" * 200_000
ALIASES = b"".join(
    [b"a: &a [x, x, x, x, x, x, x, x, x]\n"]
    + [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n".encode()
        for a, b in zip("abcdefghi", "bcdefghij", strict=True)
    ]
)  # nine to the tenth
HUGE_BYTES = 12 * 2**30  # sparse: nothing of it lies on the disk
MOST_LOSSES = 200


class Mark:
    """Unpickled, it makes a file: the proof that code ran."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> Any:
        return os.open, (self._path, os.O_CREAT | os.O_WRONLY)


@dataclass(frozen=True)
class Damage:
    """One way to damage a file.

    Attributes:
        name: For the results.
        do: Given the file, another file beside it, and where a proof of run code goes.
    """

    name: str
    do: Callable[[Path, Path, Path], None]


def replaced(data: Callable[[bytes], bytes]) -> Callable[[Path, Path, Path], None]:
    return lambda path, other, proof: _write(path, data(path.read_bytes()))


def _write(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def flipped(num_bits: int, seed: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        changed, draw = bytearray(data), random.Random(seed + len(data))
        for _ in range(num_bits if data else 0):
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)

    return change


def linked(path: Path, other: Path, proof: Path) -> None:
    outside = proof.with_name("outside")
    outside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(outside)


def loop(path: Path, other: Path, proof: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def piped(path: Path, other: Path, proof: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def made_folder(path: Path, other: Path, proof: Path) -> None:
    path.unlink()
    path.mkdir()


def pickled(path: Path, other: Path, proof: Path) -> None:
    _write(path, pickle.dumps(Mark(proof)))


def packed(path: Path, other: Path, proof: Path) -> None:
    """A pickle as torch and NumPy write it."""
    import io
    import zipfile

    import numpy as np

    if path.suffix == ".npy":
        array = io.BytesIO()
        np.save(array, np.array([Mark(proof)], dtype=object), allow_pickle=True)
        _write(path, array.getvalue())
    else:
        path.unlink()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Mark(proof)))
            archive.writestr("archive/version", "3\n")


def exchanged(path: Path, other: Path, proof: Path) -> None:
    _write(path, other.read_bytes())


def huge(path: Path, other: Path, proof: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(HUGE_BYTES)


FEW = (
    Damage("cut in half", replaced(lambda data: data[: len(data) // 2])),
    Damage("a bit flipped", replaced(flipped(1, 1))),
    Damage("a pickle", pickled),
    Damage("a link out of the folder", linked),
    Damage("a pipe", piped),
    Damage("a folder", made_folder),
)
ALL = (
    *FEW,
    Damage("the last byte cut", replaced(lambda data: data[:-1])),
    Damage("emptied", replaced(lambda data: b"")),
    Damage("twenty bits flipped", replaced(flipped(20, 2))),
    Damage("zeros", replaced(lambda data: bytes(len(data)))),
    Damage("a packed pickle", packed),
    Damage("a link to itself", loop),
    Damage("another file's content", exchanged),
    Damage("12 GiB of nothing behind it", huge),
)
TEXTS = (
    Damage("deep brackets", replaced(lambda data: DEEP)),
    Damage("aliases of aliases", replaced(lambda data: ALIASES)),
    Damage("a tag that calls", replaced(lambda data: b"a: !!python/object/apply:os.getcwd []\n")),
    Damage("no object", replaced(lambda data: b"3\n")),
    Damage("bytes that are no text", replaced(lambda data: b"\xff\xfe\x00" + data)),
)


@dataclass
class Case:
    """What is tried.

    Attributes:
        kind: Of the table's row.
        point: To find it again.
        outcome: What became of it.
        names: One of these has to be in a refusal.
        ran: Code of the file ran.
        right: What opening should give where it opens; None where any content is the file's own.
    """

    kind: str
    point: str
    outcome: Outcome
    names: tuple[str, ...]
    ran: bool
    right: str | None = None

    @property
    def wrong(self) -> str:
        """What is wrong with it; nothing where it survived."""
        end, said = self.outcome.end, self.outcome.said
        if self.ran:
            return f"code ran; {end}: {said}"
        if end == "opened":
            if self.right is not None and said != self.right:
                return f"opened with another content: {said}"
            return ""
        if end == "refused":
            named = any(name in said for name in self.names)
            return "" if named else f"the refusal names neither of {self.names}: {said}"
        return f"{end} after {self.outcome.seconds:.1f} s, {self.outcome.growth_mib} MiB: {said}"


class Ground:
    """Two finished runs, their bundle, embeddings, and copies of them to damage."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        self.copy, self.proof = folder / "copy", folder / "proofs" / "code-ran"

    def prepare(self) -> None:
        """Trains twice, exports and embeds."""
        self.proof.parent.mkdir()
        with starter() as commands:

            def must(*command: str) -> None:
                end = commands.run(Order(command, str(self.folder), str(self.log)))
                if end.status:
                    raise SystemExit(f"{command} ended with {end.status}: {self.log.read_text()}")

            must(*TRAIN)
            must(*TRAIN, "seed=1")
            run = f"run=outputs/{self.runs[0]}"
            must("visual_search.export", run, "out=shop", CACHE, "num_checked=16")
            must("visual_search.index", "rebuild", "bundle=shop", "index=hnsw")
            must("visual_search.index", "remove", "bundle=shop", "item=hats-00000")
            must("visual_search.embed", run, "out=embedded", CPU, "shard_size=16")

    @property
    def runs(self) -> list[str]:
        """The runs, from ``outputs`` on."""
        found = sorted((self.folder / "outputs/small").iterdir())
        return [str(path.relative_to(self.folder / "outputs")) for path in found]

    def fresh(self, name: str) -> Path:
        """Returns a copy of a folder, to damage."""
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()
        return Path(shutil.copytree(self.folder / name, self.copy / name))

    def ran(self) -> bool:
        """Whether code of a file ran since the last look."""
        there = self.proof.exists()
        self.proof.unlink(missing_ok=True)
        return there


def bundle_cases(ground: Ground, opened: Opener) -> Iterator[Case]:
    """Damages every file of a bundle; with the manifest's hashes left, and mended."""
    right = opened.open("bundle", ground.fresh("shop"))
    if right.end != "opened":
        raise SystemExit(f"the bundle does not open: {right}")
    manifest = json.loads((ground.folder / "shop/bundle.json").read_text())
    names = ["bundle.json", *sorted(manifest["files"])]
    for position, name in enumerate(names):
        texts = TEXTS if name.endswith(".json") else ()
        for damage in (*ALL, *texts):
            for mended in (False, True) if name != "bundle.json" else (False,):
                shop = ground.fresh("shop")
                damage.do(shop / name, shop / names[position - 1], ground.proof)
                if mended and not mend(shop, name):
                    continue
                outcome = opened.open("bundle", shop)
                how = "hashes mended" if mended else "hashes left"
                yield Case(
                    f"a bundle's files, {how}", f"{name}: {damage.name}", outcome,
                    (Path(name).name, str(shop)), ground.ran(), None if mended else right.said,
                )  # fmt: skip


def mend(shop: Path, name: str) -> bool:
    """Makes the manifest fit a damaged file; says whether that can be done."""
    path = shop / name
    if not path.is_file() or path.is_symlink() or path.stat().st_size > 2**30:
        return False
    data = path.read_bytes()
    record = {"sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}

    def change(content: dict[str, Any]) -> None:
        content["files"][name] = record
        if name == content["encoder"]["file"]:
            content["encoder"]["sha256"] = content["index"]["made_by"] = record["sha256"]

    change_manifest(shop, change)
    return True


def run_cases(ground: Ground, opened: Opener) -> Iterator[Case]:
    """Damages every file of a run, for a ranking; fewer for comparing and measuring again."""
    run = ground.runs[0]
    files = sorted(
        path.relative_to(ground.folder / "outputs" / run).as_posix()
        for path in (ground.folder / "outputs" / run).rglob("*")
        if path.is_file() and "tensorboard" not in path.parts and path.name != ".lock"
    )
    for how in ("leaderboard", "compare", "evaluate"):
        right = opened.open(how, ground.fresh("outputs"), runs=ground.runs)
        if right.end != "opened":
            raise SystemExit(f"{how} does not open whole runs: {right}")
        for position, name in enumerate(files):
            if how != "leaderboard" and name.endswith(".html"):
                continue  # written for people, read by nobody
            texts = TEXTS if name.endswith((".json", ".yaml")) else ()
            some = (*ALL, *texts) if how == "leaderboard" else FEW
            for damage in some:
                outputs = ground.fresh("outputs")
                path, other = outputs / run / name, outputs / run / files[position - 1]
                damage.do(path, other, ground.proof)
                outcome = opened.open(how, outputs, runs=ground.runs)
                yield Case(
                    f"a run's files, {how}", f"{name}: {damage.name}", outcome,
                    (path.name, str(outputs / run)), ground.ran(),
                )  # fmt: skip


def other_cases(ground: Ground, opened: Opener) -> Iterator[Case]:
    """Tries hostile catalogues, embeddings from outside and shards."""
    place = ground.folder / "hostile"
    for case in (*hostile_catalogs(place / "catalogs"), *hostile_embeddings(place / "embeddings")):
        outcome = opened.open(case.how, case.path, **case.more)
        names = (case.path.name, str(case.path))
        yield Case(case.kind, case.name, outcome, names, ground.ran())
    for name in ("manifest.json", "settings.json", "shards/00000.parquet", "finished/00000.json"):
        for damage in (*ALL, *(TEXTS if name.endswith(".json") else ())):
            embedded = ground.fresh("embedded")
            damage.do(embedded / name, embedded / "shards/00001.parquet", ground.proof)
            outcome = opened.open("embeddings", embedded, shards=True)
            yield Case(
                "embeddings and shards", f"{name}: {damage.name}", outcome,
                (Path(name).name, str(embedded)), ground.ran(),
            )  # fmt: skip


PARTS = {"others": other_cases, "runs": run_cases, "bundles": bundle_cases}


def run_files(number: int, only: list[str]) -> list[dict[str, Any]]:
    """Opens hostile files, each in a process of its own; stopped by Ctrl-C, gives what was tried.

    Args:
        number: At most so many of each part; 0 for all.
        only: Names of parts; empty for all.
    """
    chosen = [PARTS[name] for name in only or PARTS]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder, opener() as opened:
        ground = Ground(Path(folder))
        ground.prepare()
        try:
            for cases in chosen:
                for case in itertools.islice(cases(ground, opened), number or None):
                    note(rows, case, folder)
        except KeyboardInterrupt:
            print("stopped: what was tried until now is kept")
    return list(rows.values())


def note(rows: dict[str, dict[str, Any]], case: Case, folder: str) -> None:
    """Puts a case into its row."""
    row = rows.setdefault(
        case.kind,
        {
            "kind": case.kind, "tried": 0, "survived": 0, "lost": 0, "left": {},
            "most_mib": 0, "most_seconds": 0.0, "losses": [],
        },
    )  # fmt: skip
    row["tried"] += 1
    row["lost" if case.wrong else "survived"] += 1
    row["left"][case.outcome.end] = row["left"].get(case.outcome.end, 0) + 1
    row["most_mib"] = max(row["most_mib"], case.outcome.growth_mib)
    row["most_seconds"] = round(max(row["most_seconds"], case.outcome.seconds), 1)
    if case.wrong:
        seen = case.wrong.replace(folder, "...")[:1200]
        if len(row["losses"]) < MOST_LOSSES:
            row["losses"].append({"point": case.point, "seen": seen})
        print(f"LOST {case.kind}: {case.point}\n  {seen}", flush=True)
