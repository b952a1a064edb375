"""Tiny clips for the tests, made by PyAV alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from inrcodec_formats.video import ClipHeader

Planes = tuple[np.ndarray, ...]


def header(
    pixel_format: str = "yuv420p", width: int = 32, height: int = 24, frames: int = 5, **fields: Any
) -> ClipHeader:
    """A header at 25 frames a second."""
    made = ClipHeader(width, height, pixel_format, Fraction(1, 25), np.arange(frames), last_duration=1)
    return replace(made, **fields)


def moving(head: ClipHeader) -> Iterator[Planes]:
    """Smooth frames that move, over the whole range of the depth."""
    top = 2**head.bit_depth - 1
    for number in range(head.frames):
        yield tuple(
            ((np.sin((y + number + plane) / 5) * np.cos((x - 2 * number) / 7) + 1) / 2 * top).round().astype(head.dtype)
            for plane, shape in enumerate(head.plane_shapes)
            for y, x in [np.ogrid[: shape[0], : shape[1]]]
        )


def noise(head: ClipHeader) -> Iterator[Planes]:
    """Frames of independent samples: nothing but a lossless codec keeps them."""
    draw = np.random.default_rng(7)
    for _ in range(head.frames):
        yield tuple(draw.integers(0, 2**head.bit_depth, shape, head.dtype) for shape in head.plane_shapes)


def equal(one: Iterable[Planes], other: Iterable[Planes]) -> bool:
    return all(
        all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(p, q, strict=True))
        for p, q in zip(one, other, strict=True)
    )


def psnr(one: Planes, other: Planes, depth: int) -> float:
    """Of all planes together, in dB."""
    squares = sum(float(((a.astype(float) - b) ** 2).sum()) for a, b in zip(one, other, strict=True))
    return float(10 * np.log10((2**depth - 1) ** 2 * sum(a.size for a in one) / max(squares, 1e-9)))


def raw_frame(pixel_format: str, width: int, height: int, seed: int) -> Any:
    """A frame of any of FFmpeg's formats, filled with noise, padding included."""
    frame = av.VideoFrame(width, height, pixel_format)
    draw = np.random.default_rng(seed)
    for plane in frame.planes:
        view = np.frombuffer(plane, np.uint8)
        view[:] = draw.integers(0, 256, view.size, np.uint8)
    return frame


def write_raw(
    path: Path,
    frames: Iterable[Any],
    *,
    codec: str = "rawvideo",
    rate: int = 25,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    audio: str | None = None,
    setup: Callable[[Any], None] | None = None,
) -> Path:
    """Write FFmpeg's own frames with PyAV; the suffix chooses the container."""
    frames = list(frames)
    with av.open(str(path), "w") as container:
        first = frames[0]
        stream = container.add_stream(codec, rate=rate, width=first.width, height=first.height, options=options or {})
        stream.codec_context.pix_fmt = first.format.name
        if setup:
            setup(stream)
        sound = container.add_stream(audio, rate=8000, layout="mono") if audio else None
        if sound:
            sound.metadata["language"] = "deu"
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = times[number] if times else number, Fraction(1, rate)
            container.mux(stream.encode(frame))
            if sound:
                container.mux(sound.encode(_tone(number)))
        container.mux(stream.encode(None))
        if sound:
            container.mux(sound.encode(None))
    return path


def _tone(number: int) -> Any:
    samples = (np.sin(np.arange(1024) / 7 + number) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 8000, number * 1024, Fraction(1, 8000)
    return frame
