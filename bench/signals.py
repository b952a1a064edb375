"""What is measured: volumes and clips as planes of stored integers, and synthetic ones for machines without data.

A spec is a path, ``example4d`` (a real EPI series inside nibabel) or ``synthetic:EDGE`` (a seeded phantom of EDGE^3 voxels).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

import numpy as np

CLIP_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".y4m", ".webm")
SOURCE_NOTES = {
    "video_laparoscopy_720p": "compressed before: H.264, about 2.6 Mbit/s",
    "video_eye_surgery_1080p": "compressed before: video codec, then Motion-JPEG",
    "control_carphone_qcif": "compressed before: H.264 at a high rate; not medical",
}
LABEL_MAPS = ("labels_neurons_fibsem",)
"""Signals on which PSNR means nothing: measured, but left out of averages."""


class SignalReadError(Exception):
    """A signal that cannot be read; the message is one line."""


@dataclass(frozen=True)
class BenchSignal:
    """One signal.

    Attributes
    ----------
    name : str
        File name without suffixes.
    kind : str
        ``"volume"`` or ``"clip"``.
    planes : tuple of ndarray
        One array ``(z, y, x)`` or ``(t, z, y, x)`` for a volume; Y, Cb and Cr ``(t, h, w)``, chroma at its own
        resolution, for a clip. 8- or 16-bit integers as stored.
    note : str
        What a reader must know to judge the figures, e.g. that the clip was compressed before.
    """

    name: str
    kind: str
    planes: tuple[np.ndarray, ...]
    note: str = ""

    @property
    def main(self) -> np.ndarray:
        """The volume, or the luma plane."""
        return self.planes[0]

    @property
    def samples(self) -> int:
        """Stored samples of all planes: the voxels of every rate in bits/voxel."""
        return sum(plane.size for plane in self.planes)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the arrays: the numerator of every ratio."""
        return sum(plane.nbytes for plane in self.planes)

    @cached_property
    def low(self) -> int:
        """Smallest stored value."""
        return min(int(plane.min()) for plane in self.planes)

    @cached_property
    def high(self) -> int:
        """Largest stored value."""
        return max(int(plane.max()) for plane in self.planes)

    @property
    def bits(self) -> int:
        """Bits that hold every value after subtracting the smallest."""
        return max(1, (self.high - self.low).bit_length())

    @cached_property
    def fingerprint(self) -> str:
        """CRC-32 of the samples, so that results of a changed file are not taken for this one's."""
        crc = 0
        for plane in self.planes:
            crc = zlib.crc32(np.ascontiguousarray(plane).data, crc)
        return f"{crc:08x}"

    @property
    def shape_text(self) -> str:
        """Extents of the main plane, e.g. ``"128x256x256"``."""
        return "x".join(map(str, self.main.shape))


def load_signal(spec: str) -> BenchSignal:
    """Read the signal that `spec` names.

    Raises
    ------
    SignalReadError
        If it is missing, unreadable or of a kind nobody knows.
    """
    if spec.startswith("synthetic:"):
        return _synthetic(spec)
    path = _example4d() if spec == "example4d" else Path(spec)
    if not path.is_file():
        raise SignalReadError(f"{spec}: expected a file, `example4d` or `synthetic:EDGE`, found none of them; check the path")
    name = path.name.split(".")[0]
    if path.suffix.lower() in CLIP_SUFFIXES:
        return BenchSignal(name, "clip", _read_clip(path), SOURCE_NOTES.get(name, "prior compression not known"))
    return BenchSignal(name, "volume", (_read_volume(path),))


def synthetic_volume(edge: int, seed: int = 0) -> np.ndarray:
    """A phantom of uint16: smooth tissue, bright tubes, air around it and noise, 12 bits.

    Parameters
    ----------
    edge : int
        Voxels along each axis.
    seed : int
        Of the noise and of where the tubes run.

    Returns
    -------
    ndarray
        uint16, shape ``(edge, edge, edge)``.
    """
    random = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, edge, dtype=np.float32),) * 3, indexing="ij", sparse=True)
    body = (y**2 / 0.8 + x**2 / 0.6) < 1
    volume = 900 + 150 * np.sin(3 * z + 2 * y) * np.cos(4 * x)
    for _ in range(12):
        wave = random.uniform(1, 5, 2)
        phase = random.uniform(-3, 3, 2)
        centre = random.uniform(-0.6, 0.6, 2)
        radius = random.uniform(0.02, 0.08)
        distance = (y - centre[0] - 0.2 * np.sin(wave[0] * z + phase[0])) ** 2
        distance = distance + (x - centre[1] - 0.2 * np.sin(wave[1] * z + phase[1])) ** 2
        volume = volume + random.uniform(200, 900) / (1 + np.exp((np.sqrt(distance) - radius) * 60))
    volume = np.where(body, volume, 30) + random.normal(0, 12, volume.shape).astype(np.float32)
    return np.clip(np.rint(volume), 0, 4095).astype(np.uint16)


def _synthetic(spec: str) -> BenchSignal:
    text = spec.split(":", 1)[1]
    if not text.isdecimal() or not 8 <= int(text) <= 1024:
        raise SignalReadError(f"{spec}: expected synthetic:EDGE with an edge of 8 to 1024 voxels, found {text!r}")
    return BenchSignal(f"synthetic_{text}", "volume", (synthetic_volume(int(text)),), "seeded phantom, not a scan")


def _example4d() -> Path:
    try:
        return Path(str(resources.files("nibabel") / "tests" / "data" / "example4d.nii.gz"))
    except ModuleNotFoundError:
        raise SignalReadError("example4d: expected nibabel, which ships this series, found none; pip install nibabel") from None


def _read_volume(path: Path) -> np.ndarray:
    # Imported here: a bare machine measures synthetic volumes without any file format.
    from inrcodec_formats import registry
    from inrcodec_formats.errors import InrcodecError

    try:
        samples = registry.read(path).samples
    except (InrcodecError, OSError) as error:
        raise SignalReadError(f"{path.name}: {error}") from None
    return np.ascontiguousarray(samples)


def _read_clip(path: Path) -> tuple[np.ndarray, ...]:
    try:
        import av
    except ModuleNotFoundError:
        raise SignalReadError(f"{path.name}: expected PyAV to read a clip, found none; pip install av") from None
    from .frames import frame_planes

    try:
        with av.open(str(path)) as container:
            frames = [frame_planes(frame) for frame in container.decode(video=0)]
    except (av.error.FFmpegError, IndexError) as error:
        raise SignalReadError(f"{path.name}: expected a clip that FFmpeg reads, found {error}") from None
    if not frames:
        raise SignalReadError(f"{path.name}: expected at least one frame, found none")
    return tuple(np.stack(plane) for plane in zip(*frames, strict=True))
