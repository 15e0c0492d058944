"""Downloads the pictures that a catalogue needs, or any list of names and URLs.

``python -m visual_search.download data=complete_the_look data.path=FILE data.pictures=FOLDER``;
``--help`` lists what can be set. The same command again goes on where it was. It ends with status
0 when nothing is left to try (what is gone is no fault), with 1 when something is, and with
128 + the signal's number when it was told to stop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visual_search.cli.command_line import run_command
from visual_search.config.builders import ConfigError, bind
from visual_search.config.schemas import DownloadSchema, Node
from visual_search.wording import duration, file_size, shown

if TYPE_CHECKING:
    from types import FrameType

    from visual_search.catalog.downloads.manifest import PictureRecord
    from visual_search.catalog.downloads.report import DownloadProgress, DownloadReport
    from visual_search.catalog.downloads.settings import DownloadSettings, Patience, WantedPicture

LIST_COLUMNS = ("name", "url")
MAX_REASONS = 8  # printed of each outcome; the manifest holds all


def main() -> None:
    """Runs the command with ``sys.argv``."""
    run_command("download", download_command)


def download_command(settings: DownloadSchema) -> None:
    """Downloads what the composed config names, and prints what has become of it."""
    downloaded = download_listed(settings)
    print_download(downloaded)
    if downloaded.status:
        raise SystemExit(downloaded.status)


@dataclass(frozen=True)
class Downloaded:
    """What a download has become.

    Attributes:
        report: Of every picture.
        stopped_by: The signal that ended it early; 0 where none did.
    """

    report: DownloadReport
    stopped_by: int

    @property
    def status(self) -> int:
        """What the command ends with."""
        if self.stopped_by:
            return 128 + self.stopped_by
        return 0 if self.report.is_complete else 1


def download_listed(settings: DownloadSchema, patience: Patience | None = None) -> Downloaded:
    """Downloads the pictures that a catalogue's config or a list names, under a progress bar.

    SIGINT and SIGTERM end it gently: what is under way is finished, the manifest is kept. A second
    one ends it at once.

    Args:
        settings: The composed ``conf/download.yaml``.
        patience: Connections, tries and time-outs; ``None`` takes the usual ones.

    Raises:
        ConfigError: Nothing, or more than one thing, says what is wanted; the catalogue names no
            URLs; there is no folder to download into; a setting or the list is wrong.
        ValueError: As of `visual_search.catalog.downloads.download.download_pictures`.
        OSError: The same.
    """
    from visual_search.catalog.downloads.download import download_pictures
    from visual_search.catalog.downloads.settings import PATIENCE

    requests = request_settings(settings)
    wanted, folder = wanted_pictures(settings)
    with _stopping() as stopped, _progress_bar() as on_progress:
        report = download_pictures(
            wanted,
            folder,
            settings=requests,
            patience=patience or PATIENCE,
            on_progress=on_progress,
            should_stop=lambda: bool(stopped),
        )
    return Downloaded(report, stopped[0] if report.was_stopped else 0)


def wanted_pictures(settings: DownloadSchema) -> tuple[list[WantedPicture], Path]:
    """Returns what a config wants, and the folder that it goes to.

    Raises:
        ConfigError: As of `download_listed`.
        FileNotFoundError: The catalogue's file is not there.
    """
    from visual_search.catalog.downloads.settings import WantedPicture

    data, listed = settings.data, settings.urls
    if bool(data) == bool(listed):
        raise ConfigError(
            f"{'both data= and urls=' if data else 'neither data= nor urls='} say what to "
            "download; expected one: data=complete_the_look, or urls=FILE.csv with the columns "
            "name and url"
        )
    if listed:
        if not settings.folder:
            raise ConfigError(f"urls={listed} names no folder; expected one; add folder=FOLDER")
        return read_list(listed), Path(settings.folder)
    named, pictures = _needed(dict(data), settings.folder)
    try:
        return [WantedPicture(name, url) for name, url in named.items()], pictures
    except ValueError as error:
        raise ConfigError(str(error)) from error


def read_list(path: str) -> list[WantedPicture]:
    """Returns pictures of a CSV or TSV with the columns ``name`` and ``url``; others may follow.

    Raises:
        ConfigError: It cannot be read, lacks a column, or a row has another number of fields or a
            name that leads out of the folder.
    """
    from visual_search.catalog.downloads.settings import WantedPicture
    from visual_search.catalog.readers.delimited import read_csv

    try:
        data = Path(path).read_bytes()
        raw = read_csv(data, name=path, needed=LIST_COLUMNS)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"urls={path} cannot be read ({error}); expected a CSV with the columns name and url"
        ) from error
    missing = [column for column in LIST_COLUMNS if column not in raw.columns]
    if missing:
        raise ConfigError(
            f"urls={path} lacks the column(s) {missing} among {raw.columns}; expected name and "
            "url: rename its columns"
        )
    if raw.refused:
        first = raw.refused[0]
        raise ConfigError(
            f"urls={path} has {len(raw.refused)} bad row(s), first {first.item_id}: {first.reason}"
        )
    wanted = []
    for place, row in raw.named():
        try:
            wanted.append(WantedPicture(row["name"], row["url"]))
        except ValueError as error:
            raise ConfigError(f"urls={path}, {place}: {error}") from error
    return wanted


def print_download(downloaded: Downloaded) -> None:
    """Prints how many pictures are there, why the others are not, and what to do next."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)

    def say(text: str, style: str = "") -> None:
        # a reason may hold what a server said, control characters and all
        console.print(shown(text), markup=False, soft_wrap=True, style=style)

    report = downloaded.report
    saved = report.of("saved")
    say(
        f"{len(saved):,} of {report.num_wanted:,} pictures are in {report.folder}: "
        f"{report.num_new:,} new, {file_size(report.num_new_bytes)} in "
        f"{duration(report.duration_s)}",
        "bold",
    )
    for title, records in (
        ("gone", report.of("gone")),
        ("refused", report.of("refused")),
        ("failed", report.of("failed")),
    ):
        if records:
            say(f"{len(records):,} {title}:")
            for line in _reasons(records):
                say(f"  {line}")
    if report.not_tried:
        say(f"{len(report.not_tried):,} not tried")
    for place, reason in report.given_up.items():
        say(f"  {place} was given up: {reason}")
    say(f"Manifest, a line of JSON a picture: {report.manifest}")
    if not report.is_complete:
        say("The same command again goes on with those that failed or were not tried.")
    if report.of("refused"):
        say(
            "try_again=[failed,refused] tries the refused ones, too, as after allowed_hosts=[HOST]."
        )


def request_settings(settings: DownloadSchema) -> DownloadSettings:
    """Returns what a config says of how pictures are asked for.

    Raises:
        ConfigError: A setting is out of its range.
    """
    from visual_search.catalog.downloads.settings import DownloadSettings

    names = [field.name for field in dataclasses.fields(DownloadSettings)]
    try:
        return DownloadSettings(**{name: getattr(settings, name) for name in names})
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _needed(data: Node, folder: str | None) -> tuple[dict[str, str], Path]:
    """Returns name -> URL of what a catalogue's config needs, and where its reader looks."""
    from visual_search.catalog.readers import complete_the_look, shop_the_look

    listings: dict[str, Callable[..., dict[str, str]]] = {
        f"{module.__name__}.{name}": module.needed_pictures
        for name, module in (
            ("complete_the_look", complete_the_look),
            ("shop_the_look", shop_the_look),
        )
    }
    target = str(data.get("_target_"))
    if target not in listings:
        known = ", ".join(f"data={name.rpartition('.')[2]}" for name in listings)
        raise ConfigError(
            f"data={target.rpartition('.')[2]} says no URLs of pictures; expected one of {known}, "
            "or urls=FILE.csv with the columns name and url"
        )
    if folder:
        data["pictures"] = folder
    _, arguments = bind("data", data)
    pictures = arguments["pictures"]
    if pictures is None or str(pictures).lower().endswith(".zip"):
        raise ConfigError(
            f"data.pictures={pictures} is no folder to download into; expected one; give "
            "data.pictures=FOLDER"
        )
    listing = listings[target]
    taken = inspect.signature(listing).parameters
    try:
        needed = listing(**{name: value for name, value in arguments.items() if name in taken})
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return needed, Path(pictures)


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """Yields a list that the first SIGINT or SIGTERM puts its number into."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received  # signals are the main thread's
        return
    before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def _progress_bar() -> Iterator[Callable[[DownloadProgress], None]]:
    """Yields what shows a download's state; a bar appears if it takes longer than a second."""
    from visual_search.views.progress import Bar

    shape = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}"
    bar = Bar("Downloading", " pictures", shape=shape)
    try:
        yield lambda progress: bar.advance(progress.done, progress.total, state=_state(progress))
    finally:
        bar.close()


def _state(progress: DownloadProgress) -> str:
    parts = [f"{progress.pictures_per_s:.1f} pictures/s", f"{file_size(progress.bytes_per_s)}/s"]
    if progress.remaining_s is not None:
        parts.append(f"{duration(progress.remaining_s)} left")
    for count, name in (
        (progress.num_gone, "gone"),
        (progress.num_refused, "refused"),
        (progress.num_failed, "failed"),
    ):
        if count:
            parts.append(f"{count:,} {name}")
    return ", ".join(parts)


def _reasons(records: tuple[PictureRecord, ...]) -> list[str]:
    """Returns the reasons of records, the most frequent first, each with an example."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        found[_without_url(record)].append(record.name)
    ordered = sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    lines = [f"{len(names):,} x {reason}, such as {names[0]}" for reason, names in ordered]
    if len(lines) > MAX_REASONS:
        num_more = len(lines) - MAX_REASONS
        lines[MAX_REASONS:] = [f"... and {num_more:,} further reasons, in the manifest"]
    return lines


def _without_url(record: PictureRecord) -> str:
    """Returns the reason without the URL, which differs from picture to picture where it is one."""
    from visual_search.catalog.downloads.urls import parse_url

    reason = " ".join(record.error.split())  # a server's line break would tear the line apart
    # as `parse_url` spells it first: an own spelling would be a reason of its own
    with contextlib.suppress(ValueError):
        reason = reason.replace(str(parse_url(record.url)), "it")
    if record.url.strip():
        reason = reason.replace(repr(record.url), "it").replace(record.url, "it")
    return re.sub(r"https?://(?!host/path)([^/\s]+)/[^\s;,]*", r"\1", reason)  # no example of one


if __name__ == "__main__":
    main()
