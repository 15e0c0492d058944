"""A search server by its command, in a process of its own, and connections to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving.running import FORM, form

TOKEN = "a-token-of-the-campaign"
BEARER = {"authorization": f"Bearer {TOKEN}"}
SECONDS = 120.0  # an answer that takes longer is lost


@dataclass(frozen=True)
class Answer:
    """What was answered; status 0: nothing was.

    Attributes:
        status: Of HTTP.
        kind: Content type.
        body: As it came.
    """

    status: int
    kind: str
    body: bytes

    def json(self) -> Any:
        """Returns the body's content."""
        return json.loads(self.body)


class Client:
    """One connection that is kept, opened again where the server closed it."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=SECONDS)

    def ask(
        self, method: str, path: str, body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:  # fmt: skip
        """Asks, and says what went wrong as status 0."""
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            answer = self._connection.getresponse()
            kind = answer.getheader("content-type") or ""
            return Answer(answer.status, kind.split(";")[0], answer.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Answer(0, "", f"{type(error).__name__}: {error}".encode())

    def search(self, picture: bytes | None = None, **fields: str) -> Answer:
        """Searches by a form."""
        return self.ask("POST", "/api/search", form(list(fields.items()), picture), FORM)


class RunningServer:
    """A server that answers.

    Attributes:
        address: Host and port.
    """

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process, self.address = process, address

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def memory_mib(self, which: str = "VmHWM") -> int:
        """Returns resident memory: the peak so far (VmHWM), or as it is (VmRSS)."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(text.partition(f"{which}:")[2].split()[0]) // 1024


@contextmanager
def server(bundle: Path, **settings: Any) -> Iterator[RunningServer]:
    """Yields a server of a bundle, by ``python -m visual_search.serve``; stops it by SIGTERM."""
    words = [f"{name}={value}" for name, value in settings.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "visual_search.serve", f"bundle={bundle}", "port=0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "VISUAL_SEARCH_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        address = ""
        for line in process.stdout:
            if found := re.search(r"http://([^/\s]+)/", line):
                address = found[1]
                break
        if not address:
            raise SystemExit(f"the server ended with {process.wait()} before it was ready")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield RunningServer(process, address)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
