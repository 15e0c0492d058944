"""Pictures whose URLs stand in a table: fetched once by the project's own downloader, then files.

They lie in a folder beside the table, which is the downloader's: its manifest says what became of
each. A table read again, or the export of another day beside it, asks for nothing that is there, is
gone or was refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from visual_search.catalog.catalog import Choice
from visual_search.catalog.readers.products import PICTURE_SUFFIXES
from visual_search.catalog.readers.sources import FileSource, FolderSource
from visual_search.launcher import is_first_process
from visual_search.wording import file_size, many

if TYPE_CHECKING:
    from visual_search.catalog.downloads.settings import DownloadSettings, Status

Download = bool | Mapping[str, object]
OnProgress = Callable[[int, int], None]

FOLDER = "url_pictures"
_WAY = "data.download=true fetches it"


@dataclass(frozen=True)
class UrlPictures:
    """Where the pictures of URLs lie.

    Attributes:
        names: Path of each that is there, relative to the table.
        problems: Why another is not.
        choices: What to say of them.
    """

    names: Mapping[str, str]
    problems: Mapping[str, str]
    choices: tuple[Choice, ...] = ()


def pictures_of_urls(
    urls: Sequence[str],
    source: FileSource,
    inner: str,
    download: Download,
    on_progress: OnProgress | None = None,
) -> UrlPictures:
    """Returns where the pictures of URLs lie, after fetching those that are missing.

    Args:
        urls: The same twice counts once.
        source: Where the table lies.
        inner: Its path there; the pictures' folder is beside it.
        download: Whether to fetch; or settings of it, as of `DownloadSettings`, which mean yes.
        on_progress: Called with how many of how many have an outcome.

    Raises:
        ValueError: The table lies in no folder of this machine and is to be fetched for, a setting
            is none or wrong, or another process downloads into the folder.
        OSError: The folder cannot be written.
    """
    from visual_search.catalog.downloads.manifest import MANIFEST_NAME, read_manifest
    from visual_search.catalog.downloads.urls import parse_url

    wanted = {url: picture_name(url) for url in dict.fromkeys(urls)}
    if not wanted:
        return UrlPictures({}, {})
    if not isinstance(source, FolderSource):
        if download:
            raise ValueError(
                f"data.download is set, and nothing can be written into {source!r}; expected a "
                "table in a folder of this machine: unpack the zip, or copy it, and give the folder"
            )
        why = f"is a URL; unpack the zip, or copy the table into a folder, then {_WAY}"
        return UrlPictures({}, {url: f"{url!r} {why}" for url in wanted})
    folder = source.root / PurePosixPath(inner).parent / FOLDER
    settings = _settings(download) if download else None
    said = ""
    # one process fetches; the others wait for it, or are started later, and find the files
    if settings is not None and is_first_process():
        said = _fetch(wanted, folder, settings, on_progress)
    outcomes = read_manifest(folder / MANIFEST_NAME)
    names, problems = {}, {}
    for url, name in wanted.items():
        if (folder / name).is_file():
            names[url] = f"{FOLDER}/{name}"
            continue
        known = outcomes.get(name)
        problems[url] = f"{url!r} is a URL; {_WAY}"
        if known is not None and known.status != "saved":
            problems[url] = f"{url!r} was not to be had: {known.status}, {known.error}"
            if "among http_hosts" in known.error:
                place = parse_url(_absolute(url)).place
                problems[url] += f"; allow it by 'data.download={{http_hosts: [{place}]}}'"
        elif settings is not None:
            problems[url] = f"{url!r} was not tried; the same command goes on with it"
    choices: tuple[Choice, ...] = ()
    if names:
        what = f"{len(names):,} of {many(len(wanted), 'picture')} that URLs name"
        choices = (Choice("", what, f"read from {FOLDER}/{said}"),)
    return UrlPictures(names, problems, choices)


def picture_name(url: str) -> str:
    """Returns what the file of a URL is called: the same for ever, with the suffix that it has.

    Example:
        >>> picture_name("https://x.example/Boot.JPG?v=1")
        'b9/b98c7139bd099ce9f437.jpg'
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:20]
    suffix = os.path.splitext(re.split(r"[?#]", url, maxsplit=1)[0])[1].lower()
    return f"{digest[:2]}/{digest}{suffix if suffix in PICTURE_SUFFIXES else ''}"


def _settings(download: Download) -> DownloadSettings:
    from visual_search.catalog.downloads.settings import DownloadSettings

    given: dict[str, Any] = {} if isinstance(download, bool) else dict(download)
    known = {field.name for field in dataclasses.fields(DownloadSettings)}
    if unknown := sorted(set(given) - known):
        raise ValueError(
            f"data.download has the setting(s) {unknown}; expected true, or some of "
            f"{sorted(known)}, as {{http_hosts: [pictures.example.org]}}"
        )
    try:
        return DownloadSettings(**given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"data.download: {error}") from error


def _fetch(
    wanted: Mapping[str, str],
    folder: Path,
    settings: DownloadSettings,
    on_progress: OnProgress | None,
) -> str:
    """Fetches what is missing, and returns what is to be said of it."""
    from visual_search.catalog.downloads.download import download_pictures
    from visual_search.catalog.downloads.settings import WantedPicture

    report = download_pictures(
        [WantedPicture(name, _absolute(url)) for url, name in wanted.items()],
        folder,
        settings=settings,
        on_progress=None if on_progress is None else lambda at: on_progress(at.done, at.total),
    )
    parts = [f"{report.num_new:,} fetched now, {file_size(report.num_new_bytes)}"]
    statuses: tuple[Status, ...] = ("gone", "refused", "failed")
    for status in statuses:
        if num := len(report.of(status)):
            parts.append(f"{num:,} {status}")
    if report.not_tried:
        parts.append(f"{len(report.not_tried):,} not tried")
    return f" ({', '.join(parts)})"


def _absolute(url: str) -> str:
    """Returns a URL with its scheme, which exports leave out in front of a host."""
    return f"https:{url}" if url.startswith("//") else url
