"""The wheel that a bundle carries, so that it is served by what made it."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from visual_search import __version__
from visual_search.config.builders import config_folder

_MOMENT = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say: the same code, the same bytes


class ServingWheel(NamedTuple):
    """A wheel and how pip asks for it.

    Attributes:
        file: Its name.
        content: Its bytes.
        requirement: ``visual-search==<version>+serve``.
    """

    file: str
    content: bytes
    requirement: str


def serving_wheel() -> ServingWheel:
    """Returns this package as a wheel that requires nothing.

    pip installs what a wheel requires, and the package's own requires PyTorch: 8 GB that no search
    needs. What it needs stands, pinned, beside this one, whose version says that it is another.
    """
    version = f"{__version__}+serve"
    facts = f"visual_search-{version}.dist-info"
    package, configs = Path(__file__).parent.parent, config_folder()
    contents = {f"visual_search/{name}": data for name, data in _files(package)}
    contents |= {f"visual_search/conf/{name}": data for name, data in _files(configs)}
    contents |= {
        f"{facts}/licenses/LICENSE": _licence(),
        f"{facts}/METADATA": (
            f"Metadata-Version: 2.4\nName: visual-search\nVersion: {version}\n"
            "Summary: Searches and serves the bundle that it came with.\n"
            "License-Expression: Apache-2.0\nLicense-File: LICENSE\nRequires-Python: >=3.11\n"
        ).encode(),
        f"{facts}/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: visual_search\nRoot-Is-Purelib: true\n"
            b"Tag: py3-none-any\n"
        ),
        f"{facts}/entry_points.txt": (
            b"[console_scripts]\nvisual-search = visual_search.__main__:main\n"
        ),
    }
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in contents.items()]
    contents[f"{facts}/RECORD"] = "\n".join([*lines, f"{facts}/RECORD,,", ""]).encode()
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    name = f"visual_search-{version}-py3-none-any.whl"
    return ServingWheel(name, written.getvalue(), f"visual-search=={version}")


def _files(folder: Path) -> list[tuple[str, bytes]]:
    paths = ((path.relative_to(folder), path) for path in sorted(folder.rglob("*")))
    return [
        (name.as_posix(), path.read_bytes())
        for name, path in paths
        if path.is_file()
        and not any(part.startswith((".", "__pycache__")) or part == "conf" for part in name.parts)
    ]


def _licence() -> bytes:
    """Returns the licence's text, from the checkout or from where the package is installed."""
    beside = config_folder().parent / "LICENSE"
    if beside.is_file():
        return beside.read_bytes()
    try:
        return (distribution("visual-search").read_text("licenses/LICENSE") or "").encode()
    except PackageNotFoundError:
        return b""


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
