"""What the command line refuses of paths before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from inrcodec_formats.errors import OptionError, OutputError, SignalError


def check_input(path: Path) -> None:
    """Refuse what is no file."""
    if path.is_dir():
        raise SignalError(f"expected a file, found the folder {path}")
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))


def check_source(path: Path) -> None:
    """As `check_input`; a clip may be a folder of numbered pictures."""
    if path.is_dir():
        from inrcodec_formats.video.read import is_clip

        if is_clip(path):
            return
    check_input(path)


def check_output(path: Path, force: bool) -> None:
    """Refuse before the work what would fail after it."""
    if path.is_dir():
        raise OutputError(f"expected a file name to write, found the folder {path}")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    if path.exists() and not force:
        raise OutputError(f"{path} exists; pass --force to replace it")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: no permission to write in the folder {path.parent}")


def check_picture(path: Path | None, force: bool) -> None:
    """As `check_output`, of a PNG file, if one is asked for."""
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise OptionError(f"expected a picture name that ends in .png, found {path}")
    check_output(path, force)


