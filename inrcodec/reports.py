"""What every command tells its caller: frozen dataclasses with units in the field names."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np


def json_safe(value: Any) -> Any:
    """Turn `value` into what strict JSON can hold.

    Reports become dictionaries, tuples and arrays become lists, NumPy scalars become Python numbers, paths
    become strings. JSON knows no infinity: infinite and NaN numbers become None (the PSNR of an identical copy
    is the usual case).
    """
    if isinstance(value, Report):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_safe(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return json_safe(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


class Report:
    """Base of all reports."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary that ``json.dumps(..., allow_nan=False)`` accepts; see `json_safe`."""
        return {item.name: json_safe(getattr(self, item.name)) for item in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class EncodeReport(Report):
    """What an encode made.

    Attributes
    ----------
    bytes, raw_bytes : int
        Size of the whole ``.inrc`` stream, and of the array in its coded dtype.
    ratio, bits_per_voxel : float
        ``raw_bytes / bytes``, and eight times `bytes` over the number of voxels.
    psnr_db : float
        Over the signal's own range, of the whole decoded result, in dB; infinite when identical.
    psnr_inside_db, psnr_outside_db : float or None
        The same of the samples inside and outside the region; None where no region was given, or nothing is there.
    ssim : float or None
        Mean structural similarity; None when not computed or when an axis is too short.
    max_abs_error : float
        Largest absolute difference, in stored units.
    target : dict
        The request, e.g. ``{"ratio": 64.0}``.
    weights : int
        Stored network parameters; `bits_per_weight` is their mean coded cost.
    seconds : dict
        Wall time by stage.
    backend, backend_reason : str
        What computed, and why not something faster.
    choices : dict
        What the encoder decided on its own.
    output : str or None
        Path of the file, None when bytes were returned.
    """

    bytes: int
    raw_bytes: int
    ratio: float
    bits_per_voxel: float
    psnr_db: float
    ssim: float | None
    max_abs_error: float
    target: dict[str, Any]
    method: str
    blocks: int
    weights: int
    bits_per_weight: float
    seconds: dict[str, float]
    backend: str
    backend_reason: str
    seed: int
    effort: int
    choices: dict[str, Any] = field(default_factory=dict)
    psnr_inside_db: float | None = None
    psnr_outside_db: float | None = None
    output: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClipEncodeReport(EncodeReport):
    """What the encode of a clip made.

    Sizes, ratio and PSNR are of all planes together, over the range of all; see `EncodeReport`.

    Attributes
    ----------
    frames, groups : int
        Of the clip, and groups that can be decoded by themselves.
    psnr_parts_db : dict
        PSNR of the planes that are coded together, e.g. ``"Y"`` and ``"UV"``, over the same range.
    carried_bytes : int
        What audio and data streams take of the file.
    notes : tuple of str
        What was noticed while reading, a line each.
    """

    frames: int
    groups: int
    psnr_parts_db: dict[str, float]
    carried_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DecodeReport(Report):
    """What a decode read and wrote.

    Attributes
    ----------
    bytes : int
        Size of the ``.inrc`` stream.
    bytes_read : int or None
        How much of it was read; less than `bytes` for a region. None when not counted.
    voxels : int
        Samples written.
    seconds, mvoxels_per_second : float
        Wall time, and millions of samples per second.
    output : str or None
        Path of the file written.
    backend, backend_reason : str or None
        What computed, and why not something faster; None when not known.
    notes : tuple of str
        What the file cannot hold of a clip, a line each.
    """

    bytes: int
    bytes_read: int | None
    voxels: int
    seconds: float
    mvoxels_per_second: float
    output: str | None = None
    backend: str | None = None
    backend_reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InfoReport(Report):
    """What an ``.inrc`` stream says about itself.

    Attributes
    ----------
    path : str or None
        None for bytes or a file object.
    shape, axes, spacing, units : tuple
        The grid, slowest axis first, e.g. ``(D, H, W)``, ``"zyx"``; `spacing` in `units`, one per axis.
    dtype, file_dtype : str
        Coded integer dtype, and the dtype of the source file with its byte order.
    source_format : str
        Format of the source, ``"array"`` for a plain array.
    target : dict
        What the encoder was asked for.
    blocks, constant_blocks, chunks, weights : int
        Networks, blocks of a single value, separately checksummed pieces, stored parameters.
    parts : dict
        Bytes by section; the values sum to `bytes`.
    details : dict
        Everything else the header says, free form.
    picture : str or None
        Path of the picture of the partition, when one was asked for.
    """

    path: str | None
    bytes: int
    shape: tuple[int, ...]
    axes: str
    dtype: str
    file_dtype: str
    spacing: tuple[float, ...]
    units: tuple[str, ...]
    source_format: str
    method: str
    target: dict[str, Any]
    ratio: float
    bits_per_voxel: float
    blocks: int
    constant_blocks: int
    chunks: int
    weights: int
    parts: dict[str, int]
    details: dict[str, Any] = field(default_factory=dict)
    picture: str | None = None


@dataclass(frozen=True, kw_only=True)
class VerifyReport(Report):
    """What a check of an ``.inrc`` stream covered.

    Attributes
    ----------
    ok : bool
        Every checksum agrees (and, when `deep`, every block decodes).
    sections_checked, chunks_checked : int
        How many checksums were compared.
    deep : bool
        Whether the blocks were decoded too.
    seconds : float
        Wall time.
    """

    ok: bool
    bytes: int
    sections_checked: int
    chunks_checked: int
    deep: bool
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CompareReport(Report):
    """How far a decoded volume is from its original. Errors are in stored units.

    Stored units are the integers of the file, before any header slope; for files of fractions, their values.

    Attributes
    ----------
    psnr_db : float
        Over `psnr_range`, the original's own range (largest minus smallest value); infinite when identical.
    psnr_dtype_db : float
        The same error over the full range of the coded dtype (65535 for 16 bits): flattering when the data
        uses a part of it, here only for comparison with papers that report it.
    ssim : float or None
        Mean structural similarity over `psnr_range`, None when an axis is too short for a window.
    mean_abs_error, max_abs_error : float
        Over all voxels.
    bytes : int or None
        Size of the compressed file; None when not known, and then `ratio` and `bits_per_voxel` are None too.
    identical : bool
        Every voxel is equal.
    picture : str or None
        Path of the picture, when one was asked for.
    """

    psnr_db: float
    psnr_range: float
    psnr_dtype_db: float
    ssim: float | None
    mean_abs_error: float
    max_abs_error: float
    voxels: int
    bytes: int | None
    ratio: float | None
    bits_per_voxel: float | None
    identical: bool
    picture: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClipCompareReport(CompareReport):
    """How far a decoded clip is from its original; see `CompareReport`.

    PSNR and errors are of all planes together, over the range of all; SSIM is the first plane's, the mean over frames.

    Attributes
    ----------
    frames : int
    psnr_planes_db : dict
        PSNR by plane, over the same range.
    vmaf : float or None
        Mean over frames, from FFmpeg's filter libvmaf; None without it, and then `vmaf_reason` says why.
    vmaf_reason : str or None
    notes : tuple of str
        What was noticed while reading, a line each.
    """

    frames: int
    psnr_planes_db: dict[str, float]
    vmaf: float | None
    vmaf_reason: str | None
    notes: tuple[str, ...] = ()
