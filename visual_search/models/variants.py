"""The named autoencoder variants: each a builder over a layer table.

A new variant is a new builder here, and a YAML of the same name in ``conf/model``: the tests of the
contract find it by its mark.
"""

from __future__ import annotations

from visual_search import builder
from visual_search.models.autoencoder import (
    Autoencoder,
    Conv,
    ConvTransposed,
    LayerTableAutoencoder,
    Pool,
)


@builder("model")
def plus_layer() -> Autoencoder:
    """Returns the study's "+Layer" network: 128 px pictures to 512 values and back.

    8 convolutions, 4 poolings, 8 transposed convolutions; 10,429,827 parameters, of which the
    encoder has 6,455,104. Source: the layer table in the published notebooks of "Powering Visual
    Search with Image Embedding" (2023). The number behind a row is the side of its output.
    """
    return LayerTableAutoencoder(
        encoder=[
            Conv(3, 64),  # 128
            Conv(64, 64),  # 128
            Pool(),  # 64
            Conv(64, 128, stride=2),  # 32
            Conv(128, 128, padding=0),  # 30
            Pool(),  # 15
            Conv(128, 256, stride=2),  # 8
            Pool(),  # 4
            Conv(256, 512),  # 4
            Conv(512, 512, activation="none"),  # 4, the source has no ReLU here
            Conv(512, 512, padding=0),  # 2
            Pool(),  # 1
        ],
        decoder=[
            ConvTransposed(512, 512),  # 1
            ConvTransposed(512, 256, stride=2, padding=0, activation="none"),  # 3
            ConvTransposed(256, 128, stride=2),  # 5
            ConvTransposed(128, 64, stride=2, activation="none"),  # 9
            ConvTransposed(64, 64, stride=2),  # 17
            ConvTransposed(64, 32, stride=2, activation="none"),  # 33
            ConvTransposed(32, 32, stride=2),  # 65
            ConvTransposed(32, 3, stride=2, padding=2, kernel=4, activation="tanh"),  # 128
        ],
        bottleneck=(512, 1, 1),
        image_size_px=128,
    )


@builder("model")
def baseline() -> Autoencoder:
    """Returns the study's baseline as we reconstruct it: 128 px pictures to 4,096 values and back.

    7 convolutions, 3 poolings, 7 transposed convolutions. The study describes this network (7
    convolutions, 3 poolings, 256 x 4 x 4, 7 transposed convolutions) but never published its
    code: the widths, strides and activations here are ours, after the conventions of
    ``plus_layer``. The encoder has 1,735,488 parameters.
    """
    return LayerTableAutoencoder(
        encoder=[
            Conv(3, 64),  # 128
            Conv(64, 64),  # 128
            Pool(),  # 64
            Conv(64, 128, stride=2),  # 32
            Conv(128, 128, padding=0),  # 30
            Pool(),  # 15
            Conv(128, 256, stride=2),  # 8
            Conv(256, 256),  # 8
            Conv(256, 256),  # 8
            Pool(),  # 4
        ],
        decoder=[
            ConvTransposed(256, 256),  # 4
            ConvTransposed(256, 128, activation="none"),  # 4
            ConvTransposed(128, 128, stride=2, padding=0),  # 9
            ConvTransposed(128, 64, stride=2, activation="none"),  # 17
            ConvTransposed(64, 64, stride=2),  # 33
            ConvTransposed(64, 32, stride=2, activation="none"),  # 65
            ConvTransposed(32, 3, stride=2, padding=2, kernel=4, activation="tanh"),  # 128
        ],
        bottleneck=(256, 4, 4),
        image_size_px=128,
    )
