"""Embeddings for TensorBoard's projector: points, metadata, picture sprites and the config.

The projector reads ``projector_config.pbtxt`` in a run's folder. TensorBoard's own writers append
to it only as long as they are open, and forget what was there before; here it is rebuilt from the
folders that lie beside it. TensorBoard reads the file when it first sees the run: an embedding
that is added later shows after TensorBoard is started again.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colors
from matplotlib import image as mpl_image
from numpy.typing import NDArray

from visual_search.atomic import atomic_path, write_text
from visual_search.views.picture_grids import check_pictures
from visual_search.views.style import MAX_CATEGORIES, OTHER_NAME, group_rare, styles_by_category
from visual_search.wording import is_formula

if TYPE_CHECKING:
    import pandas as pd

CONFIG_NAME = "projector_config.pbtxt"
MAX_SHEET_PX = 8192  # the projector's limit for a side of the sheet (WebGL textures)
MAX_SPRITE_PX = 64
_MIN_SPRITE_PX = 4
_MISSING = "(none)"
_CATEGORY = "category"  # the column that colours the points; it may be missing
_METADATA, _SPRITES, _VIEW = "metadata.tsv", "sprites.png", "view.json"
_TENSORS = "tensors.tsv"
_WIDE_TENSORS = re.compile(r"tensors_(\d+)x(\d+)\.bytes")  # float32, with what the config asks for

_CUSTOM_SIDES = ("XLeft", "XRight", "YUp", "YDown")  # which a bookmark has to name


@dataclass(frozen=True, eq=False)
class ProjectorView:
    """What the projector's bookmark opens: places for the points, coloured and labelled.

    Attributes:
        label: The bookmark's text.
        points: ``[N, 3] float32``, finite.
    """

    label: str
    points: NDArray[np.float32]


def sprite_sheet(
    images: NDArray[np.uint8],
    sprite_size_px: int | None = None,
    frame_colors: Sequence[str] | None = None,
) -> NDArray[np.uint8]:
    """Returns one square sheet of all pictures, row by row, as the projector cuts it up.

    The sheet has ceil(sqrt(N)) sprites a side; places beyond the last are white. Pictures are
    made smaller by the mean of the area that a pixel covers.

    Args:
        images: ``[N, 3, S, S] uint8``; may be memory-mapped, 256 pictures are read at a time.
        sprite_size_px: Side of a sprite. None takes the picture's own, at most 64, and what keeps
            the sheet within 8,192 pixels a side: 64 up to 16,384 pictures, 40 at 40,000.
        frame_colors: N colours, such as "#0072b2", for a frame inside each sprite, a sixteenth of
            its side wide; None draws no frames.

    Returns:
        ``[H, H, 3] uint8`` with H = ceil(sqrt(N)) × sprite size.

    Raises:
        ValueError: There is no picture, the pictures are not square RGB, or the sheet would be
            larger than 8,192 pixels a side, or there are not N frame colours.
    """
    check_pictures(images, "images")
    num_items, _, height, width = images.shape
    if num_items == 0 or height != width:
        raise ValueError(
            f"images are {list(images.shape)}, expected at least one square picture [N, 3, S, S]; "
            "fit the pictures first."
        )
    if frame_colors is not None and len(frame_colors) != num_items:
        raise ValueError(
            f"there are {num_items} images and {len(frame_colors)} frame_colors, expected one each."
        )
    columns = math.ceil(math.sqrt(num_items))
    size = min(MAX_SPRITE_PX, width, MAX_SHEET_PX // columns)
    if sprite_size_px is not None:
        size = sprite_size_px
    elif size < min(_MIN_SPRITE_PX, width):
        size = 0  # too many pictures for anything that can be seen
    if size < 1 or size * columns > MAX_SHEET_PX:
        raise ValueError(
            f"{num_items} sprites of {size} px need {columns * size} px a side, expected 1 to "
            f"{MAX_SHEET_PX}; show fewer items, or a smaller sprite_size_px."
        )
    sheet = np.full((columns * size, columns * size, 3), 255, dtype=np.uint8)
    # [H, W, 3] seen as [row, y, column, x, 3]: a view, so that sprites are written in place
    cells = sheet.reshape(columns, size, columns, size, 3)
    for start in range(0, num_items, 256):
        sprites = _resize(np.asarray(images[start : start + 256]), size)
        for offset, sprite in enumerate(sprites):
            row, column = divmod(start + offset, columns)
            cells[row, :, column] = sprite.transpose(1, 2, 0)
            if frame_colors is not None:
                _draw_frame(cells[row, :, column], frame_colors[start + offset])
    return sheet


def _draw_frame(sprite: NDArray[np.uint8], color: str) -> None:
    """Paints the rim of ``[size, size, 3]`` in place."""
    width = max(len(sprite) // 16, 1)
    rim = np.ones(sprite.shape[:2], dtype=bool)
    rim[width:-width, width:-width] = False
    sprite[rim] = np.rint(np.array(colors.to_rgb(color)) * 255).astype(np.uint8)


def _resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resizes ``[B, 3, S, S]`` to ``[B, 3, size, size]`` by the mean of the covered area.

    Sums of a few slices, not a product with a matrix: thousands of small products wait on BLAS's
    threads (36 s to write 12,225 pictures on two busy cores, against 6 s).
    """
    side = images.shape[-1]
    if side == size:
        return images
    places, weights = _area_taps(side, size)
    # rows first: they lie in one piece, and half the work is gone before the columns
    rows = sum(images[:, :, places[tap], :] * weights[tap][:, None] for tap in range(len(places)))
    resized = sum(rows[..., places[tap]] * weights[tap] for tap in range(len(places)))
    rounded: NDArray[np.uint8] = np.clip(np.rint(resized), 0, 255).astype(np.uint8)
    return rounded


def _area_taps(side: int, size: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Returns which old pixels make up each new one and their shares: both ``[taps, size]``."""
    edges = np.linspace(0, side, size + 1)
    num_taps = math.ceil(side / size) + 1
    places = np.floor(edges[:-1]).astype(np.int64) + np.arange(num_taps)[:, None]
    overlap = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    overlap = np.clip(overlap, 0, None)
    used = overlap.max(axis=1) > 1e-9  # whole factors need no last tap
    shares = overlap[used] / overlap[used].sum(axis=0)
    return np.minimum(places[used], side - 1), shares.astype(np.float32)


def write_projector(
    log_dir: str | os.PathLike[str],
    name: str,
    points: NDArray[np.float32],
    metadata: pd.DataFrame,
    sprites: NDArray[np.uint8] | None = None,
    view: ProjectorView | None = None,
) -> Path:
    """Writes one embedding for TensorBoard's projector and gives its folder back.

    Leaves ``<log_dir>/<name>/`` with tensors, metadata.tsv and sprites.png, and
    ``<log_dir>/projector_config.pbtxt`` with this and every other embedding that lies in
    ``log_dir``. An embedding of the same name is replaced. Every file is whole or not there. Up to
    three dimensions are tensors.tsv; wider ones are binary, a third of the bytes: 10,000 of 512
    values are 20 MB, and written at once.

    Line breaks and tabs in labels become blanks; an empty or missing value becomes "(none)", since
    the projector skips empty lines and would shift the rows; a text that a spreadsheet would run
    as formula (``=``, ``+``, ``-``, ``@``, but no number) gets an apostrophe in front. With more
    than 50 different values in ``category``, which the projector would refuse to colour, there is
    another column "category (49 largest)" with the rest as "other".

    The projector labels points by the first text column: ``category`` is put first. It opens
    without colours until somebody picks a column under "Color by", or a bookmark, and then tints
    the pictures; so each sprite has a frame in its category's colour, the same as in
    `projection_figure`.

    Args:
        log_dir: The folder of a TensorBoard run: without event files in it (or without being
            TensorBoard's root) it is not looked at.
        name: The folder's name, and what the projector lists: letters, digits, ``._-``.
        points: ``[N, P] float32``, P >= 2; three dimensions are shown as they are.
        metadata: N rows in the points' order; the first text column labels the points.
        sprites: ``[N, 3, S, S] uint8`` or None.
        view: Where a bookmark puts the points; None leaves none.

    Raises:
        ValueError: The name holds other characters, points are no finite ``[N, P]``, metadata or
            sprites have another number of rows, metadata has no column or one twice, or the
            config that lies there cannot be read.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise ValueError(
            f"the embedding's name is {name!r}, expected letters, digits, '.', '_' and '-' only "
            "(it names a folder); rename it."
        )
    points = np.asarray(points, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] < 2 or len(points) == 0:
        raise ValueError(
            f"points are {list(points.shape)}, expected [N, P] with N at least 1 and P at least 2; "
            "project the embeddings first."
        )
    if not np.isfinite(points).all():
        raise ValueError("points hold NaN or infinity, expected finite values; project them anew.")
    if len(metadata) != len(points) or (sprites is not None and len(sprites) != len(points)):
        num_sprites = "no" if sprites is None else len(sprites)
        raise ValueError(
            f"there are {len(points)} points, {len(metadata)} rows of metadata and {num_sprites} "
            "sprites, expected one each; choose the same items."
        )
    names = [str(column) for column in metadata.columns]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"metadata has the columns {names}, expected at least one and none twice; rename them."
        )
    log_dir = Path(log_dir)
    others = _other_embeddings(log_dir / CONFIG_NAME)  # refuses before anything is written
    folder = log_dir / name
    for path in [*folder.glob("tensors*"), folder / _VIEW]:
        path.unlink(missing_ok=True)  # until the last file is there it does not count
    if sprites is None:
        (folder / _SPRITES).unlink(missing_ok=True)
    else:
        frame_colors = None
        if _CATEGORY in names:
            shown = group_rare(_cells(metadata[_CATEGORY]))
            styles = styles_by_category(shown)
            frame_colors = [styles[category][0] for category in shown]
        sheet = sprite_sheet(sprites, frame_colors=frame_colors)
        with atomic_path(folder / _SPRITES) as temporary:
            # compress_level 3: a sheet of 10,000 in a third of the time at 5 % more bytes
            mpl_image.imsave(temporary, sheet, pil_kwargs={"compress_level": 3})
    columns = _columns(metadata)
    write_text(folder / _METADATA, _metadata_text(columns))
    if view is not None:
        write_text(folder / _VIEW, json.dumps([_bookmark(view, points.shape, columns)]))
    _write_tensors(folder, points)
    _write_config(log_dir, others)
    return folder


def _write_tensors(folder: Path, points: NDArray[np.float32]) -> None:
    """Writes the points as text, or, where they are wide, as bytes.

    TensorBoard reads bytes only where they are no text, which a block of zeros would be.
    """
    num_points, dim = points.shape
    content = np.ascontiguousarray(points).tobytes()
    if dim <= 3 or _is_text(content[:4096]):
        with atomic_path(folder / _TENSORS) as temporary:
            np.savetxt(temporary, points, fmt="%.7g", delimiter="\t")
    else:
        with atomic_path(folder / f"tensors_{num_points}x{dim}.bytes") as temporary:
            temporary.write_bytes(content)


def _is_text(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"  # only cut
    return True


def _bookmark(
    view: ProjectorView, shape: tuple[int, ...], columns: Mapping[str, list[str]]
) -> dict[str, object]:
    """Returns a state of the projector as its own bookmarks have it."""
    axes = range(view.points.shape[1])
    color = next((name for name in columns if name.startswith(f"{_CATEGORY} (")), _CATEGORY)
    return {
        "label": view.label,
        "isSelected": False,
        "dataSetDimensions": list(shape),
        "selectedProjection": "umap",
        "umapIs3d": len(axes) == 3,
        "umapNeighbors": 15,
        "umapMinDist": 0.1,
        "pcaComponentDimensions": list(axes),
        "tSNEIteration": 0,
        "tSNEPerplexity": 8,
        "tSNELearningRate": 10,
        "tSNEis3d": True,
        "customSelectedSearchByMetadataOption": next(iter(columns)),
        **{f"custom{side}Text": "" for side in _CUSTOM_SIDES},
        **{f"custom{side}Regex": False for side in _CUSTOM_SIDES},
        "projections": [
            {f"umap-{axis}": round(float(value), 5) for axis, value in enumerate(point)}
            for point in view.points
        ],
        "selectedPoints": [],
        "selectedColorOptionName": color if _CATEGORY in columns else "No color map",
        "forceCategoricalColoring": False,
        "selectedLabelOption": next(iter(columns)),
    }


def _columns(metadata: pd.DataFrame) -> dict[str, list[str]]:
    """Returns the table's cells by column, the category's first."""
    names = sorted(map(str, metadata.columns), key=lambda name: name != _CATEGORY)
    metadata = metadata.set_axis([str(name) for name in metadata.columns], axis=1)
    columns = {name: _cells(metadata[name]) for name in names}
    if _CATEGORY in columns and len(set(columns[_CATEGORY])) > MAX_CATEGORIES:
        grouped = group_rare(columns[_CATEGORY])
        kept = len(set(grouped) - {OTHER_NAME})
        columns[f"{_CATEGORY} ({kept} largest)"] = grouped
    return columns


def _metadata_text(columns: Mapping[str, list[str]]) -> str:
    """Returns table as the projector reads it: a header only where there are several columns."""
    lines = ["\t".join(row) for row in zip(*columns.values(), strict=True)]
    if len(columns) > 1:
        lines.insert(0, "\t".join(_safe(name) for name in columns))
    return "\n".join(lines) + "\n"


def _cells(column: pd.Series) -> list[str]:
    kind = getattr(column.dtype, "kind", "O")
    missing = column.isna().to_numpy()
    cells = []
    for value, absent in zip(column.tolist(), missing, strict=True):
        if absent:
            cells.append(_MISSING)
        elif kind == "f":
            cells.append(f"{value:.6g}")
        elif kind in "iub":
            cells.append(str(value))
        else:
            cells.append(_safe(str(value)))
    return cells


def _safe(text: str) -> str:
    """Returns one cell of a TSV file: one line, no tab, never empty, never a formula."""
    clean = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()
    if not clean:
        return _MISSING
    return f"'{clean}" if is_formula(clean) else clean


def _other_embeddings(config_path: Path) -> list[object]:
    """Returns what other writers left in the config, where its tensors still lie there."""
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    if not config_path.exists():
        return []
    try:
        config = text_format.Parse(config_path.read_text(encoding="utf-8"), ProjectorConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{config_path} is no projector config ({error}), expected protobuf text; delete it, "
            "it is written anew."
        ) from error
    ours = {path.name for path in config_path.parent.iterdir() if path.is_dir()}
    return [
        embedding
        for embedding in config.embeddings
        if Path(embedding.tensor_path).parent.as_posix() not in ours
        and (config_path.parent / embedding.tensor_path).is_file()
    ]


def _write_config(log_dir: Path, others: list[object]) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = ProjectorConfig()
    for tensors in sorted(log_dir.glob("*/tensors*")):
        folder, wide = tensors.parent, _WIDE_TENSORS.fullmatch(tensors.name)
        if not wide and tensors.name != _TENSORS:
            continue
        embedding = config.embeddings.add()
        embedding.tensor_name = folder.name
        embedding.tensor_path = f"{folder.name}/{tensors.name}"
        if wide:
            embedding.tensor_shape.extend([int(wide[1]), int(wide[2])])
        if (folder / _VIEW).is_file():
            embedding.bookmarks_path = f"{folder.name}/{_VIEW}"
        if (folder / _METADATA).is_file():
            embedding.metadata_path = f"{folder.name}/{_METADATA}"
        if (folder / _SPRITES).is_file():
            size = _sprite_size(folder, int(wide[1]) if wide else _num_lines(tensors))
            embedding.sprite.image_path = f"{folder.name}/{_SPRITES}"
            embedding.sprite.single_image_dim.extend([size, size])
    config.embeddings.extend(others)
    write_text(log_dir / CONFIG_NAME, text_format.MessageToString(config))


def _num_lines(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def _sprite_size(folder: Path, num_points: int) -> int:
    """Reads a sprite's side off the sheet's width and the number of points."""
    with open(folder / _SPRITES, "rb") as file:
        (width,) = struct.unpack(">I", file.read(20)[16:20])  # PNG's header: 16 bytes, then width
    return int(width) // math.ceil(math.sqrt(num_points))
