"""Pictures as they come: each kind goes through a reader and the cache, as a user meets it."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

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
from visual_search.catalog.cache import CachedCatalog, cache_pictures
from visual_search.catalog.catalog import BadItemsError, Catalog
from visual_search.catalog.images import decode_whole
from visual_search.catalog.readers.folder import folder
from visual_search.catalog.readers.table import table

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
    "rgb.png": (encoded(image(COLORS, "RGB"), "PNG"), COLORS),
    "grey.png": (encoded(image(GREYS, "L"), "PNG"), GREYS),
    "black and white.png": (
        encoded(image([(0,), (255,), (255,), (0,)], "L").convert("1"), "PNG"),
        [(0,), (255,), (255,), (0,)],
    ),
    "grey and alpha (LA).png": (encoded(image(transparent((0,)), "LA"), "PNG"), ON_WHITE),
    "rgba.png": (encoded(image(transparent((0, 0, 0)), "RGBA"), "PNG"), ON_WHITE),
    "palette.png": (encoded(palette(), "PNG"), COLORS),
    "palette, one transparent.png": (encoded(palette(1), "PNG"), [COLORS[0], WHITE, *COLORS[2:]]),
    "palette, half transparent.png": (
        encoded(palette(bytes([255, 255, 255, 51])), "PNG"),
        [*COLORS[:3], (230, 230, 230)],  # 255 - (255 - 128) / 5 = 229.6
    ),
    "one colour transparent.png": (
        encoded(image(COLORS, "RGB"), "PNG", transparency=COLORS[2]),
        [*COLORS[:2], WHITE, COLORS[3]],
    ),
    "16 bit grey.png": (  # 257 = 65535 / 255; up to 128 to each side round to the same
        png_16_bit([(10 * 257 - 128,), (90 * 257,), (200 * 257 + 128,), (65535,)], 0),
        [A, B, (200,), (255,)],
    ),
    "16 bit grey, one transparent.png": (
        png_16_bit([(10 * 257,), (10 * 257 + 1,), (0,), (1,)], 0, transparent=(10 * 257 + 1,)),
        [A, WHITE, (0,), (0,)],
    ),
    "16 bit rgb, one transparent.png": (
        png_16_bit([(2570, 0, 514), (257, 514, 771)] * 2, 2, transparent=(2570, 0, 514)),
        [WHITE, (1, 2, 3)] * 2,
    ),
    "16 bit grey and alpha.png": (
        png_16_bit([(10 * 257, 65535), (90 * 257, 65535), (0, 0), (65535, 65535)], 4),
        [A, B, WHITE, WHITE],
    ),
    "16 bit rgb.png": (
        png_16_bit([tuple(257 * channel for channel in color) for color in COLORS], 2),
        COLORS,
    ),
    "animated.png": (animation("PNG"), GREYS),
    "still.gif": (encoded(image(GREYS, "L"), "GIF"), GREYS),
    "interlaced.gif": (encoded(palette(), "GIF", interlace=1), COLORS),
    "one transparent.gif": (
        encoded(palette(), "GIF", transparency=3),
        [*COLORS[:3], WHITE],
    ),
    "animated.gif": (animation("GIF"), GREYS),
    "lossless.webp": (encoded(image(COLORS, "RGB"), "WEBP", lossless=True), COLORS),
    "lossy.webp": (grey("WEBP", quality=100), GREYS),
    "alpha.webp": (
        encoded(image(transparent((0, 0, 0)), "RGBA"), "WEBP", lossless=True, exact=True),
        ON_WHITE,
    ),
    "animated.webp": (animation("WEBP", lossless=True), GREYS),
    "24 bit.bmp": (encoded(image(COLORS, "RGB"), "BMP"), COLORS),
    "palette.bmp": (encoded(palette(), "BMP"), COLORS),
    "upside down.bmp": (bmp_upside_down(), COLORS),
    # what it is says the content, not the name
    "a png.jpg": (encoded(image(COLORS, "RGB"), "PNG"), COLORS),
    "a webp.JPEG": (encoded(image(COLORS, "RGB"), "WEBP", lossless=True), COLORS),
    "a jpeg.gif": (grey("JPEG"), GREYS),
    # names
    "Mäntel & Röcke/été 夏 👗.png": (encoded(image(COLORS, "RGB"), "PNG"), COLORS),
    " leading, trailing .png": (encoded(image(COLORS, "RGB"), "PNG"), COLORS),
    "100% [new] #1 ?.png": (encoded(image(COLORS, "RGB"), "PNG"), COLORS),
    'it\'s "so"\\.png': (encoded(image(COLORS, "RGB"), "PNG"), COLORS),
}
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

rgb_png = encoded(image(COLORS, "RGB"), "PNG")
TEXT_BOMB = zlib.compress(bytes(20 * 2**20), 9)  # 20 KB that unpack to 20 MiB
NO_PICTURE = (
    "not a picture in a format that is read here (JPEG, PNG, GIF, BMP, WEBP, AVIF), or its header "
    "is damaged; save it anew as JPEG or PNG; "
)
# name of the file -> its bytes and the whole reason
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", NO_PICTURE + "the file is empty"),
    "html.jpg": (b"<!DOCTYPE html>Gone", NO_PICTURE + "the file starts with b'<!DOCTYPE ht'"),
    "text.png": (b"version https://git-lfs", NO_PICTURE + "the file starts with b'version http'"),
    "drawing.webp": (b"<svg xmlns='1'/>", NO_PICTURE + """the file starts with b"<svg xmlns='\""""),
    "a tiff.jpg": (
        encoded(image(COLORS, "RGB"), "TIFF"),
        NO_PICTURE + r"the file starts with b'II*\x00\x08\x00\x00\x00\n\x00\x00\x01'",
    ),
    "header only.jpg": (
        grey("JPEG")[:20],
        NO_PICTURE + r"the file starts with b'\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01'",
    ),
    "no pixel.bmp": (
        encoded(Image.new("RGB", (1, 1)), "BMP").replace(b"\1\0\0\0\1\0\0\0", bytes(8)),
        NO_PICTURE + r"the file starts with b'BM:\x00\x00\x00\x00\x00\x00\x006\x00'",
    ),
    "truncated header.jpg": (
        grey("JPEG")[:300],
        "does not decode: OSError: Truncated File Read",
    ),
    "truncated.jpg": (
        grey("JPEG")[:-4],
        "does not decode: OSError: image file is truncated (7 bytes not processed)",
    ),
    "truncated.png": (
        rgb_png[:60],
        "does not decode: OSError: image file is truncated",
    ),
    "truncated.gif": (
        encoded(palette(), "GIF")[:-12],
        "does not decode: OSError: image file is truncated (61 bytes not processed)",
    ),
    "truncated.bmp": (
        encoded(image(COLORS, "RGB"), "BMP")[:-1],
        "does not decode: OSError: image file is truncated (47 bytes not processed)",
    ),
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


def save(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def cached(catalog: Catalog, tmp_path: Path, fit: str = "stretch", **options: str) -> CachedCatalog:
    return cache_pictures(
        catalog,
        size_px=16,
        fit=fit,  # type: ignore[arg-type]
        cache_dir=tmp_path / "cache",
        on_bad_item=options.get("on_bad_item", "skip"),  # type: ignore[arg-type]
        num_threads=1,
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> CachedCatalog:
    """All pictures of this file as one catalogue with bad items left out."""
    tmp_path = tmp_path_factory.mktemp("odd")
    files = {name: data for name, (data, _) in [*PICTURES.items(), *REFUSED.items()]}
    root = save(tmp_path, {f"shop/odd/{name}": data for name, data in files.items()}) / "shop"
    return cached(folder(root), tmp_path)


def test_there_are_enough_kinds() -> None:
    assert len(PICTURES) >= 60
    assert len(REFUSED) >= 15


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture(everything: CachedCatalog, name: str) -> None:
    data, expected = PICTURES[name]
    row = list(everything.catalog.table["item_id"]).index(f"odd/{name}")
    np.testing.assert_array_equal(everything.pictures[[row]][0], rgb(expected))
    np.testing.assert_array_equal(decode_whole(data).transpose(2, 0, 1), rgb(expected))


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason(everything: CachedCatalog, name: str) -> None:
    reasons = {item.item_id: item.reason for item in everything.catalog.refused}
    assert reasons[f"odd/{name}"] == REFUSED[name][1]


def test_nothing_else_is_refused(everything: CachedCatalog) -> None:
    assert len(everything.catalog) == len(PICTURES)
    assert len(everything.catalog.refused) == len(REFUSED)


def test_every_refused_picture_is_named_in_the_error(tmp_path: Path) -> None:
    bad = ("empty.jpg", "html.jpg", "truncated.png")
    root = save(tmp_path / "shop", {f"odd/{name}": REFUSED[name][0] for name in bad})
    with pytest.raises(BadItemsError, match=r"3 bad item\(s\) in catalogue 'shop'") as caught:
        cached(folder(root), tmp_path, on_bad_item="error")
    for name in bad:
        assert f"'odd/{name}' (odd/{name}): {REFUSED[name][1]}" in str(caught.value)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_one_pixel(tmp_path: Path, fit: str) -> None:
    dot = encoded(Image.new("RGB", (1, 1), COLORS[1]), "PNG")
    pictures = cached(folder(save(tmp_path / "a", {"b/dot.png": dot})), tmp_path, fit).pictures
    np.testing.assert_array_equal(pictures[[0]][0], rgb([COLORS[1]] * 4))


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_line_of_10_000_pixels(tmp_path: Path, fit: str) -> None:
    line = np.repeat(np.array([[0], [240]], np.uint8), 5000, axis=0)  # [10000, 1]
    files = {
        "a/tall.png": encoded(Image.fromarray(line), "PNG"),
        "a/wide.png": encoded(Image.fromarray(line.T.copy()), "PNG"),
    }
    # A row is 625 pixels, and the triangle reaches one row to each side: of the two at the border
    # an eighth, (1 / 2)^2 / 2, comes from beyond it.
    expected = np.array([0] * 7 + [30, 210] + [240] * 7)
    tall, wide = cached(folder(save(tmp_path / "lines", files)), tmp_path, fit).pictures[[0, 1]]
    np.testing.assert_array_equal(wide, tall.transpose(0, 2, 1))
    for column in range(16):
        shown = expected if fit == "stretch" or column == 7 else 255
        assert (tall[:, :, column] == shown).all()


def test_a_link_out_of_the_folder(tmp_path: Path) -> None:
    root = save(tmp_path / "shop", {"odd/good.png": rgb_png, "odd/later.png": grey("PNG")})
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(palette(), "PNG"))
    (root / "odd" / "link.png").symlink_to(secret)
    reason = (
        f"'odd/{{}}' is a link that leads out of {root}, to {secret}; expected a file inside: copy "
        "it there"
    )
    catalog = folder(root, on_bad_item="skip")
    assert [(r.item_id, r.reason) for r in catalog.refused] == [
        ("odd/link.png", reason.format("link.png"))
    ]
    # and one that becomes a link when the folder has been read already
    (root / "odd" / "later.png").unlink()
    (root / "odd" / "later.png").symlink_to(secret)
    result = cached(catalog, tmp_path)
    assert list(result.catalog.table["item_id"]) == ["odd/good.png"]
    assert result.catalog.refused[1].reason == (
        f"cannot be read: ValueError: {reason.format('later.png')}"
    )


UNSAFE = "picture path {!r} has a '..'; expected a path below the data's root"


def test_a_path_out_of_the_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
        for name in ("odd/good.png", "odd/../../out.png", "odd\\..\\..\\out.png"):
            archive.writestr(name, rgb_png)
    result = cached(folder(tmp_path / "shop.zip", on_bad_item="skip"), tmp_path)
    np.testing.assert_array_equal(result.pictures[[0]][0], rgb(COLORS))
    assert len(result.catalog) == 1
    assert {item.item_id: item.reason for item in result.catalog.refused} == {
        name: UNSAFE.format(name) for name in ("odd/../../out.png", "odd\\..\\..\\out.png")
    }


def test_a_path_out_of_the_tables_folder(tmp_path: Path) -> None:
    save(tmp_path, {"out.png": rgb_png, "shop/good one.png": rgb_png})
    lines = [
        "item_id,image,category",
        "1,good one.png,a",
        "2,../out.png,a",
        f"3,{tmp_path}/out.png,a",
    ]
    (tmp_path / "shop" / "table.csv").write_text("\n".join(lines))
    result = cached(table(tmp_path / "shop" / "table.csv", on_bad_item="skip"), tmp_path)
    np.testing.assert_array_equal(result.pictures[[0]][0], rgb(COLORS))
    assert {item.item_id: item.reason for item in result.catalog.refused} == {
        "2": "line 3: " + UNSAFE.format("../out.png"),
        "3": f"line 4: picture path '{tmp_path}/out.png' is absolute; expected a path below the "
        "data's root",
    }
