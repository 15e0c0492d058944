"""An S3 server on 127.0.0.1 for tests: moto's, whose requests can be counted and disturbed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import pytest

SECRET = "not-to-be-seen-4711"
SLOW_DOWN = (  # longer than many a small object
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code><Message>Please reduce '
    b"your request rate.</Message><RequestId>4711</RequestId><HostId>0815</HostId></Error>"
)
Fault = Literal["busy", "cut", "closed"]
_Wsgi = Iterable[bytes]


class S3Server:
    """The running server.

    Attributes:
        url: Its address.
        asked: Method and path of each request, in their order.
        disturbs: Says what becomes of the request with this method, path and number of requests
            for that path before; None lets it pass. ``busy`` answers 503, ``cut`` sends half of the
            answer, ``closed`` none of it.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.asked: list[tuple[str, str]] = []
        self.disturbs: Callable[[str, str, int], Fault | None] = lambda method, path, before: None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def environment(self, folder: object) -> dict[str, str]:
        """Returns what a process needs to reach it, and to keep its copies in a folder."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "XDG_CACHE_HOME": str(folder),
        }

    def put(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Makes a bucket where there is none, and objects in it."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key=SECRET,
        )  # fmt: skip
        client.create_bucket(Bucket=bucket)
        for key, body in objects.items():
            client.put_object(Bucket=bucket, Key=key, Body=body)

    def names(self, bucket: str) -> list[str]:
        """Returns the keys of a bucket."""
        return list(self.objects(bucket))

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Returns what a bucket holds by its keys, sorted."""
        from moto.s3.models import s3_backends

        found = s3_backends["123456789012"]["aws"].buckets[bucket].keys
        return {str(key): found[key].value for key in sorted(found)}

    @contextmanager
    def disturbed(self, by: Callable[[str, str, int], Fault | None]) -> Iterator[None]:
        """Disturbs requests within the block."""
        before, self.disturbs = self.disturbs, by
        try:
            yield
        finally:
            self.disturbs = before

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> _Wsgi:
        request = (str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"]))
        with self._lock:
            before = self.asked.count(request)
            self.asked.append(request)
        fault = self.disturbs(*request, before)
        if fault == "busy":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            text = b"" if request[0] == "HEAD" else SLOW_DOWN
            start_response("503 Slow Down", [("Content-Length", str(len(text)))])
            return [text]
        if fault == "closed":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("as the test wants it")
        answer = list(self._moto(environ, start_response))
        if fault == "cut":
            whole = b"".join(answer)
            return [whole[: len(whole) // 2]]
        return answer


def started() -> S3Server:
    """Starts the server, or skips the test where moto is not installed."""
    pytest.importorskip("moto.server", reason="needs moto[server], of the extra 'dev'")
    return S3Server()
