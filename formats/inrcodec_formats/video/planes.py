"""Pixel formats of clips, and frames as planes and back: samples are moved, never converted.

A conversion such as yuv420p to gray would stretch the "limited" range and cost a codec 10 dB that it never lost. Packed and
semi-planar frames (nv12, yuyv422, rgb24, ...) hold the same samples as a planar twin, in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import FormatError

Planes = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class PixelFormat:
    """A planar pixel format.

    Attributes
    ----------
    name : str
        FFmpeg's name; samples of more than 8 bits are little-endian.
    count : int
        Number of planes: 1 for gray, 3 for Y, U, V or for G, B, R (FFmpeg's order).
    depth : int
        Bits of a sample, 8 to 16; low bits of the dtype.
    halvings : tuple of int
        How often the second and third plane are halved: along the height, along the width.
    """

    name: str
    count: int
    depth: int
    halvings: tuple[int, int] = (0, 0)

    @property
    def dtype(self) -> np.dtype:
        """Type of the samples: uint8 or uint16."""
        return np.dtype(np.uint8 if self.depth == 8 else np.uint16)

    def shapes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Height and width of every plane; odd sizes are halved upwards."""
        chroma = (-(-height // 2 ** self.halvings[0]), -(-width // 2 ** self.halvings[1]))
        return ((height, width),) + (chroma,) * (self.count - 1)


def _planar() -> dict[str, PixelFormat]:
    depths = (8, 9, 10, 12, 14, 16)
    families = {
        "gray": (1, (0, 0), depths),
        "yuv420p": (3, (1, 1), depths),
        "yuv422p": (3, (0, 1), depths),
        "yuv444p": (3, (0, 0), depths),
        "yuv440p": (3, (1, 0), (8, 10, 12)),
        "yuv411p": (3, (0, 2), (8,)),
        "yuv410p": (3, (2, 2), (8,)),
        "gbrp": (3, (0, 0), depths),
    }
    formats = {}
    for family, (count, halvings, known) in families.items():
        for depth in known:
            name = family if depth == 8 else f"{family}{depth}le"
            formats[name] = PixelFormat(name, count, depth, halvings)
    return formats


PIXEL_FORMATS = _planar()
"""Every pixel format that a clip's planes can have."""


@dataclass(frozen=True)
class _Packing:
    """Where a frame's format keeps the samples of its planar twin.

    Attributes
    ----------
    twin : str
        The planar format with the same samples.
    places : tuple of (int, int, int)
        For each plane of the twin: plane of the frame, first item of a row, items from one sample to the next.
    dtype : str
        Of the frame's items.
    shift : int
        Zero bits below each sample.
    alpha : bool
        Whether there is transparency besides, which the twin leaves out.
    """

    twin: str
    places: tuple[tuple[int, int, int], ...]
    dtype: str = "|u1"
    shift: int = 0
    alpha: bool = False


def _packings() -> dict[str, _Packing]:
    table: dict[str, _Packing] = {}
    for name, pixels in PIXEL_FORMATS.items():
        own = tuple((plane, 0, 1) for plane in range(pixels.count))
        little = "|u1" if pixels.depth == 8 else "<u2"
        table[name] = _Packing(name, own, little)
        transparent = name.replace("yuv", "yuva").replace("gbrp", "gbrap")
        if pixels.count == 3:
            table[transparent] = _Packing(name, own, little, alpha=True)
        if pixels.depth > 8:
            table[name[:-2] + "be"] = _Packing(name, own, ">u2")
            if pixels.count == 3:
                table[transparent[:-2] + "be"] = _Packing(name, own, ">u2", alpha=True)
        elif name.startswith("yuv4"):
            table[name.replace("yuv", "yuvj")] = _Packing(name, own)
    table |= _semi_planar() | _packed_yuv() | _packed_rgb()
    table |= {"ya8": _Packing("gray", ((0, 0, 2),), alpha=True)}
    table |= {f"ya16{end}e": _Packing("gray16le", ((0, 0, 2),), f"{mark}u2", 0, True) for end, mark in _ENDS}
    return table


_ENDS = (("l", "<"), ("b", ">"))


def _semi_planar() -> dict[str, _Packing]:
    """A plane of Y and a plane of alternating U and V."""
    pairs, swapped = ((0, 0, 1), (1, 0, 2), (1, 1, 2)), ((0, 0, 1), (1, 1, 2), (1, 0, 2))
    table = {
        "nv12": _Packing("yuv420p", pairs),
        "nv21": _Packing("yuv420p", swapped),
        "nv16": _Packing("yuv422p", pairs),
        "nv24": _Packing("yuv444p", pairs),
        "nv42": _Packing("yuv444p", swapped),
        "nv20le": _Packing("yuv422p10le", pairs, "<u2"),
        "nv20be": _Packing("yuv422p10le", pairs, ">u2"),
    }
    for digit, family in (("0", "yuv420p"), ("2", "yuv422p"), ("4", "yuv444p")):
        for depth in (10, 12, 16):
            for end, mark in _ENDS:
                table[f"p{digit}{depth}{end}e"] = _Packing(f"{family}{depth}le", pairs, f"{mark}u2", 16 - depth)
    return table


def _packed_yuv() -> dict[str, _Packing]:
    table = {
        "yuyv422": _Packing("yuv422p", ((0, 0, 2), (0, 1, 4), (0, 3, 4))),
        "yvyu422": _Packing("yuv422p", ((0, 0, 2), (0, 3, 4), (0, 1, 4))),
        "uyvy422": _Packing("yuv422p", ((0, 1, 2), (0, 0, 4), (0, 2, 4))),
    }
    for depth in (10, 12):
        places = table["yuyv422"].places
        table[f"y2{depth}le"] = _Packing(f"yuv422p{depth}le", places, "<u2", 16 - depth)
    return table


def _packed_rgb() -> dict[str, _Packing]:
    """Interleaved red, green and blue: ``0`` is a byte without meaning, ``a`` is transparency."""
    table = {}
    for order in ("rgb", "bgr", "rgb0", "bgr0", "0rgb", "0bgr", "rgba", "bgra", "argb", "abgr"):
        places = tuple((0, order.index(letter), len(order)) for letter in "gbr")
        alpha = "a" in order
        table[order if len(order) == 4 else order + "24"] = _Packing("gbrp", places, alpha=alpha)
        if order in ("rgb", "bgr", "rgba", "bgra"):
            for end, mark in _ENDS:
                name = f"{order}{16 * len(order)}{end}e"
                table[name] = _Packing("gbrp16le", places, f"{mark}u2", alpha=alpha)
    return table


_PACKINGS = _packings()


def planar_twin(name: str) -> str | None:
    """Name the planar format with the samples of FFmpeg's format `name`, or None if there is none here."""
    if name == "pal8":
        return "gbrp"
    packing = _PACKINGS.get(name)
    return packing.twin if packing else None


def has_alpha(name: str) -> bool:
    """Tell whether a format holds transparency, which its planar twin leaves out."""
    return name in _PACKINGS and _PACKINGS[name].alpha


def frame_planes(frame: Any) -> Planes:
    """Copy the samples of a frame (`av.VideoFrame`) into the planes of its planar twin.

    Returns
    -------
    tuple of ndarray
        Shapes `PixelFormat.shapes`, dtype `PixelFormat.dtype`.

    Raises
    ------
    FormatError
        For a pixel format without a planar twin.
    """
    name = frame.format.name
    if name == "pal8":
        return _palette_planes(frame)
    packing = _PACKINGS.get(name)
    if packing is None:
        raise FormatError(f"expected planar YUV, RGB or gray of 8 to 16 bits, found {name}; convert the clip first")
    pixels = PIXEL_FORMATS[packing.twin]
    planes = []
    for (height, width), (plane, first, step) in zip(
        pixels.shapes(frame.height, frame.width), packing.places, strict=True
    ):
        items = _rows(frame.planes[plane], np.dtype(packing.dtype))[:height, first::step][:, :width]
        planes.append(np.ascontiguousarray((items >> packing.shift).astype(pixels.dtype, copy=False)))
    return tuple(planes)


def make_frame(planes: Planes, pixel_format: str, target: str) -> Any:
    """Make a frame (`av.VideoFrame`) of format `target` that holds `planes`, without any conversion.

    Parameters
    ----------
    planes : tuple of ndarray
        As `frame_planes` returns them.
    pixel_format : str
        The planes' format.
    target : str
        `pixel_format`, or a packed format of which it is the planar twin.
    """
    import av

    packing = _PACKINGS[target]
    assert packing.twin == pixel_format
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, target)
    for whole in frame.planes:
        _rows(whole, np.dtype(np.uint8))[:] = 0
    for samples, (plane, first, step) in zip(planes, packing.places, strict=True):
        rows = _rows(frame.planes[plane], np.dtype(packing.dtype))
        rows[: samples.shape[0], first::step][:, : samples.shape[1]] = samples << packing.shift
    return frame


def _rows(plane: Any, dtype: np.dtype) -> np.ndarray:
    """View a frame's plane as rows of items, its padding included, topmost row first."""
    rows = np.frombuffer(plane, dtype).reshape(-1, abs(plane.line_size) // dtype.itemsize)
    return rows[::-1] if plane.line_size < 0 else rows


def _palette_planes(frame: Any) -> Planes:
    # FFmpeg keeps palette entries as 32-bit numbers: alpha, red, green, blue from the highest byte.
    palette = np.frombuffer(frame.planes[1], np.uint32)
    colours = palette[_rows(frame.planes[0], np.dtype(np.uint8))[: frame.height, : frame.width]]
    return tuple((colours >> shift & 0xFF).astype(np.uint8) for shift in (8, 0, 16))
