"""Two nodes on one machine: an agent of torchrun as each, or what it tells the processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from tests.processes import Command, Hold
from tests.small_runs import assert_same_weights, numbers, only_run, small
from visual_search.runs.embedding_shards import read_shard_manifest, read_shards
from visual_search.runs.run import Run

pytestmark = pytest.mark.slow

DDP = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false")
NODE_SECONDS = 300


class Node:
    """An agent of ``torchrun`` with one process, as the second of two machines would have it."""

    def __init__(self, folder: Path, arguments: Sequence[str], port: int, hold: Hold) -> None:
        folder.mkdir(parents=True)
        self._log = folder / "log"
        agent = ["--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", "--rdzv_id=nodes"]
        agent.append(f"--rdzv_endpoint=localhost:{port}")
        threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as of those forked here
        program = [sys.executable, "-m", "torch.distributed.run", *agent]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*program, "-m", "visual_search.train", *arguments],
                stdout=log,
                stderr=log,
                env={**os.environ, **hold.environment, **threads},
            )

    def is_running(self) -> bool:
        return self._process.poll() is None

    def power_off(self) -> None:
        """Ends the agent and its process at once, as a power cut would."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """Its own and those that it started, in sessions of their own."""
        found = [self._process.pid]
        for pid in found:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found += map(int, children)
        return found

    def end(self) -> tuple[int, str]:
        return self._process.wait(NODE_SECONDS), self._log.read_text(errors="replace")


def start_two(folder: Path, arguments: Sequence[str], hold: Hold) -> list[Node]:
    port = find_free_network_port()
    nodes = [Node(folder / "0", arguments, port, hold)]
    time.sleep(1)  # the first agent to come keeps the list of agents: the one that survives
    return [*nodes, Node(folder / "1", arguments, port, hold)]


def test_a_node_that_dies_ends_the_run_and_the_same_command_ends_as_if_it_had_not(
    tmp_path: Path,
) -> None:
    arguments = small(tmp_path / "two", *DDP, "trainer.max_epochs=2")
    hold = Hold(tmp_path / "hold", [r"/last\.ckpt$"] * 2)  # the first epoch's is written by then
    nodes = start_two(tmp_path / "cut", arguments, hold)
    while not list(hold.folder.glob("held-*")):
        assert all(node.is_running() for node in nodes), [node.end() for node in nodes]
        time.sleep(0.1)
    leader = only_run(tmp_path / "two").status()["pid"]
    is_first = [leader in node.processes() for node in nodes]
    assert sorted(is_first) == [False, True]
    nodes[is_first.index(False)].power_off()
    hold.go_on()
    status, said = nodes[is_first.index(True)].end()
    assert status != 0
    assert "start the same command again on all nodes, it goes on from the last checkpoint" in said
    run = only_run(tmp_path / "two")
    assert run.state != "finished"

    ends = launched("train", arguments)
    assert [status for status, _, _ in ends] == [0, 0], ends
    both = "".join(out for _, out, _ in ends)
    assert both.count(f"Run {run.folder}: going on at ") == 1
    assert len(re.findall(r"^Trained: ", both, re.MULTILINE)) == 1

    ends = launched("train", small(tmp_path / "one", *DDP, "trainer.max_epochs=2"), num_nodes=1)
    assert [status for status, _, _ in ends] == [0, 0], ends
    one = only_run(tmp_path / "one")
    assert one.folder.name == run.folder.name
    assert_same_weights(one, run)
    assert numbers(one).items() <= numbers(run).items()  # which says that it was gone on with

    ends = launched("train", arguments)
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert "".join(out for _, out, _ in ends).count(f"{run.folder} is finished") == 1


def launched(
    command: str, arguments: Sequence[str], num_nodes: int = 2
) -> list[tuple[int, str, str]]:
    """Returns how each of two processes ends that is told what torchrun tells them."""
    shared = {
        "TORCHELASTIC_RUN_ID": "nodes", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": str(2 // num_nodes),
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(find_free_network_port()),
    }  # fmt: skip
    both = []
    for rank in "01":
        node, local = (rank, "0") if num_nodes == 2 else ("0", rank)
        own = {"RANK": rank, "GROUP_RANK": node, "LOCAL_RANK": local}
        both.append(Command(command, arguments, shared | own))
    return [process.end() for process in both]


def test_two_nodes_embed_every_item_once(trained: Run, tmp_path: Path) -> None:
    asked = [f"run={trained.folder}", "+data.items_per_category=30"]
    asked += ["shard_size=16", "trainer.accelerator=cpu", "loader.batch_size=4"]
    ends = launched("embed", [*asked, f"out={tmp_path / 'two'}"])
    assert [status for status, _, _ in ends] == [0, 0], ends
    assert Command("embed", [*asked, f"out={tmp_path / 'one'}"]).end()[0] == 0
    one, two = (
        [item_id for table, _ in read_shards(tmp_path / name) for item_id in table["item_id"]]
        for name in ("one", "two")
    )
    assert one == two
    assert read_shard_manifest(tmp_path / "one") == read_shard_manifest(tmp_path / "two")
    assert "".join(said for _, said, _ in ends).count("90 items of synthetic") == 1
    ends = launched("embed", [*asked, f"out={tmp_path / 'two'}"])  # nothing is left
    assert [status for status, _, _ in ends] == [0, 0], ends


def test_what_stops_the_first_process_stops_the_others_with_the_reason_said_once(
    trained: Run, tmp_path: Path
) -> None:
    taken = Run(tmp_path / "out")
    taken.lock()
    try:
        asked = [f"run={trained.folder}", f"out={taken.folder}"]
        ends = launched("embed", [*asked, "trainer.accelerator=cpu"])
    finally:
        taken.unlock()
    assert all(status != 0 for status, _, _ in ends), ends
    assert ["is in use by" in error for _, _, error in ends] == [True, False], ends
    assert "the first process stopped, and says why" in ends[1][2]
