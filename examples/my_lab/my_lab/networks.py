"""A network: pictures to embeddings."""

from torch import Tensor, nn

from visual_search import builder
from visual_search.models.encoder import Encoder, outputs_by_name


@builder("model")
class ConvMixer(Encoder):
    """Patches, mixed by depthwise and pointwise convolutions; arXiv 2201.09792.

    Args:
        image_size_px: Side S of the pictures.
        width: Channels, which are the embedding's values.
        depth: Mixing layers.
        patch_px: Side of a patch.
    """

    def __init__(
        self, image_size_px: int = 128, width: int = 128, depth: int = 4, patch_px: int = 8
    ) -> None:
        super().__init__()
        self.image_size_px, self.embedding_dim = image_size_px, width
        self.maps = nn.Sequential()
        self.maps.add_module("patches", nn.Conv2d(3, width, patch_px, stride=patch_px))
        for number in range(1, depth + 1):
            depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
            steps = [depthwise, nn.GELU(), nn.BatchNorm2d(width), nn.Conv2d(width, width, 1)]
            self.maps.add_module(f"mix{number}", nn.Sequential(*steps))

    def encode(self, images: Tensor) -> Tensor:
        """Returns the mean over the last maps, ``[B, width]``."""
        self.check_images(images)
        return self.maps(images).mean(dim=(2, 3))

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """Returns every layer's maps, for the pictures of what the network sees."""
        self.check_images(images)
        return outputs_by_name(self.maps, images)
