from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving.drawn_bundle import drawn, drawn_bundle
from tests.serving.running import ask, search, serve_settings, wait_until
from visual_search.serving.server import _listen, serve

# Its encoder waits for a file, and says by another one that it does.
PROGRAM = """
import pathlib, sys, time
from tests.serving.drawn_bundle import GridEncoder, drawn_bundle
from tests.serving.running import serve_settings
from visual_search.bundle import indexing
from visual_search.serving.server import serve
go_on = pathlib.Path(sys.argv[1])
class Waiting(GridEncoder):
    def embed(self, pictures):
        while not go_on.exists():
            time.sleep(0.01)
        return super().embed(pictures)
indexing.make_encoder = Waiting
def ready(url):
    go_on.unlink()
    print(url, flush=True)
serve([drawn_bundle()], serve_settings(port=0, max_batch=1), on_ready=ready)
print("returned", flush=True)
"""


@contextmanager
def process(go_on: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(go_on)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as started:  # fmt: skip
        try:
            assert started.stdout is not None
            address = started.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            yield started, int(address.rpartition(":")[2])
        finally:
            started.kill()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_finishes_what_runs(number: signal.Signals, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    go_on.touch()  # the server tries its encoder at its start
    with process(go_on) as (started, port):
        with ThreadPoolExecutor(3) as threads:
            asked = [threads.submit(search, port, drawn("Bags", "green")) for _ in range(3)]
            wait_until(lambda: b"searches_running 3.0" in ask(port, "GET", "/metrics").body)
            started.send_signal(number)
            go_on.touch()
        assert [one.result().json()["hits"][0]["item_id"] for one in asked] == ["p10"] * 3
        assert started.communicate(timeout=120) == ("returned\n", "")
        assert started.returncode == 0
        with pytest.raises(OSError, match="refused"):
            ask(port, "GET", "/healthz")


def test_an_address_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"cannot listen on '127.0.0.1', port {port} .*in use"):
            serve([drawn_bundle()], serve_settings(port=port))


def test_answers_are_not_held_back_by_nagles_algorithm() -> None:
    """asyncio turns it off for sockets that name their protocol, and for these alone."""
    with _listen(serve_settings(port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.proto == socket.IPPROTO_TCP


def test_a_folder_without_a_bundle_is_named(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"bundle\.json"):
        serve([tmp_path], serve_settings(port=0))


@pytest.mark.slow
def test_the_room_loads_without_what_trains() -> None:
    program = (
        "import sys, visual_search.serving.server\n"
        "heavy = set('torch lightning pandas matplotlib onnxruntime faiss pyarrow'.split())\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
