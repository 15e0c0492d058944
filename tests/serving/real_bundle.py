"""A real bundle of drawn products, with an ONNX encoder that embeds as `GridEncoder` does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.serving.drawn_bundle import SIDE, DrawnBundle, drawn_bundle
from visual_search.bundle.creating import create_bundle
from visual_search.bundle.items import BundleItems


def write_encoder(path: Path) -> Path:
    """Writes an encoder that averages a picture's colours on a grid of 4 x 4."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    cell = SIDE // 4
    scale = numpy_helper.from_array(np.float32(1 / 255), "scale")
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node(
            "AveragePool", ["scaled"], ["cells"], kernel_shape=[cell] * 2, strides=[cell] * 2
        ),
        helper.make_node("Flatten", ["cells"], ["embeddings"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "grid",
        [helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["B", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["B", 48])],
        [scale],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for key, value in {
        "format": "visual_search.encoder/1",
        "image_size_px": str(SIDE),
        "fit": "letterbox",
        "embedding_dim": "48",
        "facts": json.dumps({}),
    }.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


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
    create_bundle(
        folder / name, name=name, encoder_onnx=write_encoder(folder / "grid.onnx"), items=items,
        kind="flat", **more,
    )  # fmt: skip
    return folder / name
