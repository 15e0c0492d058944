"""The bundles that are served, each as a snapshot that a newer generation replaces in one step."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from visual_search.databases.database import DatabaseError
from visual_search.serving.batching import Batcher
from visual_search.serving.metrics import ServeMetrics
from visual_search.serving.settings import ServeSettings
from visual_search.storage.bucket import StorageError

if TYPE_CHECKING:
    from visual_search.bundle.bundle import Bundle

# A column with more values than this is free text or a name: as a filter it would be a long list.
MAX_FILTER_VALUES = 200
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedGeneration:
    """One generation of a bundle and the queue before its encoder.

    A request takes one and keeps it: what is swapped in meanwhile concerns the next request.
    """

    bundle: Bundle
    batcher: Batcher

    @property
    def generation(self) -> int:
        """The bundle's generation."""
        return self.bundle.manifest.generation

    @cached_property
    def filters(self) -> Mapping[str, Mapping[str, int]]:
        """Column -> value -> products, of the columns that suit as filters, as category does."""
        found = {}
        for column in self.bundle.columns:
            # Counting a column of names takes seconds in a large catalogue: look first.
            if column != "category" and self.bundle.has_more_values(column, MAX_FILTER_VALUES):
                continue
            if column == self.bundle.product_column:  # it names products and says nothing of them
                continue
            values = self.bundle.values_of(column, by_product=True)
            if column == "category" or len(values) >= 2:
                found[column] = MappingProxyType(dict(values))
        return MappingProxyType(found)


class ServedBundle:
    """A bundle under the name by which requests ask for it.

    Args:
        name: The name.
        bundle: Its generation now.
        settings: Sizes of batches and queues.
        metrics: Where batches and generations are noted.
    """

    def __init__(
        self, name: str, bundle: Bundle, settings: ServeSettings, metrics: ServeMetrics
    ) -> None:
        self.name = name
        self.writing = threading.Lock()  # one writer of this process at a time
        self._refreshing = threading.Lock()
        self._settings = settings
        self._metrics = metrics
        self._failed_once = False
        self._storage_failed = False
        self._database_failed = False
        self._snapshot = ServedGeneration(bundle, self._batcher(bundle))
        self._note()

    @property
    def snapshot(self) -> ServedGeneration:
        """The newest generation that was opened."""
        return self._snapshot

    def warm(self) -> None:
        """Loads the encoder and what the page shows, so that the first request does not wait."""
        encoder = self._snapshot.bundle.encoder
        side = encoder.image_size_px
        encoder.embed(np.full((1, 3, side, side), 255, np.uint8))
        _ = self._snapshot.filters

    def refresh(self) -> bool:
        """Opens the newer generation where there is one; whether there was.

        A generation that cannot be opened, or object storage that does not answer, leaves the one
        that is served as it is; the failure is logged once and counted.
        """
        with self._refreshing:
            is_new = self._open_newer()
            self._catch_up()
            return is_new

    def _open_newer(self) -> bool:
        """Opens the newer generation where there is one."""
        old = self._snapshot
        try:
            if old.bundle.is_current():
                self._failed_once = self._storage_failed = False
                return False
            bundle = old.bundle.refreshed()
            if bundle is old.bundle:
                return False
            is_same = bundle.encoder is old.bundle.encoder
            new = ServedGeneration(bundle, old.batcher if is_same else self._batcher(bundle))
            _ = new.filters  # counted before anybody waits for it
        except StorageError as error:  # what is served was copied: no search is missing
            self._metrics.refresh_failures.labels(self.name).inc()
            if not self._storage_failed:
                _logger.warning("bundle %s: %s", self.name, error)
            self._storage_failed = True
            return False
        except (OSError, ValueError) as error:
            self._metrics.refresh_failures.labels(self.name).inc()
            if not self._failed_once:
                _logger.warning("bundle %s: the newer generation: %s", self.name, error)
            self._failed_once = True
            return False
        self._failed_once = self._storage_failed = False
        self._snapshot = new
        self._note()
        return True

    def _catch_up(self) -> None:
        """Brings the vector database, where one is searched, to the generation that is served.

        One that does not answer is logged once; the next look tries again.
        """
        database = self._snapshot.bundle.database
        if database is None:
            return
        try:
            database.catch_up()
        except (DatabaseError, ValueError) as error:
            if not self._database_failed:
                _logger.warning("bundle %s: %s", self.name, error)
            self._database_failed = True
        else:
            if self._database_failed:
                _logger.warning("bundle %s: the vector database answers again", self.name)
            self._database_failed = False

    @property
    def is_healthy(self) -> bool:
        """Whether searches are answered, and from the newest generation that is known of."""
        return not (self._failed_once or self._database_failed)

    def _batcher(self, bundle: Bundle) -> Batcher:
        def embed(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
            return bundle.encoder.embed(pictures)

        return Batcher(
            embed,
            max_batch=self._settings.max_batch,
            max_waiting=self._settings.max_searches,
            on_batch=self._metrics.batch_pictures.labels(self.name).observe,
        )

    def _note(self) -> None:
        self._metrics.items.labels(self.name).set(len(self._snapshot.bundle))
        self._metrics.generation.labels(self.name).set(self._snapshot.generation)


def distinct_names(names: Sequence[str]) -> list[str]:
    """Returns the names, later ones of the same name with a number, so that each can be asked for.

    Example:
        >>> distinct_names(["baseline", "plus_layer", "baseline"])
        ['baseline', 'plus_layer', 'baseline (2)']
    """
    taken: set[str] = set()
    distinct = []
    for name in names:
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name} ({number})", number + 1
        taken.add(candidate)
        distinct.append(candidate)
    return distinct
