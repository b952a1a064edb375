"""Regions as callers give them: `Region`, mask, slices, or the file of a mask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from inrcodec_formats import registry
from inrcodec_formats.errors import FormatError, OptionError

from .region import EMPHASIS, Region

RegionSource: TypeAlias = Region | np.ndarray | Sequence[slice] | str | os.PathLike[str]


def as_region(source: RegionSource | None, emphasis: float | None) -> Region | None:
    """A region of what the caller gave.

    Parameters
    ----------
    source : Region, ndarray, sequence of slice, path or None
        A path names a PNG or any file that `encode` reads, anything but 0 being inside.
    emphasis : float, optional
        See `Region`; 8 by default.

    Raises
    ------
    OptionError
        If there is an emphasis without a region, or besides that of a `Region`, or as for `Region`.
    FormatError, SignalError
        If the file cannot be read.
    """
    if source is None or isinstance(source, Region):
        if emphasis is not None:
            found = "no region" if source is None else "a Region, which has one"
            raise OptionError(f"expected an emphasis with a mask or slices, found it with {found}; leave it out")
        return source
    inside = read_mask(Path(source)) if isinstance(source, (str, os.PathLike)) else source
    return Region(inside, EMPHASIS if emphasis is None else emphasis)


def read_mask(path: Path) -> np.ndarray:
    """Samples of a mask's file; leading axes of one sample are left out, colours count as inside where any is not 0."""
    if path.suffix.lower() == ".png":
        return _read_png(path)
    samples = _read_npy(path) if path.suffix.lower() == ".npy" else registry.read(path).samples
    while samples.ndim > 1 and len(samples) == 1:
        samples = samples[0]
    return samples


def _read_npy(path: Path) -> np.ndarray:
    """Of any dtype: a signal's reader takes no bool, which masks mostly are."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        raise FormatError(f"{path.name}: expected an array as numpy.save writes it, found a damaged or another file") from error


def _read_png(path: Path) -> np.ndarray:
    import imagecodecs

    try:
        pixels = np.asarray(imagecodecs.png_decode(path.read_bytes()))
    except (imagecodecs.PngError, ValueError) as error:
        raise FormatError(f"expected a PNG file, found {path.name}, which cannot be decoded: {error}") from error
    if pixels.ndim == 2:
        return pixels
    colours = pixels.shape[2] - (pixels.shape[2] in (2, 4))  # the last one is opacity
    return np.asarray(pixels[..., :colours].any(axis=2))
