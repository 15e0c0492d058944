"""Bundles on the tests' object storage, uploaded as a shop does it."""

from __future__ import annotations

from pathlib import Path

from tests.bundle.small_bundles import files_in
from tests.storage.s3_server import S3Server
from visual_search.bundle.manifest import MANIFEST_FILE
from visual_search.storage.bucket import Bucket
from visual_search.storage.uris import object_uri


def upload(s3: S3Server, folder: Path, bucket: str) -> str:
    """Brings a bucket to what a bundle's folder holds, as a shop does; returns the address."""
    names = sorted(files_in(folder), key=lambda name: name == MANIFEST_FILE)
    s3.put(bucket, {f"shop/{name}": (folder / name).read_bytes() for name in names})
    for name in s3.names(bucket):
        if name.removeprefix("shop/") not in names:
            Bucket(object_uri(f"s3://{bucket}")).remove(name)
    s3.asked.clear()
    return f"s3://{bucket}/shop"


def asked_for(s3: S3Server) -> set[str]:
    """Returns the names of the objects that were read since, below the address."""
    read = {path for method, path in s3.asked if method == "GET" and "/shop/" in path}
    s3.asked.clear()
    return {path.partition("/shop/")[2] for path in read}
