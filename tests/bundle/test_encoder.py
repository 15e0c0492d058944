"""A picture becomes an embedding without torch, and files that are no encoder are refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image

from tests.bundle.small_encoders import DIM, METADATA, SIDE, WEIGHTS, content, model
from visual_search.bundle.encoder import NoGpuError, OnnxEncoder
from visual_search.bundle.files import DamagedError
from visual_search.catalog.images import PictureError, PictureLimits, decode

PICTURES = np.random.default_rng(1).integers(0, 256, (40, 3, SIDE, SIDE), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder(content(), num_threads=2)


def by_hand(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    scaled: NDArray[np.float64] = (pictures.reshape(-1, 3 * SIDE * SIDE) / 127.5 - 1) @ WEIGHTS
    return scaled


def test_it_knows_what_it_takes_and_gives(encoder: OnnxEncoder) -> None:
    assert (encoder.image_size_px, encoder.fit, encoder.embedding_dim) == (SIDE, "letterbox", DIM)
    assert encoder.facts == {"run": "größe/1"}
    with pytest.raises(TypeError, match="does not support item assignment"):
        encoder.facts["run"] = "another"  # type: ignore[index]


@pytest.mark.parametrize("num", [0, 1, 16, 17, 40])
def test_embeddings_of_any_number_of_pictures(encoder: OnnxEncoder, num: int) -> None:
    found = encoder.embed(PICTURES[:num])
    assert found.shape == (num, DIM)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(PICTURES[:num]), atol=1e-4)


def test_an_embedding_depends_on_its_picture_alone(encoder: OnnxEncoder) -> None:
    together = encoder.embed(PICTURES)
    alone = np.concatenate([encoder.embed(picture[None]) for picture in PICTURES])
    turned = encoder.embed(PICTURES[::-1])[::-1]  # not contiguous, and another place in its block
    for found in (together, turned):
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)
    again = OnnxEncoder(content(), num_threads=2)
    for same in (encoder, again):
        assert same.embed(PICTURES).tobytes() == together.tobytes()


def test_threads_share_it(encoder: OnnxEncoder) -> None:
    blocks = [PICTURES[start : start + 7] for start in range(30)]
    expected = [encoder.embed(block) for block in blocks]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(encoder.embed, blocks * 5))
    np.testing.assert_array_equal(found, expected * 5)


def test_it_computes_with_the_threads_asked_for_and_none_of_them_spins() -> None:
    for num_threads in (1, 3):
        session: Any = OnnxEncoder(content(), num_threads=num_threads)._session
        options = session.get_session_options()
        assert options.intra_op_num_threads == num_threads
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert session.get_providers() == ["CPUExecutionProvider"]
    own: Any = OnnxEncoder(content())._session
    assert own.get_session_options().intra_op_num_threads >= 1  # 0 would pin threads to cores
    with pytest.raises(ValueError, match="got num_threads 0, expected at least 1, or None"):
        OnnxEncoder(content(), num_threads=0)


def test_a_gpu_that_is_asked_for_and_missing_is_refused() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(NoGpuError, match=r"expected CUDAExecutionProvider: pip install"):
        OnnxEncoder(content(), accelerator="gpu")
    assert OnnxEncoder(content(), accelerator="auto").computes_on == "cpu"


@pytest.mark.parametrize(
    ("greedy", "constants"),
    [
        ("big = ConstantOfShape (size)", {"size": [3 * 10**9]}),
        ("big = Expand (half, size)", {"size": [3 * 10**9]}),
        ("big = Range (from, to, by)",
         {"from": np.float32(0), "to": np.float32(3e9), "by": np.float32(1)}),
        ("big = Resize (whole, , scales)", {"scales": np.array([1, 1, 4000, 4000], np.float32)}),
        ("big = Tile (whole, times)", {"times": [1, 1, 4000, 4000]}),
    ],
)  # fmt: skip
def test_a_network_that_asks_for_12_gb_is_refused(greedy: str, constants: dict[str, Any]) -> None:
    with pytest.raises(DamagedError, match=r"within 4,294,967,296 bytes"):
        OnnxEncoder(content(greedy=greedy, **constants))


def test_files_are_decoded_as_the_network_takes_them(encoder: OnnxEncoder) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 0, 0)).save(file, "PNG")
    found = encoder.decode(file.getvalue())
    np.testing.assert_array_equal(found, decode(file.getvalue(), SIDE, "letterbox"))
    assert found.shape == (3, SIDE, SIDE)
    with pytest.raises(PictureError, match="not a picture"):
        encoder.decode(b"words")
    with pytest.raises(PictureError, match="at most 50 are read"):
        encoder.decode(file.getvalue(), PictureLimits(max_bytes=50))


def test_other_pictures_are_refused(encoder: OnnxEncoder) -> None:
    with pytest.raises(TypeError, match="got pictures of float32, expected uint8"):
        encoder.embed(PICTURES.astype(np.float32))
    with pytest.raises(TypeError, match="got pictures of list, expected uint8"):
        encoder.embed([1, 2])  # type: ignore[arg-type]
    for wrong in (PICTURES[0], PICTURES[:, :, :4], PICTURES[:, :1], PICTURES.reshape(40, -1)):
        with pytest.raises(ValueError, match=r"got pictures of shape .*expected \[B, 3, 8, 8\]"):
            encoder.embed(wrong)


def test_weights_that_give_no_numbers_are_found() -> None:
    weights = WEIGHTS.copy()
    weights[5, 2] = np.inf
    damaged = OnnxEncoder(content(weights=weights))
    with pytest.raises(DamagedError, match="no finite embedding of picture 0"):
        damaged.embed(PICTURES)


def without(name: str, **changed: str) -> dict[str, str]:
    return {key: value for key, value in (METADATA | changed).items() if key != name}


def second_input(made: onnx.ModelProto) -> None:
    made.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def doubled(made: onnx.ModelProto) -> None:
    made.graph.node[-1].output[0] = "y"
    made.graph.node.append(helper.make_node("Cast", ["y"], ["embeddings"], to=TensorProto.DOUBLE))
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def own_operator(made: onnx.ModelProto) -> None:
    made.graph.node.append(helper.make_node("Run", ["pictures"], ["y"], domain="com.example"))


def other_file(made: onnx.ModelProto) -> None:
    onnx.external_data_helper.set_external_data(made.graph.initializer[1], location="w.bin")


def unknown_operator(made: onnx.ModelProto) -> None:
    made.graph.node[1].op_type = "Nonsense"


def changed(change: Callable[[onnx.ModelProto], None]) -> bytes:
    made = model()
    change(made)
    found: bytes = made.SerializeToString()
    return found


REFUSED = [
    # metadata of something else
    *((content(metadata=metadata), message) for metadata, message in (
        ({}, "format is None, expected 'visual_search.encoder/1'; it is an ONNX file of something"),
        ({**METADATA, "format": "visual_search.encoder/2"}, "format is 'visual_search.encoder/2'"),
        (without("image_size_px"), "image_size_px is '', expected a whole number of 1..4,096"),
        ({**METADATA, "image_size_px": "8.0"}, "image_size_px is '8.0'"),
        ({**METADATA, "image_size_px": "99999"}, "image_size_px is '99999'"),
        ({**METADATA, "embedding_dim": "0"}, "embedding_dim is '0'"),
        ({**METADATA, "embedding_dim": "²"}, "embedding_dim is '²'"),
        ({**METADATA, "embedding_dim": "9" * 5_000}, "embedding_dim is '9999"),
        ({**METADATA, "fit": "crop"}, "fit is 'crop', expected one of stretch, letterbox"),
        (without("facts"), "facts are '', expected JSON of names and texts"),
        ({**METADATA, "facts": '{"epochs": 3}'}, "facts are .*expected JSON of names and texts"),
        ({**METADATA, "facts": "[" * 100_000}, "facts are"),
        ({**METADATA, "embedding_dim": "6"}, r"gives .*of shape \[B, 6\]"),
        ({**METADATA, "image_size_px": "9"}, r"takes .*of shape \[B, 3, 9, 9\]"))),
    # networks that take or give something else
    (content(kind="float"), r"takes \[\('pictures', 'tensor\(float\)'"),
    (content(shape="1, 3, 8, 8"), "takes .*of shape .B, 3, 8, 8. with any B"),
    (content(shape="batch, 1, 8, 8"), "does not load .*Incompatible dimensions"),
    (content(shape="batch, 3, h, w"), r"takes .*'batch', 3, 'h', 'w'"),
    (content(shape="batch, 192"), r"takes .*'batch', 192"),
    (content(shape="batch"), "does not load"),
    (content(weights=WEIGHTS[:, :4], given="batch, d"), r"gives .*, 4\].*shape \[B, 5\]"),
    (content(names=("images", "embeddings")), "takes .*'images'"),
    (content(names=("pictures", "y")), "gives .*'y'"),
    (changed(second_input), "the encoder takes .*'more'"),
    (changed(doubled), r"the encoder gives \[\('embeddings', 'tensor\(double\)'"),
    # what is not to be trusted
    (changed(own_operator), "cannot be used: it has the operator 'Run' of 'com.example'"),
    (changed(other_file), "cannot be used: it keeps weights in another file"),
    (changed(unknown_operator), "does not load .*Nonsense"),
    # what is no ONNX file
    *((data, r"cannot be used: it .*is no ONNX file.*; expo")
      for data in (b"", b"words", b"\xff\xd8\xff\xe0", content()[:300], content()[:-1])),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), REFUSED)
def test_what_is_no_encoder_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DamagedError, match=message):
        OnnxEncoder(data)


def test_what_another_reader_would_take_for_its_own_is_read_as_what_was_looked_at() -> None:
    runtimes_own = b"\x08\x0a\x12\x04ORTM" + content()  # to the runtime, its own format
    with pytest.raises(DamagedError):
        OnnxEncoder(runtimes_own[:8])
    assert OnnxEncoder(runtimes_own).embedding_dim == DIM
