"""A real bundle of drawn products, with an ONNX encoder that embeds as `GridEncoder` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bundle.small_encoders import grid_encoder
from tests.serving.drawn_bundle import SIDE, DrawnBundle, drawn_bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.items import BundleItems


def write_bundle(folder: Path, name: str = "real", *, num_items: int = 48, **more: Any) -> Path:
    """Writes a bundle with the products of `drawn_bundle`; its folder is ``folder / name``."""
    like: DrawnBundle = drawn_bundle(num_items=num_items)
    folder.mkdir(parents=True, exist_ok=True)
    ids = like.item_ids()
    items = BundleItems(
        item_ids=ids,
        columns={column: [like.item(one)[column] for one in ids] for column in like.columns},
        embeddings=like._embeddings,
        thumbnails=[like.thumbnail(one) for one in ids],
    )
    encoder = folder / "grid.onnx"
    encoder.write_bytes(grid_encoder(SIDE, 4, 1 / 255, "letterbox"))
    create_bundle(folder / name, name=name, encoder_onnx=encoder, items=items, kind="flat", **more)
    return folder / name
