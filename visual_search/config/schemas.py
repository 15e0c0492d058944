"""The closed schemas of the commands' configs: a key that none of them names is an error."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

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
class SplitConfig:
    """How items without a split get one; see `visual_search.catalog.splits.assign_splits`."""

    method: str = "hash"
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    divisor: int = 10
    test_categories: list[str] | None = None
    order_by: str | None = None
    seed: int = 0


@dataclass
class PicturesConfig:
    """What the network sees, and where decoded pictures are kept."""

    size_px: int = 128
    fit: str = "stretch"
    cache_dir: str = "data/cache"


@dataclass
class ItemLimits:
    """At most so many items a category in each split; null keeps all."""

    train: int | None = None
    val: int | None = None
    test: int | None = None


@dataclass
class LoaderConfig:
    """Batches: how large, read by how many processes, from how many items."""

    batch_size: int = 128
    num_workers: int = 0
    shuffle: bool = True
    max_items_per_category: ItemLimits = field(default_factory=ItemLimits)


@dataclass
class TrainingConfig:
    """The optimiser, see `visual_search.training.optimization`, and how often to measure."""

    learning_rate: float = 3e-4
    optimizer: str = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_fraction: float = 0.0
    backbone_factor: float = 1.0
    start_from: str | None = None
    evaluate_every_n_epochs: int = 5
    checkpoint_every_n_seconds: float = 300.0


@dataclass
class EmbeddingConfig:
    """What of a network is indexed; see `visual_search.models.embedding.EmbeddingSettings`."""

    layer: str | None = None
    pool: str = "flatten"
    mirror: bool = False
    normalize: bool = False
    pca: int | None = None
    whiten: float = 0.0
    whiten_by: str = "variance"
    beside: str | None = None
    beside_pca: int = 254
    beside_weight: float = 1.0


@dataclass
class PartnersConfig:
    """Whether second views show other items; see `training.callbacks.neighbour_positives`."""

    source: str | None = None
    num_neighbours: int = 5
    own_probability: float = 0.3
    refresh_every_n_epochs: int | None = None


@dataclass
class IndexConfig:
    """Who answers a search: ``auto``, ``cpu`` or ``gpu``."""

    device: str = "auto"


@dataclass
class TrainSchema:
    """The closed top level of ``conf/train.yaml``: any other key is an error."""

    name: str | None = None
    seed: int = 0
    rerun: bool = False
    outputs: str = "outputs"
    model: dict[str, Any] = field(default_factory=dict)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    objective: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] | None = None
    sampler: dict[str, Any] = field(default_factory=dict)
    partners: PartnersConfig = field(default_factory=PartnersConfig)
    data: dict[str, Any] = field(default_factory=dict)
    split: SplitConfig = field(default_factory=SplitConfig)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    protocol: dict[str, Any] = field(default_factory=dict)
    index: IndexConfig = field(default_factory=IndexConfig)
    floors: bool = True
    near_duplicates: bool = True
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    profiler: dict[str, Any] | None = None


@dataclass
class EvaluationLoader:
    """How pictures that have no embedding yet are read."""

    batch_size: int = 128
    num_workers: int = 0


@dataclass
class EvaluationTrainer:
    """Where and how exactly a run's network embeds."""

    accelerator: str = "auto"
    precision: str = "auto"
    devices: Any = 1


@dataclass
class EmbeddingOverride:
    """What of a run's network is indexed instead; ``own`` is as the run has it."""

    layer: Any = field(default="own", metadata=ONE_TEXT)
    pool: Any = field(default="own", metadata=ONE_TEXT)
    mirror: Any = "own"
    normalize: Any = "own"
    pca: Any = "own"
    whiten: Any = "own"
    whiten_by: Any = field(default="own", metadata=ONE_TEXT)
    beside: Any = field(default="own", metadata=ONE_TEXT)
    beside_pca: Any = "own"
    beside_weight: Any = "own"


@dataclass
class EvaluateSchema:
    """The closed top level of ``conf/evaluate.yaml``: any other key is an error."""

    run: str | None = None
    embeddings: str | None = None
    ids: str | None = None
    name: str | None = None
    query_split: str = "test"
    rerun: bool = False
    outputs: str = "outputs"
    floors: bool = True
    near_duplicates: bool = True
    data: dict[str, Any] = field(default_factory=dict)
    split: SplitConfig | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    loader: EvaluationLoader = field(default_factory=EvaluationLoader)
    trainer: EvaluationTrainer = field(default_factory=EvaluationTrainer)
    embedding: EmbeddingOverride = field(default_factory=EmbeddingOverride)
    index: IndexConfig = field(default_factory=IndexConfig)


@dataclass
class CompareSchema:
    """The closed top level of ``conf/compare.yaml``: any other key is an error."""

    runs: list[str] = field(default_factory=list)
    names: list[str] | None = None
    out: str | None = None
    outputs: str = "outputs"
    pictures: CacheConfig = field(default_factory=CacheConfig)
    num_queries_shown: int = 12
    seed: int = 0


@dataclass
class LeaderboardSchema:
    """The closed top level of ``conf/leaderboard.yaml``: any other key is an error."""

    outputs: str = "outputs"
    out: str | None = None
    seed: int = 0


@dataclass
class CompressSchema:
    """The closed top level of ``conf/compress.yaml``: any other key is an error."""

    run: str | None = None
    out: str | None = None
    max_loss: float = 0.01
    times_smaller: float = 8.0
    seed: int = 0


@dataclass
class DownloadSchema:
    """The closed top level of ``conf/download.yaml``: any other key is an error.

    From ``requests_per_s`` on they are those of
    `visual_search.catalog.downloads.settings.DownloadSettings`.
    """

    data: dict[str, Any] = field(default_factory=dict)
    urls: str | None = None
    folder: str | None = None
    requests_per_s: float = 10.0
    max_bytes: int = 20 * 2**20
    allowed_hosts: list[str] = field(default_factory=list)
    http_hosts: list[str] = field(default_factory=list)
    private_hosts: list[str] = field(default_factory=list)
    try_again: list[str] = field(default_factory=lambda: ["failed"])
    check_saved: str = "size"
    user_agent: str = "visual-search"


@dataclass
class EmbedTrainer:
    """Where, how exactly and in how many processes a run's network embeds a catalogue."""

    accelerator: str = "auto"
    precision: str = "auto"
    devices: Any = 1
    strategy: str = "auto"


@dataclass
class EmbedSchema:
    """The closed top level of ``conf/embed.yaml``: any other key is an error."""

    run: str | None = None
    out: str | None = None
    shard_size: int = 50_000
    pictures: CacheConfig = field(default_factory=CacheConfig)
    data: dict[str, Any] = field(default_factory=dict)
    split: SplitConfig | None = None
    loader: EvaluationLoader = field(default_factory=EvaluationLoader)
    trainer: EmbedTrainer = field(default_factory=EmbedTrainer)


@dataclass
class CheckSchema:
    """The closed top level of ``conf/check.yaml``: any other key is an error."""

    data: dict[str, Any] = field(default_factory=dict)
    split: SplitConfig = field(default_factory=SplitConfig)
    protocol: dict[str, Any] = field(default_factory=dict)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    sheet_items: int = 24
    outputs: str = "outputs"
    out: str | None = None


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

    From ``host`` on they are what `visual_search.serving.settings.ServeSettings` explains.
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


Schema = TypeVar("Schema")

SCHEMAS: dict[str, type] = {
    "train": TrainSchema,
    "evaluate": EvaluateSchema,
    "compare": CompareSchema,
    "leaderboard": LeaderboardSchema,
    "check": CheckSchema,
    "compress": CompressSchema,
    "download": DownloadSchema,
    "embed": EmbedSchema,
    "export": ExportSchema,
    "index": IndexSchema,
    "search": SearchSchema,
    "serve": ServeSchema,
}
"""Command -> the schema of its ``conf/<command>.yaml``."""


def filled(schema: type[Schema], content: Mapping[str, Any]) -> Schema:
    """Returns a schema's dataclass with a config's values, which OmegaConf has checked.

    Args:
        schema: Of a command, or of a part of one.
        content: Plain containers; a node of a group stays one, its missing values ``???``.
    """
    parts = _parts(schema)
    return schema(
        **{
            name: filled(parts[name], value) if name in parts and value is not None else value
            for name, value in content.items()
        }
    )


def known(schema: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a config a schema knows; an earlier version may have had other keys."""
    parts = _parts(schema)
    return {
        field.name: known(parts[field.name], content[field.name])
        if field.name in parts and isinstance(content[field.name], Mapping)
        else content[field.name]
        for field in fields(schema)
        if field.name in content
    }


def _parts(schema: type) -> dict[str, type]:
    """Returns the fields that are dataclasses themselves, or may be."""
    found = {}
    for name, hint in typing.get_type_hints(schema).items():
        for kind in (hint, *typing.get_args(hint)):
            if isinstance(kind, type) and is_dataclass(kind):
                found[name] = kind
    return found
