"""Lattices that are split into bands: a lattice from its bands, and the adjoint, along one axis after the other.

A band lies on the next lattice, and is odd along some of the axes that this one halves. Along an axis two bands, `even` and `odd`,
become one row, where indices are clamped to the lattice and `l`, `h` are `LOW` and `HIGH`:

    out[2i]   = l1 even[i-1] + l2 even[i]   + h0 odd[i-2] + h1 odd[i-1] + h2 odd[i]   + h3 odd[i+1]
    out[2i+1] = l2 even[i]   + l1 even[i+1] - h3 odd[i-1] - h2 odd[i]   - h1 odd[i+1] - h0 odd[i+2]

The filters are about what a fit that may move them finds, from any beginning; `docs/pyramid.md` has what others cost.
Sums are plain multiplications and additions in a fixed order, so a box is the same as that part of the whole, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from ..backend import REFERENCE, Backend, compiled_on_host, in_threads, on_device
from .layout import AXES, CENTRE, Box, Flags, Floats, Layout, Place, needed
from .workspace import Workspace

LOW = (0.0, 0.203125, 0.671875, 0.0)
HIGH = (0.046875, 0.046875, 0.703125, -0.078125)
"""Taps of an even and of an odd band, for the even places of the finer lattice."""
_PART = 1 << 15
"""Numbers that a thread makes at a time, about."""
_EVEN: Flags = (False, False, False, False)


class _Weights(NamedTuple):
    """Which numbers of a row make those of another, and how much each counts; shapes (m, taps)."""

    places: NDArray[np.int64]
    weights: Floats

    @property
    def adjoint(self) -> _Weights:
        """The other way round, of whole rows."""
        count = int(self.places.max()) + 1
        found: list[list[tuple[int, float]]] = [[] for _ in range(count)]
        for place, (sources, weights) in enumerate(zip(self.places.tolist(), self.weights.tolist(), strict=True)):
            for source, weight in zip(sources, weights, strict=True):
                found[source].append((place, weight))
        taps = max(map(len, found))
        places, weights = np.zeros((count, taps), np.int64), np.zeros((count, taps), np.float32)
        for source, seen in enumerate(found):
            places[source, : len(seen)], weights[source, : len(seen)] = zip(*seen, strict=True)
        return _Weights(places, weights)


@lru_cache(maxsize=256)
def _forward(odd: bool, start: int, stop: int, origin: int, extent: int) -> _Weights:
    """From the numbers [origin, ...) of a band's row of an extent to the places [start, stop) of the finer row."""
    place, taps = np.arange(start, stop), HIGH if odd else LOW
    used = [tap for tap in range(4) if any((taps[tap], taps[3 - tap]))]
    second = (place & 1)[:, None]
    index = np.clip((place >> 1)[:, None] - 2 + second + np.array(used), 0, extent - 1) - origin
    mirrored = (-1 if odd else 1) * np.array([taps[3 - tap] for tap in used])
    return _Weights(index, np.where(second, mirrored, [taps[tap] for tap in used]).astype(np.float32))


@lru_cache(maxsize=256)
def _backward(odd: bool, fine: int, extent: int) -> _Weights:
    """The adjoint, of whole rows."""
    return _forward(odd, 0, fine, 0, extent).adjoint


def joined(latents: Sequence[Any], layout: Layout, backend: Backend = REFERENCE, workspace: Workspace | None = None) -> list[Any]:
    """What the lattices of `layout.channels` hold: those that are split from their bands, the others as they are.

    Parameters
    ----------
    latents : sequence of K ndarray or Tensor of float32, shapes `layout.shapes`
    layout : Layout
    backend : Backend
        Tensors, and the backend "reference", are handled by torch, in their dtype and on their device.
    workspace : Workspace, optional
        Holds what is made on the CPU until the next call.
    """
    boxes: list[Box] = [(CENTRE, shape) for shape in layout.channels.shapes]
    return _joined(latents, [CENTRE] * layout.levels, layout, boxes, backend, workspace)


def joined_box(
    latents: Sequence[Any], origins: Sequence[Place], layout: Layout, start: Place, stop: Place, backend: Backend = REFERENCE
) -> tuple[list[Any], list[Place]]:
    """As `joined`, what the samples of a box depend on, with where each array begins; parameters as of `synthesise_box`."""
    boxes = needed(layout.channels, start, stop)
    held = [low for low, _ in boxes[: layout.split]]
    return _joined(latents, origins, layout, boxes, backend, None), [*held, *list(origins)[layout.levels - len(boxes) + layout.split :]]


def _joined(
    latents: Sequence[Any], origins: Sequence[Place], layout: Layout, boxes: Sequence[Box], backend: Backend, workspace: Workspace | None
) -> list[Any]:
    """Boxes of all lattices of `layout.channels`, from parts of the levels that begin at some places."""
    found, at = [], 0
    for number, odd in enumerate(layout.bands):
        parts = dict(zip(odd, latents[at : at + len(odd)], strict=True))
        (start, stop), origin, extents = boxes[number], origins[at], layout.channels.shapes[number + 1]
        for axis in reversed(range(AXES)):
            if not layout.halved[number][axis]:
                low, high = start[axis] - origin[axis], stop[axis] - origin[axis]
                parts = {place: _cut(own, axis, low, high) for place, own in parts.items()}
                continue
            span = start[axis], stop[axis], origin[axis], extents[axis]
            parts = {
                even: _sum([(parts.get(of), _forward(of != even, *span)) for of in (even, _odd(even, axis))], axis, backend, workspace, f"{number} {even}")
                for even in dict.fromkeys(_even(place, axis) for place in parts)
            }
        found.append(parts[_EVEN])
        at += len(odd)
    return [*found, *latents[at:]]


def parted(gradients: Sequence[Any], layout: Layout, backend: Backend = REFERENCE, workspace: Workspace | None = None) -> list[Any]:
    """The adjoint of `joined` of whole lattices; what it gives holds until the next call."""
    found: list[Any] = []
    for number, odd in enumerate(layout.bands):
        parts, extents = {_EVEN: gradients[number]}, layout.channels.shapes[number + 1]
        for axis in range(AXES):
            if layout.halved[number][axis]:
                fine = layout.channels.shapes[number][axis]
                wanted = {_from(place, axis) for place in odd}
                parts = {
                    place: _sum([(own, _backward(place != of, fine, extents[axis]))], axis, backend, workspace, f"by {number} {place} {axis}")
                    for of, own in parts.items() for place in (of, _odd(of, axis)) if _from(place, axis) in wanted
                }  # fmt: skip
        found.extend(parts[place] for place in odd)
    return [*found, *gradients[len(layout.bands) :]]


def _even(place: Flags, axis: int) -> Flags:
    return (*place[:axis], False, *place[axis + 1 :])  # type: ignore[return-value]


def _odd(place: Flags, axis: int) -> Flags:
    return (*place[:axis], True, *place[axis + 1 :])  # type: ignore[return-value]


def _from(place: Flags, axis: int) -> Flags:
    """What a band is until so many axes have been parted."""
    return place[: axis + 1]  # type: ignore[return-value]


def _cut(values: Any, axis: int, start: int, stop: int) -> Any:
    return values[(slice(None),) * axis + (slice(start, stop),)]


def _sum(given: Sequence[tuple[Any, _Weights]], axis: int, backend: Backend, workspace: Workspace | None, name: str) -> Any:
    """Sums of rows along an axis, of what there is."""
    there = [(values, weights) for values, weights in given if values is not None]
    if isinstance(there[0][0], np.ndarray):
        if compiled_on_host(backend) and not on_device(backend):
            return _summed(there, axis, workspace or Workspace(), name)
        return _by_torch([(torch.from_numpy(np.ascontiguousarray(values)), weights) for values, weights in there], axis).numpy()
    return _by_torch(there, axis)


def _by_torch(given: Sequence[tuple[torch.Tensor, _Weights]], axis: int) -> torch.Tensor:
    """The definition."""
    total: Any = None
    for values, (index, weight) in given:
        places = torch.from_numpy(index).to(values.device)
        # Decoded latents are whole numbers.
        kind = values.dtype if values.is_floating_point() else torch.float32
        weights = torch.from_numpy(weight).to(values.device, kind).reshape(len(index), -1, *[1] * (AXES - 1 - axis))
        for tap in range(index.shape[1]):
            part = weights[:, tap] * values.index_select(axis, places[:, tap])
            total = part if total is None else total + part
    return total


def _summed(given: Sequence[tuple[Floats, _Weights]], axis: int, workspace: Workspace, name: str) -> Floats:
    """In compiled loops."""
    sources = [np.ascontiguousarray(values, np.float32) for values, _ in given]
    shape = (*sources[0].shape[:axis], len(given[0][1].places), *sources[0].shape[axis + 1 :])
    out = workspace.kept(f"bands {name} {axis}", int(np.prod(shape))).reshape(shape)
    before, count, behind = int(np.prod(shape[:axis])), shape[axis], int(np.prod(shape[axis + 1 :]))
    rows = out.reshape(before, count, behind)
    for number, (values, (_, (index, weight))) in enumerate(zip(sources, given, strict=True)):
        source = values.reshape(before, -1, behind)
        if behind == 1:
            _run(_along, source[..., 0], index, weight, rows[..., 0], number > 0, before, count)
        else:
            _run(_across, source, index, weight, rows, number > 0, before * count, behind)
    return out


def _run(loop: Any, source: Floats, index: NDArray[np.int64], weight: Floats, out: Floats, more: bool, total: int, size: int) -> None:
    """Share out so many rows of a size."""
    part = max(1, _PART // size)
    in_threads(lambda n: loop(source, index, weight, out, more, n * part, min((n + 1) * part, total)), range(-(-total // part)))


@njit(nogil=True, cache=True)
def _across(source, index, weight, out, more, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end) of those that lie along further axes."""
    count, taps = index.shape
    for row in range(begin, end):
        a, place = row // count, row % count
        target = out[a, place]
        for tap in range(taps):
            seen, w = source[a, index[place, tap]], weight[place, tap]
            if tap or more:
                for b in range(len(target)):
                    target[b] += w * seen[b]
            else:
                for b in range(len(target)):
                    target[b] = w * seen[b]


@njit(nogil=True, cache=True)
def _along(source, index, weight, out, more, begin, end):  # type: ignore[no-untyped-def]
    """Rows [begin, end), each along the axis itself."""
    count, taps = index.shape
    for row in range(begin, end):
        target, seen = out[row], source[row]
        for place in range(count):
            total = target[place] if more else np.float32(0)
            for tap in range(taps):
                total += weight[place, tap] * seen[index[place, tap]]
            target[place] = total
