"""Video frames as arrays and back, plane by plane.

Samples are written to and read from the planes themselves: a conversion such as yuv420p to gray would stretch the "limited"
range on the way and cost a codec 10 dB that it never lost.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def frame_planes(frame: Any) -> list[np.ndarray]:
    """The planes of a frame, without any conversion."""
    depth = frame.format.components[0].bits
    dtype = np.dtype(np.uint8 if depth <= 8 else np.uint16)
    planes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
        planes.append(rows[: plane.height, : plane.width].copy())
    return planes


def make_frame(planes: list[np.ndarray], pixel_format: str) -> Any:
    """A frame that holds `planes`, without any conversion."""
    import av

    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixel_format)
    for target, source in zip(frame.planes, planes, strict=True):
        line = target.line_size // source.dtype.itemsize
        rows = np.zeros((target.buffer_size // target.line_size, line), source.dtype)
        rows[: source.shape[0], : source.shape[1]] = source
        target.update(rows)
    return frame
