"""The closed top levels of the commands from a run to a search; see `visual_search.config.schemas`.

Fields without a default that is theirs alone repeat those of the settings that they fill; a test
holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# Fields of text for which OmegaConf has no type; `cli.typed_text` reads these instead.
ONE_TEXT = {"typed": "str | None"}
ONE_OR_MORE = {"typed": "str | list[str] | None"}
COLUMNS = {"typed": "dict[str, str] | None"}
COLUMNS_OF_SEVERAL = {"typed": "dict[str, list[str]] | None"}


@dataclass
class CacheConfig:
    """Where decoded pictures are kept."""

    cache_dir: str = "data/cache"


@dataclass
class ExportSchema:
    """The closed top level of ``conf/export.yaml``: any other key is an error."""

    run: str | None = None
    out: str | None = None
    name: str | None = None
    items: str = "seen"
    index: str = "auto"
    target_recall: float = 0.95
    thumbnail_px: int = 192
    num_checked: int = 64
    num_threads: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    pictures: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class SearchSchema:
    """The closed top level of ``conf/search.yaml``: any other key is an error."""

    bundle: str | None = None
    image: Any = field(default=None, metadata=ONE_OR_MORE)
    item: Any = field(default=None, metadata=ONE_OR_MORE)
    k: int = 5
    category: Any = field(default=None, metadata=ONE_OR_MORE)
    where: Any = field(default=None, metadata=COLUMNS_OF_SEVERAL)
    format: str = "table"
    out: str | None = None
    inline: str = "auto"
    verify: str = "hashes"
    num_threads: int | None = None


@dataclass
class IndexSchema:
    """The closed top level of ``conf/index.yaml``: any other key is an error."""

    action: str | None = None
    bundle: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    image: str | None = None
    item: Any = field(default=None, metadata=ONE_OR_MORE)
    category: str | None = field(default=None, metadata=ONE_TEXT)
    attributes: Any = field(default=None, metadata=COLUMNS)
    ids: str | None = None
    skip_missing: bool = False
    index: str | None = None
    target_recall: float | None = None
    wait_s: float = 30.0
    num_threads: int | None = None
    pictures: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class ServeSchema:
    """The closed top level of ``conf/serve.yaml``: any other key is an error.

    From ``host`` on they are those of `visual_search.serving.settings.ServeSettings`.
    """

    bundle: str | None = None
    bundles: list[str] = field(default_factory=list)
    verify: str = "hashes"
    host: str = "127.0.0.1"
    port: int = 8000
    trusted_hosts: list[str] = field(default_factory=lambda: ["127.0.0.1", "localhost", "::1"])
    max_upload_bytes: int = 16 * 2**20
    max_pixels: int = 64_000_000
    max_write_bytes: int = 64 * 2**20
    max_items_per_write: int = 100
    max_k: int = 100
    default_k: int = 12
    max_page_size: int = 200
    max_batch: int = 16
    max_searches: int = 64
    num_threads: int = 32
    read_seconds: float = 30.0
    refresh_seconds: float = 3.0
    shutdown_seconds: float = 30.0
