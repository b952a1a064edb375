"""Decoding a part of a stream, or another scale of it, into a file of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inrcodec_formats.errors import OptionError

if TYPE_CHECKING:
    import numpy as np

    from inrcodec_formats.signal import Signal

    from .clips.view import Clip
    from .reports import DecodeReport, InfoReport


def parse_region(text: str) -> tuple[slice, ...]:
    """Turn ``"40:50,7,::2"`` into slices, one per axis; brackets and blanks around it do not matter.

    A single index keeps its axis, with one sample: the formats want every space axis.

    Raises
    ------
    OptionError
        If a part is neither an integer nor a slice.
    """
    return tuple(_parse_part(part.strip(), text) for part in text.strip().strip("[]").split(","))


def _parse_part(part: str, text: str) -> slice:
    numbers = part.split(":")
    try:
        if len(numbers) == 1:
            index = int(part)
            return slice(index, index + 1 or None)
        chosen = slice(*(int(number) if number.strip() else None for number in numbers))
        if chosen.step != 0:
            return chosen
    except (TypeError, ValueError):
        pass  # not a number, or more than start:stop:step
    raise OptionError(
        f'expected --region as integers and slices by comma, like "40:50,:,::2", found {part!r} in {text!r}'
    )


def decode_part(
    source: Path,
    output: Path,
    selection: tuple[slice, ...] | None,
    scale: float | None,
    device: str,
    codec: Any,
    progress: Any,
) -> DecodeReport:
    """Decode a region or another scale and write it under a fresh header.

    Parameters
    ----------
    source, output : Path
    selection : tuple of slice or None
        As `parse_region` gives it; of clips frames.
    scale : float or None
    device : str
    codec : str or None
        Of a clip's file.
    progress : callable

    Raises
    ------
    OptionError
        If the selection does not fit the signal.
    """
    import inrcodec
    from inrcodec_formats import registry

    from .clips.view import Clip
    from .reports import DecodeReport

    started = time.perf_counter()
    opened: Any = inrcodec.open(source, device=device)
    with opened as image:
        if isinstance(image, Clip):
            return _decode_clip_part(image, output, selection, scale, codec, progress)
        part = image.read(scale=scale or 1.0) if selection is None else _read_region(image, selection)
        signal = _part_signal(inrcodec.info(source), part, selection)
        registry.write_signal(output, signal)
    seconds = time.perf_counter() - started
    voxels = signal.header.voxels
    return DecodeReport(
        bytes=source.stat().st_size,
        bytes_read=getattr(image, "bytes_read", None),
        voxels=voxels,
        seconds=seconds,
        mvoxels_per_second=voxels / 1e6 / max(seconds, 1e-9),
        output=str(output),
    )


def _decode_clip_part(
    clip: Clip, output: Path, selection: tuple[slice, ...] | None, scale: float | None, codec: Any, progress: Any
) -> DecodeReport:
    """Decode some frames of a clip, or all of them smaller."""
    from .clips.decode import write_frames

    start, stop = _frames(selection, len(clip))
    return write_frames(clip, output, progress, start=start, stop=stop, scale=scale or 1.0, codec=codec)


def _frames(selection: tuple[slice, ...] | None, count: int) -> tuple[int, int]:
    """First frame, and the one behind the last, of a region."""
    chosen = slice(None) if selection is None else selection[0]
    start, stop, step = chosen.indices(count)
    if step != 1 or len(selection or ()) > 1 or not start < stop:
        raise OptionError(f'expected --region of a clip as frames like "40:50" within 0 to {count}, found another')
    return start, stop


def _read_region(image: Any, selection: tuple[slice, ...]) -> np.ndarray:
    if len(selection) > len(image.shape):
        raise OptionError(f"expected --region to have at most {len(image.shape)} parts, found {len(selection)}")
    if any(len(range(size)[chosen]) == 0 for size, chosen in zip(image.shape, selection, strict=False)):
        raise OptionError(f"expected --region to select samples of the volume of shape {image.shape}, found none in it")
    try:
        return image[selection]
    except IndexError as error:
        raise OptionError(f"expected a --region that can be read, found: {error}") from error


def _part_signal(details: InfoReport, part: np.ndarray, selection: tuple[slice, ...] | None) -> Signal:
    """Give a decoded part its axes, spacing and units; its position in the source is not kept."""
    from inrcodec_formats.signal import Signal

    if selection is None:
        # The extent stays, so the distance between samples grows by old over new size.
        factors = [old / new for old, new in zip(details.shape, part.shape, strict=True)]
    else:
        factors = [abs(chosen.step or 1) for chosen in selection] + [1] * (part.ndim - len(selection))
    step = details.details.get("quantise_step") if part.dtype.kind == "f" else None
    signal = Signal.from_array(part, quantise_step=step, axes=details.axes)
    spacing = tuple(distance * factor for distance, factor in zip(details.spacing, factors, strict=True))
    return signal.with_header(spacing=spacing, units=details.units)


