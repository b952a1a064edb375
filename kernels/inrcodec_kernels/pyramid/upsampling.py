"""Upsampling by two along some axes, and its adjoint, in compiled loops that touch the finer level once.

A plane of the finer level is made from the few planes that it depends on, then line by line, and the last pass writes
where the result is to be. The adjoint goes the same way back: plane by plane along x and y, then along z and t from
what that left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..backend import in_threads
from ..vectors import INNER
from .frames import Frame
from .layout import Floats, Place

PART = 1 << 15
"""Samples of the finer level that a thread takes at a time, about."""

# The forward passes are plain multiplications and additions in a fixed order: a sample is the same to the last bit in
# every box. Gradients may be reordered.
SUMS = {"contract", "reassoc", "nsz"}


def upsample(
    source: Floats, origin: Place, taps: Floats, halved: Sequence[bool], start: Place, out: Floats, frame: Frame
) -> None:
    """Write the box of a frame that begins at `start` of the finer level.

    Parameters
    ----------
    source : ndarray, shape (4 extents)
        Just what the box depends on, from `origin` on.
    taps : ndarray, shape (4,)
        As `reference.upsample` takes them.
    out : ndarray
        Flat array of the frame.
    """
    axes = tuple(map(bool, halved))

    def work(part: int) -> None:
        begin = part * planes
        _upsample(
            source,
            origin,
            taps,
            axes,
            start,
            out,
            frame.first,
            frame.strides,
            frame.extents,
            begin,
            min(begin + planes, total),
        )

    total = frame.extents[0] * frame.extents[1]
    planes = _planes(frame.extents)
    in_threads(work, range(-(-total // planes)))


def add_adjoint(
    gradient: Floats, frame: Frame, taps: Floats, halved: Sequence[bool], out: Floats, source: Floats | None = None
) -> NDArray[np.float64]:
    """Add the gradient by the coarser level to `out`; returns the gradient by the taps, or zeros without a source.

    Parameters
    ----------
    gradient : ndarray
        Flat array of the frame, which is that of a whole lattice.
    out, source : ndarray, shape (4 extents)
        The coarser level.
    """
    learned, source = source is not None, out if source is None else source
    axes = tuple(map(bool, halved))
    total, planes = frame.extents[0] * frame.extents[1], _planes(frame.extents)
    between = np.empty((*frame.extents[:2], *source.shape[2:]), np.float32)
    of_taps = np.zeros((total, 4), np.float64)

    def along_lines(part: int) -> None:
        begin = part * planes
        _back_along_lines(
            gradient,
            frame.first,
            frame.strides,
            frame.extents,
            source,
            taps,
            axes,
            learned,
            between,
            of_taps,
            begin,
            min(begin + planes, total),
        )

    def along_planes(part: int) -> None:
        begin = part * coarse
        _back_along_planes(between, taps, axes, out, begin, min(begin + coarse, len(out) * out.shape[1]))

    in_threads(along_lines, range(-(-total // planes)))
    coarse = _planes(out.shape)
    in_threads(along_planes, range(-(-(len(out) * out.shape[1]) // coarse)))
    found: NDArray[np.float64] = of_taps.sum(0)
    return found


def _planes(extents: Sequence[int]) -> int:
    return max(1, PART // (extents[2] * extents[3]))


@njit(nogil=True, cache=True, inline="always")
def _seen(place, tap, origin, extent):  # type: ignore[no-untyped-def]
    """Index in the source of a tap of a place of the finer level."""
    return min(max((place >> 1) - 2 + (place & 1) + tap - origin, 0), extent - 1)


@njit(**INNER)
def _copy(out, values):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = values[i]


@njit(**INNER)
def _blend(out, a, b, c, d, wa, wb, wc, wd):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]


@njit(nogil=True, cache=True, inline="always")
def _weights(taps, place):  # type: ignore[no-untyped-def]
    """Taps in the order of their samples."""
    return (taps[0], taps[1], taps[2], taps[3]) if place & 1 == 0 else (taps[3], taps[2], taps[1], taps[0])


@njit(**INNER)
def _blend_rows(out, rows, place, origin, taps):  # type: ignore[no-untyped-def]
    """Blend those of some rows that a place of the finer level sees."""
    n = len(rows)
    w = _weights(taps, place)
    a, b = rows[_seen(place, 0, origin, n)], rows[_seen(place, 1, origin, n)]
    c, d = rows[_seen(place, 2, origin, n)], rows[_seen(place, 3, origin, n)]
    _blend(out, a, b, c, d, w[0], w[1], w[2], w[3])


@njit(nogil=True, cache=True)
def _plane(source, origin, taps, halved, t, z, scratch):  # type: ignore[no-untyped-def]
    """The plane (t, z) of the finer level before its lines are upsampled, flat; `scratch` has 5 of them."""
    planes = source.reshape((source.shape[0], source.shape[1], -1))
    if not halved[0]:
        volume = planes[t - origin[0]]
        if not halved[1]:
            return volume[z - origin[1]]
        _blend_rows(scratch[4], volume, z, origin[1], taps)
        return scratch[4]
    for tap in range(4):
        volume = planes[_seen(t, tap, origin[0], len(planes))]
        if halved[1]:
            _blend_rows(scratch[tap], volume, z, origin[1], taps)
        else:
            scratch[tap] = volume[z - origin[1]]
    w = _weights(taps, t)
    _blend(scratch[4], scratch[0], scratch[1], scratch[2], scratch[3], w[0], w[1], w[2], w[3])
    return scratch[4]


@njit(**INNER)
def _line(line, left, rows, y, origin, taps, halved):  # type: ignore[no-untyped-def]
    """The line y before it is upsampled along x; it begins after `left` samples, and the edges are repeated."""
    middle = line[left : left + rows.shape[1]]
    if halved:
        _blend_rows(middle, rows, y, origin, taps)
    else:
        _copy(middle, rows[y - origin])
    line[:left] = middle[0]
    line[left + rows.shape[1] :] = middle[-1]


@njit(**INNER)
def _double(out, line, taps):  # type: ignore[no-untyped-def]
    """Upsample a line, whose first sample is the first that the even first result sees."""
    f0, f1, f2, f3 = taps[0], taps[1], taps[2], taps[3]
    n = len(out) // 2
    for i in range(n):
        a, b, c = line[i + 1], line[i + 2], line[i + 3]
        out[2 * i] = f0 * line[i] + f1 * a + f2 * b + f3 * c
        out[2 * i + 1] = f3 * a + f2 * b + f1 * c + f0 * line[i + 4]
    if len(out) & 1:
        out[2 * n] = f0 * line[n] + f1 * line[n + 1] + f2 * line[n + 2] + f3 * line[n + 3]


@njit(nogil=True, cache=True)
def _upsample(  # type: ignore[no-untyped-def]
    source, origin, taps, halved, start, out, first, strides, extents, begin, end
):  # fmt: skip
    rows, columns = source.shape[2], source.shape[3]
    x = start[3]
    left = max(0, -((x >> 1) - 2 + (x & 1))) if halved[3] else 0
    line, scratch = np.zeros(columns + 8, np.float32), np.empty((5, rows * columns), np.float32)
    for p in range(begin, end):
        t, z = p // extents[1], p % extents[1]
        at = first + t * strides[0] + z * strides[1]
        plane = _plane(source, origin, taps, halved, start[0] + t, start[1] + z, scratch).reshape((rows, columns))
        _lines(plane, origin, taps, halved, start, out, at, strides[2], extents, left, line)


@njit(**INNER)
def _lines(plane, origin, taps, halved, start, out, at, pitch, extents, left, line):  # type: ignore[no-untyped-def]
    """Those of a plane, from `at` on."""
    x, wide = start[3], extents[3]
    for y in range(extents[2]):
        _line(line, left, plane, start[2] + y, origin[2], taps, halved[2])
        if not halved[3]:
            _copy(out[at : at + wide], line)
        elif x & 1:
            out[at] = taps[3] * line[0] + taps[2] * line[1] + taps[1] * line[2] + taps[0] * line[3]
            _double(out[at + 1 : at + wide], line, taps)
        else:
            _double(out[at : at + wide], line, taps)
        at += pitch


@njit(**INNER, fastmath=SUMS)
def _add(out, values, weight):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] += weight * values[i]


@njit(**INNER, fastmath=SUMS)
def _dot(a, b):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return np.float64(total)


@njit(**INNER)
def _separate(even, odd, line):  # type: ignore[no-untyped-def]
    """Write every second number of a line, after the four zeros that both begin with."""
    half = len(line) // 2
    e, o = even[4:], odd[4:]
    for i in range(half):
        e[i] = line[2 * i]
        o[i] = line[2 * i + 1]
    if len(line) & 1:
        e[half] = line[2 * half]


@njit(**INNER, fastmath=SUMS)
def _taps_of_line(even, odd, line, count, of_taps):  # type: ignore[no-untyped-def]
    """Add what the taps along x get from the gradient of a line."""
    e, o = even[4:], odd[4:]
    s0, s1, s2, s3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    for i in range(count):
        p, q, a, b, c = e[i], o[i], line[i + 1], line[i + 2], line[i + 3]
        s0 += p * line[i] + q * line[i + 4]
        s1 += p * a + q * c
        s2 += p * b + q * b
        s3 += p * c + q * a
    of_taps[0] += s0
    of_taps[1] += s1
    of_taps[2] += s2
    of_taps[3] += s3


@njit(**INNER, fastmath=SUMS)
def _back_along_x(out, even, odd, wide, taps):  # type: ignore[no-untyped-def]
    """Adjoint of `_double` after the repetition of the edges."""
    f0, f1, f2, f3 = taps[0], taps[1], taps[2], taps[3]
    m = len(out)
    for j in range(m + 4):
        wide[j] = (
            f0 * even[j + 4] + f1 * even[j + 3] + f2 * even[j + 2] + f3 * even[j + 1]
            + f3 * odd[j + 3] + f2 * odd[j + 2] + f1 * odd[j + 1] + f0 * odd[j]
        )  # fmt: skip
    wide[2] += wide[0] + wide[1]
    wide[m + 1] += wide[m + 2] + wide[m + 3]
    for i in range(m):
        out[i] = wide[i + 2]


@njit(**INNER)
def _back_along_y(out, gradient, y, taps):  # type: ignore[no-untyped-def]
    """Adjoint of `_blend_rows`."""
    for tap in range(4):
        _add(out[_seen(y, tap, 0, len(out))], gradient, taps[3 - tap if y & 1 else tap])


@njit(**INNER)
def _taps_of_rows(gradient, rows, y, of_taps):  # type: ignore[no-untyped-def]
    """Add what the taps along y get from the gradient of a line; `rows` are what it was blended from."""
    for tap in range(4):
        of_taps[3 - tap if y & 1 else tap] += _dot(gradient, rows[_seen(y, tap, 0, len(rows))])


@njit(**INNER)
def _taps_of_planes(gradient, source, taps, halved, t, z, of_taps):  # type: ignore[no-untyped-def]
    """Add what the taps along t and z get from the gradient of the plane (t, z)."""
    planes = source.reshape((source.shape[0], source.shape[1], -1))
    for a in range(4 if halved[0] else 1):
        volume = planes[_seen(t, a, 0, len(planes))] if halved[0] else planes[t]
        i = 3 - a if t & 1 else a
        for b in range(4 if halved[1] else 1):
            j = 3 - b if z & 1 else b
            found = _dot(gradient, volume[_seen(z, b, 0, len(volume))] if halved[1] else volume[z])
            if halved[0]:
                of_taps[i] += found * (taps[j] if halved[1] else np.float32(1))
            if halved[1]:
                of_taps[j] += found * (taps[i] if halved[0] else np.float32(1))


@njit(nogil=True, cache=True)
def _back_along_lines(  # type: ignore[no-untyped-def]
    gradient, first, strides, extents, source, taps, halved, learned, between, of_taps, begin, end
):  # fmt: skip
    """Adjoint along x and y of planes of the finer level; what the taps get, along t and z too."""
    rows, columns = source.shape[2], source.shape[3]
    line, scratch = np.zeros(columns + 8, np.float32), np.empty((5, rows * columns), np.float32)
    halves = np.zeros((2, columns + 9), np.float32)
    wide, narrow = np.empty(columns + 4, np.float32), np.empty(columns, np.float32)
    for p in range(begin, end):
        t, z = p // extents[1], p % extents[1]
        at = first + t * strides[0] + z * strides[1]
        plane = scratch[4].reshape((rows, columns))
        if learned:
            plane = _plane(source, (0, 0, 0, 0), taps, halved, t, z, scratch).reshape((rows, columns))
        _lines_back(
            gradient, at, strides[2], extents, plane, taps, halved, learned, between[t, z], of_taps[p],
            line, halves[0], halves[1], wide, narrow,
        )  # fmt: skip
        if learned:
            _taps_of_planes(between[t, z].reshape(-1), source, taps, halved, t, z, of_taps[p])


@njit(**INNER)
def _lines_back(  # type: ignore[no-untyped-def]
    gradient, at, pitch, extents, plane, taps, halved, learned, out, of_taps, line, even, odd, wide, narrow
):  # fmt: skip
    """The same along x and y of a plane whose lines begin at `at`."""
    left = 2 if halved[3] else 0
    out[:] = 0
    for y in range(extents[2]):
        found = gradient[at : at + extents[3]]
        at += pitch
        if halved[3]:
            _separate(even, odd, found)
            if learned:
                _line(line, left, plane, y, 0, taps, halved[2])
                _taps_of_line(even, odd, line, plane.shape[1], of_taps)
            _back_along_x(narrow, even, odd, wide, taps)
            found = narrow
        if halved[2]:
            if learned:
                _taps_of_rows(found, plane, y, of_taps)
            _back_along_y(out, found, y, taps)
        else:
            _copy(out[y], found)


@njit(**INNER)
def _weight(fine, coarse, extent, taps, halved):  # type: ignore[no-untyped-def]
    """How much of a place of the finer level goes back to one of the coarser."""
    if not halved:
        return np.float32(1 if fine == coarse else 0)
    total = np.float32(0)
    for tap in range(4):
        if _seen(fine, tap, 0, extent) == coarse:
            total += taps[3 - tap if fine & 1 else tap]
    return total


@njit(**INNER)
def _span(coarse, extent, halved):  # type: ignore[no-untyped-def]
    """Places of the finer level that see one of the coarser."""
    if not halved:
        return coarse, coarse + 1
    return max(0, 2 * coarse - 3), min(extent, 2 * coarse + 5)


@njit(**INNER)
def _back_along_planes(between, taps, halved, out, begin, end):  # type: ignore[no-untyped-def]
    """Adjoint along z and t, a plane of the coarser level at a time."""
    for p in range(begin, end):
        t, z = p // out.shape[1], p % out.shape[1]
        start, stop = _span(t, between.shape[0], halved[0])
        low, high = _span(z, between.shape[1], halved[1])
        plane = out[t, z].reshape(-1)
        for i in range(start, stop):
            along_t = _weight(i, t, out.shape[0], taps, halved[0])
            for j in range(low, high):
                weight = along_t * _weight(j, z, out.shape[1], taps, halved[1])
                if weight != 0:
                    _add(plane, between[i, j].reshape(-1), weight)
