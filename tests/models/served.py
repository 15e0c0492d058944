"""Pictures and fitted heads for the tests of exported encoders."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from visual_search.catalog.images import fit_array
from visual_search.models.embedding import EmbeddingHead, EmbeddingSettings
from visual_search.models.encoder import Encoder
from visual_search.models.exporting import scaled
from visual_search.models.residual import residual_encoder

# conf/experiment/best_unsupervised.yaml, with fewer components than there are pictures here
RECIPE: dict[str, Any] = {
    "mirror": True,
    "normalize": True,
    "pca": 16,
    "whiten": 1.0,
    "whiten_by": "neighbours",
    "beside": "hog_shape",
    "beside_pca": 20,
    "beside_weight": 1.2,
}


def letterboxed(num: int, side: int, seed: int = 0) -> NDArray[np.uint8]:
    """Coarse patterns of many shapes on white, ``[n, 3, S, S]``: flat parts, slopes and edges.

    Their sides do not divide S, so that resizing them meets values half-way between two.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(num):
        cells = rng.integers(0, 256, (*rng.integers(2, 7, 2), 3), dtype=np.uint8)
        small = cells.repeat(rng.integers(3, 9), axis=0).repeat(rng.integers(3, 9), axis=1)
        found.append(fit_array(small, side, "letterbox"))
    return np.stack(found)


def settled(encoder: Encoder) -> Encoder:
    """Returns the encoder with averages in its batch norms as after some training."""
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return encoder.eval()
    for norm in norms:
        norm.momentum = 0.5
    encoder.train()
    with torch.no_grad():
        for seed in (1, 2):
            encoder.encode(scaled(torch.from_numpy(letterboxed(8, encoder.image_size_px, seed))))
    return encoder.eval()


def fitted_head(encoder: Encoder, settings: dict[str, Any], num: int = 60) -> EmbeddingHead:
    head = EmbeddingHead(encoder, EmbeddingSettings(**settings))
    if head.is_fitted:
        return head
    pictures = scaled(torch.from_numpy(letterboxed(num, encoder.image_size_px)))
    with torch.inference_mode():
        head.fit(head.features(encoder, pictures).numpy())
    return head


def embedded(
    encoder: Encoder, head: EmbeddingHead, pictures: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """What PyTorch gives, ``[B, D]``."""
    with torch.inference_mode():
        found: NDArray[np.float32] = head(
            head.features(encoder, scaled(torch.from_numpy(pictures)))
        ).numpy()
    return found


def small_encoder(seed: int = 0) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return settled(residual_encoder(embedding_dim=24, image_size_px=32, width=4))
