"""What an HTTP answer says about a picture: its status, how long to wait, whether it is one."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from visual_search.catalog.downloads.settings import Status
from visual_search.catalog.images import HEIF, PictureError, decode, is_heic

_GONE = (404, 410)
_ASK_TO_WAIT = (429, 503)
_MAY_BE_BETTER_LATER = (408, 425, *_ASK_TO_WAIT)  # and every other 5xx
# What servers call files that they know nothing of; then the first bytes alone decide.
_UNKNOWN_TYPES = ("", "application/octet-stream", "binary/octet-stream")


class FetchError(Exception):
    """A picture did not come; the message says why.

    Attributes:
        status: What the picture is now.
        may_try_again: Whether the next try may be better.
        wait_s: How long the host wants to be left alone; ``None`` where it says nothing.
        asks_to_wait: Whether it is the host, and not only this picture, that wants it.
    """

    def __init__(
        self,
        reason: str,
        status: Status = "failed",
        *,
        may_try_again: bool = False,
        wait_s: float | None = None,
        asks_to_wait: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.may_try_again = may_try_again
        self.wait_s = wait_s
        self.asks_to_wait = asks_to_wait


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Returns the seconds of a ``Retry-After`` header (RFC 9110, 10.2.3): a number, or a date.

    Args:
        value: The header; ``None`` where there is none.
        now: With a time zone.

    Returns:
        0 or more; ``None`` where the header is missing or says nothing.

    Example:
        >>> now = datetime(2024, 5, 31, 12, 0, 0, tzinfo=UTC)
        >>> retry_after_s("120", now), retry_after_s("Fri, 31 May 2024 12:00:30 GMT", now)
        (120.0, 30.0)
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", value):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)  # HTTP's dates are
    return max(0.0, (moment - now).total_seconds())


def picture_format(start: bytes) -> str:
    """Returns the format that a file's first 16 bytes tell, empty where it is none that is read.

    Example:
        >>> picture_format(bytes.fromhex("ffd8ffe000104a46")), picture_format(b"<!DOCTYPE html>")
        ('JPEG', '')
    """
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis", b"mif1"):
        return "AVIF"  # or HEIC, of which mif1 may be as well
    if is_heic(start[:16]):
        return HEIF
    if start[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF"
    # Bytes 6 to 9 are reserved and 0 in what is written; "BM" alone begins many a text.
    return "BMP" if start[:2] == b"BM" and start[6:10] == bytes(4) else ""


def of_status(status: int, reason: str, retry_after: str | None) -> FetchError:
    """Returns what a status other than 200 and a redirect means: gone, not now, or never.

    Args:
        status: Of the answer.
        reason: What the server says beside it.
        retry_after: The header of that name.
    """
    reason = f"status {status} {reason[:80]}".strip()
    if status in _GONE:
        return FetchError(reason, "gone")
    if status in _MAY_BE_BETTER_LATER or status >= 500:
        asks_to_wait = status in _ASK_TO_WAIT
        return FetchError(
            reason,
            may_try_again=True,
            wait_s=retry_after_s(retry_after, datetime.now(UTC)) if asks_to_wait else None,
            asks_to_wait=asks_to_wait,
        )
    return FetchError(reason, "refused")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuses an answer whose headers say that it is no picture, or packed.

    Raises:
        FetchError: As said.
    """
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise FetchError(f"is packed ({encoding[:40]!r}) though not asked to be", "refused")
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind not in _UNKNOWN_TYPES:
        raise FetchError(f"is no picture: Content-Type {kind[:80]!r}", "refused")


def check_start(start: bytes) -> None:
    """Refuses a body whose first bytes are no picture's, whatever its headers say.

    Raises:
        FetchError: As said.
    """
    if not picture_format(start[:16]):
        raise FetchError(f"is no picture: it starts with {start[:16]!r}", "refused")


def check_whole(data: bytes) -> None:
    """Decodes a body that no length came with: one cut short ends there as a whole one does.

    Raises:
        FetchError: It does not decode.
    """
    try:
        decode(data, size_px=32, fit="stretch")
    except PictureError as error:
        raise FetchError(f"came without a length, and {error}", may_try_again=True) from error
