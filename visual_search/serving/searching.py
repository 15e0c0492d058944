"""From a query to hits: decode, embed, search; at most so many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

from visual_search.catalog.images import PictureError, PictureLimits
from visual_search.catalog.pixel_budget import BudgetExceededError, PixelBudget
from visual_search.catalog.thumbnails import THUMBNAIL_PX, thumbnail
from visual_search.databases.database import DatabaseError
from visual_search.serving.batching import QueueFullError
from visual_search.serving.metrics import ServeMetrics
from visual_search.serving.problems import Problem
from visual_search.serving.queries import Query, check_columns
from visual_search.serving.served_bundle import ServedBundle, ServedGeneration
from visual_search.serving.settings import ServeSettings

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle, Hit

RETRY_AFTER_SECONDS = 1
DATABASE_RETRY_SECONDS = 5
READERS = 4
# The largest picture takes a second: whoever waits longer for the others' pixels stands in a crowd.
PIXELS_PATIENCE_S = 5.0
_logger = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Answer:
    """What one bundle gave.

    Attributes:
        bundle: The bundle's name.
        generation: Its generation.
        hits: Nearest first.
        seconds: Stage -> seconds, waiting included.
        picture: What the encoder saw, ``[3, S, S] uint8``; None where an item's own embedding
            was taken.
        by_thumbnail: The item is not in this bundle, so its thumbnail from another one was
            embedded.
    """

    bundle: str
    generation: int
    hits: Sequence[Hit]
    seconds: Mapping[str, float]
    picture: NDArray[np.uint8] | None = None
    by_thumbnail: bool = False


class Searcher:
    """Runs searches on threads of its own.

    Args:
        settings: Limits.
        metrics: Where stages and refusals are noted.
    """

    def __init__(self, settings: ServeSettings, metrics: ServeMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._num_running = 0
        self._threads = ThreadPoolExecutor(settings.num_threads, "search")
        self._readers = ThreadPoolExecutor(READERS, "read")
        budget = PixelBudget(settings.max_pixels, patience_s=PIXELS_PATIENCE_S)
        self._limits = PictureLimits(settings.max_upload_bytes, settings.max_pixels, budget)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a search from before its body is read until its answer is ready.

        Raises:
            Problem: Too many are running; its answer says when to try again.
        """
        if self._num_running >= self._settings.max_searches:
            raise self._overloaded()
        self._num_running += 1  # only ever changed in the event loop's thread
        self._metrics.searches_running.set(self._num_running)
        try:
            yield
        finally:
            self._num_running -= 1
            self._metrics.searches_running.set(self._num_running)

    async def search(
        self, query: Query, served: ServedBundle, *, others: Sequence[ServedBundle] = ()
    ) -> Answer:
        """Returns a bundle's answer; all of it is made in one thread, without handing over.

        Args:
            query: What is looked for.
            served: Where.
            others: Bundles whose thumbnail of the item may be taken where this one lacks the item.

        Raises:
            Problem: The picture, item or filter cannot be used, or too much waits.
        """
        return await self.run(self._answer, query, served, others)

    def _answer(self, query: Query, served: ServedBundle, others: Sequence[ServedBundle]) -> Answer:
        snapshot = served.snapshot
        check_columns(query.where, snapshot.bundle.columns)
        if query.image is None and query.item_id is None:
            raise Problem(
                "invalid",
                "There is neither a picture nor an item; expected a file 'image' or an 'item'; "
                "send one of them.",
            )
        seconds: dict[str, float] = {}
        image, by_thumbnail, picture = query.image, False, None
        if query.item_id is not None and query.item_id not in snapshot.bundle:
            image, by_thumbnail = _thumbnail_elsewhere(query.item_id, served, others), True
        if image is not None:
            with self._metrics.stage(served.name, "decode", seconds):
                picture = self.decode(image, snapshot)
            with self._metrics.stage(served.name, "embed", seconds):
                embedding = self.embed(picture[None], snapshot)[0]  # [1, D] -> [D]
        else:
            assert query.item_id is not None
            with self._metrics.stage(served.name, "embed", seconds):
                embedding = item_embedding(snapshot.bundle, query.item_id)
        with self._metrics.stage(served.name, "search", seconds), _database_problems(served):
            hits = _hits(snapshot.bundle, embedding, query)
        return Answer(served.name, snapshot.generation, hits, seconds, picture, by_thumbnail)

    def decode(self, image: bytes, snapshot: ServedGeneration) -> NDArray[np.uint8]:
        """Returns a picture as the bundle's encoder takes it, ``[3, S, S]``.

        Raises:
            Problem: It cannot be used.
        """
        with self._picture_problems():
            return snapshot.bundle.encoder.decode(image, self._limits)

    def thumbnail(self, image: bytes) -> bytes:
        """Returns a picture as a small JPEG.

        Raises:
            Problem: It cannot be used.
        """
        with self._picture_problems():
            return thumbnail(image, THUMBNAIL_PX, self._limits)

    @contextmanager
    def _picture_problems(self) -> Iterator[None]:
        try:
            yield
        except PictureError as error:
            is_foreign = isinstance(error.__cause__, UnidentifiedImageError)
            kind = "not-a-picture" if is_foreign else "bad-picture"
            raise Problem(kind, f"The picture: {error}.") from error
        except BudgetExceededError as error:
            raise self._overloaded(f"Pictures wait to be decoded: {error}") from error

    def embed(self, pictures: NDArray[np.uint8], snapshot: ServedGeneration) -> NDArray[np.float32]:
        """Returns the embeddings ``[n, D]`` of pictures ``[n, 3, S, S]``, in their turn.

        Raises:
            Problem: As many wait as are allowed to.
        """
        try:
            return snapshot.batcher.embed(pictures)
        except QueueFullError as error:
            raise self._overloaded() from error

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs what takes its time on one of the threads for searches."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def look_up(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs what is soon done on a thread of its own, so that no search holds it up."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Finishes what runs."""
        self._threads.shutdown()
        self._readers.shutdown()

    def _overloaded(self, why: str = "") -> Problem:
        self._metrics.refused.inc()
        most = (
            f"{self._settings.max_searches} searches are running or waiting, as many as are taken"
        )
        return Problem(
            "overloaded",
            f"{why or most}; try again in {RETRY_AFTER_SECONDS} s.",
            headers={"retry-after": str(RETRY_AFTER_SECONDS)},
        )


def no_such_item(item_id: str, bundle: str) -> Problem:
    """Returns the problem of an id that a bundle does not hold."""
    return Problem(
        "no-such-item",
        f"The bundle {bundle!r} holds no item {item_id[:200]!r}; expected one of its ids; "
        "check it, or look it up with GET /api/items.",
        for_people=f"There is no product “{item_id[:200]}” here, or not any more. Look for another "
        "one.",
    )


def item_embedding(bundle: Bundle, item_id: str) -> NDArray[np.float32]:
    """Returns an item's embedding ``[D]``.

    Raises:
        Problem: The bundle does not hold the item.
    """
    try:
        return bundle.embedding_of(item_id)
    except KeyError as error:
        raise no_such_item(item_id, bundle.name) from error


@contextmanager
def _database_problems(served: ServedBundle) -> Iterator[None]:
    """Turns a database that does not answer into 503; what it said is nothing for who searches."""
    try:
        yield
    except DatabaseError as error:
        _logger.info("bundle %s: %s", served.name, error)
        raise Problem(
            "no-database",
            f"The bundle {served.name!r} is searched in a vector database, which is down, too slow "
            f"or starting; expected an answer from it; try again in {DATABASE_RETRY_SECONDS} s. "
            "The server's log has its words.",
            headers={"retry-after": str(DATABASE_RETRY_SECONDS)},
        ) from error


def _hits(bundle: Bundle, embedding: NDArray[np.float32], query: Query) -> list[Hit]:
    found = bundle.search(
        embedding[None],  # [D] -> [1, D]
        query.k,
        where=query.where or None,
        exclude_ids=[query.item_id],  # an item is not its own neighbour
        products=query.products,
    )
    return found[0]


def _thumbnail_elsewhere(
    item_id: str, served: ServedBundle, others: Sequence[ServedBundle]
) -> bytes:
    for other in others:
        bundle = other.snapshot.bundle
        if item_id in bundle and (thumbnail := bundle.thumbnail(item_id)):
            return thumbnail
    raise no_such_item(item_id, served.name)
