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


def with_more(node: Any = None, tensor: Any = None, sparse: Any = None) -> onnx.ModelProto:
    made = model()
    made.graph.node.extend([node] if node else [])
    made.graph.initializer.extend([tensor] if tensor else [])
    made.graph.sparse_initializer.extend([sparse] if sparse else [])
    return made


def constant(**value: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **value)


def branch(inner: onnx.NodeProto, depth: int = 1) -> onnx.NodeProto:
    """A node with a graph of its own, that deep, and another node at its bottom."""
    for _ in range(depth):
        graph = helper.make_graph([inner], "inner", [], [])
        inner = helper.make_node("If", ["yes"], ["x"], then_branch=graph)
    return inner


def outside(place: int = TensorProto.EXTERNAL) -> TensorProto:
    """A tensor that names another file, and says where its data are."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, location="weights.bin")
    tensor.ClearField("raw_data")
    tensor.data_location = place
    return tensor


def only_placed() -> TensorProto:
    tensor = TensorProto(name="w", data_type=1, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    return tensor


SPARSE = helper.make_sparse_tensor(outside(), numpy_helper.from_array(np.arange(4)), [9])
TEXT = helper.make_tensor("t", TensorProto.STRING, [1], [b"a" * 1000])
TO_TEXT = helper.make_node("Cast", ["pictures"], ["c"], to=TensorProto.STRING)


def running(operator: str) -> onnx.NodeProto:
    leaf = helper.make_graph([], "inner", [], [])
    return helper.make_node(operator, ["x"], ["y"], body=leaf)


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        *((made, "keeps weights in another file")
          for made in (with_more(tensor=outside()), with_more(tensor=outside(TensorProto.DEFAULT)),
                       with_more(tensor=only_placed()), with_more(constant(value=outside())),
                       with_more(branch(constant(value=outside()), 3)))),
        # The runtime makes them dense while it loads: 1.2 GB of a file of 5 KB, outside its memory
        *((made, "sparse tensors")
          for made in (with_more(sparse=SPARSE), with_more(constant(sparse_value=SPARSE)),
                       with_more(branch(constant(sparse_value=SPARSE))))),
        # Each is allocated by itself: `Expand` of one took 9 GB, outside the runtime's memory
        *((made, "computes with texts")
          for made in (with_more(tensor=TEXT), with_more(constant(value_string="a" * 1000)),
                       with_more(constant(value_strings=["a"])), with_more(TO_TEXT))),
        # what may go on for ever
        *((with_more(node), operator)
          for operator in ("Loop", "Scan", "SequenceMap")
          for node in (running(operator), branch(running(operator)))),
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
    assert read_onnx(with_more(node).SerializeToString()).num_nodes == 6


@pytest.mark.parametrize("domain", ["com.example", "com.microsoft", "ai.onnx.ml"])
def test_operators_of_others_are_refused(domain: str) -> None:
    foreign = helper.make_node("Do", ["pictures"], ["y"], domain=domain)
    for node in (foreign, branch(foreign)):
        with pytest.raises(NotOnnxError, match=rf"the operator 'Do' of '{domain}'.*not ONNX's own"):
            read_onnx(with_more(node).SerializeToString())
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
    near = with_more(branch(leaf, MAX_DEPTH))
    assert read_onnx(near.SerializeToString()).num_nodes == 5 + MAX_DEPTH + 1
    far = with_more(branch(leaf, MAX_DEPTH + 1))
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
