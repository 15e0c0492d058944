"""Each change beside another way to compute it: torchvision's kernels, or a slow loop."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from visual_search.training.augmentation import DRAWS, Augmentation, uniform_numbers

SIDE = 12


def drawn(num: int = 1, **values: float) -> Tensor:
    """Numbers in the middle, where nothing symmetric changes, but for those that are named."""
    row = [values.pop(name, 0.5) for name in DRAWS]
    assert not values, f"no such draws: {values}"
    return torch.tensor([row] * num, dtype=torch.float64)


def picture(low: float = -1.0, high: float = 1.0, side: int = SIDE) -> Tensor:
    values = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    return low + values * (high - low)


def random_numbers(num: int) -> Tensor:
    return torch.from_numpy(uniform_numbers(0, 0, np.arange(num), 0, Augmentation.num_numbers))


def as_share(image: Tensor) -> Tensor:
    return (image + 1) / 2


def test_a_flip_is_exact() -> None:
    image = picture()
    flipped = Augmentation(flip=1.0)(image, drawn(flip=0.9))
    assert torch.equal(flipped, vision.horizontal_flip(image))
    assert torch.equal(Augmentation(flip=0.4)(image, drawn(flip=0.4)), image)


def test_a_white_picture_stays_white_wherever_it_is_moved() -> None:
    white = torch.ones(50, 3, SIDE, SIDE)
    augmentation = Augmentation(
        flip=0.5, min_scale=0.4, max_scale=2.0, max_shift=0.5, max_rotation_degrees=180.0,
        max_stretch=2.0, blur=1.0, blur_sigma=0.2, erasing=1.0,
    )  # fmt: skip
    assert torch.equal(augmentation(white, random_numbers(50)), white)


@pytest.mark.parametrize(("turn", "size"), [(1.0, 0.5), (0.0, 0.0), (0.8, 1.0)])
def test_turning_and_zooming_agree_with_torchvision(turn: float, size: float) -> None:
    image = picture()
    augmentation = Augmentation(min_scale=0.7, max_scale=1.4, max_rotation_degrees=30.0)
    scale = 0.7 * 2.0**size  # 0.7 to 1.4, uniform in the logarithm
    expected = vision.affine(
        vision.pad(image, [SIDE], fill=1.0),  # torchvision mixes its fill twice at an edge
        angle=-(2 * turn - 1) * 30.0,  # the part is turned; what it shows turns the other way
        translate=[0, 0],
        scale=1 / scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
        fill=[1.0, 1.0, 1.0],
    )
    changed = augmentation(image, drawn(rotation=turn, scale=size))
    expected = expected[..., SIDE:-SIDE, SIDE:-SIDE]
    torch.testing.assert_close(changed, expected, atol=1e-4, rtol=0)


def seen(image: Tensor, settings: Augmentation, u: dict[str, float], strength: float) -> Tensor:
    """The part that is seen, pixel by pixel from its definition."""
    ratio = settings.max_scale / settings.min_scale
    scale = (settings.min_scale * ratio ** u["scale"]) ** strength
    stretch = settings.max_stretch ** (strength * (2 * u["stretch"] - 1))
    width, height = scale * math.sqrt(stretch), scale / math.sqrt(stretch)
    room = [abs(1 - side) / 2 + strength * settings.max_shift for side in (width, height)]
    middle = [0.5 + (2 * u[f"shift_{axis}"] - 1) * r for axis, r in zip("xy", room, strict=True)]
    angle = math.radians(strength * (2 * u["rotation"] - 1) * settings.max_rotation_degrees)
    result = torch.empty_like(image)
    side = image.shape[-1]

    def at(row: int, column: int) -> Tensor:
        inside = 0 <= row < side and 0 <= column < side
        return image[:, row, column] if inside else torch.ones(3)

    for row in range(side):
        for column in range(side):
            x, y = ((column + 0.5) / side - 0.5) * width, ((row + 0.5) / side - 0.5) * height
            across = (middle[0] + x * math.cos(angle) - y * math.sin(angle)) * side - 0.5
            down = (middle[1] + x * math.sin(angle) + y * math.cos(angle)) * side - 0.5
            left, top = math.floor(across), math.floor(down)
            right_share, lower_share = across - left, down - top
            upper = (1 - right_share) * at(top, left) + right_share * at(top, left + 1)
            lower = (1 - right_share) * at(top + 1, left) + right_share * at(top + 1, left + 1)
            result[:, row, column] = (1 - lower_share) * upper + lower_share * lower
    return result


def test_the_part_that_is_seen_follows_its_definition() -> None:
    settings = Augmentation(
        min_scale=0.5, max_scale=1.4, max_shift=0.1, max_rotation_degrees=40.0, max_stretch=1.5
    )
    images = picture().expand(6, -1, -1, -1)
    values = random_numbers(6)
    strengths = [1.0, 1.0, 1.0, 0.5, 0.2, 1.5]
    changed = settings(images, values, torch.tensor(strengths))
    for place, strength in enumerate(strengths):
        u = dict(zip(DRAWS, values[place].double().tolist(), strict=True))
        expected = seen(images[place], settings, u, strength)
        torch.testing.assert_close(changed[place], expected, atol=1e-4, rtol=0)


COLOURS: dict[str, tuple[Augmentation, dict[str, float], Callable[[Tensor], Tensor]]] = {
    "grayscale leaves the luma in all channels": (
        Augmentation(grayscale=1.0),
        {"grayscale": 0.99},
        lambda image: vision.rgb_to_grayscale(image, num_output_channels=3),
    ),
    "darkening multiplies the values": (
        Augmentation(brightness=0.4),
        {"brightness": 0.0},
        lambda image: vision.adjust_brightness(image, 0.6),
    ),
    "brightening divides the distance to white": (
        Augmentation(brightness=0.25),
        {"brightness": 1.0},
        lambda image: 1 - vision.adjust_brightness(1 - image, 0.8),
    ),
    "lower contrast": (
        Augmentation(contrast=0.4),
        {"contrast": 0.25},
        lambda image: vision.adjust_contrast(image, 0.8),
    ),
    **{
        f"saturation {number}": (
            Augmentation(saturation=0.5),
            {"saturation": number},
            lambda image, number=number: vision.adjust_saturation(image, 0.5 + number),
        )
        for number in (0.0, 0.3, 1.0)
    },
}


@pytest.mark.parametrize("name", COLOURS)
def test_colours_change_as_torchvisions_do(name: str) -> None:
    augmentation, draws, expected = COLOURS[name]
    image = picture(-0.4, 0.4)
    changed = augmentation(image, drawn(**draws))
    torch.testing.assert_close(as_share(changed), expected(as_share(image)), atol=1e-3, rtol=0)


def test_higher_contrast_keeps_a_bright_product_apart_from_white() -> None:
    image = picture(0.86, 0.9)  # a white shirt ...
    image[..., :5, :] = 1.0  # ... on white ...
    image[..., 10:, 10:] = -1.0  # ... with something black
    share = as_share(image)
    changed = as_share(Augmentation(contrast=0.5)(image, drawn(contrast=1.0)))
    mean = vision.rgb_to_grayscale(share).mean()
    raised = 1.5 * share - 0.5 * mean
    expected = (raised / raised.max()).clamp(0, 1)  # white is at 1 again
    torch.testing.assert_close(changed, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(changed[..., :5, :], torch.ones(1, 3, 5, SIDE))
    before, after = 1 - share[..., 5:10, :].mean(), 1 - changed[..., 5:10, :].mean()
    assert after > before


@pytest.mark.parametrize("turn", [-0.4, 0.2])
def test_hue_turns_colours_the_way_of_torchvision(turn: float) -> None:
    red, green, blue = torch.eye(3)
    image = torch.stack([red, green, blue])[None, :, :, None].expand(1, 3, 3, 3) * 0.4 - 0.2
    changed = Augmentation(hue=0.4)(image, drawn(hue=0.5 + turn / 0.8))
    expected = vision.adjust_hue(as_share(image), turn)

    def direction(values: Tensor) -> Tensor:
        chroma = values - values.mean(dim=1, keepdim=True)
        return chroma / chroma.norm(dim=1, keepdim=True)

    cosine = (direction(as_share(changed)) * direction(expected)).sum(dim=1)
    assert cosine.min() > math.cos(math.radians(35))  # chroma of YIQ is not quite HSV's hue
    luma = vision.rgb_to_grayscale
    torch.testing.assert_close(luma(changed), luma(image), atol=1e-3, rtol=0)


@pytest.mark.parametrize("number", [0.2, 1.0])
def test_blur_agrees_with_torchvision_over_white(number: float) -> None:
    image = picture()
    changed = Augmentation(blur=1.0, blur_sigma=0.1)(image, drawn(blur_sigma=number))
    around = vision.pad(image, [15], fill=1.0)
    expected = vision.gaussian_blur(around, [31, 31], [0.1 * number * SIDE])
    torch.testing.assert_close(changed, expected[..., 15:-15, 15:-15], atol=1e-4, rtol=0)


def test_only_the_chosen_pictures_are_blurred() -> None:
    images = picture().expand(40, -1, -1, -1)
    values = random_numbers(40)
    values[:, DRAWS.index("blur_sigma")] = 0.5
    changed = Augmentation(blur=0.5, blur_sigma=0.1)(images, values)
    blurred = (changed != images).flatten(1).any(dim=1)
    assert torch.equal(blurred, values[:, DRAWS.index("blur")] < 0.5)
    assert 0 < blurred.sum() < 40


def test_erasing_fills_a_rectangle_of_the_drawn_place_area_and_shape_with_the_mean() -> None:
    side, values = 40, random_numbers(30)
    images = picture(side=side).expand(30, -1, -1, -1)
    changed = Augmentation(erasing=0.5, min_erased_area=0.05, max_erased_area=0.25)(images, values)
    mean = images[0].mean(dim=(1, 2), keepdim=True)
    num_erased = 0
    for after, numbers in zip(changed, values.double().tolist(), strict=True):
        u = dict(zip(DRAWS, numbers, strict=True))
        area, shape = 0.05 + 0.2 * u["erased_area"], 0.3 ** (2 * u["erased_shape"] - 1)
        width, height = math.sqrt(area / shape), math.sqrt(area * shape)
        left, top = u["erased_x"] * (1 - width), u["erased_y"] * (1 - height)
        columns = [left <= (column + 0.5) / side < left + width for column in range(side)]
        lines = [top <= (line + 0.5) / side < top + height for line in range(side)]
        inside = torch.tensor(lines)[:, None] & torch.tensor(columns) & (u["erasing"] < 0.5)
        num_erased += bool(inside.any())
        torch.testing.assert_close(after, torch.where(inside, mean, images[0]))
    assert 0 < num_erased < 30
