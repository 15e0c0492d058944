"""Pictures as they come: each kind goes through a reader and the cache, as a user meets it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from tests.catalog.odd_pictures import (
    COLORS,
    GREYS,
    WHITE,
    animation,
    bmp_upside_down,
    chunk,
    cmyk_jpeg,
    encoded,
    image,
    oriented,
    palette,
    png,
    png_16_bit,
    rgb,
    without_adobe_marker,
)
from tests.catalog.shops import saved
from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import BadItemsError, Catalog
from visual_search.catalog.images import decode_whole
from visual_search.catalog.readers.folder import folder

A, B, C, D = GREYS


def grey(kind: str, **options: object) -> bytes:
    return encoded(image(GREYS, "L").convert("RGB"), kind, **options)


def transparent(color: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Four alphas over one colour: none, a fifth, three fifths, all of it."""
    return [(*color, alpha) for alpha in (0, 51, 153, 255)]


# (0, 51, 153, 255) / 255 of black over white, and what is left of white
ON_WHITE = [WHITE, (204,) * 3, (102,) * 3, (0, 0, 0)]
INKS = [(0, 255, 255, 0), (255, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0)]
INKED = [(255, 0, 0), (0, 255, 0), (0, 0, 0), WHITE]
# The ink is what YCbCr stands for: Y 128, Cb 128, Cr 255 is, by JFIF's formula, 306 (cut to 255),
# 37, 128. The other quarters are black, white and grey there; K is 0, but in the last.
YCCK = [(127, 127, 0, 0), (0, 127, 127, 0), (255, 127, 127, 0), (127, 127, 127, 255)]
FROM_YCCK = [(0, 218, 127), (0, 0, 0), WHITE, (0, 0, 0)]

TEN, NINETY, ALL = (257 * value for value in (10, 90, 255))  # 257 = 65535 / 255
BLACK_AND_WHITE = [(0,), (255,), (255,), (0,)]


def colors(kind: str, **options: object) -> bytes:
    return encoded(image(COLORS, "RGB"), kind, **options)


# name of the file -> its bytes and the colours of its quarters
PICTURES: dict[str, tuple[bytes, list[tuple[int, ...]]]] = {
    "grey jpeg.jpg": (encoded(image(GREYS, "L"), "JPEG"), GREYS),
    "baseline.jpg": (grey("JPEG"), GREYS),
    "progressive.jpg": (grey("JPEG", progressive=True), GREYS),
    "optimised.jpeg": (grey("JPEG", optimize=True, quality=100), GREYS),
    "junk behind the end.jpg": (grey("JPEG") + b"\0" * 99, GREYS),
    "two pictures (MPO).jpg": (animation("MPO"), GREYS),
    "cmyk, inverted by Adobe.jpg": (cmyk_jpeg(INKS), INKED),
    "cmyk, without the marker.jpg": (without_adobe_marker(cmyk_jpeg(INKS)), INKED),
    "ycck.jpg": (cmyk_jpeg(YCCK, transform=2), FROM_YCCK),
    "grey.png": (encoded(image(GREYS, "L")), GREYS),
    "black and white.png": (encoded(image(BLACK_AND_WHITE, "L").convert("1")), BLACK_AND_WHITE),
    "grey and alpha (LA).png": (encoded(image(transparent((0,)), "LA")), ON_WHITE),
    "rgba.png": (encoded(image(transparent((0, 0, 0)), "RGBA")), ON_WHITE),
    "palette.png": (encoded(palette()), COLORS),
    "palette, one transparent.png": (encoded(palette(1)), [COLORS[0], WHITE, *COLORS[2:]]),
    "palette, half transparent.png": (
        encoded(palette(bytes([255, 255, 255, 51]))),
        [*COLORS[:3], (230, 230, 230)],  # 255 - (255 - 128) / 5 = 229.6
    ),
    "one colour transparent.png": (
        colors("PNG", transparency=COLORS[2]),
        [*COLORS[:2], WHITE, COLORS[3]],
    ),
    "16 bit grey.png": (  # up to 128 to each side round to the same
        png_16_bit([(TEN - 128,), (NINETY,), (200 * 257 + 128,), (ALL,)], 0),
        [A, B, (200,), (255,)],
    ),
    "16 bit grey, one transparent.png": (
        png_16_bit([(TEN,), (TEN + 1,), (0,), (1,)], 0, transparent=(TEN + 1,)),
        [A, WHITE, (0,), (0,)],
    ),
    "16 bit rgb, one transparent.png": (
        png_16_bit([(2570, 0, 514), (257, 514, 771)] * 2, 2, transparent=(2570, 0, 514)),
        [WHITE, (1, 2, 3)] * 2,
    ),
    "16 bit grey and alpha.png": (
        png_16_bit([(TEN, ALL), (NINETY, ALL), (0, 0), (ALL, ALL)], 4),
        [A, B, WHITE, WHITE],
    ),
    "16 bit rgb.png": (
        png_16_bit([tuple(257 * channel for channel in color) for color in COLORS], 2),
        COLORS,
    ),
    "animated.png": (animation("PNG"), GREYS),
    "still.gif": (encoded(image(GREYS, "L"), "GIF"), GREYS),
    "interlaced.gif": (encoded(palette(), "GIF", interlace=1), COLORS),
    "one transparent.gif": (encoded(palette(), "GIF", transparency=3), [*COLORS[:3], WHITE]),
    "animated.gif": (animation("GIF"), GREYS),
    "lossless.webp": (colors("WEBP", lossless=True), COLORS),
    "lossy.webp": (grey("WEBP", quality=100), GREYS),
    "alpha.webp": (
        encoded(image(transparent((0, 0, 0)), "RGBA"), "WEBP", lossless=True, exact=True),
        ON_WHITE,
    ),
    "animated.webp": (animation("WEBP", lossless=True), GREYS),
    "24 bit.bmp": (colors("BMP"), COLORS),
    "palette.bmp": (encoded(palette(), "BMP"), COLORS),
    "upside down.bmp": (bmp_upside_down(), COLORS),
    # what it is says the content, not the name
    "a webp.JPEG": (colors("WEBP", lossless=True), COLORS),
    "a jpeg.gif": (grey("JPEG"), GREYS),
}
NAMES = ["rgb.png", "a png.jpg", "Mäntel & Röcke/été 夏 👗.png", " leading, trailing .png"]
NAMES += ["100% [new] #1 ?.png", 'it\'s "so"\\.png']
PICTURES |= {name: (colors("PNG"), COLORS) for name in NAMES}
# EXIF orientation -> the quarters as shown: 2 mirrors, 3 turns by half, 4 stands on its head,
# 5 mirrors at the diagonal, 6 turns right, 7 mirrors at the other diagonal, 8 turns left
SHOWN = {
    1: [A, B, C, D],
    2: [B, A, D, C],
    3: [D, C, B, A],
    4: [C, D, A, B],
    5: [A, C, B, D],
    6: [C, A, D, B],
    7: [D, B, C, A],
    8: [B, D, A, C],
    9: [A, B, C, D],  # there is none: as stored
}
for number, shown in SHOWN.items():
    for kind in ("JPEG", "PNG", "WEBP"):
        PICTURES[f"orientation {number}.{kind.lower()}"] = (oriented(kind, number), shown)
if features.check("avif"):
    PICTURES["still.avif"] = (grey("AVIF", quality=100), GREYS)
    PICTURES["animated.avif"] = (animation("AVIF", quality=100), GREYS)

PICTURES["a tiff.jpg"] = (colors("TIFF"), COLORS)
rgb_png = colors("PNG")
TEXT_BOMB = zlib.compress(bytes(20 * 2**20), 9)  # 20 KB that unpack to 20 MiB
START = "the file starts with "
# name of the file -> its bytes, and what its reason says
NO_PICTURE: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "the file is empty"),
    "html.jpg": (b"<!DOCTYPE html>Gone", START + "b'<!DOCTYPE ht'"),
    "text.png": (b"version https://git-lfs", START + "b'version http'"),
    "drawing.webp": (b"<svg xmlns='1'/>", START + """b"<svg xmlns='\""""),
    "a pixmap.jpg": (colors("PPM"), START + r"b'P6\n16 16\n255'"),
    "an eps.jpg": (colors("EPS"), START + "b'%!PS-Adobe-3'"),
    "header only.jpg": (grey("JPEG")[:20], START + r"b'\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01'"),
    "no pixel.bmp": (
        encoded(Image.new("RGB", (1, 1)), "BMP").replace(b"\1\0\0\0\1\0\0\0", bytes(8)),
        START + r"b'BM:\x00\x00\x00\x00\x00\x00\x006\x00'",
    ),
}
CUT = "does not decode: OSError: image file is truncated"
DAMAGED: dict[str, tuple[bytes, str]] = {
    "truncated header.jpg": (grey("JPEG")[:300], "does not decode: OSError: Truncated File Read"),
    "truncated.jpg": (grey("JPEG")[:-4], CUT + " (7 bytes not processed)"),
    "truncated.png": (rgb_png[:60], CUT),
    "truncated.gif": (encoded(palette(), "GIF")[:-12], CUT + " (61 bytes not processed)"),
    "truncated.bmp": (colors("BMP")[:-1], CUT + " (47 bytes not processed)"),
    "truncated.webp": (
        grey("WEBP")[:-20],
        "does not decode: OSError: could not create decoder object",
    ),
    "one bit flipped.png": (
        rgb_png[:45] + bytes([rgb_png[45] ^ 1]) + rgb_png[46:],
        "does not decode: OSError: broken data stream when reading image file",
    ),
    "bomb of 900 million.png": (
        png(30_000, 30_000, 8, 0, b""),
        "does not decode: DecompressionBombError: Image size (900000000 pixels) exceeds limit of "
        "178956970 pixels, could be decompression bomb DOS attack.",
    ),
    "bomb of 65 million.png": (
        png(8_100, 8_100, 1, 0, bytes(1014 * 8_100)),  # whole, in 8 KB
        "the picture has 8100 x 8100 = 65,610,000 pixels; at most 64,000,000 are decoded; save it "
        "smaller",
    ),
    "bomb in a text.png": (
        png(16, 16, 8, 0, bytes(17 * 16), extra=chunk(b"zTXt", b"Comment\0\0" + TEXT_BOMB)),
        "does not decode: ValueError: Decompressed data too large for "
        "PngImagePlugin.MAX_TEXT_CHUNK",
    ),
}
REFUSED = NO_PICTURE | DAMAGED


def cached(catalog: Catalog, tmp_path: Path, fit: Any = "stretch") -> CachedCatalog:
    return cache_pictures(
        catalog, size_px=16, fit=fit, cache_dir=tmp_path / "cache", on_bad_item="skip"
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> CachedCatalog:
    """All pictures of this file as one catalogue with bad items left out."""
    tmp_path = tmp_path_factory.mktemp("odd")
    files = {f"odd/{name}": data for name, (data, _) in (PICTURES | REFUSED).items()}
    return cached(folder(saved(tmp_path / "shop", files)), tmp_path)


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture(everything: CachedCatalog, name: str) -> None:
    data, expected = PICTURES[name]
    row = list(everything.catalog.table["item_id"]).index(f"odd/{name}")
    np.testing.assert_array_equal(everything.pictures[[row]][0], rgb(expected))
    np.testing.assert_array_equal(decode_whole(data).transpose(2, 0, 1), rgb(expected))


def test_every_reason_is_told_and_no_other(everything: CachedCatalog, tmp_path: Path) -> None:
    reasons = {
        item.item_id.removeprefix("odd/"): item.reason for item in everything.catalog.refused
    }
    assert reasons.keys() == REFUSED.keys()
    for name, (_, told) in REFUSED.items():
        if name in DAMAGED:
            assert reasons[name] == told
        else:
            assert reasons[name].endswith(f"; {told}")
            assert "(JPEG, PNG, GIF, BMP, WEBP, AVIF, TIFF, HEIC)" in reasons[name]
    assert len(everything.catalog) == len(PICTURES)
    bad = ("empty.jpg", "truncated.png")
    catalog = folder(saved(tmp_path / "shop", {f"odd/{name}": REFUSED[name][0] for name in bad}))
    with pytest.raises(BadItemsError, match=r"2 bad item\(s\) in catalogue 'shop'") as caught:
        cache_pictures(catalog, size_px=16, fit="stretch", cache_dir=tmp_path, on_bad_item="error")
    for name in bad:
        assert f"'odd/{name}' (odd/{name}): {reasons[name]}" in str(caught.value)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_one_pixel_and_lines_of_10_000(tmp_path: Path, fit: str) -> None:
    line = np.repeat(np.array([[0], [240]], np.uint8), 5000, axis=0)  # [10000, 1]
    pictures = [Image.new("RGB", (1, 1), COLORS[1]), Image.fromarray(line)]
    pictures += [Image.fromarray(line.T.copy())]
    files = {f"a/{place}.png": encoded(picture) for place, picture in enumerate(pictures)}
    made = cached(folder(saved(tmp_path / "shop", files)), tmp_path, fit).pictures
    dot, tall, wide = made[[0, 1, 2]]
    np.testing.assert_array_equal(dot, rgb([COLORS[1]] * 4))
    # A row is 625 pixels, and the triangle reaches one row to each side: of the two at the border
    # an eighth, (1 / 2)^2 / 2, comes from beyond it.
    expected = np.array([0] * 7 + [30, 210] + [240] * 7)
    np.testing.assert_array_equal(wide, tall.transpose(0, 2, 1))
    for column in range(16):
        shown = expected if fit == "stretch" or column == 7 else 255
        assert (tall[:, :, column] == shown).all()


def test_a_link_that_leads_out_since_the_folder_was_read(tmp_path: Path) -> None:
    root = saved(tmp_path / "shop", {"odd/good.png": rgb_png, "odd/later.png": rgb_png})
    catalog = folder(root)
    (root / "odd" / "later.png").unlink()
    (root / "odd" / "later.png").symlink_to(saved(tmp_path, {"secret.png": rgb_png}) / "secret.png")
    result = cached(catalog, tmp_path)
    assert list(result.catalog.table["item_id"]) == ["odd/good.png"]
    (refused,) = result.catalog.refused
    told = f"'odd/later.png' is a link that leads out of {root}, to {tmp_path / 'secret.png'}"
    assert told in refused.reason
