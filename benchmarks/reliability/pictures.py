"""Damaged pictures: in a catalogue that is cached, and posted to a server."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.reliability.servers import Client, RunningServer, server
from tests.catalog.damaged_pictures import damaged, whole_files
from tests.serving.drawn_bundle import write_bundle

NUM_CLIENTS = 4
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WEBP": "webp", "BMP": "bmp", "AVIF": "avif"}
MAX_LOSSES = 100  # that are written down one by one

# A catalogue as any command reads it; in a process of its own, so that its death is a result.
CACHE = """
import json, resource, sys
from visual_search.catalog.cache import cache_pictures
from visual_search.catalog.readers.folder import folder
root, cache = sys.argv[1:]
catalog = folder(root, on_bad_item="skip")
num_items = len(catalog.table)
cached = cache_pictures(catalog, size_px=32, fit="stretch", cache_dir=cache, on_bad_item="skip_any")
ids = cached.catalog.table["item_id"].tolist()
pixels = cached.pictures[list(range(len(ids)))]
assert pixels.shape == (len(ids), 3, 32, 32), pixels.shape
print(json.dumps({
    "ids": ids,
    "refused": {one.item_id: one.reason for one in cached.catalog.refused},
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))
"""


def run_pictures(number: int, seed: int) -> list[dict[str, Any]]:
    """Reads and posts so many damaged pictures.

    Args:
        number: Of files; both parts take all of them.
        seed: Of the damage.
    """
    wholes = whole_files()
    files: dict[str, bytes] = {}
    for n in range(number):
        kind, damage, data = damaged(n, wholes, seed)
        files[f"{damage.replace(' ', '_')}/{n:05d}.{SUFFIXES[kind]}"] = data
    with tempfile.TemporaryDirectory() as folder:
        return [cached(files, Path(folder)), posted(files, Path(folder))]


def cached(files: dict[str, bytes], folder: Path) -> dict[str, Any]:
    """Returns what became of the files in a catalogue: each is an item or is named."""
    for name, data in files.items():
        path = folder / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    command = [sys.executable, "-c", CACHE, str(folder / "pictures"), str(folder / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row: dict[str, Any] = {"kind": "damaged pictures in a catalogue", "tried": len(files)}
    if done.returncode:
        why = {"point": "all", "seen": f"status {done.returncode}: {done.stderr[-1500:]}"}
        return row | {"survived": 0, "lost": len(files), "losses": [why]}
    told = json.loads(done.stdout.splitlines()[-1])
    read, refused = set(told["ids"]), {n: reason for n, reason in told["refused"].items() if reason}
    lost = sorted(name for name in files if (name in read) == (name in refused))
    losses = [{"point": name, "seen": "read and named, or neither"} for name in lost[:MAX_LOSSES]]
    return row | {
        "survived": len(files) - len(lost), "lost": len(lost), "losses": losses,
        "left": {"read": len(read), "named": len(refused)}, "peak_mib": told["peak_mib"],
    }  # fmt: skip


def posted(files: dict[str, bytes], folder: Path) -> dict[str, Any]:
    """Returns what a server answered to the files: hits, or a problem that is the sender's."""
    bundle = write_bundle(folder / "bundles")
    with server(bundle) as running, ThreadPoolExecutor(NUM_CLIENTS) as threads:
        whole = whole_files()["JPEG"][0]
        Client(running.address).search(whole, k="5")
        before = running.memory_mib()
        names = list(files)
        parts = [names[n::NUM_CLIENTS] for n in range(NUM_CLIENTS)]
        done = threads.map(lambda part: [post(running, files, name) for name in part], parts)
        answers = [answer for part in done for answer in part]
        alive = running.is_alive and Client(running.address).search(whole, k="5").status == 200
        peak, after = (running.memory_mib(which) for which in ("VmHWM", "VmRSS"))
    losses = [{"point": name, "seen": seen} for name, _, seen in answers if seen]
    if not alive:
        losses.append({"point": "the server", "seen": "it did not answer any more at the end"})
    lost = min(len(files), len(losses))
    return {
        "kind": "damaged pictures posted to a server", "tried": len(files),
        "survived": len(files) - lost, "lost": lost, "losses": losses[:MAX_LOSSES],
        "left": dict(Counter(str(status) for _, status, _ in answers)),
        "memory_mib": {"before": before, "peak": peak, "after": after},
    }  # fmt: skip


def post(running: RunningServer, files: dict[str, bytes], name: str) -> tuple[str, int, str]:
    """Returns the file's name, the status, and what is wrong with the answer."""
    answer = Client(running.address).search(files[name], k="5")
    if answer.status == 200:
        found = len(answer.json()["hits"])
        return name, 200, "" if found == 5 else f"{found} hits of 5"
    kind = answer.kind == "application/problem+json"
    if 400 <= answer.status < 500 and kind and answer.json().get("detail"):
        return name, answer.status, ""
    return name, answer.status, f"{answer.status} {answer.kind} {answer.body[:300]!r}"
