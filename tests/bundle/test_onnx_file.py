"""What is read of an ONNX file before a runtime sees it, and what is refused there."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.bundle.small_encoders import METADATA, content, model
from visual_search.bundle.onnx_file import MAX_DEPTH, NotOnnxError, read_onnx


def test_metadata_and_operations_are_read() -> None:
    found = read_onnx(content())
    assert found.metadata == METADATA
    assert found.num_nodes == 5


def with_node(node: onnx.NodeProto) -> onnx.ModelProto:
    made = model()
    made.graph.node.append(node)
    return made


def branch(inner: onnx.NodeProto | None, depth: int = 1) -> onnx.NodeProto:
    """A node with a graph of its own, that deep, and another node at its bottom."""
    node = inner
    for _ in range(depth):
        graph = helper.make_graph([] if node is None else [node], "inner", [], [])
        node = helper.make_node("If", ["yes"], ["x"], then_branch=graph)
    assert node is not None
    return node


def outside(name: str = "w") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def as_initializer(tensor: TensorProto) -> onnx.ModelProto:
    made = model()
    made.graph.initializer.append(tensor)
    return made


def only_named() -> TensorProto:
    """Names another file, but says that its data are here."""
    tensor = outside()
    tensor.data_location = TensorProto.DEFAULT
    return tensor


def only_placed() -> TensorProto:
    tensor = TensorProto(name="w", data_type=1, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


def as_sparse() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(outside(), numpy_helper.from_array(np.arange(4)), [9])
    )
    return made


CONSTANT = helper.make_node("Constant", [], ["c"], value=outside())
SPARSE = helper.make_node(
    "Constant",
    [],
    ["c"],
    sparse_value=helper.make_sparse_tensor(outside(), numpy_helper.from_array(np.arange(4)), [9]),
)


def running(operator: str) -> onnx.NodeProto:
    leaf = helper.make_graph([], "inner", [], [])
    return helper.make_node(operator, ["x"], ["y"], body=leaf)


def texts(**more: Any) -> onnx.ModelProto:
    return with_node(helper.make_node("Constant", [], ["c"], **more))


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        *((made, "keeps weights in another file")
          for made in (as_initializer(outside()), as_initializer(only_named()),
                       as_initializer(only_placed()), with_node(CONSTANT),
                       with_node(branch(CONSTANT, 3)))),
        # The runtime makes them dense while it loads: 1.2 GB of a file of 5 KB, outside its memory
        *((made, "sparse tensors")
          for made in (as_sparse(), with_node(SPARSE), with_node(branch(SPARSE)))),
        # Each is allocated by itself: `Expand` of one took 9 GB, outside the runtime's memory
        *((made, "computes with texts")
          for made in (
              as_initializer(helper.make_tensor("t", TensorProto.STRING, [1], [b"a" * 1000])),
              texts(value_string="a" * 1000), texts(value_strings=["a"]),
              with_node(helper.make_node("Cast", ["pictures"], ["c"], to=TensorProto.STRING)))),
        # what may go on for ever
        *((made, operator)
          for operator in ("Loop", "Scan", "SequenceMap")
          for made in (with_node(running(operator)), with_node(branch(running(operator))))),
    ],
)  # fmt: skip
def test_what_is_not_to_be_trusted_is_refused(made: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(NotOnnxError, match=reason):
        read_onnx(made.SerializeToString())


@pytest.mark.parametrize(
    "node",
    [
        *(helper.make_node("Cast", ["pictures"], ["c"], to=kind)
          for kind in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.BFLOAT16)),
        helper.make_node("Abs", ["pictures"], ["y"], domain="ai.onnx"),  # its other name
    ],
)  # fmt: skip
def test_casts_to_numbers_and_onnxs_own_operators_are_read(node: onnx.NodeProto) -> None:
    assert read_onnx(with_node(node).SerializeToString()).num_nodes == 6


@pytest.mark.parametrize("domain", ["com.example", "com.microsoft", "ai.onnx.ml"])
def test_operators_of_others_are_refused(domain: str) -> None:
    foreign = helper.make_node("Do", ["pictures"], ["y"], domain=domain)
    for node in (foreign, branch(foreign)):
        with pytest.raises(NotOnnxError, match=rf"the operator 'Do' of '{domain}'.*not ONNX's own"):
            read_onnx(with_node(node).SerializeToString())
    made = model()
    made.opset_import.append(helper.make_opsetid(domain, 1))
    with pytest.raises(NotOnnxError, match=rf"operators of the set '{domain}'"):
        read_onnx(made.SerializeToString())


def test_functions_and_training_are_refused() -> None:
    function, training = model(), model()
    function.functions.append(
        helper.make_function("mine", "f", [], [], [], [helper.make_opsetid("", 20)])
    )
    training.training_info.add().algorithm.name = "step"
    for made in (function, training):
        with pytest.raises(NotOnnxError, match="has functions or training of its own"):
            read_onnx(made.SerializeToString())


def test_graphs_within_each_other_end_somewhere() -> None:
    leaf = helper.make_node("Abs", ["pictures"], ["y"])
    near = with_node(branch(leaf, MAX_DEPTH))
    assert read_onnx(near.SerializeToString()).num_nodes == 5 + MAX_DEPTH + 1
    far = with_node(branch(leaf, MAX_DEPTH + 1))
    with pytest.raises(NotOnnxError, match=f"more than {MAX_DEPTH} deep"):
        read_onnx(far.SerializeToString())


def test_what_is_no_onnx_file_is_refused() -> None:
    two_graphs = content() + content()
    others = [b"", b"GIF89a", b"\x80" * 40, bytes(100), b"\xff\xd8\xff\xe0 JFIF", two_graphs]
    others += [content()[:-1], content()[: len(content()) // 2], b"PK\x03\x04" + bytes(60)]
    for data in others:
        with pytest.raises(NotOnnxError, match=r"it (starts with|is empty).*is no ONNX file"):
            read_onnx(data)


def test_damage_leads_to_no_other_error() -> None:
    whole = bytearray(model(weights=np.zeros((3 * 64, 5), np.float32)).SerializeToString())
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        # most bytes are weights: one of the first 200, which are structure, is hit as well
        damaged[rng.integers(0, 200)] ^= 1 << int(rng.integers(0, 8))
        try:
            read_onnx(bytes(damaged))
        except NotOnnxError:
            refused += 1
    assert 40 < refused < 400
