"""Addresses on object storage: ``s3://bucket/folder/file``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

SCHEMES = ("s3", "gs")
_URI = re.compile(rf"({'|'.join(SCHEMES)})://([^/]*)(?:/(.*))?", re.DOTALL)
# also by the names that others have for them, which are no addresses here
_WITH_SECRETS = re.compile(r"\b(s3[an]?|gs|gcs)://(?:[^/\s]*@|[^\s]*\?[\w.]+=)", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ObjectUri:
    """The address of an object, or of all whose keys begin with a folder's.

    Attributes:
        scheme: One of `SCHEMES`.
        bucket: The bucket's name.
        key: Behind it, without a slash at either end; empty for the bucket itself. It is meant as
            it stands: no sign of it is escaped.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> ObjectUri:
        return ObjectUri(self.scheme, self.bucket, "/".join(filter(None, (self.key, name))))

    @property
    def path(self) -> str:
        """Bucket and key, as `pyarrow.fs` names a file."""
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def name(self) -> str:
        """The last part, as a file's name."""
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return os.path.splitext(self.name)[0]

    @property
    def parent(self) -> ObjectUri:
        """The folder around it; of a bucket itself, the bucket."""
        return ObjectUri(self.scheme, self.bucket, self.key.rpartition("/")[0])


def is_object_uri(place: object) -> bool:
    """Returns whether something names a place on object storage.

    Example:
        >>> is_object_uri("s3://shop/pictures"), is_object_uri("pictures"), is_object_uri(None)
        (True, False, False)
    """
    return isinstance(place, str) and _URI.fullmatch(place) is not None


def refuse_secrets(text: str) -> None:
    """Refuses an address that holds a password or settings, without showing it.

    Args:
        text: Whatever may hold an address, as what was typed for a setting.

    Raises:
        ValueError: It holds one.
    """
    if found := _WITH_SECRETS.search(text):
        scheme = "s3" if found[1].lower().startswith("s3") else "gs"
        raise ValueError(
            f"an address of {found[1]}:// holds credentials or settings, which are not shown here; "
            f"expected {scheme}://BUCKET/KEY alone: set AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL in the environment, or name a "
            "profile by AWS_PROFILE"
        )


def object_uri(place: str) -> ObjectUri:
    """Returns the parts of an address.

    Example:
        >>> print((object_uri("s3://shop/pictures/") / "coats/1 a.jpg").parent)
        s3://shop/pictures/coats

    Raises:
        ValueError: It is none, has no bucket or an empty part, or holds a password or settings,
            which would stand in runs and messages.
    """
    found = _URI.fullmatch(place)
    if found is None:
        raise ValueError(f"{place!r} is no address of {' or '.join(SCHEMES)}; expected s3://BUCKET")
    scheme, bucket, key = found[1], found[2], found[3] or ""
    refuse_secrets(place)
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"{place!r} names no bucket; expected {scheme}://BUCKET/KEY")
    key = key.strip("/")
    if "//" in key:  # `pyarrow.fs` asks for no such object
        raise ValueError(
            f"{place!r} has an empty part, between two '/'; expected single ones: write it "
            f"{f'{scheme}://{bucket}/' + re.sub('/+', '/', key)!r}, or rename what lies there"
        )
    return ObjectUri(scheme, bucket, key)


Place = Path | ObjectUri


def place_of(named: str | os.PathLike[str] | ObjectUri) -> Place:
    """Returns what a text names: a path of this machine, or an address of object storage.

    Raises:
        ValueError: The address names no bucket, holds a password, or is of another kind.

    Example:
        >>> place_of("embedded"), str(place_of("s3://shop/embedded/"))
        (PosixPath('embedded'), 's3://shop/embedded')
    """
    if isinstance(named, ObjectUri):
        return named
    if not isinstance(named, str):
        return Path(named)
    if is_object_uri(named):
        return object_uri(named)
    if other := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", named):
        raise ValueError(
            f"an address of {other[1]}:// is not known here; expected a path of this machine, or "
            f"{' or '.join(f'{scheme}://BUCKET/KEY' for scheme in SCHEMES)}: for another server "
            "with S3's protocol set AWS_ENDPOINT_URL to it"
        )
    return Path(named)
