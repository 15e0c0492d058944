"""Small ONNX files for the tests, made by hand: whole, and with one thing wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, DIM = 8, 5
METADATA = {
    "format": "visual_search.encoder/1",
    "image_size_px": str(SIDE),
    "fit": "letterbox",
    "embedding_dim": str(DIM),
    "facts": '{"run": "größe/1"}',
}
WEIGHTS = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, DIM)).astype(np.float32)


def model(
    *,
    metadata: dict[str, str] | None = None,
    kind: int = TensorProto.UINT8,
    shape: Sequence[int | str] = ("batch", 3, SIDE, SIDE),
    given: Sequence[int | str] = ("batch", DIM),
    weights: np.ndarray[Any, Any] = WEIGHTS,
    names: tuple[str, str] = ("pictures", "embeddings"),
) -> onnx.ModelProto:
    """Returns a network that multiplies all pixels, in -1..1, with weights."""
    constants = {"half": np.float32(127.5), "weights": weights, "row": np.array([0, -1])}
    nodes = [
        helper.make_node("Cast", [names[0]], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["whole", "half"], ["centred"]),
        helper.make_node("Div", ["centred", "half"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "row"], ["rows"]),
        helper.make_node("MatMul", ["rows", "weights"], [names[1]]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(names[0], kind, list(shape))],
        [helper.make_tensor_value_info(names[1], TensorProto.FLOAT, list(given))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(made, METADATA if metadata is None else metadata)
    return made


def content(**wrong: Any) -> bytes:
    """Returns the bytes of `model`."""
    found: bytes = model(**wrong).SerializeToString()
    return found
