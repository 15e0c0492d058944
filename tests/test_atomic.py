"""Files that are whole or not there, and what becomes of those that a killed process left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from filelock import BaseFileLock, FileLock

from visual_search import atomic
from visual_search.atomic import DiskFullError, atomic_path, scratch_folder, sweep, write_text


def left_by_a_killed_process(code: str, *arguments: str) -> None:
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *arguments], check=False)
    assert process.returncode == -signal.SIGKILL


def test_the_next_writer_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    left_by_a_killed_process(
        """
        import os, sys
        from visual_search.atomic import atomic_path, scratch_folder
        with atomic_path(sys.argv[1] + "/last.ckpt") as temporary:
            temporary.write_bytes(b"half")
            with scratch_folder(sys.argv[1], "shop") as folder:
                (folder / "encoder.onnx").write_bytes(b"half")
                os.kill(os.getpid(), 9)
        """,
        str(tmp_path),
    )
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_path(tmp_path / "held.txt") as temporary, scratch_folder(tmp_path, "b") as scratch:
        temporary.write_text("at work")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {temporary.name, scratch.name}
        subprocess.run(  # another process leaves the living one's alone
            [sys.executable, "-c", "import sys; from visual_search.atomic import write_text; "
             "write_text(sys.argv[1], 'x')", str(tmp_path / "other.txt")],
            check=True,
        )  # fmt: skip
        assert temporary.exists()
        assert scratch.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held.txt", "other.txt"]


def test_a_sweep_leaves_what_is_not_temporary(tmp_path: Path) -> None:
    kept = ["a.txt", ".a.tmp.txt", ".a.0123abcd.txt", "a.0123abcd.tmp.txt", ".a.0123ABCD.tmp.txt"]
    for name in [*kept, ".a.0123abcd.tmp.txt", ".a.0123abcd.tmp", ".a.b.0123abcd.tmp.parquet"]:
        (tmp_path / name).touch()
    (tmp_path / ".folder.0123abcd.tmp" / "deep").mkdir(parents=True)
    (tmp_path / ".link.0123abcd.tmp").symlink_to(tmp_path / "a.txt")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, ".link.0123abcd.tmp"])
    sweep(tmp_path / "missing")


def test_a_sweep_that_comes_at_once_takes_no_file_from_its_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def swept_before_it_is_locked(*arguments: Any) -> int:
        monkeypatch.setattr(os, "open", opened)
        descriptor = opened(*arguments)
        sweep(tmp_path)
        assert not os.listdir(tmp_path)
        return descriptor

    monkeypatch.setattr(os, "open", swept_before_it_is_locked)
    assert write_text(tmp_path / "note.txt", "whole").read_text() == "whole"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_a_disk_without_locks_is_written_to_and_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def no_locks(self: BaseFileLock) -> None:
        Path(self.lock_file).touch()
        raise OSError(errno.ENOLCK, "no locks available")

    (tmp_path / ".a.0123abcd.tmp.txt").touch()
    monkeypatch.setattr(FileLock, "acquire", no_locks)
    write_text(tmp_path / "note.txt", "whole")
    assert sorted(os.listdir(tmp_path)) == [".a.0123abcd.tmp.txt", "note.txt"]
    assert atomic.write_text(tmp_path / "note.txt", "again").read_text() == "again"


@pytest.mark.parametrize(
    "writing",
    [
        "temporary.write_bytes(bytes(2**20))",
        # As writers in other languages do, which do not say why.
        "os.truncate(temporary, 2**16); raise RuntimeError('write failed')",
    ],
)
def test_what_the_system_does_not_let_grow_is_named(tmp_path: Path, writing: str) -> None:
    code = f"""
        import os, resource, sys
        from visual_search.atomic import DiskFullError, atomic_path
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        try:
            with atomic_path(sys.argv[1] + "/gallery.npy") as temporary:
                {writing}
        except DiskFullError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for part in (str(tmp_path / "gallery.npy"), "ulimit -f", "65.5 kB"):
        assert part in said
    assert not os.listdir(tmp_path)


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "gallery.npy", "old")
    usage = shutil.disk_usage(tmp_path)._replace(free=41_900_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with (
        pytest.raises(DiskFullError, match=r"gallery\.npy takes 125 MB, and 41\.9 MB are free"),
        atomic_path(tmp_path / "gallery.npy", num_bytes=125_200_000),
    ):
        raise AssertionError("begun")
    assert os.listdir(tmp_path) == ["gallery.npy"]
    assert (tmp_path / "gallery.npy").read_text() == "old"


def test_an_error_on_a_disk_with_room_stays_itself(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such layer"), atomic_path(tmp_path / "a"):
        raise RuntimeError("no such layer")
