"""The closed schemas of the commands' configs: a key that none of them names is an error.

What a key is for stands in its class's ``Attributes``, which ``--help`` shows (`cli.help`); its
default stands here alone.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeAlias, TypeVar

# A chosen option of a group: a ``_target_`` of `config.builders`, and what that is given.
Node: TypeAlias = dict[str, Any]

# Fields of text for which OmegaConf has no type; `cli.typed_text` reads these instead.
ONE_TEXT = {"typed": "str | None"}
ONE_OR_MORE = {"typed": "str | list[str] | None"}
COLUMNS = {"typed": "dict[str, str] | None"}
COLUMNS_OF_SEVERAL = {"typed": "dict[str, list[str]] | None"}


@dataclass
class CacheConfig:
    """Where decoded pictures are kept.

    Attributes:
        cache_dir: Folder of decoded pictures, which all commands share.
    """

    cache_dir: str = "data/cache"


@dataclass
class SplitConfig:
    """How items without a split get one; see `visual_search.catalog.splits.assign_splits`.

    Attributes:
        method: stratified tests enough to measure, of every category, and keeps every group where
            it is; hash tests groups whose hash falls below test_fraction, crc32 every divisor-th,
            categories whole categories, newest the newest by order_by.
        val_fraction: Share of the groups that are not tested.
        test_fraction: Share of the groups, or of the categories; crc32 does not use it.
        divisor: Of crc32: one group in so many is tested.
        test_categories: Of categories: those to hold out; null takes test_fraction of them, by
            hash.
        order_by: Of newest: the column that tells old from new, such as year.
        seed: Another one draws other groups, or other categories.
        kept: Of stratified: the file that keeps which group is where; null: one in
            <outputs>/splits, by the catalogue's name and these settings.
        allow_few: true trains where the test has too few queries or groups to say anything.
    """

    method: str = "stratified"
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    divisor: int = 10
    test_categories: list[str] | None = None
    order_by: str | None = None
    seed: int = 0
    kept: str | None = None
    allow_few: bool = False


@dataclass
class PicturesConfig:
    """What the network sees, and where decoded pictures are kept.

    Attributes:
        size_px: Side of the square that the network sees.
        fit: stretch, or letterbox, which keeps the shape and pads with white.
        cache_dir: Folder of decoded pictures, which all commands share.
    """

    size_px: int = 128
    fit: str = "stretch"
    cache_dir: str = "data/cache"


@dataclass
class ItemLimits:
    """At most so many items a category in each split; null keeps all.

    Attributes:
        train: Of those to learn from.
        val: Of those that are measured during training.
        test: Of those that are measured at the end.
    """

    train: int | None = None
    val: int | None = None
    test: int | None = None


@dataclass
class LoaderConfig:
    """Batches: how large, read by how many processes, from how many items.

    Attributes:
        batch_size: Pictures a step, over all processes.
        num_workers: Processes that read ahead; 0 reads in the training's own.
        shuffle: In a new order every epoch.
        max_items_per_category: At most so many items of each category in a split; null keeps all.
    """

    batch_size: int = 128
    num_workers: int = 0
    shuffle: bool = True
    max_items_per_category: ItemLimits = field(default_factory=ItemLimits)


@dataclass
class TrainingConfig:
    """The optimiser, see `visual_search.training.optimization`, and how often to measure.

    Attributes:
        learning_rate: The highest of the run.
        optimizer: adam, adamw or sgd.
        momentum: Of sgd.
        weight_decay: On matrices and kernels; biases and normalisations have none.
        schedule: constant, or cosine, which falls to 0 at the last step.
        warmup_fraction: Share of all steps in which the rate rises from 0.
        backbone_factor: The network learns at this share of the rate, classifier and projection at
            all of it.
        start_from: Folder of a finished run: its network's weights are the first ones here.
        evaluate_every_n_epochs: One embedding pass each; the loss is validated every epoch.
        checkpoint_every_n_seconds: Which is what a kill costs at most.
    """

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
    """What of a network is indexed; see `visual_search.models.embedding.EmbeddingSettings`.

    Attributes:
        layer: An encoder layer by name, as the feature maps have it; null: the network's embedding.
        pool: Of a layer: flatten, average, max or gem.
        mirror: Mean of a picture's values and its mirror image's.
        normalize: Scale to length 1.
        pca: Keep so many principal components of the gallery; null keeps the values as they are.
        whiten: Divide a component by its standard deviation to this power, 0 to 1.
        whiten_by: variance: of the gallery; neighbours: between mutual neighbours in it.
        beside: A descriptor beside the network's values: hog; hog_shape, for
            pictures.fit=letterbox.
        beside_pca: Principal components of the descriptor.
        beside_weight: What the descriptor counts when the network counts 1.
    """

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
    """Whether second views show other items; see `training.callbacks.neighbour_positives`.

    Attributes:
        source: Who is near by it is a partner: a floor, such as hog_pca_256_unit, or beside, the
            run's own embedding.beside; null: nobody. Other pictures of the same product always are.
        num_neighbours: Both have to be among the other's so many nearest.
        own_probability: How often the item itself is shown nonetheless.
        refresh_every_n_epochs: Choose anew by the network's own embeddings and the source's; null
            never.
    """

    source: str | None = None
    num_neighbours: int = 5
    own_probability: float = 0.3
    refresh_every_n_epochs: int | None = None


@dataclass
class IndexConfig:
    """Who answers a search: ``auto``, ``cpu`` or ``gpu``.

    Attributes:
        device: auto, cpu or gpu; exact either way.
    """

    device: str = "auto"


@dataclass
class TrainSchema:
    """The closed top level of ``conf/train.yaml``: any other key is an error.

    Attributes:
        name: Folder under outputs; null takes the model's name.
        seed: Of everything that is drawn by chance.
        rerun: true removes what an earlier run of the same settings left.
        explain: true says what the numbers mean after every run, not after the day's first alone.
        outputs: Folder of all runs.
        model: The network.
        embedding: Which of the network's values are indexed.
        objective: What the network is trained for.
        augmentation: How pictures are changed while training.
        sampler: Which items a batch is made of.
        partners: For objectives of two views: show another item as the second one.
        data: The catalogue.
        split: Which items are for training, validation and test, where the data does not say.
        pictures: What the network sees.
        loader: Batches.
        training: How the weights are changed, and how often it is measured.
        protocol: Who searches where, and what counts as found.
        index: Of the gallery.
        floors: Beside every result: what embeddings that learn nothing reach (cached).
        near_duplicates: Count, list and draw gallery pictures that are nearly a query's own.
        trainer: Where and how long; Lightning's Trainer.
        callbacks: What is drawn during and after training; callbacks.NAME=null leaves one out.
        logger: Where curves and figures go.
        profiler: Where the time goes; null measures none.
    """

    name: str | None = None
    seed: int = 0
    rerun: bool = False
    explain: bool = False
    outputs: str = "outputs"
    model: Node = field(default_factory=dict)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    objective: Node = field(default_factory=dict)
    augmentation: Node | None = None
    sampler: Node = field(default_factory=dict)
    partners: PartnersConfig = field(default_factory=PartnersConfig)
    data: Node = field(default_factory=dict)
    split: SplitConfig = field(default_factory=SplitConfig)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    protocol: Node = field(default_factory=dict)
    index: IndexConfig = field(default_factory=IndexConfig)
    floors: bool = True
    near_duplicates: bool = True
    trainer: Node = field(default_factory=dict)
    callbacks: Node = field(default_factory=dict)
    logger: Node = field(default_factory=dict)
    profiler: Node | None = None


@dataclass
class EvaluationLoader:
    """How pictures that have no embedding yet are read.

    Attributes:
        batch_size: Pictures a step, in each process.
        num_workers: Processes that read ahead; 0 reads in the command's own.
    """

    batch_size: int = 128
    num_workers: int = 0


@dataclass
class EvaluationTrainer:
    """Where and how exactly a run's network embeds.

    Attributes:
        accelerator: auto, cpu or gpu.
        precision: auto is the run's own; float32 where this machine does not compute in it.
        devices: One; [1] takes the second card.
    """

    accelerator: str = "auto"
    precision: str = "auto"
    devices: Any = 1


@dataclass
class EmbeddingOverride:
    """What of a run's network is indexed instead; ``own`` is as the run has it.

    Attributes:
        layer: An encoder layer by name, null for the network's embedding.
        pool: Of a layer: flatten, average, max or gem.
        mirror: Mean of a picture's values and its mirror image's: true or false.
        normalize: Scale to length 1: true or false.
        pca: Keep so many principal components; null keeps the values as they are.
        whiten: Divide a component by its standard deviation to this power, 0 to 1.
        whiten_by: variance or neighbours.
        beside: hog or hog_shape: a descriptor beside the network's values; null for none.
        beside_pca: Principal components of the descriptor.
        beside_weight: What the descriptor counts when the network counts 1.
    """

    layer: str | None = field(default="own", metadata=ONE_TEXT)
    pool: str | None = field(default="own", metadata=ONE_TEXT)
    mirror: Any = "own"
    normalize: Any = "own"
    pca: Any = "own"
    whiten: Any = "own"
    whiten_by: str | None = field(default="own", metadata=ONE_TEXT)
    beside: str | None = field(default="own", metadata=ONE_TEXT)
    beside_pca: Any = "own"
    beside_weight: Any = "own"


@dataclass
class EvaluateSchema:
    """The closed top level of ``conf/evaluate.yaml``: any other key is an error.

    Attributes:
        run: Folder of a finished run.
        embeddings: Instead of a run: .npy or .parquet of any model, as many rows as ids.
        embedder: Instead of a run: a network that another library knows by its name.
        ids: Of an .npy: a text file with one id a line, or a CSV or Parquet with item_id; null
            looks beside it.
        name: Folder under outputs, for embeddings from outside; null takes the file's name.
        query_split: The split that asks: test, val or train.
        rerun: true measures anew what was measured before.
        explain: true says what the numbers mean every time, not the day's first time alone.
        outputs: Where embeddings from outside leave their results; a run's lie in its folder.
        floors: Beside every result: what embeddings that learn nothing reach (cached).
        near_duplicates: Count, list and draw gallery pictures that are nearly a query's own.
        data: Another catalogue; null takes the run's own.
        split: Which items are for training, validation and test; null takes the run's own.
        protocol: Who searches where, and what counts as found; null takes the run's own.
        pictures: Of embeddings from outside, for floors and pictures; a run has its own.
        loader: How pictures that have no embedding yet are read.
        trainer: Where a run's network embeds what has no embedding yet.
        embedding: Of a run, where something else of its network is to be indexed; own is as the run
            has it.
        index: Of the gallery.
    """

    run: str | None = None
    embeddings: str | None = None
    embedder: Node | None = None
    ids: str | None = None
    name: str | None = None
    query_split: str = "test"
    rerun: bool = False
    explain: bool = False
    outputs: str = "outputs"
    floors: bool = True
    near_duplicates: bool = True
    data: Node = field(default_factory=dict)
    split: SplitConfig | None = None
    protocol: Node = field(default_factory=dict)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    loader: EvaluationLoader = field(default_factory=EvaluationLoader)
    trainer: EvaluationTrainer = field(default_factory=EvaluationTrainer)
    embedding: EmbeddingOverride = field(default_factory=EmbeddingOverride)
    index: IndexConfig = field(default_factory=IndexConfig)


@dataclass
class CompareSchema:
    """The closed top level of ``conf/compare.yaml``: any other key is an error.

    Attributes:
        runs: Folders of runs or of their evaluations, two or more; those that differ in the seed
            alone are compared as one, their mean.
        names: What to call them, each by itself, in the same order; null takes their experiments
            and the settings in which they differ.
        out: Folder of the comparison; null makes one under outputs/comparisons.
        outputs: Folder of all runs.
        pictures: Size and fit are the runs'.
        num_queries_shown: Search results side by side, where the runs differ most first.
        seed: Of resamples and permutations.
    """

    runs: list[str] = field(default_factory=list)
    names: list[str] | None = None
    out: str | None = None
    outputs: str = "outputs"
    pictures: CacheConfig = field(default_factory=CacheConfig)
    num_queries_shown: int = 12
    seed: int = 0


@dataclass
class LeaderboardSchema:
    """The closed top level of ``conf/leaderboard.yaml``: any other key is an error.

    Attributes:
        outputs: The folder with the runs; may be given without its key.
        out: Folder of leaderboard.md, .csv and .html; null takes outputs.
        seed: Of resamples and permutations.
    """

    outputs: str = "outputs"
    out: str | None = None
    seed: int = 0


@dataclass
class BoardSchema:
    """The closed top level of ``conf/board.yaml``: any other key is an error.

    Attributes:
        outputs: The folder with the runs, or one below it; may be given without its key.
        host: Address to listen on; localhost is reachable from this machine only, 0.0.0.0 from all.
        port: null takes the first free one from 6006 on.
    """

    outputs: str = "outputs"
    host: str = "localhost"
    port: int | None = None


@dataclass
class CompressSchema:
    """The closed top level of ``conf/compress.yaml``: any other key is an error.

    Attributes:
        run: Folder of a finished run, or of one of its evaluations.
        out: Folder of the table and the figure; null takes compression/ within the run's.
        max_loss: The most that the headline, such as mAP@5, may lose.
        times_smaller: The goal, against float32: 8 is 512 numbers in 256 bytes instead of 2,048.
        seed: Of resamples.
    """

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

    Attributes:
        data: A catalogue that says its pictures' URLs: complete_the_look or shop_the_look.
        urls: Instead of data: a CSV or TSV with the columns name (a path below the folder) and url.
        folder: Where pictures go; null takes data.pictures.
        requests_per_s: To all hosts together, tries and redirects counted.
        max_bytes: A larger body is refused; 20971520 is 20 MiB.
        allowed_hosts: Where redirects may lead besides the host asked, as pictures.example.org.
        http_hosts: Hosts that may be asked without TLS.
        private_hosts: Hosts that may be in the own network, as 127.0.0.1:8000.
        try_again: Outcomes in the manifest that are tried again: failed, gone, refused.
        check_saved: By size, or by sha256, which reads every picture.
        user_agent: How requests introduce themselves; a contact address beside it is polite.
    """

    data: Node = field(default_factory=dict)
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
    """Where, how exactly and in how many processes a run's network embeds a catalogue.

    Attributes:
        accelerator: auto, cpu or gpu.
        precision: auto is the run's own; float32 where this machine does not compute in it.
        devices: Of several, each writes shards of its own; [1] takes the second card, -1 all,
            auto as many as a launcher started.
        num_nodes: Machines; auto as torchrun or srun have them.
        strategy: How several devices work together; auto is DDP.
    """

    accelerator: str = "auto"
    precision: str = "auto"
    devices: Any = 1
    num_nodes: Any = "auto"
    strategy: str = "auto"


@dataclass
class EmbedLoader:
    """How the pictures of a catalogue are read, decoded and put together.

    Attributes:
        batch_size: Pictures a step, in each process.
        num_threads: That decode ahead, in each process; null shares the cores among them.
    """

    batch_size: int = 128
    num_threads: int | None = None


@dataclass
class EmbedRay:
    """Which Ray cluster embeds, with ``engine=ray``.

    Attributes:
        address: Of the one that is joined, as auto or 10.0.0.1:6379; null starts one of this
            machine's cores, which nobody else reaches.
    """

    address: str | None = None


@dataclass
class EmbedSchema:
    """The closed top level of ``conf/embed.yaml``: any other key is an error.

    Attributes:
        run: Folder of a finished run, whose network embeds.
        bundle: In its place a folder that `python -m visual_search.export` made, or its address
            s3://BUCKET/DIR, whose encoder embeds without PyTorch; data has to be named.
        out: Folder of the shards, or s3://BUCKET/DIR; the same command there goes on where it was.
        engine: local embeds on this machine; ray on all nodes of a cluster, whose storage has out,
            run and pictures under one path.
        shard_size: Items a shard, which is what a kill costs at most, in each process.
        data: Another catalogue; null takes the run's own, all of its items.
        split: Which items are for training, validation and test; null takes the run's own.
        loader: How pictures are read.
        trainer: Where, how exactly and in how many processes; with ray the cluster says how many.
        ray: The cluster.
    """

    run: str | None = None
    bundle: str | None = None
    out: str | None = None
    engine: str = "local"
    shard_size: int = 50_000
    data: Node = field(default_factory=dict)
    split: SplitConfig | None = None
    loader: EmbedLoader = field(default_factory=EmbedLoader)
    trainer: EmbedTrainer = field(default_factory=EmbedTrainer)
    ray: EmbedRay = field(default_factory=EmbedRay)


@dataclass
class MtebSchema:
    """The closed top level of ``conf/mteb.yaml``: any other key is an error.

    Attributes:
        data: The catalogue; it must be chosen.
        split: Which items are for training, validation and test, where the data does not say.
        protocol: Who searches where, and what counts as found.
        query_split: The split that asks: test, val or train.
        pictures: As leaks between the sides are looked for; the task holds them at their own size.
        out: The task's new folder.
    """

    data: Node = field(default_factory=dict)
    split: SplitConfig = field(default_factory=SplitConfig)
    protocol: Node = field(default_factory=dict)
    query_split: str = "test"
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    out: str | None = None


@dataclass
class CheckSchema:
    """The closed top level of ``conf/check.yaml``: any other key is an error.

    Attributes:
        data: The catalogue; it must be chosen.
        split: Which items are for training, validation and test, where the data does not say.
        protocol: Its rule chooses the gallery.
        pictures: As the training will have them: its cache is then filled already.
        sheet_items: Pictures a category on its contact sheet.
        outputs: Folder of all runs.
        out: Folder of report.html and findings.json; null takes <outputs>/check/<catalogue's name>.
    """

    data: Node = field(default_factory=dict)
    split: SplitConfig = field(default_factory=SplitConfig)
    protocol: Node = field(default_factory=dict)
    pictures: PicturesConfig = field(default_factory=PicturesConfig)
    sheet_items: int = 24
    outputs: str = "outputs"
    out: str | None = None


@dataclass
class ExportSchema:
    """The closed top level of ``conf/export.yaml``: any other key is an error.

    Attributes:
        run: Folder of a finished run.
        out: Folder of the bundle, new; null takes bundle/ within the run's.
        name: What the bundle is called; null takes the experiment's.
        items: seen by the run: its splits within its budget; all of the catalogue; gallery of its
            index.
        index: flat, hnsw, ivf or ivfpq; auto chooses by number and memory.
        target_recall: recall@10 against exact search, to which an approximate index is tuned.
        thumbnail_px: Longer side of the pictures in the bundle.
        num_checked: Pictures on which the exported encoder is compared with PyTorch.
        num_threads: Of encoder and index; null takes all cores.
        data: Another catalogue, searched by the run's network; null takes the run's own.
        pictures: Size and fit are the run's.
    """

    run: str | None = None
    out: str | None = None
    name: str | None = None
    items: str = "seen"
    index: str = "auto"
    target_recall: float = 0.95
    thumbnail_px: int = 192
    num_checked: int = 64
    num_threads: int | None = None
    data: Node = field(default_factory=dict)
    pictures: CacheConfig = field(default_factory=CacheConfig)


@dataclass
class SearchSchema:
    """The closed top level of ``conf/search.yaml``: any other key is an error.

    Attributes:
        bundle: Folder that `python -m visual_search.export` made, or its address s3://BUCKET/DIR.
        index: pgvector, qdrant, milvus or lancedb, filled by `index push`, in the place of the
            bundle's own; null takes that.
        url: Its address; one with a password belongs into VISUAL_SEARCH_DATABASE_URL.
        collection: The collection, or table, in it.
        image: A picture, or several: [one.jpg,two.jpg].
        item: Id of an item in the bundle, or several, as typed: 1.10, 007; in quotes: '"null"'.
        k: Neighbours of each.
        products: Of several pictures each, found once: by the best of them, or by their mean; all
            finds every picture.
        category: Only items of this category, or of these: [Shoes,Hats].
        where: Only items with these attributes: {baseColour: Red, season: [Summer,Fall], "a:b":
            "38,5"}.
        format: table or json.
        out: PNG of the pictures that were found.
        inline: The same in terminals that can show it (kitty, iTerm2, WezTerm): auto, never.
        verify: hashes of the bundle's files before they are used; sizes is quicker with a million
            items.
        num_threads: Of encoder and index; null takes all cores.
    """

    bundle: str | None = None
    index: str | None = None
    url: str | None = None
    collection: str = "products"
    image: Any = field(default=None, metadata=ONE_OR_MORE)
    item: Any = field(default=None, metadata=ONE_OR_MORE)
    k: int = 5
    products: str = "best"
    category: Any = field(default=None, metadata=ONE_OR_MORE)
    where: Any = field(default=None, metadata=COLUMNS_OF_SEVERAL)
    format: str = "table"
    out: str | None = None
    inline: str = "auto"
    verify: str = "hashes"
    num_threads: int | None = None


@dataclass
class IndexSchema:
    """The closed top level of ``conf/index.yaml``: any other key is an error.

    Attributes:
        action: add, remove, rebuild, info, push or verify: the word after the command.
        bundle: Folder that `python -m visual_search.export` made; of info, push and verify also its
            address s3://BUCKET/DIR.
        embeddings: Of push and verify: instead of the bundle, from=DIR or from=s3://BUCKET/DIR,
            what `python -m visual_search.embed` wrote.
        to: Of push and verify: pgvector, qdrant, milvus or lancedb.
        url: Its address; one with a password belongs into VISUAL_SEARCH_DATABASE_URL.
        collection: The collection, or table, in it.
        data: Of add: where the new products come from.
        image: Of add: instead of data, one picture ...
        item: ... with its id; of remove: an id, or several.
        product: Of add: whose further picture it is, where products have several; of remove: a
            product, or several, with all their pictures.
        category: Of add: of the one picture; the product's where it is left out.
        attributes: Of add: of the one picture, as {baseColour: Red}.
        ids: Of remove: a text file with one id a line, each as it stands.
        skip_missing: Of remove: pass over ids that are not there; otherwise nothing is removed.
        index: Of rebuild: another kind (flat, hnsw, ivf, ivfpq, auto); null keeps what was asked.
        target_recall: Of rebuild: recall@10 of an approximate index; null keeps what was asked. Of
            verify: what the collection is to find; null is 0.95.
        wait_s: Seconds for another writer to finish.
        num_threads: Of encoder and index; null takes all cores.
        pictures: Size and fit are the encoder's.
    """

    action: str | None = None
    bundle: str | None = None
    embeddings: str | None = None
    to: str | None = None
    url: str | None = None
    collection: str = "products"
    data: Node = field(default_factory=dict)
    image: str | None = None
    item: Any = field(default=None, metadata=ONE_OR_MORE)
    product: Any = field(default=None, metadata=ONE_OR_MORE)
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

    Attributes:
        bundle: Folder that `python -m visual_search.export` made, or its address s3://BUCKET/DIR.
        bundles: Several: two are shown side by side for the same query.
        index: pgvector, qdrant, milvus or lancedb, filled by `index push`, in the place of the
            bundle's own; null takes that.
        url: Its address; one with a password belongs into VISUAL_SEARCH_DATABASE_URL.
        collection: The collection, or table, in it.
        verify: hashes of the files before they are used; sizes starts quicker with a million items.
        host: Address to listen on; 127.0.0.1 is reachable from this machine only.
        port: 0 takes a free one.
        trusted_hosts: Names by which browsers may ask; add your own behind a proxy.
        max_upload_bytes: Largest picture.
        max_pixels: Of one picture, and of all that are decoded at the same time.
        max_write_bytes: Largest request that adds items.
        max_items_per_write: Most items of one request that adds or removes.
        max_k: Most neighbours of one search.
        default_k: Neighbours where a request names no number.
        max_page_size: Most items of one page of GET /api/items.
        max_batch: Pictures that the encoder takes at once.
        max_searches: At the same time; further ones are answered 503.
        num_threads: That decode and search; each search takes one.
        read_seconds: For a request's head, for its body, and for a client to read on in an answer.
        refresh_seconds: Between looks for a newer generation of the bundles.
        shutdown_seconds: That running requests get after a signal to stop.
    """

    bundle: str | None = None
    bundles: list[str] = field(default_factory=list)
    index: str | None = None
    url: str | None = None
    collection: str = "products"
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
    "board": BoardSchema,
    "check": CheckSchema,
    "compress": CompressSchema,
    "download": DownloadSchema,
    "embed": EmbedSchema,
    "export": ExportSchema,
    "index": IndexSchema,
    "mteb": MtebSchema,
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
    parts = parts_of(schema)
    return schema(
        **{
            name: filled(parts[name], value) if name in parts and value is not None else value
            for name, value in content.items()
        }
    )


def known(schema: type, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a config a schema knows; an earlier version may have had other keys."""
    parts = parts_of(schema)
    return {
        field.name: known(parts[field.name], content[field.name])
        if field.name in parts and isinstance(content[field.name], Mapping)
        else content[field.name]
        for field in fields(schema)
        if field.name in content
    }


def parts_of(schema: type) -> dict[str, type]:
    """Returns the fields that are dataclasses themselves, or may be."""
    found = {}
    for name, hint in typing.get_type_hints(schema).items():
        for kind in (hint, *typing.get_args(hint)):
            if isinstance(kind, type) and is_dataclass(kind):
                found[name] = kind
    return found
