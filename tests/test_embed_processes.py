"""Embedding in shards by real processes: two at once, and killed in the middle."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from lightning.fabric.plugins.environments.lightning import find_free_network_port

from tests.composing import typed
from tests.processes import Command, Hold
from tests.storage.s3_server import S3Server
from visual_search.embed import embed_catalog, print_embedded
from visual_search.runs.embedding_shards import read_shard_manifest, read_shards
from visual_search.runs.run import Run

pytestmark = pytest.mark.slow

TWO = ("trainer.strategy=ddp", "trainer.devices=2")


def asked(run: Run, out: Path | str, *more: str) -> list[str]:
    """Of a catalogue that the run has not seen: more of the drawn products."""
    own = [f"run={run.folder}", f"out={out}", "+data.items_per_category=30"]
    return [*own, "shard_size=16", "trainer.accelerator=cpu", "loader.batch_size=4", *more]


def embed(run: Run, out: Path | str) -> None:
    found = embed_catalog(typed("embed", *asked(run, out)))
    assert found is not None
    print_embedded(found)


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "shards").iterdir())}


def ids(out: Path) -> list[str]:
    return [item_id for table, _ in read_shards(out) for item_id in table["item_id"]]


@pytest.fixture(scope="module")
def alone(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    embed(trained, out)
    return out


def embed_in_two(arguments: list[str]) -> str:
    """Returns what both processes say, of which another program starts each."""
    more = {"MASTER_PORT": str(find_free_network_port())}
    both = [Command("embed", arguments, more | {"LOCAL_RANK": rank}) for rank in ("0", "1")]
    ends = [process.end() for process in both]
    assert [status for status, _, _ in ends] == [0, 0], ends
    return "".join(out for _, out, _ in ends)


def test_two_processes_write_every_item_exactly_once(
    trained: Run, alone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "two"
    said = embed_in_two(asked(trained, out, *TWO))
    assert said.count("90 items of synthetic, 8 numbers each, in 6 shards") == 1
    found = ids(out)
    assert len(found) == len(set(found)) == 90
    assert found == ids(alone)
    assert list(files(out)) == list(files(alone))
    for (_, one), (_, two) in zip(read_shards(alone), read_shards(out), strict=True):
        np.testing.assert_array_equal(one, two)
    assert read_shard_manifest(out) == read_shard_manifest(alone)
    # Both go on as well, where there are fewer shards than processes.
    (out / "manifest.json").unlink()
    (out / "shards" / "00004.parquet").unlink()
    said = embed_in_two(asked(trained, out, *TWO))
    assert said.count("Finished: 5 of 6 shards; going on with 00004.") == 1
    assert files(out) == files(alone)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.is_file() else []


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # dead, and nobody has asked for its status yet


def _wait_for(children: Sequence[int]) -> None:
    deadline = time.monotonic() + 300
    while any(_is_running(child) for child in children):  # they end by themselves
        assert time.monotonic() < deadline, f"{children} outlive their first process"
        time.sleep(0.05)


def test_two_processes_that_are_killed_leave_what_one_goes_on_with(
    trained: Run, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cut"
    hold = Hold(tmp_path / "hold", [r"/finished/\d+\.json$"] * 2)
    process = Command("embed", asked(trained, out, *TWO), hold=hold)
    hold.reached(process)
    children = _children(process.pid)
    process.send(signal.SIGKILL)
    assert process.end()[0] == -signal.SIGKILL
    hold.go_on()  # a child may wait there as well
    _wait_for(children)
    left = {path.name: path.stat().st_mtime_ns for path in out.glob("finished/[0-9]*.json")}
    assert 1 <= len(left) < 6, "it was killed too late to show anything"
    with pytest.raises(FileNotFoundError, match="it is unfinished: start its command again"):
        next(read_shards(out))

    embed(trained, out)
    assert f"Finished: {len(left)} of 6 shards; going on with" in capsys.readouterr().out
    # What was finished stayed.
    assert {name: (out / "finished" / name).stat().st_mtime_ns for name in left} == left
    assert files(out) == files(alone)
    assert not list(out.rglob("*.tmp*"))


@pytest.mark.parametrize("more", [(), TWO])
def test_sigterm_ends_it_within_a_shard(
    trained: Run, alone: Path, tmp_path: Path, more: Sequence[str]
) -> None:
    out = tmp_path / "ended"
    hold = Hold(tmp_path / "hold", [r"/finished/\d+\.json$"] * 2)
    process = Command("embed", asked(trained, out, *more), hold=hold)
    hold.reached(process)
    children = _children(process.pid)
    process.send(signal.SIGTERM)
    hold.go_on()
    status, said, _ = process.end()
    assert status == 128 + signal.SIGTERM
    assert "Interrupted; the same command goes on with the shards that are missing" in said
    _wait_for(children)
    assert len(list(out.glob("finished/[0-9]*.json"))) < 6
    embed(trained, out)
    assert files(out) == files(alone)


def test_two_processes_that_are_killed_leave_objects_that_another_machine_goes_on_with(
    trained: Run, alone: Path, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    s3.put("killed", {})
    place = "s3://killed/embedded"
    begun: list[str] = []
    children: list[int] = []

    def kill_at_the_second(method: str, path: str, before: int) -> None:
        if "/finished/" in path and method == "PUT":
            begun.append(path)
            if len(begun) == 2:
                children.extend(_children(process.pid))
                process.send(signal.SIGKILL)

    with s3.disturbed(kill_at_the_second):
        process = Command("embed", asked(trained, place, *TWO))
        assert process.end()[0] == -signal.SIGKILL
    _wait_for(children)
    left = [key for key in s3.objects("killed") if "/finished/" in key]
    assert 1 <= len(left) < 6, "it was killed too late to show anything"
    with pytest.raises(FileNotFoundError, match=rf"{place}/manifest.json.*it is unfinished"):
        next(read_shards(place))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    s3.asked.clear()
    embed(trained, place)
    said = capsys.readouterr().out
    assert f"Finished: {len(left)} of 6 shards; going on with" in said
    shards = [Path(key).with_suffix(".parquet").name for key in left]
    assert not [path for _, path in s3.asked if Path(path).name in shards]  # a listing told of them
    found = s3.objects("killed")
    assert {Path(key).name: data for key, data in found.items() if "/shards/" in key} == files(
        alone
    )
    assert len([key for key in found if not key.endswith("/")]) == 2 * 6 + 2
    assert read_shard_manifest(place) == read_shard_manifest(alone)
