"""What an ONNX file says about itself, read before any runtime is given it.

A file can point at other files (external data), bring operators of its own, compute for ever, or
say that it is something else. A runtime notices some of that, late and with its own words. What
numbers a network makes is bounded by the runtime's own memory (see `visual_search.bundle.encoder`);
texts and sparse tensors lie outside of it, so they are refused here. ONNX is a Protocol
Buffers message; the few fields that matter here are read by their numbers in ``onnx.proto``, and
weights are skipped unread.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MAX_DEPTH = 32  # of graphs within graphs
MAX_NODES = 100_000  # the largest of timm's networks has some 10,000
STANDARD_DOMAINS = ("", "ai.onnx")

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MODEL_VERSION, _MODEL_GRAPH, _MODEL_OPSETS, _MODEL_METADATA = 1, 7, 8, 14
_MODEL_TRAINING, _MODEL_FUNCTIONS = 20, 25
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_NUMBER = 1, 3
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_KIND, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 2, 13, 14
_TEXT = 8  # a tensor's kind

# They repeat a graph as often as the file or a picture says.
_LOOPS = ("Loop", "Scan", "SequenceMap")


_SPARSE = "it has sparse tensors, which an exported encoder has not"
_TEXTS = "it computes with texts, which an exported encoder does not"


class NotOnnxError(ValueError):
    """The bytes are no ONNX file, or one that is not to be loaded; the message says why."""


@dataclass(frozen=True)
class OnnxFile:
    """What is known of an ONNX file before it is loaded.

    Attributes:
        metadata: Its key-value pairs.
        num_nodes: Operations, those of inner graphs among them.
    """

    metadata: dict[str, str]
    num_nodes: int


def read_onnx(data: bytes) -> OnnxFile:
    """Returns what an ONNX file says about itself, after a look at every part but the weights.

    Raises:
        NotOnnxError: The bytes are no ONNX file; or it keeps data in other files, has operators or
            functions of its own, loops, texts or sparse tensors, more operations than `MAX_NODES`,
            or more graphs within each other than `MAX_DEPTH`.

    Example:
        >>> read_onnx(b"GIF89a")
        Traceback (most recent call last):
        ...
        visual_search.bundle.onnx_file.NotOnnxError: it starts with b'GIF89a' and is no ONNX file
    """
    try:
        return _read(data)
    except _BrokenError as error:
        start = f"starts with {data[:12]!r}" if data else "is empty"
        raise NotOnnxError(f"it {start} and is no ONNX file{error}") from error


class _BrokenError(ValueError):
    """These bytes are no such message."""


def _read(data: bytes) -> OnnxFile:
    metadata: dict[str, str] = {}
    graphs: list[memoryview] = []
    version = 0
    for number, value in _fields(memoryview(data)):
        if number == _MODEL_VERSION and isinstance(value, int):
            version = value
        elif number == _MODEL_GRAPH:
            graphs.append(_message(value))
        elif number == _MODEL_OPSETS:
            _check_domain(_texts(value).get(1, ""), "operators of the set")
        elif number == _MODEL_METADATA:
            pair = _texts(value)
            metadata[pair.get(1, "")] = pair.get(2, "")
        elif number in (_MODEL_TRAINING, _MODEL_FUNCTIONS):
            raise NotOnnxError(
                "it has functions or training of its own, which an exported encoder has not"
            )
    if len(graphs) != 1 or not version:
        raise _BrokenError(" with a version and one graph")
    num_nodes = _count_nodes(graphs[0], 0)
    if num_nodes > MAX_NODES:
        raise NotOnnxError(f"it has {num_nodes:,} operations, more than {MAX_NODES:,}")
    return OnnxFile(metadata, num_nodes)


def _count_nodes(graph: memoryview, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise NotOnnxError(f"it has graphs within each other, more than {MAX_DEPTH} deep")
    num = 0
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            num += 1 + _check_node(_message(value), depth)
        elif number == _GRAPH_TENSOR:
            _check_tensor(_message(value))
        elif number == _GRAPH_SPARSE:
            raise NotOnnxError(_SPARSE)
    return num


def _check_node(node: memoryview, depth: int) -> int:
    """Returns how many nodes there are in a node's own graphs."""
    num, operator, domain, makes_text = 0, "", "", False
    for number, value in _fields(node):
        if number == _NODE_OPERATOR:
            operator = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            name = ""
            for kind, inner in _fields(_message(value)):
                if kind == _ATTRIBUTE_NAME:
                    name = _text(inner)
                    makes_text = makes_text or name in ("value_string", "value_strings")
                elif kind == _ATTRIBUTE_NUMBER:
                    makes_text = makes_text or (inner == _TEXT and name in ("", "to"))
                elif kind in _ATTRIBUTE_TENSORS:
                    _check_tensor(_message(inner))
                elif kind in _ATTRIBUTE_GRAPHS:
                    num += _count_nodes(_message(inner), depth + 1)
                elif kind in _ATTRIBUTE_SPARSE:
                    raise NotOnnxError(_SPARSE)
    if operator in _LOOPS:
        raise NotOnnxError(f"it has the operator {operator!r}, which may go on for ever")
    if makes_text and operator in ("Cast", "Constant"):
        raise NotOnnxError(_TEXTS)
    _check_domain(domain, f"the operator {operator!r} of")
    return num


def _check_tensor(tensor: memoryview) -> None:
    for number, value in _fields(tensor):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            raise NotOnnxError("it keeps weights in another file (external data)")
        if number == _TENSOR_KIND and value == _TEXT:
            raise NotOnnxError(_TEXTS)


def _check_domain(domain: str, what: str) -> None:
    if domain not in STANDARD_DOMAINS:
        raise NotOnnxError(f"it has {what} {domain!r}, which are not ONNX's own")


def _texts(value: int | memoryview) -> dict[int, str]:
    """Returns a message's fields that are text, by number."""
    return {n: _text(v) for n, v in _fields(_message(value)) if not isinstance(v, int)}


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError as error:
        raise _BrokenError(f": {error}") from error


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _BrokenError(": a number stands where a message ought to")
    return value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields a message's fields: its number, and a number or the bytes that it has."""
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, place = _varint(message, place)
        elif kind in (_BYTES, _FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
            if kind == _BYTES:
                size, place = _varint(message, place)
            if place + size > end:
                raise _BrokenError(", or is cut short")
            value, place = message[place : place + size], place + size
        else:
            raise _BrokenError("")
        if number == 0:
            raise _BrokenError("")
        yield number, value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Returns the number at a place, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise _BrokenError(", or is cut short")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _BrokenError("")
