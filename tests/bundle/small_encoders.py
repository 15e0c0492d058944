"""Small ONNX files for the tests, made by hand: whole, and with one thing wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    inputs = helper.make_tensor_value_info(names[0], kind, list(shape))
    outputs = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, list(given))
    return _model(nodes, inputs, outputs, constants, METADATA if metadata is None else metadata)


def grid_encoder(side: int, cells: int, scale: float, fit: str) -> bytes:
    """Returns the file of a network that averages colours on a grid: D is 3 x cells x cells."""
    cell, dim = [side // cells] * 2, 3 * cells * cells
    nodes = [
        helper.make_node("Cast", ["pictures"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("AveragePool", ["scaled"], ["means"], kernel_shape=cell, strides=cell),
        helper.make_node("Flatten", ["means"], ["embeddings"], axis=1),
    ]
    inputs = helper.make_tensor_value_info("pictures", TensorProto.UINT8, ["B", 3, side, side])
    outputs = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["B", dim])
    facts = {"image_size_px": str(side), "fit": fit, "embedding_dim": str(dim)}
    made = _model(nodes, inputs, outputs, {"scale": np.float32(scale)}, METADATA | facts)
    onnx.checker.check_model(made)
    found: bytes = made.SerializeToString()
    return found


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: onnx.ValueInfoProto,
    outputs: onnx.ValueInfoProto,
    constants: Mapping[str, Any],
    metadata: dict[str, str],
) -> onnx.ModelProto:
    fixed = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [inputs], [outputs], fixed)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(made, metadata)
    return made


def content(**wrong: Any) -> bytes:
    """Returns the bytes of `model`."""
    found: bytes = model(**wrong).SerializeToString()
    return found
