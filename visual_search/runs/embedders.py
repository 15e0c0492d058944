"""Networks of other libraries, by the names that these know them by, to be measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visual_search import builder
from visual_search.config.builders import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from visual_search.catalog.catalog import Catalog
    from visual_search.runs.embedding_files import GivenEmbeddings
    from visual_search.runs.parts import Parts

    Embedder = Callable[[list[Image.Image]], Any]
    """Takes Pillow images (RGB, upright, at their own size), gives ``[B, D]``: array or tensor."""

BATCH_SIZE = 64  # pictures that an embedder sees at once
KNOWN_TO_MTEB = "openai/clip-vit-base-patch32"


@builder("embedder")
def sentence_transformers(model: str) -> Embedder:
    """Returns a model of sentence-transformers that embeds pictures, compared as it says.

    Args:
        model: Its name, such as clip-ViT-B-32, or the folder that holds it.

    Raises:
        ConfigError: It compares by something else than cosine or Euclidean distance.
        ModuleNotFoundError: The library is not installed.
        OSError: There is no such model, here or where the library looks.
    """
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model)
    compare = _as_compared(model, loaded.similarity_fn_name)
    return lambda pictures: compare(loaded.encode(pictures, show_progress_bar=False))


@builder("embedder")
def mteb(model: str) -> Embedder:
    """Returns a model that mteb knows, as it embeds the pictures of a retrieval task.

    Args:
        model: Its name there, such as openai/clip-vit-base-patch32.

    Raises:
        ConfigError: There is no such model, it takes no pictures, or compares in another way.
        ModuleNotFoundError: The library, or what it needs for this model, is not installed.
    """
    import mteb as library
    from datasets import Dataset
    from mteb.types import PromptType
    from torch.utils.data import DataLoader

    try:
        meta = library.get_model_meta(model, fetch_from_hf=True)
        takes = meta.modalities
        loaded: Any = meta.load_model() if "image" in takes else None
    except (KeyError, NotImplementedError) as error:
        raise ConfigError(
            f"embedder.model={model}: {error.args[0]}; expected a name that mteb.get_model knows: "
            f"give embedder.model={KNOWN_TO_MTEB}, or another that takes pictures"
        ) from error
    if not hasattr(loaded, "encode"):
        raise ConfigError(
            f"embedder.model={model} makes no embeddings of pictures (it takes "
            f"{', '.join(takes)}); expected one that does: choose another, such as {KNOWN_TO_MTEB}"
        )
    metric = meta.similarity_fn_name
    compare = _as_compared(model, metric.value if metric is not None else None)
    task = library.get_task("CUB200I2IRetrieval").metadata  # from pictures to pictures, as here

    def embed(pictures: list[Image.Image]) -> Any:
        rows = DataLoader(
            Dataset.from_dict({"image": pictures}),
            batch_size=len(pictures),
            collate_fn=lambda rows: {"image": [row["image"] for row in rows]},
        )
        given = loaded.encode(
            rows,
            task_metadata=task,
            hf_split="test",
            hf_subset="default",
            prompt_type=PromptType.document,
            show_progress_bar=False,
        )
        return compare(given)

    return embed


def _as_compared(model: str, metric: str | None) -> Callable[[Any], NDArray[np.floating[Any]]]:
    """Returns what brings embeddings into the Euclidean order that their library ranks by."""
    import numpy as np

    if metric not in (None, "cosine", "euclidean"):
        raise ConfigError(
            f"embedder.model={model} is compared by {metric}; expected cosine or euclidean, which "
            "an index here can rank by: choose another model"
        )

    def compare(given: Any) -> NDArray[np.floating[Any]]:
        values = np.asarray(given.detach().float().cpu() if hasattr(given, "detach") else given)
        if metric == "euclidean":
            return values
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        return values / np.where(lengths > 0, lengths, 1)

    return compare


@builder("embedder")
def timm(model: str, pretrained: bool = True) -> Embedder:
    """Returns a network of timm, with its own preprocessing: the values before its classifier.

    Args:
        model: Its name, such as vit_small_patch14_dinov2.
        pretrained: false: random weights.

    Raises:
        ModuleNotFoundError: The library is not installed.
        RuntimeError: There is no such network.
    """
    import timm as library
    import torch
    from timm.data.config import resolve_model_data_config
    from timm.data.transforms_factory import create_transform

    torch.manual_seed(0)
    network = library.create_model(model, pretrained=pretrained, num_classes=0).eval()
    resolve: Any = resolve_model_data_config  # untyped there
    see = create_transform(**resolve(network))

    def embed(pictures: list[Image.Image]) -> Any:
        with torch.inference_mode():
            return network(torch.stack([see(picture) for picture in pictures]))

    return embed


def embedded(
    embedder: Embedder, catalog: Catalog, rows: NDArray[np.int64]
) -> NDArray[np.floating[Any]]:
    """Returns what a callable makes of the pictures of catalogue rows, ``[n, D]``.

    Args:
        embedder: Takes a list of Pillow images, returns ``[B, D]``.
        catalog: Whose pictures it sees.
        rows: ``[n] int64``.

    Raises:
        PictureError: One does not decode.
        ValueError: It returns something else than a row a picture.
    """
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    from PIL import Image

    from visual_search.catalog.images import PictureError, decode_whole
    from visual_search.catalog.streaming import num_reading
    from visual_search.views.progress import progress_bar

    images = catalog.table["image"].tolist()

    def picture(row: int) -> Image.Image:
        loaded = catalog.source.load(images[row])
        try:
            array = decode_whole(loaded) if isinstance(loaded, bytes) else loaded
        except PictureError as error:
            raise PictureError(f"{images[row]}: {error}") from error
        return Image.fromarray(array).convert("RGB")

    found = []
    with (
        progress_bar("Embedding", " pictures") as advance,
        ThreadPoolExecutor(num_reading(catalog.source)) as pool,
    ):
        for start in range(0, len(rows), BATCH_SIZE):
            pictures = list(pool.map(picture, rows[start : start + BATCH_SIZE].tolist()))
            given = embedder(pictures)
            given = given.detach().float().cpu() if hasattr(given, "detach") else given
            values = np.asarray(given)
            if values.ndim != 2 or len(values) != len(pictures):
                raise ValueError(
                    f"of {len(pictures)} pictures the embedder makes {values.shape}; expected "
                    f"[{len(pictures)}, D]: a row a picture"
                )
            found.append(values)
            advance(min(start + BATCH_SIZE, len(rows)), len(rows))
    return np.concatenate(found)


def made_by(embedder: Embedder, parts: Parts, split: str, name: str) -> GivenEmbeddings:
    """Returns what a callable makes of those pictures that a protocol needs.

    Args:
        embedder: Takes a list of Pillow images, returns ``[B, D]``.
        parts: Of the catalogue and the rules.
        split: The split that asks.
        name: Of the embeddings.

    Raises:
        PictureError: One does not decode.
        ValueError: It returns something else than a row a picture, or what is not finite.
    """
    import numpy as np

    selection = parts.protocol.choose(parts.catalog.table, split)
    rows = np.union1d(selection.gallery_rows, selection.query_rows)
    values = embedded(embedder, parts.catalog, rows)
    return given_of(parts.catalog.table["item_id"].iloc[rows].tolist(), values, name)


def given_of(item_ids: list[str], values: NDArray[Any], name: str) -> GivenEmbeddings:
    """Returns embeddings by item id, in float32.

    Args:
        item_ids: n ids.
        values: ``[n, D]``.
        name: Of the embeddings.

    Raises:
        ValueError: A value is not finite in float32.
    """
    import numpy as np

    from visual_search.runs.embedding_files import GivenEmbeddings

    with np.errstate(over="ignore"):  # of what is beyond float32, which is told below
        held = np.ascontiguousarray(values, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(held).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"the embedding of {item_ids[wrong[0]]!r} is not finite in float32; expected numbers: "
            "look at its picture and at the network"
        )
    return GivenEmbeddings(Path(name), item_ids, held)
