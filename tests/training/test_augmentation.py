"""What augmentation promises: its numbers, each picture on its own, each change by another way."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from visual_search.training.augmentation import DRAWS, Augmentation, uniform_numbers

GOLDEN, WHOLE = 0x9E3779B97F4A7C15, 2**64 - 1


def splitmix(value: int) -> int:
    """SplitMix64's output for its state, by whole numbers."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WHOLE
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WHOLE
    return value ^ (value >> 31)


def test_they_are_a_splitmix64_sequence_a_picture() -> None:
    # The first outputs for this start that the authors' and many other programs print.
    found = [splitmix((1234567 + step * GOLDEN) & WHOLE) for step in (1, 2, 3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    for seed, epoch, view, position in ((0, 0, 0, 0), (3, 1, 1, 7), (2**63, 9, 0, 2**32)):
        state = 0
        for part in (seed, epoch, view, position):
            state = splitmix(((state + GOLDEN) & WHOLE) ^ part)
        expected = [(splitmix((state + s * GOLDEN) & WHOLE) >> 40) * 2**-24 for s in range(1, 6)]
        drawn = uniform_numbers(seed, epoch, np.array([position]), view, 5)
        assert drawn[0].tolist() == expected


def test_they_are_uniform_and_neighbours_independent() -> None:
    places = np.arange(5_000)

    def flat(seed: int = 0, epoch: int = 0, shift: int = 0, view: int = 0) -> NDArray[np.float64]:
        drawn = uniform_numbers(seed, epoch, places + shift, view, 10)
        return drawn.astype(np.float64).ravel()

    values = flat()
    assert 0 <= values.min() < 1e-3
    assert 1 - 1e-3 < values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 0.01
    # The lowest bits that are left, too.
    lowest = (values * 2**24).astype(np.int64) % 256
    assert stats.chisquare(np.bincount(lowest, minlength=256)).pvalue > 0.01
    others = [flat(shift=1), flat(shift=2**32), flat(epoch=1), flat(view=1), flat(seed=1)]
    for other in (*others, flat(seed=2**63), np.roll(values, 1)):  # the one before, in a picture
        assert abs(np.corrcoef(values, other)[0, 1]) < 4 / np.sqrt(len(values))
        pairs = np.histogram2d(values, other, bins=16, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-3


def test_a_picture_has_its_numbers_in_any_batch() -> None:
    whole = uniform_numbers(7, 3, np.arange(130), 1, 18)
    assert whole.dtype == np.float32
    assert whole.shape == (130, 18)
    some = np.array([129, 5, 128, 5])
    np.testing.assert_array_equal(uniform_numbers(7, 3, some, 1, 18), whole[some])
    np.testing.assert_array_equal(uniform_numbers(7, 3, some, 1, 4), whole[some, :4])
    assert uniform_numbers(7, 3, some[:0], 1, 4).shape == (0, 4)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": -1}, "got seed -1, expected 0 or above"),
        ({"epoch": -2}, "got epoch -2"),
        ({"view": -1}, "got view -1"),
        ({"num": -1}, "got num -1"),
        ({"positions": np.array([3, -4])}, r"got positions of shape \(2,\), the smallest -4"),
        ({"positions": np.zeros((2, 2), dtype=np.int64)}, r"got positions of shape \(2, 2\)"),
    ],
)
def test_impossible_numbers_are_refused(changed: dict[str, Any], message: str) -> None:
    arguments = {"seed": 0, "epoch": 0, "positions": np.arange(3), "view": 0, "num": 2}
    with pytest.raises(ValueError, match=message):
        uniform_numbers(**(arguments | changed))  # type: ignore[arg-type]


SIDE = 16
EVERYTHING = Augmentation(
    flip=0.5, min_scale=0.6, max_scale=1.3, max_shift=0.1, max_rotation_degrees=20.0,
    max_stretch=1.3, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2,
    blur=0.5, blur_sigma=0.05, erasing=0.5,
)  # fmt: skip


def pictures(num: int = 12, side: int = SIDE) -> Tensor:
    """Random pictures, channels last in memory as the loader's are."""
    values = torch.rand(num, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (values * 2 - 1).contiguous(memory_format=torch.channels_last)


def numbers(num: int = 12, view: int = 0) -> Tensor:
    positions = np.arange(num)
    return torch.from_numpy(uniform_numbers(3, 0, positions, view, Augmentation.num_numbers))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_at_strength_0_a_picture_stays_bit_for_bit(layout: torch.memory_format) -> None:
    images = pictures().contiguous(memory_format=layout)
    strength = torch.tensor([0.0, 1.0] * 6)
    changed = EVERYTHING(images, numbers(), strength)
    assert torch.equal(changed[::2], images[::2])
    assert all(not torch.equal(a, b) for a, b in zip(changed[1::2], images[1::2], strict=True))
    assert changed.is_contiguous(memory_format=layout)


def test_every_picture_has_parameters_of_its_own() -> None:
    images = pictures(1).expand(12, -1, -1, -1)
    for augmentation in (EVERYTHING, Augmentation(min_scale=0.5), Augmentation(brightness=0.5)):
        changed = augmentation(images, numbers())
        different = {tuple(picture.flatten().tolist()) for picture in changed}
        assert len(different) == 12
        assert not torch.equal(changed, augmentation(images, numbers(view=1)))  # nor do two views


def test_a_result_does_not_depend_on_its_neighbours() -> None:
    images, drawn, strength = pictures(), numbers(), torch.ones(12)
    whole = EVERYTHING(images, drawn, strength)
    for place in range(12):
        single = EVERYTHING(images[place : place + 1], drawn[place : place + 1])
        torch.testing.assert_close(single[0], whole[place], atol=1e-5, rtol=0)
    images[1:], drawn[1:], strength[1:] = -images[1:], numbers(view=5)[1:], 2.5
    second = EVERYTHING(images, drawn, strength)
    assert torch.equal(whole[0], second[0])
    assert not torch.equal(whole[1:], second[1:])


def test_it_repeats_exactly_and_leaves_the_inputs_and_random_states_alone() -> None:
    images, drawn = pictures(), numbers()
    kept, state, numpy_state = images.clone(), torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    changed = EVERYTHING(images, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # nor does that change anything
        assert torch.equal(EVERYTHING(images, drawn), changed)
    assert Augmentation()(images, drawn) is images  # the defaults change nothing
    assert torch.equal(images, kept)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_values_stay_in_range() -> None:
    strength = torch.tensor([0.3, 1.0, 3.0]).repeat(16)
    changed = EVERYTHING(pictures(48).sign(), numbers(48), strength)  # only -1 and 1
    assert changed.isfinite().all()
    assert changed.min() >= -1
    assert changed.max() <= 1


@pytest.mark.parametrize(
    "weaker",
    [
        {"brightness": 0.2}, {"hue": 0.1}, {"max_rotation_degrees": 10.0}, {"min_scale": 0.8},
        {"max_shift": 0.1}, {"flip": 0.3}, {"blur": 0.4, "blur_sigma": 0.03}, {"grayscale": 0.25},
    ],
    ids=lambda weaker: next(iter(weaker)),
)  # fmt: skip
def test_strength_multiplies_ranges_and_probabilities(weaker: dict[str, float]) -> None:
    images, drawn = pictures(), numbers()
    stronger = {k: v**2 if k == "min_scale" else 2 * v for k, v in weaker.items()}
    halved = Augmentation(**stronger)(images, drawn, torch.full((12,), 0.5))
    torch.testing.assert_close(halved, Augmentation(**weaker)(images, drawn), atol=1e-5, rtol=0)
    assert not torch.allclose(halved, Augmentation(**stronger)(images, drawn), atol=1e-3)


def test_turning_one_change_off_leaves_the_others_as_they_are() -> None:
    images, drawn = pictures(), numbers()
    flipped = Augmentation(flip=0.5)(images, drawn)
    with_colour = Augmentation(flip=0.5, brightness=0.3)(images, drawn)
    alone = Augmentation(brightness=0.3)(flipped, drawn)
    assert torch.equal(with_colour, alone)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("flip", 1.5, "got augmentation.flip 1.5, expected 0 to 1"),
        ("hue", 0.6, "got augmentation.hue 0.6, expected 0 to 0.5"),
        ("min_scale", 0.0, "got augmentation.min_scale 0.0, expected 0.05 to 10"),
        ("max_stretch", 0.9, "got augmentation.max_stretch 0.9, expected 1 to 10"),
        ("max_rotation_degrees", 270.0, "expected 0 to 180; set augmentation.max_rot"),
        ("contrast", float("nan"), "got augmentation.contrast nan"),
        ("min_scale", 1.2, "got augmentation.min_scale 1.2 above augmentation.max_scale 1.0"),
        ("min_erased_area", 0.5, "min_erased_area 0.5 above augmentation.max_erased_area 0.2"),
    ],
)
def test_impossible_settings_are_refused(setting: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**{setting: value})


@pytest.mark.parametrize(
    ("images", "drawn", "strength", "message"),
    [
        (pictures()[:, :2], numbers(), None, r"got pictures of shape \(12, 2, 16, 16\)"),
        (pictures()[..., :8], numbers(), None, r"shape \(12, 3, 16, 8\), expected \[B, 3, S, S\]"),
        (pictures(), numbers(11), None, r"numbers has shape \(11, 18\), expected \(12, 18\)"),
        (pictures(), numbers(13), None, r"numbers has shape \(13, 18\), expected \(12, 18\)"),
        (pictures(), numbers() * 2, None, "numbers lie between .* expected 0 to 1"),
        (pictures(), numbers(), torch.ones(3), r"strength has shape \(3,\), expected \(12,\)"),
        (pictures(), numbers(), -torch.ones(12), "strength lies between -1 and -1"),
        (pictures(), numbers(), torch.full((12,), torch.inf), "strength lies between inf"),
    ],
)
def test_wrong_inputs_are_refused(
    images: Tensor, drawn: Tensor, strength: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EVERYTHING(images, drawn, strength)
    with pytest.raises(TypeError, match=r"torch\.uint8, expected float32"):
        EVERYTHING(torch.zeros(12, 3, 8, 8, dtype=torch.uint8), numbers())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    images, drawn = pictures(), numbers()
    for augmentation in (EVERYTHING, replace(EVERYTHING, erasing=0.0)):
        there = augmentation(images.cuda(), drawn)
        assert there.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(there, augmentation(images.cuda(), drawn.cuda()))
        torch.testing.assert_close(there.cpu(), augmentation(images, drawn), atol=1e-4, rtol=0)


def drawn(**values: float) -> Tensor:
    """Numbers in the middle, where nothing symmetric changes, but for those that are named."""
    row = [values.pop(name, 0.5) for name in DRAWS]
    assert not values, f"no such draws: {values}"
    return torch.tensor([row], dtype=torch.float64)


def picture(low: float = -1.0, high: float = 1.0, side: int = SIDE) -> Tensor:
    return low + (pictures(1, side).contiguous() + 1) / 2 * (high - low)


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
    assert torch.equal(augmentation(white, numbers(50)), white)


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
    values = numbers(6)
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
    values = numbers(40)
    values[:, DRAWS.index("blur_sigma")] = 0.5
    changed = Augmentation(blur=0.5, blur_sigma=0.1)(images, values)
    blurred = (changed != images).flatten(1).any(dim=1)
    assert torch.equal(blurred, values[:, DRAWS.index("blur")] < 0.5)
    assert 0 < blurred.sum() < 40


def test_erasing_fills_a_rectangle_of_the_drawn_place_area_and_shape_with_the_mean() -> None:
    side, values = 40, numbers(30)
    images = picture(side=side).expand(30, -1, -1, -1)
    changed = Augmentation(erasing=0.5, min_erased_area=0.05, max_erased_area=0.25)(images, values)
    mean = images[0].mean(dim=(1, 2), keepdim=True)
    num_erased = 0
    for after, each in zip(changed, values.double().tolist(), strict=True):
        u = dict(zip(DRAWS, each, strict=True))
        area, shape = 0.05 + 0.2 * u["erased_area"], 0.3 ** (2 * u["erased_shape"] - 1)
        width, height = math.sqrt(area / shape), math.sqrt(area * shape)
        left, top = u["erased_x"] * (1 - width), u["erased_y"] * (1 - height)
        columns = [left <= (column + 0.5) / side < left + width for column in range(side)]
        lines = [top <= (line + 0.5) / side < top + height for line in range(side)]
        inside = torch.tensor(lines)[:, None] & torch.tensor(columns) & (u["erasing"] < 0.5)
        num_erased += bool(inside.any())
        torch.testing.assert_close(after, torch.where(inside, mean, images[0]))
    assert 0 < num_erased < 30
