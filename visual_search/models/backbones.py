"""Backbones of timm, torchvision and open_clip as encoders: random, with weights, or frozen.

Shapes: ``B`` batch, ``S`` side of a picture, ``P`` pooled width of the backbone, ``D`` width of
the embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from visual_search import builder
from visual_search.models.backbone_networks import (
    TORCHVISION,
    BackboneNetwork,
    TimmNetwork,
    TorchvisionNetwork,
    measure_width,
)
from visual_search.models.backbone_weights import (
    PACKAGED,
    PACKAGED_NETWORK,
    load_weights,
    packaged_weights,
    read_weights,
)
from visual_search.models.encoder import Encoder, check_at_least
from visual_search.models.hub_folder import read_hub_folder
from visual_search.models.open_clip_network import OPEN_CLIP, OpenClipNetwork

_Computed = TypeVar("_Computed")


class BackboneEncoder(Encoder):
    """A library's network, what brings pictures to its scale, and a projection behind it.

    Args:
        backbone: The network without its classifier.
        pooled_dim: Width P of what it gives.
        embedding_dim: Width D; None takes P, and there is no projection then.
        frozen: Keep the backbone as it is.
        image_size_px: Side S of the pictures.
        is_pretrained: Whether the backbone's weights were learned from other pictures.
    """

    def __init__(
        self,
        backbone: BackboneNetwork,
        pooled_dim: int,
        embedding_dim: int | None,
        frozen: bool,
        image_size_px: int,
        is_pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.is_pretrained = is_pretrained
        self.image_size_px = image_size_px
        self.embedding_dim = pooled_dim if embedding_dim is None else embedding_dim
        self.frozen = frozen
        self.backbone = backbone
        self.projection = (
            nn.Identity() if embedding_dim is None else nn.Linear(pooled_dim, embedding_dim)
        )
        # -1..1 -> 0..1 -> the weights' scale, in one step. Buffers: a checkpoint keeps the scale.
        mean, std = torch.tensor(backbone.mean), torch.tensor(backbone.std)
        self.register_buffer("scale", (0.5 / std).reshape(1, 3, 1, 1))
        self.register_buffer("shift", ((0.5 - mean) / std).reshape(1, 3, 1, 1))
        self.scale: Tensor
        self.shift: Tensor
        if frozen:
            backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Sets the mode; a frozen backbone stays in evaluation mode, batch norm and dropout too."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def encode(self, images: Tensor) -> Tensor:
        """See `Encoder.encode`."""
        embeddings: Tensor = self.projection(self._through(self.backbone, images))
        return embeddings

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """See `Encoder.layers`: the outputs of the backbone's stages, by the library's names.

        Raises:
            ValueError: The backbone has no maps.
        """
        return self._through(self.backbone.maps, images)

    def _through(self, compute: Callable[[Tensor], _Computed], images: Tensor) -> _Computed:
        self.check_images(images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return compute(images * self.scale + self.shift)


@builder("model")
def backbone(
    name: str,
    embedding_dim: int | None = None,
    weights: str | None = None,
    pretrained: bool = False,
    frozen: bool = False,
    image_size_px: int = 128,
) -> Encoder:
    """Returns a network of timm, torchvision or open_clip; its weights are random by default.

    Pictures are brought from -1..1 to the scale that the network's published weights expect.
    Sources: timm (Wightman 2019, github.com/huggingface/pytorch-image-models), torchvision,
    open_clip (Ilharco et al. 2021, github.com/mlfoundations/open_clip).

    Args:
        name: A network of timm (``resnet18``, ``vit_small_patch16_224.augreg_in21k``,
            ``hf-hub:timm/...``), ``torchvision/`` and one of torchvision, or ``open_clip/`` and one
            of open_clip (``open_clip/ViT-B-32``, ``open_clip/hf-hub:Marqo/marqo-fashionSigLIP``),
            of which the image tower is taken.
        embedding_dim: Width D of a linear projection; None takes the pooled values as they are.
        weights: A local file of tensors (``.safetensors``, or what ``torch.save`` wrote), without
            or with a classifier or a text tower, which are ignored; a folder as the hub gives
            it, whose configuration says to which scale pictures are brought; or
            ``efficientnet-lite0``, the ImageNet weights in an installed package, for
            ``tf_efficientnet_lite0``.
        pretrained: Let the library download the network's weights.
        frozen: The backbone does not learn and keeps its batch norm's averages; only the
            projection learns, where there is one.
        image_size_px: Side S of the pictures.

    Raises:
        ValueError: The name is unknown, the network has no weights to download or cannot take
            pictures of that size, the weights do not fit, a package is missing, or a number is
            out of its range.
        FileNotFoundError: There is no such file of weights.
        ConnectionError: The weights cannot be downloaded.

    Example:
        >>> encoder = backbone("test_resnet", embedding_dim=16, frozen=True, image_size_px=32)
        >>> encoder.encode(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 16])
        >>> [name for name, p in encoder.named_parameters() if p.requires_grad]
        ['projection.weight', 'projection.bias']
        >>> list(encoder.layers(torch.zeros(2, 3, 32, 32)))
        ['act1', 'layer1', 'layer2', 'layer3', 'layer4']
    """
    if embedding_dim is not None:
        check_at_least("embedding_dim", embedding_dim, 1)
    check_at_least("image_size_px", image_size_px, 1)
    if pretrained and weights is not None:
        raise ValueError(
            f"got weights {weights!r} and pretrained=True, expected one of them; drop "
            "model.pretrained to load the file"
        )
    if weights == PACKAGED and name != PACKAGED_NETWORK:
        raise ValueError(
            f"got weights {PACKAGED!r} for {name!r}, expected the network that they were trained "
            f"in; set model.name={PACKAGED_NETWORK}"
        )
    network: BackboneNetwork
    if name.startswith(OPEN_CLIP):
        network = OpenClipNetwork(name.removeprefix(OPEN_CLIP), image_size_px, pretrained)
    elif name.startswith(TORCHVISION):
        network = TorchvisionNetwork(name.removeprefix(TORCHVISION), image_size_px, pretrained)
    else:
        network = TimmNetwork(name, image_size_px, pretrained)
    if weights is not None:
        tensors = packaged_weights() if weights == PACKAGED else _read(Path(weights), network, name)
        own = network.own_tensors(tensors)
        load_weights(network.network, own, network.classifiers, weights)
    pooled_dim = measure_width(network, name, image_size_px)
    learned = pretrained or weights is not None
    return BackboneEncoder(network, pooled_dim, embedding_dim, frozen, image_size_px, learned)


def _read(path: Path, network: BackboneNetwork, name: str) -> dict[str, Tensor]:
    """Returns the tensors of a file or a hub's folder; the network takes the folder's scale over.

    Raises:
        ValueError: The folder is of another network, or is none of a hub.
    """
    if not path.is_dir():
        return read_weights(path)
    folder = read_hub_folder(path)
    if folder.architecture and name.partition(".")[0] != folder.architecture.partition(".")[0]:
        raise ValueError(
            f"got the weights of {folder.architecture} in {str(path)!r} for {name!r}, expected "
            f"those of one network; set model.name={folder.architecture}"
        )
    network.mean, network.std = folder.mean or network.mean, folder.std or network.std
    return read_weights(folder.file)
