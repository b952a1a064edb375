"""inrcodec: a neural codec for biomedical volumes and surgical video.

A volume is stored as the quantised, entropy-coded weights of small sine networks, one per block, and rebuilt from them
whole, by region, at any scale or at any point.

>>> import inrcodec
>>> inrcodec.encode("ct.nii.gz", "ct.inrc", ratio=64)           # doctest: +SKIP
>>> inrcodec.decode("ct.inrc", "back.nii.gz")                   # doctest: +SKIP
>>> inrcodec.open("ct.inrc")[40:50, :, ::2]                     # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, overload

from inrcodec_formats.errors import (
    ContainerError,
    DeviceError,
    FormatError,
    InrcodecError,
    OptionError,
    OutputError,
    SignalError,
    TargetError,
)
from inrcodec_formats.signal import Signal, SignalHeader

if TYPE_CHECKING:
    import numpy as np

    from .clips.view import Clip
    from .image import Image, Source
    from .masks import RegionSource
    from .options import PyramidOptions, SciOptions, TincOptions
    from .reports import CompareReport, DecodeReport, EncodeReport, InfoReport, VerifyReport

__version__ = "0.1.0"

__all__ = [
    "ContainerError",
    "DeviceError",
    "FormatError",
    "InrcodecError",
    "OptionError",
    "OutputError",
    "Signal",
    "SignalError",
    "SignalHeader",
    "TargetError",
    "compare",
    "decode",
    "encode",
    "info",
    "open",
    "verify",
]

Progress = Callable[[str, float, str], None]
"""Called as ``progress(stage, fraction, note)`` while work goes on."""


def _silent(stage: str, fraction: float, note: str = "") -> None:
    """Report nothing."""


@overload
def encode(source: Any, target: str | os.PathLike[str], **choices: Any) -> EncodeReport: ...
@overload
def encode(source: Any, target: None = None, **choices: Any) -> bytes: ...
def encode(  # type: ignore[misc]  # the overloads name no keyword, the body names all
    source: str | os.PathLike[str] | np.ndarray | Signal,
    target: str | os.PathLike[str] | None = None,
    *,
    ratio: float | None = None,
    bits_per_voxel: float | None = None,
    psnr_db: float | None = None,
    method: str | None = None,
    effort: int = 5,
    device: str = "auto",
    seed: int = 0,
    quantise_step: float | None = None,
    axes: str | None = None,
    restoration: bool = True,
    audio: bool = True,
    region: RegionSource | None = None,
    emphasis: float | None = None,
    motion: bool | str = "auto",
    tinc: TincOptions | None = None,
    sci: SciOptions | None = None,
    pyramid: PyramidOptions | None = None,
    progress: Progress | None = None,
) -> EncodeReport | bytes:
    """Compress a volume, an image, a series or a clip.

    Parameters
    ----------
    source : path, ndarray or Signal
        A NIfTI, NRRD, TIFF or npy file, or samples of 1 to 4 dimensions, slowest axis first, e.g. ``(D, H, W)``.
        Integers are coded as they are, channels together. Or a clip: a file that FFmpeg reads, a folder of numbered PNG
        files, or a signal of several planes that `decode` gave.
    target : path, optional
        The ``.inrc`` file to write. Without it the stream is returned.
    ratio : float, optional
        Bytes of the array over bytes of the stream, every byte counted. The file is 97 to 100 % of the size asked for.
    bits_per_voxel : float, optional
        Size of the stream in bits over the number of voxels; as precise as `ratio`.
    psnr_db : float, optional
        PSNR over the signal's own range, in dB, of the region where one is given; reached and exceeded by at most 0.1 dB.
    method : {"tinc", "sci", "pyramid", "auto"}, optional
        The pyramid makes the smallest files and takes a minute or so for a million voxels; TINC takes seconds. Auto tries all
        of them on a part of the signal; the report says what it chose and why. Without it, the method whose options are
        given; otherwise the pyramid, or TINC where a pyramid cannot reach the target, or where it takes 0.2 bits a sample and
        more and TINC is better; TINC of clips, of signals of four axes or fewer than 8,192 samples, and at efforts below 3.
    effort : int
        1 (fast) to 9 (thorough); counts steps, not seconds.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Auto takes a CUDA device where there is one and Triton, else the CPU; the report says which, and why.
    seed : int
        Of everything random: same input, options, seed, versions and thread count give the same bytes.
    quantise_step : float, optional
        For real values: the smallest difference to keep. Integers need none.
    axes : str, optional
        For an array or a npy file: one letter per axis out of ``tzyxc``, ``c`` for channels, e.g. ``"yxc"`` for a colour
        picture. The last ones of ``"tzyx"`` unless given; other files name their own.
    restoration : bool
        Whether to fit a small network that corrects the decoded samples, block faces above all; it is kept only where
        it is worth its bytes.
    audio : bool
        Of clips: whether the file carries audio and data streams, as they are. They count in its size.
    region : Region, ndarray, tuple of slice or path, optional
        Where errors count more: a mask of the last axes (of two axes it serves every frame, slice or channel; anything
        but 0 is inside), a slice for each of the last axes, or the file of a mask, a PNG or any that can be encoded.
    emphasis : float, optional
        How many times a squared error inside the region counts, over one outside, from 1 on; 8 by default, and infinity
        leaves the outside to chance.
    motion : bool or "auto"
        Whether frames are displaced against each other before they are coded; auto does it to those of clips where it pays.
    tinc : TincOptions, optional
        How TINC partitions and shares.
    sci : SciOptions, optional
        How SCI partitions and what networks it fits.
    pyramid : PyramidOptions, optional
        How the pyramid is built.
    progress : callable, optional
        ``progress(stage, fraction, note)``.

    Returns
    -------
    EncodeReport or bytes
        A report when `target` is given, else the stream.

    Raises
    ------
    OptionError
        If none or several targets are given, a choice is out of range, or a region does not fit the signal.
    SignalError, FormatError
        If the source, or the mask's file, cannot be coded or read.
    TargetError
        If the size or quality cannot be reached.
    OutputError
        If the file cannot be written.
    DeviceError
        If a GPU has too little memory, fails or goes away; nothing is written then.
    """
    from dataclasses import replace

    from . import encoder
    from .backends import backend_for, device_errors
    from .clips import encode as clips
    from .masks import as_region
    from .options import EncodeOptions, PyramidOptions, SciOptions, TincOptions, one_target

    wanted = one_target(ratio=ratio, bits_per_voxel=bits_per_voxel, psnr_db=psnr_db)
    options = EncodeOptions(
        wanted, method, effort, device, seed, restoration, as_region(region, emphasis), motion,  # type: ignore[arg-type]
        tinc=tinc or TincOptions(), sci=sci or SciOptions(), pyramid=pyramid or PyramidOptions(),
    )  # fmt: skip
    if target is not None:
        encoder.check_output(target)
    if clips.is_clip_source(source):
        with device_errors(backend_for(device)):
            return clips.encode_clip(source, target, options, quantise_step, audio, progress or _silent)
    with device_errors(backend_for(device)):
        blob, report = encoder.encode_signal(source, options, quantise_step, axes, progress or _silent)
    if target is None:
        return blob
    encoder.write_stream(target, blob)
    return replace(report, output=os.fspath(target))


@overload
def decode(source: Source, target: str | os.PathLike[str], **choices: Any) -> DecodeReport: ...
@overload
def decode(source: Source, target: None = None, **choices: Any) -> Signal: ...
def decode(  # type: ignore[misc]  # the overloads name no keyword, the body names all
    source: Source,
    target: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    codec: Literal["h264", "hevc", "ffv1"] | None = None,
    progress: Progress | None = None,
) -> Signal | DecodeReport:
    """Rebuild a signal.

    Parameters
    ----------
    source : path, bytes or binary file object
        An ``.inrc`` stream.
    target : path, optional
        File to write; the suffix chooses the format, the source's header is put back where the format is the same.
        Memory stays bounded. Without it the signal is returned, of a clip one with a plane each of Y, U and V.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Auto takes a CUDA device where there is one and Triton, else the CPU; the report says which, and why.
    codec : {"h264", "hevc", "ffv1"}, optional
        Of a clip's file; unless given, what suits the suffix.
    progress : callable, optional
        ``progress(stage, fraction, note)``.

    Returns
    -------
    Signal or DecodeReport

    Raises
    ------
    ContainerError
        If the stream is damaged, hostile or from an unknown version.
    FormatError, OutputError
        If the file cannot be written.
    DeviceError
        If a GPU has too little memory, fails or goes away; no half file is left then.
    """
    from inrcodec_formats.container import settled

    from . import decoder
    from .backends import backend_for, device_errors
    from .clips import decode as clips

    backend, source = backend_for(device), settled(source)
    with device_errors(backend):
        if clips.holds_clip(source):
            if target is None:
                return clips.decode_clip(source, backend, progress or _silent)
            return clips.decode_clip_file(source, target, backend, progress or _silent, codec=codec)
        if codec is not None:
            raise OptionError(f"expected codec= for clips only, found {codec!r} for a volume; leave it out")
        if target is None:
            return decoder.decode_signal(source, backend, progress or _silent)
        return decoder.decode_file(source, target, backend, progress or _silent)


def open(source: Source, *, device: str = "auto") -> Image | Clip:
    """Open a stream to read parts of it: an `inrcodec.image.Image`, of a clip an `inrcodec.clips.view.Clip`."""
    from inrcodec_formats.container import settled

    from .backends import backend_for
    from .clips.view import Clip, holds_clip
    from .image import Image

    source = settled(source)
    return (Clip if holds_clip(source) else Image)(source, backend_for(device))


def info(source: Source, *, picture: str | os.PathLike[str] | None = None) -> InfoReport:
    """Tell what a stream holds, without decoding a voxel unless a picture is asked for.

    Parameters
    ----------
    source : path, bytes or binary file object
        An ``.inrc`` stream.
    picture : path, optional
        Where to write a PNG of the partition: blocks over the middle slices, coloured by their bits per voxel.

    Returns
    -------
    InfoReport

    Raises
    ------
    ContainerError
        If the stream is damaged, hostile or from an unknown version.
    OutputError
        If the picture cannot be written.
    """
    from inrcodec_formats.container import settled

    from .clips import decode as clips
    from .decoder import stream_info

    source = settled(source)
    if clips.holds_clip(source):
        return clips.clip_info(source, picture)
    return stream_info(source, picture)


def verify(source: Source, *, deep: bool = False, progress: Progress | None = None) -> VerifyReport:
    """Check every checksum of a stream; with `deep`, decode all of it too.

    Raises
    ------
    ContainerError
        If anything is damaged.
    """
    from inrcodec_formats.container import settled

    from .clips import decode as clips
    from .decoder import verify_stream

    source = settled(source)
    if clips.holds_clip(source):
        return clips.verify_clip(source, deep, progress or _silent)
    return verify_stream(source, deep, progress or _silent)


def compare(original: Any, decoded: Any, **choices: Any) -> CompareReport:
    """Measure what was lost; see `inrcodec.comparison.compare`."""
    from .comparison import compare as measure

    return measure(original, decoded, **choices)
