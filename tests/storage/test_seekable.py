"""A large object as an open file."""

from __future__ import annotations

import pytest

from tests.storage.s3_server import S3Server
from visual_search.storage import seekable
from visual_search.storage.bucket import StorageError
from visual_search.storage.seekable import open_object
from visual_search.storage.uris import object_uri


@pytest.mark.parametrize("second", [b"BBBBBBBBBB", b"BBBBBBBBBBBB", b"BBB"])
def test_parts_of_two_objects_are_not_mixed(
    second: bytes, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seekable, "BLOCK_BYTES", 4)
    bucket = f"seek-{len(second)}"
    s3.put(bucket, {"a": b"AAAAAAAAAA"})
    opened = open_object(object_uri(f"s3://{bucket}/a"))
    assert opened.read(3) == b"AAA"
    _written_later(s3, bucket, second)
    with pytest.raises(StorageError, match=r"s3://seek-.*/a has changed since it was opened"):
        opened.read_at(4, 6)


def _written_later(s3: S3Server, bucket: str, body: bytes) -> None:
    """Writes an object in a later second than now, without waiting for it."""
    from datetime import timedelta

    from moto.s3.models import s3_backends

    s3.put(bucket, {"a": body})
    key = s3_backends["123456789012"]["aws"].buckets[bucket].keys["a"]
    key.last_modified += timedelta(seconds=2)
