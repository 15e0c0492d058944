"""From a trained network to a file that a search can run without PyTorch.

``encoder.onnx`` holds everything between a picture's pixels and its embedding: scaling, network,
layer and pooling, mirror image, descriptor, projection, length. ``encoder.safetensors`` holds the
same weights for those who go on in PyTorch. `visual_search.models.export_check` says whether the
file gives what the network gives.

Shapes: ``B`` pictures, ``S`` side of a picture in pixels, ``F`` width of what is taken of the
network, ``D`` width of the embedding.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from visual_search.atomic import atomic_path
from visual_search.models.embedding import EmbeddingHead
from visual_search.models.encoder import Encoder

if TYPE_CHECKING:
    import onnx

FORMAT = "visual_search.encoder/1"
ONNX_FILE = "encoder.onnx"
WEIGHTS_FILE = "encoder.safetensors"
INPUT, OUTPUT = "pictures", "embeddings"
FITS = ("stretch", "letterbox")
OPSET = 20
MAX_BYTES = 2_000_000_000  # a single ONNX file ends at 2 GiB; some of it is not weights


@dataclass(frozen=True)
class ExportedEncoder:
    """The two files of an exported encoder.

    Attributes:
        onnx: The ONNX file.
        weights: The safetensors file.
        embedding_dim: Width D of the embedding.
        num_bytes: Size of the ONNX file.
    """

    onnx: Path
    weights: Path
    embedding_dim: int
    num_bytes: int


class ServedEncoder(nn.Module):
    """Everything between a picture's pixels and its embedding, as one module.

    It gives what `EmbeddingHead` gives of the encoder, computed so that it exports well: a picture
    and its mirror image go through the network together, so that the file holds the network once.

    Args:
        encoder: The network.
        head: What is taken of it, fitted.

    Example:
        >>> from visual_search.models.plain import plain_encoder
        >>> encoder = plain_encoder(image_size_px=16, width=2).eval()
        >>> served = ServedEncoder(encoder, EmbeddingHead(encoder))
        >>> served(torch.zeros(2, 3, 16, 16, dtype=torch.uint8)).shape
        torch.Size([2, 32])
    """

    def __init__(self, encoder: Encoder, head: EmbeddingHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, pictures: Tensor) -> Tensor:
        """Returns embeddings ``[B, D] float32`` of pictures ``[B, 3, S, S] uint8``."""
        images = scaled(pictures)
        if not self.head.settings.mirror:
            found = self.head.features(self.encoder, images)
        else:
            both = torch.cat([images, images.flip(3)])  # [2 B, 3, S, S]
            values = self.head.network_values(self.encoder, both)  # [2 B, F]
            # `shape[0]` stays a name in an exported graph, `len` would be the example's number
            own, mirrored = values[: images.shape[0]], values[images.shape[0] :]
            found = self.head.with_descriptor((own + mirrored) / 2, images)
        embeddings: Tensor = self.head(found)
        return embeddings


def scaled(pictures: Tensor) -> Tensor:
    """Returns float32 pictures in -1..1 of uint8 ones, as training scales them.

    Example:
        >>> scaled(torch.tensor([0, 255], dtype=torch.uint8)).tolist()
        [-1.0, 1.0]
    """
    return pictures.to(torch.float32) / 127.5 - 1.0


def export_encoder(
    encoder: Encoder, head: EmbeddingHead, folder: str | Path, *, facts: Mapping[str, str], fit: str
) -> ExportedEncoder:
    """Writes ``encoder.onnx`` and ``encoder.safetensors`` into a folder, each whole or not at all.

    The ONNX file takes ``pictures``, ``[B, 3, S, S] uint8`` RGB with any B, and gives
    ``embeddings``, ``[B, D] float32``. Its metadata, and that of the weights, has ``format``,
    ``image_size_px``, ``fit``, ``embedding_dim``, ``embedding`` (the head's settings as JSON) and
    ``facts`` (as JSON). Nothing in it names a place on this machine. The weights are named
    ``encoder.NAME`` and ``projection.NAME``; of an autoencoder they include the decoder.

    The modules given are left as they are: a copy is exported, on the CPU, in float32, in
    evaluation mode.

    Args:
        encoder: The network.
        head: What is taken of it, fitted.
        folder: Made where it is missing.
        facts: What else the files are to say about themselves.
        fit: How pictures are brought to a square, ``stretch`` or ``letterbox``.

    Raises:
        ValueError: The head is not fitted, ``fit`` has another name, the network is too large for
            a single file, or it cannot be exported.
        TypeError: A fact is no text.
    """
    _check_asked(head, facts, fit)
    served = ServedEncoder(*on_cpu(encoder, head)).eval()
    metadata = {
        "format": FORMAT,
        "image_size_px": str(encoder.image_size_px),
        "fit": fit,
        "embedding_dim": str(head.embedding_dim),
        "embedding": json.dumps(asdict(head.settings), sort_keys=True),
        "facts": json.dumps(dict(facts), sort_keys=True, ensure_ascii=False),
    }
    content = _to_onnx(served, encoder.image_size_px, metadata)
    onnx_file, weights_file = Path(folder) / ONNX_FILE, Path(folder) / WEIGHTS_FILE
    with atomic_path(weights_file) as weights_path, atomic_path(onnx_file) as onnx_path:
        from safetensors.torch import save_file

        save_file(_all_weights(served), weights_path, metadata=metadata)
        onnx_path.write_bytes(content)
    return ExportedEncoder(onnx_file, weights_file, head.embedding_dim, len(content))


def on_cpu(encoder: Encoder, head: EmbeddingHead) -> tuple[Encoder, EmbeddingHead]:
    """Returns copies of both on the CPU, in float32 and evaluation mode."""
    copies = copy.deepcopy((encoder, head))
    for part in copies:
        part.to("cpu", torch.float32).eval()
        part.to(memory_format=torch.contiguous_format)
    return copies


def _check_asked(head: EmbeddingHead, facts: Mapping[str, str], fit: str) -> None:
    if not head.is_fitted:
        raise ValueError(
            f"the projection was not fitted (embedding.pca={head.settings.pca}, embedding.beside="
            f"{head.settings.beside}); expected a head that was fitted on a gallery: load the "
            "run's projection first"
        )
    if fit not in FITS:
        raise ValueError(
            f"got fit {fit!r}, expected one of {', '.join(FITS)}; give the run's pictures.fit"
        )
    for name, value in facts.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"the fact {name!r} is {value!r} of type {type(value).__name__}; expected text for "
                "both, which is all that the files' metadata holds: turn it into text first"
            )


def _all_weights(served: ServedEncoder) -> dict[str, Tensor]:
    """Returns the weights by name; cloned, since the format refuses tensors that share memory."""
    found = {f"encoder.{name}": value for name, value in served.encoder.state_dict().items()}
    found |= {f"projection.{name}": value for name, value in served.head.fitted().items()}
    return {name: value.detach().clone().contiguous() for name, value in found.items()}


def _to_onnx(served: ServedEncoder, side: int, metadata: Mapping[str, str]) -> bytes:
    # Two pictures: a batch of one would be taken for a constant.
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    name = type(served.encoder).__name__
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about its own workings
            program: Any = torch.onnx.export(
                served,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # whatever a network's operations lead the exporter to
        raise ValueError(
            f"the network {name} cannot be exported to ONNX ({type(error).__name__}: "
            f"{str(error).strip()[:500]}); expected one whose operations have a counterpart there: "
            "take another network or another embedding.layer"
        ) from error
    if isinstance(program.model.graph.inputs[0].shape[0], int):
        raise ValueError(
            f"the network {name} cannot be exported to ONNX for any number of pictures: one of its "
            "operations took the example's number for a constant; expected shapes that are read "
            "as tensor.shape[0]: take another network or another embedding.layer"
        )
    num_bytes = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    if num_bytes > MAX_BYTES:
        raise ValueError(
            f"the network {name} has {num_bytes:,} bytes of weights, expected at most "
            f"{MAX_BYTES:,}, which a single ONNX file holds; export a smaller one"
        )
    return _finished(program.model_proto, metadata)


def _finished(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Returns the file: without the exporter's notes, which name places on this machine."""
    import onnx

    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]  # shapes that the runtime finds by itself
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
