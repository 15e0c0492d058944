"""Where the content of a letterboxed picture lies, and what it looks like by itself."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from visual_search.catalog.images import fit_array
from visual_search.models.letterbox import content_boxes, log_aspect, stretched

RNG = np.random.default_rng(0)


def noise(width: int, height: int) -> NDArray[np.uint8]:
    """A picture without any white, ``[H, W, 3]``."""
    return RNG.integers(0, 200, (height, width, 3), dtype=np.uint8)


def letterboxed(picture: NDArray[np.uint8], size_px: int) -> Tensor:
    return torch.from_numpy(fit_array(picture, size_px, "letterbox")).float()[None]


@pytest.mark.parametrize("size", [(40, 40), (40, 20), (10, 40), (40, 1), (33, 17)])
def test_what_letterboxing_padded_is_found_again(size: tuple[int, int]) -> None:
    width, height = size
    box = content_boxes(letterboxed(noise(width, height), 64))[0]
    scale = 64 / max(size)
    assert (box[2] - box[0]).item() == pytest.approx(width * scale, abs=1)
    assert (box[3] - box[1]).item() == pytest.approx(height * scale, abs=1)
    assert log_aspect(box[None]).item() == pytest.approx(np.log(width / height), abs=0.5)


def test_a_white_margin_of_the_pictures_own_is_no_content() -> None:
    image = torch.full((2, 3, 8, 8), 255.0)
    image[0, 1, 2:5, 3:7] = 200.0  # one channel is enough
    assert content_boxes(image).tolist() == [[3, 2, 7, 5], [0, 0, 8, 8]]  # all white: all of it


@pytest.mark.parametrize("size_px", [16, 64, 100])
def test_content_is_resized_as_pillow_does(size_px: int) -> None:
    picture = noise(40, 40)
    canvas = torch.full((1, 3, 64, 64), 255.0)
    canvas[0, :, 10:50, 20:60] = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()
    found = stretched(canvas, content_boxes(canvas), size_px)
    expected = Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found[0].permute(1, 2, 0), np.asarray(expected), atol=1.01)


def exactly(image: NDArray[np.uint8], box: tuple[int, int, int, int], size_px: int) -> NDArray[Any]:
    """The same in fractions, pixel by pixel; ``[s, s]`` of one channel ``[S, S]``."""

    def weights(start: int, end: int) -> list[dict[int, Fraction]]:
        step = Fraction(end - start, size_px)
        found = []
        for target in range(size_px):
            centre = start + (target + Fraction(1, 2)) * step
            near = {
                pixel: 1 - abs(pixel + Fraction(1, 2) - centre) / max(step, Fraction(1))
                for pixel in range(start, end)
            }
            positive = {pixel: weight for pixel, weight in near.items() if weight > 0}
            found.append({p: w / sum(positive.values()) for p, w in positive.items()})
        return found

    left, top, right, bottom = box
    across, down = weights(left, right), weights(top, bottom)
    return np.array(
        [
            [sum(int(image[y, x]) * v * w for y, v in row.items() for x, w in column.items())
             for column in across]
            for row in down
        ],
        dtype=object,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("box", "levels"),  # of which pixels are multiples, so that there are ties
    [((1, 3, 18, 20), 8), ((2, 2, 10, 18), 2), ((0, 1, 20, 21), 2)],
)
def test_what_lies_half_way_is_rounded_as_fractions_are(
    box: tuple[int, int, int, int], levels: int
) -> None:
    image = RNG.integers(0, 200, (21, 21), dtype=np.uint8) // levels * levels
    expected = exactly(image, box, 16)
    assert sum((2 * value) % 2 == 1 for value in expected.flat) >= 3
    pictures = torch.from_numpy(image).float().expand(1, 3, 21, 21)
    found = stretched(pictures, torch.tensor([box], dtype=torch.float32), 16).round()
    rounded = np.array([round(value) for value in expected.flat], dtype=np.float32)
    for channel in found[0].numpy():
        np.testing.assert_array_equal(channel.flatten(), rounded)


def test_nothing_outside_the_box_is_looked_at() -> None:
    image = torch.rand(1, 3, 16, 16)
    box = torch.tensor([[4.0, 2.0, 12.0, 9.0]])
    other = torch.rand(1, 3, 16, 16)
    other[:, :, 2:9, 4:12] = image[:, :, 2:9, 4:12]
    torch.testing.assert_close(stretched(image, box, 10), stretched(other, box, 10))


def test_each_picture_has_its_own_box() -> None:
    images = torch.cat([letterboxed(noise(*size), 32) for size in ((10, 30), (30, 10), (32, 32))])
    boxes = content_boxes(images)
    together = stretched(images, boxes, 32)
    for i in range(3):
        alone = stretched(images[i : i + 1], boxes[i : i + 1], 32)
        torch.testing.assert_close(together[i : i + 1], alone)
    torch.testing.assert_close(together[2], images[2])  # which is square already
    assert log_aspect(boxes).sign().tolist() == [-1, 1, 0]
