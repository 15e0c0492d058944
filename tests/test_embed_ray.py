"""Embedding on a Ray cluster: two raylets on this machine, one of which is killed at work."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from tests.composing import typed
from tests.conftest import cache_of
from tests.processes import Command, Hold
from tests.storage.s3_server import S3Server
from visual_search.catalog.streaming import usable_cores
from visual_search.config.builders import ConfigError
from visual_search.embed import embed_catalog
from visual_search.export import export_run
from visual_search.runs.embedding_ray import actor_size
from visual_search.runs.embedding_shards import read_shards
from visual_search.runs.run import Run

slow = pytest.mark.slow
CLUSTER = {  # what reaches it runs code in it, so it asks for a token
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_USAGE_STATS_ENABLED": "0",
}


def asked(run: Run, out: Path, *more: str) -> list[str]:
    own = [f"run={run.folder}", f"out={out}", "+data.items_per_category=70", "shard_size=8"]
    return [*own, "trainer.accelerator=cpu", "loader.batch_size=4", *more]


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    own = [int(word) for word in children.read_text().split()] if children.is_file() else []
    return [*own, *(one for child in own for one in descendants(child))]


class Raylet:
    """A node of a cluster, started as its user would."""

    def __init__(self, *arguments: str, more: Mapping[str, str]) -> None:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        sizes = ["--num-cpus=2", "--object-store-memory=100000000", *arguments]
        self._process = subprocess.Popen(
            [*ray, *sizes],
            env={**os.environ, **CLUSTER, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = ""
        assert self._process.stdout is not None
        while "Ray runtime started" not in said:
            line = self._process.stdout.readline()
            assert line, said
            said += line

    def kill(self) -> None:
        """Kills it with all that it started."""
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            with contextlib.suppress(ProcessLookupError):  # gone with the one that started it
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def head() -> Iterator[str]:
    """The address of a cluster of one node."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    folder = tempfile.mkdtemp(prefix="r")  # sockets lie in it, whose paths are bounded
    port = find_free_network_port()
    start = ["--head", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=false"]
    raylet = Raylet(*start, more={})
    yield f"127.0.0.1:{port}"
    raylet.kill()
    shutil.rmtree(folder, ignore_errors=True)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


@slow
def test_what_a_killed_node_had_is_embedded_by_the_others(
    trained: Run, head: str, tmp_path: Path
) -> None:
    alone = embed_catalog(typed("embed", *asked(trained, tmp_path / "alone")))
    assert alone is not None
    hold = Hold(tmp_path / "hold", [r"/finished/\d+\.json$"])  # of the second node's actor
    second = Raylet(f"--address={head}", more=hold.environment)
    out = tmp_path / "out"
    try:
        command = Command(
            "embed", asked(trained, out, "engine=ray", f"ray.address={head}"), CLUSTER
        )
        hold.reached(command)
    finally:
        second.kill()
    status, said, errors = command.end()
    assert status == 0, errors
    assert "Ray: room for 2 actors on 2 nodes, 1 CPU each." in said
    assert "210 items of synthetic, 8 numbers each, in 27 shards" in said
    assert errors.count("another one takes over") == 1
    assert files(out) == files(alone.folder)
    found = [item_id for table, _ in read_shards(out) for item_id in table["item_id"]]
    assert len(found) == len(set(found)) == 210
    assert not list(out.rglob("*.tmp*"))


@slow
def test_a_bundle_embeds_to_object_storage_on_a_cluster_of_its_own(
    trained: Run, s3: S3Server, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    shop = tmp_path / "shop"
    export_run(typed("export", f"run={trained.folder}", f"out={shop}", cache_of(trained),
                     "num_checked=8"))  # fmt: skip
    arguments = [f"bundle={shop}", "data=synthetic", "data.items_per_category=8", "shard_size=30"]
    arguments.append("data.image_size_px=32")
    s3.put("by-ray", {})
    local = embed_catalog(typed("embed", *arguments, f"out={tmp_path / 'local'}"))
    by_ray = Command("embed", [*arguments, "out=s3://by-ray/embedded", "engine=ray"])
    status, said, errors = by_ray.end()
    assert status == 0, errors
    assert f"Ray: room for {usable_cores()} actor" in said
    assert local is not None
    assert said.rstrip().endswith("s3://by-ray/embedded/manifest.json")
    found = s3.objects("by-ray")
    assert [Path(key).name for key in found if "/shards/" in key] == list(files(local.folder))
    assert "embedded/items.parquet" not in found
    for (items, found), (same, expected) in zip(
        read_shards("s3://by-ray/embedded"), read_shards(local.folder), strict=True
    ):
        pd.testing.assert_frame_equal(items, same)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "accelerator", "message"),
    [
        ([{"CPU": 1}, {"CPU": 1}], "auto", r"2 nodes with 2 CPU\(s\).*; expected a node with two"),
        ([{"CPU": 2, "GPU": 2}], "auto", r"1 node with 2 CPU\(s\) and 2 GPU\(s\); expected a CPU"),
        (
            [{"CPU": 8}],
            "gpu",
            r"=gpu, and the cluster has .* 0 GPU\(s\); expected a GPU",
        ),
        ([{"CPU": 8}], "mps", "accelerator=mps; expected auto, cpu or gpu with engine=ray"),
    ],
)
def test_a_cluster_without_room_is_refused(
    nodes: list[dict[str, float]], accelerator: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        actor_size(nodes, accelerator)


@slow
def test_what_ray_needs_is_told(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"started in several processes; expected one"):
        embed_catalog(typed("embed", *asked(trained, tmp_path / "out", "engine=ray")))
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(ConfigError, match="engine"):
        embed_catalog(typed("embed", *asked(trained, tmp_path / "out", "engine=spark")))
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # and given back, as the others that are set
    with pytest.raises(ConfigError, match=r"pip install 'visual-search\[ray\]'"):
        embed_catalog(
            typed("embed", *asked(trained, tmp_path / "out", "engine=ray", "ray.address=auto"))
        )
