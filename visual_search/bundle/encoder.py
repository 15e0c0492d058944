"""A picture -> an embedding, by ONNX Runtime: what a search needs of a trained network.

Importing this module loads neither torch nor ONNX Runtime; the runtime comes with the first
encoder. Shapes: ``B`` pictures, ``S`` side of a picture in pixels, ``D`` width of the embedding.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from visual_search.bundle.files import DamagedError
from visual_search.bundle.onnx_file import NotOnnxError, read_onnx
from visual_search.catalog.images import Fit, PictureLimits, decode

if TYPE_CHECKING:
    import onnxruntime

    from visual_search.catalog.cache import Pictures

Accelerator = Literal["auto", "cpu", "gpu"]

FORMAT = "visual_search.encoder/1"
INPUT, OUTPUT = "pictures", "embeddings"
MAX_SIDE_PX = 4_096
MAX_DIM = 1_000_000
# Pictures at once: more take memory and no less time. Of larger ones than 512 px so many fewer.
_REPORT_EVERY = 256  # pictures embedded between two reports of progress
_BLOCK, _BLOCK_PX = 16, 16 * 512 * 512
# All that networks of this process compute, weights included. ResNet-50 takes 0.5 GiB for 16
# pictures of 224 px; a file of 200 bytes may ask for 12.
MAX_MEMORY_BYTES = 4 * 2**30
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_LIMITS = PictureLimits()
_AGAIN = "export the run again, or take the file that it exported"


class NoGpuError(RuntimeError):
    """ONNX Runtime has no GPU here; the message says what lacks."""


class OnnxEncoder:
    """Makes embeddings of pictures with an exported network; may be shared by threads.

    Nothing in a file can run code or reach another file: it is taken as bytes, and operators that
    are not ONNX's own and data kept elsewhere are refused before the runtime sees them. What it
    computes is bounded by `MAX_MEMORY_BYTES`; one picture is embedded to see that it can. The same
    picture gives the same embedding, but for the last digits of float32 that its place in a batch
    may change.

    Args:
        model: The whole ONNX file, as `visual_search.models.exporting.export_encoder` writes it.
        num_threads: That one call computes with; None takes one for each core that this process
            may use.
        accelerator: ``cpu``; ``gpu`` for an NVIDIA GPU, by ``onnxruntime-gpu``; ``auto`` for one
            where that is installed and finds it. A GPU rounds otherwise than the CPU.

    Attributes:
        image_size_px: Side S of the square pictures that it takes.
        fit: How pictures are brought to a square.
        embedding_dim: Width D of the embedding.
        facts: What the export was told about the network.
        computes_on: ``cpu`` or ``gpu``.

    Raises:
        ValueError: The file is damaged, foreign or not to be trusted, or ``num_threads`` is below
            1; the message says which.
        NoGpuError: A GPU is asked for and not there.
    """

    image_size_px: int
    fit: Fit
    embedding_dim: int
    facts: Mapping[str, str]
    computes_on: Literal["cpu", "gpu"]

    def __init__(
        self, model: bytes, *, num_threads: int | None = None, accelerator: Accelerator = "cpu"
    ) -> None:
        if num_threads is not None and num_threads < 1:
            raise ValueError(
                f"got num_threads {num_threads}, expected at least 1, or None for all cores"
            )
        try:
            metadata = read_onnx(model).metadata
        except NotOnnxError as error:
            raise DamagedError(f"the encoder cannot be used: {error}; {_AGAIN}") from error
        self._read(metadata)
        self._session = _session(model, num_threads, accelerator)
        self.computes_on = "gpu" if self._session.get_providers()[0] == _CUDA else "cpu"
        self._check_interface()
        self._run(np.zeros((1, 3, self.image_size_px, self.image_size_px), np.uint8))

    def _read(self, metadata: Mapping[str, str]) -> None:
        written = metadata.get("format")
        if written != FORMAT:
            raise DamagedError(
                f"the encoder's format is {written!r}, expected {FORMAT!r}; it is an ONNX file of "
                f"something else, or of another version: {_AGAIN}"
            )
        self.image_size_px = _number(metadata, "image_size_px", MAX_SIDE_PX)
        self.embedding_dim = _number(metadata, "embedding_dim", MAX_DIM)
        fit = metadata.get("fit")
        if fit not in get_args(Fit):
            raise DamagedError(
                f"the encoder's fit is {fit!r}, expected one of "
                f"{', '.join(get_args(Fit))}; {_AGAIN}"
            )
        self.fit = cast(Fit, fit)
        try:
            facts = json.loads(metadata.get("facts", ""))
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict) or not all(isinstance(v, str) for v in facts.values()):
            raise DamagedError(
                f"the encoder's facts are {metadata.get('facts', '')[:80]!r}, expected JSON of "
                f"names and texts; {_AGAIN}"
            )
        self.facts = MappingProxyType(facts)

    def _check_interface(self) -> None:
        side, dim = self.image_size_px, self.embedding_dim
        for what, values, name, kind, shape in (
            ("takes", self._session.get_inputs(), INPUT, "tensor(uint8)", [3, side, side]),
            ("gives", self._session.get_outputs(), OUTPUT, "tensor(float)", [dim]),
        ):
            found = [(value.name, value.type, list(value.shape)) for value in values]
            # the first of the shape is the batch: free, so a name or nothing
            fits = len(found) == 1 and found[0][:2] == (name, kind) and found[0][2][1:] == shape
            if not fits or isinstance(found[0][2][0], int):
                raise DamagedError(
                    f"the encoder {what} {found}, expected {name!r}, {kind} of shape [B, "
                    f"{', '.join(map(str, shape))}] with any B, as its metadata says; {_AGAIN}"
                )

    def decode(self, data: bytes, limits: PictureLimits = _LIMITS) -> NDArray[np.uint8]:
        """Returns the picture of an encoded file as the network takes it, ``[3, S, S] uint8``.

        Raises:
            PictureError: The file is too large, damaged or of another format; see
                `visual_search.catalog.images.decode`.
        """
        return decode(data, self.image_size_px, self.fit, limits)

    def embed(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns embeddings ``[B, D] float32`` of pictures ``[B, 3, S, S] uint8``, in blocks.

        Raises:
            TypeError: The pictures are not uint8.
            ValueError: They have another shape.
            DamagedError: The network gives something that is not finite, or takes more memory than
                `MAX_MEMORY_BYTES`.
        """
        side = self.image_size_px
        if not isinstance(pictures, np.ndarray) or pictures.dtype != np.uint8:
            kind = getattr(pictures, "dtype", type(pictures).__name__)
            raise TypeError(
                f"got pictures of {kind}, expected uint8 in 0..255; give them as `decode` does, "
                "not scaled"
            )
        if pictures.ndim != 4 or pictures.shape[1:] != (3, side, side):
            raise ValueError(
                f"got pictures of shape {list(pictures.shape)}, expected [B, 3, {side}, {side}]; "
                "give them as `decode` does, stacked"
            )
        embeddings = np.empty((len(pictures), self.embedding_dim), np.float32)
        size = max(1, min(_BLOCK, _BLOCK_PX // side**2))
        for start in range(0, len(pictures), size):
            block = np.ascontiguousarray(pictures[start : start + size])
            embeddings[start : start + len(block)] = self._run(block)
        if not np.isfinite(embeddings).all():
            row = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise DamagedError(
                f"the encoder gives no finite embedding of picture {row}, expected numbers; its "
                f"weights are damaged: {_AGAIN}"
            )
        return embeddings

    def _run(self, block: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the embeddings ``[B, D]`` of a block of pictures."""
        try:
            found = self._session.run([OUTPUT], {INPUT: block})[0]
        except Exception as error:  # the runtime's errors share no class
            raise DamagedError(
                f"the encoder does not compute {len(block)} pictures of {self.image_size_px} px "
                f"within {MAX_MEMORY_BYTES:,} bytes ({type(error).__name__}: {str(error)[:300]}); "
                f"{_AGAIN}"
            ) from error
        if found.shape != (len(block), self.embedding_dim):
            raise DamagedError(
                f"the encoder gives {list(found.shape)} numbers for {len(block)} pictures, "
                f"expected {[len(block), self.embedding_dim]}, as its metadata says; {_AGAIN}"
            )
        return cast(NDArray[np.float32], found)


def _number(metadata: Mapping[str, str], name: str, most: int) -> int:
    text = metadata.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and 1 <= int(text) <= most):
        raise DamagedError(
            f"the encoder's {name} is {text[:40]!r}, expected a whole number of "
            f"1..{most:,}; {_AGAIN}"
        )
    return int(text)


def _session(
    model: bytes, num_threads: int | None, accelerator: Accelerator
) -> onnxruntime.InferenceSession:
    """Returns the runtime's session."""
    import onnxruntime

    providers: list[str | tuple[str, dict[str, object]]] = [_CPU]
    if accelerator != "cpu" and _CUDA in onnxruntime.get_available_providers():
        providers.insert(0, (_CUDA, {"gpu_mem_limit": MAX_MEMORY_BYTES}))
    elif accelerator == "gpu":
        raise NoGpuError(
            f"a GPU is asked for, and onnxruntime {onnxruntime.__version__} offers "
            f"{onnxruntime.get_available_providers()}; expected {_CUDA}: pip install "
            "onnxruntime-gpu in the place of onnxruntime, or compute on the CPU"
        )
    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Not 0, the runtime's own default: that pins each thread to a core, wanted there or not.
    options.intra_op_num_threads = num_threads or _num_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised
    # What was read above is ONNX; the runtime would guess its own format from a few bytes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Threads that spin while they wait would take the machine from whoever shares it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        # Constants would be folded outside of that memory, and an exported file's are folded.
        session = onnxruntime.InferenceSession(
            model, options, providers=providers, disabled_optimizers=["ConstantFolding"]
        )
    except Exception as error:  # the runtime's errors share no class
        raise DamagedError(
            f"the encoder does not load ({type(error).__name__}: {str(error)[:300]}); {_AGAIN}"
        ) from error
    # Without its libraries the runtime drops the GPU, and says so in its log alone.
    if accelerator == "gpu" and session.get_providers()[0] != _CUDA:
        raise NoGpuError(
            f"a GPU is asked for, and onnxruntime {onnxruntime.__version__} took the CPU: CUDA or "
            "cuDNN do not load; expected both, of the versions that it names: install them, or "
            "compute on the CPU"
        )
    return session


@functools.cache
def _bound_memory() -> None:
    """Has all sessions that ask for it share one memory of `MAX_MEMORY_BYTES`."""
    import onnxruntime

    kind = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", kind, 0, onnxruntime.OrtMemType.DEFAULT)
    arena = onnxruntime.OrtArenaCfg({"max_mem": MAX_MEMORY_BYTES})
    onnxruntime.create_and_register_allocator(memory, arena)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def embed_rows(
    encoder: OnnxEncoder,
    pictures: Pictures,
    rows: NDArray[np.int64],
    on_progress: Callable[[int, int], object] | None = None,
) -> NDArray[np.float32]:
    """Returns the embeddings of rows of a cache.

    Args:
        encoder: Of a bundle.
        pictures: Row i is the picture of the catalogue's row i.
        rows: ``[n]``.
        on_progress: Called with how many are done, and of how many.

    Returns:
        ``[n, D] float32``.
    """
    found = np.empty((len(rows), encoder.embedding_dim), np.float32)
    for start in range(0, len(rows), _REPORT_EVERY):
        part = rows[start : start + _REPORT_EVERY]
        found[start : start + len(part)] = encoder.embed(pictures[part])
        if on_progress is not None:
            on_progress(start + len(part), len(rows))
    return found
