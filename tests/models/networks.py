"""Every network small enough to be asked for everything; all others as they are by default."""

from collections.abc import Callable
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch

from visual_search.config.builders import builders
from visual_search.models.autoencoder import (
    Autoencoder,
    Conv,
    ConvTransposed,
    LayerTableAutoencoder,
    Pool,
)
from visual_search.models.backbones import backbone
from visual_search.models.encoder import Encoder
from visual_search.models.plain import plain_encoder
from visual_search.models.residual import residual, residual_encoder
from visual_search.models.variational import variational

SIDE = 32
small: dict[str, Any] = {"embedding_dim": 24, "image_size_px": SIDE, "width": 4}
own_width: dict[str, Any] = {"image_size_px": SIDE}
projected: dict[str, Any] = {"embedding_dim": 24, "image_size_px": SIDE}
NETWORKS: dict[str, Callable[[], Encoder]] = {
    "residual_encoder": partial(residual_encoder, **small),
    "residual_encoder_odd": partial(
        residual_encoder, 32, 45, width=4, num_blocks=[2, 1, 1, 2], stem_stride=4
    ),
    "plain_encoder": partial(plain_encoder, SIDE, width=2),
    "residual": partial(residual, **small),
    "variational": partial(variational, **small),
    "timm": partial(backbone, "test_resnet", **projected),
    "timm_own_width": partial(backbone, "tf_efficientnet_lite0", **own_width),
    "timm_transformer": partial(backbone, "test_vit", **projected),
    "timm_mobile": partial(backbone, "mobilenetv3_small_050", **projected),
    "torchvision": partial(backbone, "torchvision/squeezenet1_1", **projected),
    "frozen": partial(backbone, "test_resnet", frozen=True, **projected),
}
# A new variant of models/variants.py is here by its mark.
NETWORKS |= {
    name: resolve_name(target)
    for target in builders("model")
    if (name := target.rpartition(".")[2]) not in {*NETWORKS, "backbone"}
}


def built(name: str, seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name]()


def small_autoencoder() -> Autoencoder:
    """Returns a network of four layers for pictures of 16 px, D 64."""
    return LayerTableAutoencoder(
        encoder=[Conv(3, 8, stride=2), Pool(), Conv(8, 16, activation="none"), Pool()],
        decoder=[
            ConvTransposed(16, 8, stride=2, kernel=2, padding=0),
            ConvTransposed(8, 8, stride=2, kernel=2, padding=0),
            ConvTransposed(8, 3, stride=2, kernel=2, padding=0, activation="tanh"),
        ],
        bottleneck=(16, 2, 2),
        image_size_px=16,
    )
