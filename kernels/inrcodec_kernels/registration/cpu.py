"""The sums in compiled loops."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _sums(frame, known, nodes, shift, outlier, out):  # type: ignore[no-untyped-def]
    """Add up what lies between two nodes of a line, then hand it to the four nodes around."""
    (height, width), (rows, columns) = frame.shape, known.shape[:2]
    size, one = 1 << shift, np.float32(1)
    scale, softly = np.float32(1 / size), np.float32(1 / outlier**2)
    last_y, last_x = np.float32(rows - 1), np.float32(columns - 1)
    for y in range(height):
        v, fy = y >> shift, (y & (size - 1)) * scale
        for u in range(((width - 1) >> shift) + 1):
            first_y = nodes[0, v, u] + fy * (nodes[0, v + 1, u] - nodes[0, v, u])
            first_x = nodes[1, v, u] + fy * (nodes[1, v + 1, u] - nodes[1, v, u])
            grow_y = (nodes[0, v, u + 1] + fy * (nodes[0, v + 1, u + 1] - nodes[0, v, u + 1]) - first_y) * scale
            grow_x = (nodes[1, v, u + 1] + fy * (nodes[1, v + 1, u + 1] - nodes[1, v, u + 1]) - first_x) * scale
            all_yy = all_xx = all_yx = all_y = all_x = np.float32(0)
            far_yy = far_xx = far_yx = far_y = far_x = np.float32(0)
            for x in range(u << shift, min((u + 1) << shift, width)):
                step = np.float32(x - (u << shift))
                at_y, at_x = y + first_y + step * grow_y, x + first_x + step * grow_x
                if not (at_y >= 0 and at_y <= last_y and at_x >= 0 and at_x <= last_x):
                    continue
                row, column = min(int(at_y), rows - 2), min(int(at_x), columns - 2)
                down, right = np.float32(at_y - row), np.float32(at_x - column)
                a, b, c, d = (one - down) * (one - right), (one - down) * right, down * (one - right), down * right
                p, q, r, s = known[row, column], known[row, column + 1], known[row + 1, column], known[row + 1, column + 1]
                rest = frame[y, x] - (a * p[0] + b * q[0] + c * r[0] + d * s[0])
                gy = a * p[1] + b * q[1] + c * r[1] + d * s[1]
                gx = a * p[2] + b * q[2] + c * r[2] + d * s[2]
                trust, share = one / (one + rest * rest * softly), step * scale
                ty, tx = trust * gy, trust * gx
                yy, xx, yx, by_y, by_x = ty * gy, tx * gx, ty * gx, ty * rest, tx * rest
                all_yy, all_xx, all_yx, all_y, all_x = all_yy + yy, all_xx + xx, all_yx + yx, all_y + by_y, all_x + by_x
                far_yy, far_xx, far_yx = far_yy + share * yy, far_xx + share * xx, far_yx + share * yx
                far_y, far_x = far_y + share * by_y, far_x + share * by_x
            pairs = ((all_yy, far_yy), (all_xx, far_xx), (all_yx, far_yx), (all_y, far_y), (all_x, far_x))
            for k, (whole, far) in enumerate(pairs):
                out[k, v, u] += (one - fy) * (whole - far)
                out[k, v, u + 1] += (one - fy) * far
                out[k, v + 1, u] += fy * (whole - far)
                out[k, v + 1, u + 1] += fy * far


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
def _difference(frame, other, nodes, shift):  # type: ignore[no-untyped-def]
    (height, width), (rows, columns) = frame.shape, other.shape
    size, total = 1 << shift, 0.0
    scale = np.float32(1 / size)
    for y in range(height):
        v, fy, line = y >> shift, (y & (size - 1)) * scale, 0.0
        for x in range(width):
            u, fx = x >> shift, (x & (size - 1)) * scale
            moved_y = nodes[0, v, u] + fy * (nodes[0, v + 1, u] - nodes[0, v, u])
            moved_x = nodes[1, v, u] + fy * (nodes[1, v + 1, u] - nodes[1, v, u])
            moved_y += fx * (nodes[0, v, u + 1] + fy * (nodes[0, v + 1, u + 1] - nodes[0, v, u + 1]) - moved_y)
            moved_x += fx * (nodes[1, v, u + 1] + fy * (nodes[1, v + 1, u + 1] - nodes[1, v, u + 1]) - moved_x)
            at_y, at_x = min(max(y + moved_y, np.float32(0)), np.float32(rows - 1)), min(max(x + moved_x, np.float32(0)), np.float32(columns - 1))
            row, column = min(int(at_y), rows - 2), min(int(at_x), columns - 2)
            down, right = np.float32(at_y - row), np.float32(at_x - column)
            above = other[row, column] + right * (other[row, column + 1] - other[row, column])
            below = other[row + 1, column] + right * (other[row + 1, column + 1] - other[row + 1, column])
            rest = frame[y, x] - (above + down * (below - above))
            line += rest * rest
        total += line
    return total / (height * width)


def sums(frame: Floats, known: Floats, nodes: Floats, shift: int, outlier: float) -> Floats:
    """As `inrcodec_kernels.registration.sums`."""
    out = np.zeros((5, *nodes.shape[1:]), dtype=np.float32)
    _sums(np.ascontiguousarray(frame), np.ascontiguousarray(known), np.ascontiguousarray(nodes), shift, outlier, out)
    return out


def difference(frame: Floats, other: Floats, nodes: Floats, shift: int) -> float:
    """As `inrcodec_kernels.registration.difference`."""
    return float(_difference(np.ascontiguousarray(frame), np.ascontiguousarray(other), np.ascontiguousarray(nodes), shift))
