"""Small ONNX files for the tests, made by hand: whole, and with one thing wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SIDE, DIM = 8, 5
METADATA = {
    "format": "visual_search.encoder/1", "image_size_px": str(SIDE), "fit": "letterbox",
    "embedding_dim": str(DIM), "facts": '{"run": "größe/1"}',
}  # fmt: skip
WEIGHTS = np.random.default_rng(0).normal(size=(3 * SIDE * SIDE, DIM)).astype(np.float32)


def network(text: str, metadata: dict[str, str], **constants: Any) -> onnx.ModelProto:
    """Returns a network in ONNX's own textual form, with its constants."""
    made = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    for name, value in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    helper.set_model_props(made, metadata)
    return made


def model(
    *, metadata: dict[str, str] | None = None, kind: str = "uint8", shape: str = "batch, 3, 8, 8",
    given: str = "batch, 5", weights: np.ndarray[Any, Any] = WEIGHTS,
    names: tuple[str, str] = ("pictures", "embeddings"), greedy: str = "", **constants: Any,
) -> onnx.ModelProto:  # fmt: skip
    """Returns a network that multiplies all pixels, in -1..1, with weights.

    With ``greedy``, which makes a tensor ``big``, the sum of that is added to the pixels.
    """
    summed = "total = ReduceSum <keepdims = 0> (big) more = Add (whole, total)" if greedy else ""
    text = f"""small ({kind}[{shape}] {names[0]}) => (float[{given}] {names[1]}) {{
        whole = Cast <to = 1> ({names[0]})
        {greedy} {summed}
        centred = Sub ({"more" if greedy else "whole"}, half)
        scaled = Div (centred, half)
        rows = Reshape (scaled, row)
        {names[1]} = MatMul (rows, weights)
    }}"""
    fixed = {"half": np.float32(127.5), "weights": weights, "row": np.array([0, -1]), **constants}
    return network(text, METADATA if metadata is None else metadata, **fixed)


def content(**wrong: Any) -> bytes:
    """Returns the bytes of `model`."""
    found: bytes = model(**wrong).SerializeToString()
    return found


def grid_encoder(side: int, cells: int, scale: float, fit: str) -> bytes:
    """Returns the file of a network that averages colours on a grid: D is 3 x cells x cells."""
    cell, dim = side // cells, 3 * cells * cells
    text = f"""grid (uint8[B, 3, {side}, {side}] pictures) => (float[B, {dim}] embeddings) {{
        floats = Cast <to = 1> (pictures)
        scaled = Mul (floats, scale)
        means = AveragePool <kernel_shape = [{cell}, {cell}], strides = [{cell}, {cell}]> (scaled)
        embeddings = Flatten <axis = 1> (means)
    }}"""
    facts = {"image_size_px": str(side), "fit": fit, "embedding_dim": str(dim)}
    made = network(text, METADATA | facts, scale=np.float32(scale))
    onnx.checker.check_model(made)
    found: bytes = made.SerializeToString()
    return found
