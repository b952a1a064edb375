"""Small clips, made when they are needed."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from inrcodec.options import TincOptions
from inrcodec_formats.signal import Signal, SignalHeader
from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.write import write_clip

FAST = {"effort": 1, "restoration": False, "tinc": TincOptions(leaf_levels=1)}


def clip_header(frames: int = 6, height: int = 24, width: int = 32, pixel_format: str = "yuv420p", **more: object) -> ClipHeader:
    more = {"time_base": Fraction(1, 25), "times": np.arange(frames), "last_duration": 1, **more}
    return ClipHeader(width, height, pixel_format, source_format="mp4", codec="h264", **more)  # type: ignore[arg-type]


def moving(header: ClipHeader, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Waves that travel, a little noise, and a black border that stays."""
    rng, peak, planes = np.random.default_rng(seed), 2**header.bit_depth - 1, []
    for number, (height, width) in enumerate(header.plane_shapes):
        t, y, x = np.ogrid[: header.frames, :height, :width]
        waves = 0.5 + 0.2 * np.sin(x / 5 + t / 4 + number + seed) + 0.15 * np.cos(y / 7 - t / 6)
        samples = peak * (waves + rng.normal(0, 0.005, waves.shape))
        samples[:, :, : width // 8] = 16
        planes.append(np.clip(np.rint(samples), 0, peak).astype(header.dtype))
    return tuple(planes)


def signal_of(header: ClipHeader, planes: tuple[np.ndarray, ...]) -> Signal:
    """As `inrcodec.decode` would return it."""
    shape = (header.frames, header.height, header.width)
    front = SignalHeader(
        shape, header.dtype.name, "tyx", (0.04, 1.0, 1.0), ("s", "", ""), header.dtype.str,
        source_format="mp4", source_header=header.to_bytes(),
    )  # fmt: skip
    return Signal(planes, front)


def clip_signal(seed: int = 0, **of_header: object) -> Signal:
    header = clip_header(**of_header)  # type: ignore[arg-type]
    return signal_of(header, moving(header, seed))


def two_scenes(first: int, second: int, **of_header: object) -> Signal:
    """Two scenes of so many frames, the second one a negative; shown from tick 100 on, every third."""
    times = 100 + 3 * np.arange(first + second)
    header = clip_header(frames=first + second, times=times, last_duration=3, **of_header)  # type: ignore[arg-type]
    scenes = [moving(clip_header(frames=n, **of_header), seed) for n, seed in ((first, 0), (second, 9))]  # type: ignore[arg-type]
    return signal_of(header, tuple(np.concatenate([a, 255 - b]) for a, b in zip(*scenes, strict=True)))


def clip_file(path: Path, header: ClipHeader, planes: tuple[np.ndarray, ...] | None = None) -> tuple[np.ndarray, ...]:
    """Write a lossless clip; returns its planes."""
    planes = moving(header) if planes is None else planes
    write_clip(path, header, zip(*planes, strict=True), codec="ffv1" if path.suffix == ".mkv" else None)
    return planes


def add_sound(silent: Path, path: Path, seconds: float = 0.1) -> None:
    """Copy a clip and put a tone beside the pictures."""
    rate = 8000
    tone = (8000 * np.sin(np.arange(int(seconds * rate)) / 3)).astype(np.int16)
    with av.open(silent) as source, av.open(path, "w") as target:
        pictures = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream("pcm_s16le", rate=rate, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                target.mux(packet)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for given in (frame, None):
            target.mux(sound.encode(given))


def squares(planes: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...]) -> float:
    """Sum of squared errors."""
    return sum(float(np.square(a.astype(np.int64) - b).sum()) for a, b in zip(planes, others, strict=True))


def psnr_of(planes: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...]) -> float:
    """Over the range of all planes together, infinite where nothing differs."""
    peak = max(int(p.max()) for p in planes) - min(int(p.min()) for p in planes)
    error = squares(planes, others)
    return 10 * math.log10(peak**2 * sum(p.size for p in planes) / error) if error else math.inf
