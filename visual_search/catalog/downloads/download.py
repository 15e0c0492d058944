"""Downloads pictures by a list of names and URLs into a folder, politely, safely, resumably.

One event loop in the calling thread sends what `scheduler.Scheduler` says may be asked for, and
writes the manifest; other threads resolve names and write files. Pictures that cannot be had are
counted and named, not raised: a catalogue goes on without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import stat
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from visual_search.atomic import atomic_path, sweep
from visual_search.catalog.downloads.fetcher import Fetcher
from visual_search.catalog.downloads.manifest import Manifest, PictureRecord, utc_now
from visual_search.catalog.downloads.report import DownloadProgress, DownloadReport
from visual_search.catalog.downloads.responses import FetchError, picture_format
from visual_search.catalog.downloads.scheduler import PendingPicture, Scheduler, backoff_s
from visual_search.catalog.downloads.settings import (
    PATIENCE,
    DownloadSettings,
    Patience,
    Status,
    WantedPicture,
)
from visual_search.catalog.downloads.urls import RefusedUrlError, Url, check_scheme, parse_url

_LOOK_EVERY_S = 0.1  # whether to stop
_RATE_OVER_S = 60.0


def download_pictures(
    wanted: Sequence[WantedPicture],
    folder: str | os.PathLike[str],
    *,
    settings: DownloadSettings,
    patience: Patience = PATIENCE,
    on_progress: Callable[[DownloadProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> DownloadReport:
    """Downloads what is wanted and not there yet, and gives what became of every picture.

    A picture is written to a temporary name and renamed when it is whole. What the manifest holds
    as saved is not asked for again while its file is there and its URL is the same; nor is what is
    gone or was refused, see ``settings.try_again``. So the same call after a kill goes on. A
    picture that the manifest does not know and that lies there already is taken as it is.

    Args:
        wanted: The same picture twice counts once.
        folder: Is made; one process at a time downloads into it.
        settings: Rate, limits, and what hosts may be asked.
        patience: Connections, tries and time-outs.
        on_progress: Called with the state from the calling thread, after each picture and at least
            once.
        should_stop: Asked at least ten times a second from the calling thread. When it says yes
            nothing new is started, requests under way are finished, and the report says what is
            left; a signal handler only has to set what it looks at.

    Raises:
        ValueError: One name is wanted from two URLs, or is a folder in another name, a name leads
            out of the folder through a link, or another process downloads into the folder.
        OSError: A picture or the manifest cannot be written, as on a full disk. What was saved
            stays saved.
    """
    start = time.monotonic()
    root = Path(folder).absolute()
    named = _named(wanted)
    with Manifest(root) as manifest:
        _check_folders(root, named)
        for folder in _folders(root, named):  # of a run that was killed
            sweep(folder)
        download = _Download(root, named, manifest, settings, patience, on_progress)
        was_stopped = asyncio.run(download.run(should_stop or (lambda: False)))
        records = [manifest.records.get(name) for name in named]
        return DownloadReport(
            folder=root,
            manifest=manifest.path,
            num_wanted=len(named),
            records=tuple(r for r in records if r is not None and r.name not in download.left),
            not_tried=tuple(name for name in named if name in download.left),
            given_up=download.given_up,
            num_new=download.num_new,
            num_new_bytes=download.num_new_bytes,
            duration_s=time.monotonic() - start,
            was_stopped=was_stopped,
        )


class _Download:
    """One run: what becomes of its pictures."""

    def __init__(
        self,
        root: Path,
        named: Mapping[str, WantedPicture],
        manifest: Manifest,
        settings: DownloadSettings,
        patience: Patience,
        on_progress: Callable[[DownloadProgress], None] | None,
    ) -> None:
        self._root = root
        self._manifest = manifest
        self._settings = settings
        self._patience = patience
        self._on_progress = on_progress
        self._random = random.Random()
        self._counts: dict[Status, int] = {"saved": 0, "gone": 0, "refused": 0, "failed": 0}
        self._total = len(named)
        self._recent: deque[tuple[float, int]] = deque()  # moment and size of the last outcomes
        self._recent_bytes = 0
        self._start = time.monotonic()
        self.num_new = 0
        self.num_new_bytes = 0
        self.left: set[str] = set()
        pending = []
        for picture in named.values():
            known = manifest.records.get(picture.name)
            if known is not None and self._is_settled(picture, known):
                self._counts[known.status] += 1
                continue
            if known is None and (found := self._found(picture)) is not None:
                self._note(found)
                continue
            try:
                url = parse_url(picture.url)
                check_scheme(url, settings.http_hosts)
            except RefusedUrlError as error:
                if known is not None and (known.url, known.error) == (picture.url, str(error)):
                    self._counts["refused"] += 1
                else:
                    self._note(_record(picture, "refused", 0, str(error)))
            else:
                pending.append(PendingPicture(picture, url))
        self._scheduler = Scheduler(pending, settings.requests_per_s, patience)

    @property
    def given_up(self) -> dict[str, str]:
        return self._scheduler.given_up

    async def run(self, should_stop: Callable[[], bool]) -> bool:
        """Downloads all; says whether it was stopped."""
        # More threads than requests: a silent name server holds one longer than its time-out.
        threads = ThreadPoolExecutor(2 * self._patience.max_connections, "download")
        asyncio.get_running_loop().set_default_executor(threads)
        tasks: set[asyncio.Task[None]] = set()
        is_stopped = False
        self._tell()
        async with contextlib.aclosing(Fetcher(self._settings, self._patience)) as fetcher:
            try:
                while True:
                    is_stopped = is_stopped or should_stop()
                    now = time.monotonic()
                    picture = None if is_stopped else self._scheduler.next(now)
                    if picture is not None:
                        tasks.add(asyncio.create_task(self._try(picture, fetcher)))
                        continue
                    wait_s = self._scheduler.wait_s(now, _LOOK_EVERY_S)
                    if tasks:
                        done, tasks = await asyncio.wait(
                            tasks, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
                        )
                        for task in done:
                            task.result()
                    elif is_stopped or self._scheduler.is_done:
                        break
                    else:
                        await asyncio.sleep(wait_s)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        self.left = {picture.wanted.name for picture in self._scheduler.left()}
        return is_stopped

    async def _try(self, picture: PendingPicture, fetcher: Fetcher) -> None:
        """Sends one request, and does what follows from its answer."""
        picture.tries += not picture.num_redirects
        place, start = picture.url.place, time.monotonic()
        answer: bytes | Url | FetchError
        try:
            left_s = self._patience.total_timeout_s - picture.spent_s
            answer = await fetcher.fetch(picture.url, left_s)
        except FetchError as error:
            answer = error
        picture.spent_s += time.monotonic() - start  # waiting for a turn takes none of it
        self._scheduler.release(place)
        self._note_host(place, answer)
        if isinstance(answer, FetchError):
            self._fail(picture, answer)
            return
        if isinstance(answer, bytes):
            sha256 = await asyncio.to_thread(self._save, picture.wanted.name, answer)
            self._note(_record(picture.wanted, "saved", picture.tries, "", len(answer), sha256))
            self._tell()
            return
        picture.num_redirects += 1
        try:
            if picture.num_redirects > self._patience.max_redirects:
                reason = f"more than {self._patience.max_redirects} redirects, the last to {answer}"
                raise FetchError(reason, "refused")
            fetcher.check_redirect(picture.asked, answer)
        except FetchError as error:
            self._fail(picture, error)
        else:
            picture.url = answer
            self._scheduler.put_back(picture, time.monotonic())

    def _note_host(self, place: str, answer: bytes | Url | FetchError) -> None:
        """Lets the scheduler know how a host fared."""
        if not isinstance(answer, FetchError) or not answer.may_try_again:
            self._scheduler.note_answer(place)
            return
        now = time.monotonic()
        self._scheduler.note_failure(place, now)
        if answer.asks_to_wait:
            asked_s = self._patience.backoff_s if answer.wait_s is None else answer.wait_s
            self._scheduler.pause(place, now, asked_s)

    def _fail(self, picture: PendingPicture, error: FetchError) -> None:
        """Puts a picture that did not come back for a further try, or gives it up."""
        if error.may_try_again and picture.tries < self._patience.max_tries:
            picture.url, picture.num_redirects, picture.spent_s = picture.asked, 0, 0.0
            # On top of what the host asks for, so that they do not all come back at that moment.
            wait_s = backoff_s(self._patience, picture.tries, self._random.random())
            self._scheduler.put_back(picture, time.monotonic(), wait_s + (error.wait_s or 0.0))
        else:
            self._note(_record(picture.wanted, error.status, picture.tries, str(error)))
            self._tell()

    def _save(self, name: str, data: bytes) -> str:
        """Writes a picture and returns its SHA-256."""
        with atomic_path(self._root / name) as temporary:
            temporary.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def _note(self, record: PictureRecord) -> None:
        self._manifest.add(record)
        self._counts[record.status] += 1
        now = time.monotonic()
        self._recent.append((now, record.size))
        self._recent_bytes += record.size
        while now - self._recent[0][0] > _RATE_OVER_S:
            self._recent_bytes -= self._recent.popleft()[1]
        if record.status == "saved" and record.tries:
            self.num_new += 1
            self.num_new_bytes += record.size

    def _tell(self) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        over_s = max(min(now - self._start, _RATE_OVER_S), 1e-3)
        pictures_per_s = len(self._recent) / over_s
        done = sum(self._counts.values())
        self._on_progress(
            DownloadProgress(
                done=done,
                total=self._total,
                num_saved=self._counts["saved"],
                num_gone=self._counts["gone"],
                num_refused=self._counts["refused"],
                num_failed=self._counts["failed"],
                pictures_per_s=pictures_per_s,
                bytes_per_s=self._recent_bytes / over_s,
                remaining_s=(self._total - done) / pictures_per_s if pictures_per_s else None,
            )
        )

    def _is_settled(self, picture: WantedPicture, known: PictureRecord) -> bool:
        """Returns whether an earlier outcome holds, so that nothing has to be asked."""
        if known.url != picture.url or known.status in self._settings.try_again:
            return False
        if known.status != "saved":
            return known.tries > 0  # a URL that the rules refused: they may be others now
        path = self._root / picture.name
        try:
            status = os.lstat(path)
        except OSError:
            return False
        if not stat.S_ISREG(status.st_mode) or status.st_size != known.size:
            return False
        if self._settings.check_saved == "size":
            return True
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == known.sha256

    def _found(self, picture: WantedPicture) -> PictureRecord | None:
        """Returns the record of a picture that lies there but that the manifest does not know."""
        path = self._root / picture.name
        if not path.is_file() or path.is_symlink():
            return None
        data = path.read_bytes()
        if not picture_format(data[:16]):
            return None
        return _record(picture, "saved", 0, "", len(data), hashlib.sha256(data).hexdigest())


def _record(
    picture: WantedPicture,
    status: Status,
    tries: int,
    error: str,
    size: int = 0,
    sha256: str = "",
) -> PictureRecord:
    return PictureRecord(picture.name, picture.url, status, size, sha256, tries, error, utc_now())


def _named(wanted: Sequence[WantedPicture]) -> dict[str, WantedPicture]:
    """Returns the pictures by name, in the order wanted."""
    named: dict[str, WantedPicture] = {}
    for picture in wanted:
        first = named.setdefault(picture.name, picture)
        if first.url != picture.url:
            raise ValueError(
                f"picture {picture.name!r} is wanted from {first.url!r} and from {picture.url!r}; "
                "expected one URL a name; give the second another name"
            )
    for name in named:
        for parent in PurePosixPath(name).parents:
            if str(parent) in named:
                raise ValueError(
                    f"{str(parent)!r} is a picture, and a folder in the name {name!r}; expected "
                    "one or the other; rename one of them"
                )
    return named


def _folders(root: Path, named: Mapping[str, WantedPicture]) -> list[Path]:
    return [root / folder for folder in {str(PurePosixPath(name).parent) for name in named}]


def _check_folders(root: Path, named: Mapping[str, WantedPicture]) -> None:
    real_root = os.path.realpath(root)
    for folder in _folders(root, named):
        real = os.path.realpath(folder)
        if os.path.commonpath([real, real_root]) != real_root:
            raise ValueError(
                f"{folder} is a link that leads out of {root}, to {real}; expected a folder "
                "inside; remove the link"
            )
