"""Motion of clips: where the samples of every frame lie in still frames, and fits of pyramids whose frames are displaced.

Frames are registered with their neighbours, from the middle one outwards, coarse to fine: at the nodes of a grid a displacement is
corrected by least squares on the samples around it, and held to those of its neighbours where samples say little.

References
----------
Lucas & Kanade 1981 (least squares on image gradients); Horn & Schunck 1981, doi:10.1016/0004-3702(81)90024-2 (neighbours);
Kuglin & Hines 1975 (phase correlation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import REFERENCE, Backend, in_threads
from inrcodec_kernels.pyramid import ALL, Layout, Synthesis, Turn, Workspace, distortion, synthesise
from inrcodec_kernels.registration import Hats, difference, sampled, sums, with_slopes
from inrcodec_kernels.warp import NODE_LIMIT, Field, adjoint, nodes_of, warp

Floats = NDArray[np.float32]

SHIFT = 5
"""Of fields: a node at every 32nd sample. At every 16th, displacements take about twice the bits: 0.6 dB worse on a laparoscopy, alike on another clip."""
_LEVELS, _ROUNDS, _SPACING = 4, 12, 4
"""Halvings of resolution, corrections at each, and a binary logarithm: nodes are at least so many samples of a smaller frame apart."""
_TOGETHER = 5.0
"""Weight of a node's neighbours, in squared gradients of 8-bit samples: little, as bits are saved afterwards (see `displacements`)."""
_LARGEST_STEP = 2.0
"""Samples of a level that a correction moves by at most."""
_OUTLIER = 8.0
"""Difference, in 8-bit samples, from which on a sample counts for less than half."""
_PAIRS, _LESS = 4, 0.7
"""Pairs of neighbours that are looked at, and what must remain of their squared differences at most for motion to be looked for: 0.63 gained, and noise alone leaves more."""
_LEAST_EXTENT, _LEAST_FRAMES = 32, 4
_MOST_STILL = 2.5
"""Samples of a still frame over those of a frame: a fit takes that much longer."""
_SWEEPS, _KNOWN = 3, 0.3
"""Corrections of still frames, where they are to be exact, and the weight from which on a sample of them is known."""


def promises(volume: np.ndarray, backend: Backend = REFERENCE) -> bool:
    """Whether frames, the first axis, differ less once they are displaced: whether it is worth its bits is seen when all are known."""
    count = len(volume)
    if volume.ndim != 3 or count < _LEAST_FRAMES or min(volume.shape[1:]) < _LEAST_EXTENT:
        return False
    plain = moved = 0.0
    for number in np.unique(np.linspace(1, count - 1, _PAIRS).astype(int)).tolist():
        before, after = _eight_bit(volume[number - 1 : number + 1])
        found = _registered(after, before, None, SHIFT, backend)
        plain += float(np.square(after - before).mean())
        moved += difference(after, before, found, SHIFT, backend)
    return moved < _LESS * plain


def sought(volume: np.ndarray, wish: bool | str, backend: Backend = REFERENCE) -> Field | None:
    """Displacements of all frames, exact ones; None where motion is not wished for, cannot be, or, with "auto", promises nothing."""
    return find_motion(volume, backend=backend) if wish is True or (wish == "auto" and promises(volume, backend)) else None


def find_motion(volume: np.ndarray, shift: int = SHIFT, backend: Backend = REFERENCE) -> Field | None:
    """Displacements of all frames against the middle one; None where nothing can move, or still frames would be too large.

    Parameters
    ----------
    volume : ndarray, shape (n, h, w)
    shift : int
        A node is at every 2^shift-th sample.
    backend : Backend
    """
    count, frame = len(volume), volume.shape[1:]
    if min(volume.shape) < 2:
        return None
    grid = tuple(nodes_of(n, shift) for n in frame)
    found, frames = np.zeros((count, 2, *grid), dtype=np.float32), _eight_bit(volume)

    def outwards(way: int) -> None:
        last: Floats | None = None
        for number in range(count // 2 + way, count if way > 0 else -1, way):
            last = _registered(frames[number], frames[number - way], last, shift, backend)
            found[number] = _continued(last, found[number - way], shift)

    in_threads(outwards, [1, -1])
    return field_of(np.rint(8 * found).astype(np.int64), shift, (frame[0], frame[1]))


def field_of(nodes: NDArray[np.int64], shift: int, frame: tuple[int, int]) -> Field | None:
    """A field of displacements in eighths, against whatever place; None where still frames would be too large."""
    # Still frames begin where the first sample of any frame lies.
    corner = nodes.min(axis=(0, 2, 3))
    nodes = nodes - (8 * (corner // 8)).reshape(2, 1, 1)
    still = [n + int(-(-most // 8)) for n, most in zip(frame, nodes.max(axis=(0, 2, 3)), strict=True)]
    if np.prod(still) > _MOST_STILL * np.prod(frame) or nodes.max() >= NODE_LIMIT:
        return None
    return Field(nodes.astype(np.int32), shift, frame, (still[0], still[1]))


def _eight_bit(volume: np.ndarray) -> Floats:
    """Samples over a 256th of their range."""
    low, high = float(volume.min()), float(volume.max())
    return ((volume - np.float32(low)) * np.float32(255 / max(high - low, 1e-9))).astype(np.float32)


def _registered(after: Floats, before: Floats, guess: Floats | None, shift: int, backend: Backend) -> Floats:
    """Displacements m at the nodes, shape (2, K_y, K_x): ``after(p)`` is like ``before(p + m(p))``."""
    still = np.zeros((2, *(nodes_of(n, shift) for n in after.shape)), dtype=np.float32)
    guesses = [still, still + _shift(after, before)[:, None, None], *([] if guess is None else [guess])]

    def rest(nodes: Floats) -> float:
        return difference(after, before, nodes, shift, backend)

    found = min(guesses, key=rest)
    return min(_refined(after, before, found, shift, backend), found, key=rest)


def _shift(after: Floats, before: Floats) -> Floats:
    """The one displacement of a whole frame, by phase correlation."""
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in after.shape))
    spectra = [np.fft.rfft2((frame - frame.mean()) * window) for frame in (after, before)]
    product = spectra[1] * spectra[0].conj()
    peak = np.fft.irfft2(product / (np.abs(product) + 1e-9), after.shape).argmax()
    place = np.unravel_index(peak, after.shape)
    return np.array([p if 2 * p < n else p - n for p, n in zip(place, after.shape, strict=True)], dtype=np.float32)


def _refined(after: Floats, before: Floats, nodes: Floats, shift: int, backend: Backend) -> Floats:
    """Corrected displacements, coarse to fine: smaller frames have as many samples between nodes as larger ones."""
    pyramid, shape = [(after, before)], after.shape
    while len(pyramid) < _LEVELS and min(pyramid[-1][0].shape) >= 2 * _LEAST_EXTENT:
        pyramid.append(tuple(map(_halved, pyramid[-1])))  # type: ignore[arg-type]
    shifts = [max(shift, level + _SPACING) for level in range(len(pyramid))]
    known = shift
    for level in reversed(range(len(pyramid))):
        nodes, known = _on_grid(nodes, shape, known, shifts[level]), shifts[level]
        nodes = _corrected(*pyramid[level], nodes, known, level, backend)
    return nodes


def _on_grid(nodes: Floats, shape: tuple[int, ...], known: int, wanted: int) -> Floats:
    """Displacements at the nodes of another grid."""
    grid = [nodes_of(n, wanted) for n in shape]
    places = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) * 2.0 ** (wanted - known) for n in grid), indexing="ij"))
    return np.asarray(sampled(nodes, places.astype(np.float32)), np.float32)


def _corrected(after: Floats, before: Floats, nodes: Floats, shift: int, level: int, backend: Backend) -> Floats:
    """Displacements corrected by Gauss-Newton steps on frames at half the resolution, `level` times over."""
    scale, known = np.float32(1 << level), with_slopes(before)
    hold = _TOGETHER * Hats(after.shape, nodes.shape[1:], shift - level).summed(np.ones_like(after)) + 1e-3
    for _ in range(_ROUNDS):
        yy, xx, yx, y, x = sums(after, known, nodes / scale, shift - level, _OUTLIER, backend)
        pull = hold * (_neighbours(nodes) - nodes) / scale
        yy, xx, y, x = yy + hold, xx + hold, y + pull[0], x + pull[1]
        step = np.stack([xx * y - yx * x, yy * x - yx * y]) / (yy * xx - yx * yx)
        nodes = (nodes + scale * np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)).astype(np.float32)
    return nodes


def _neighbours(nodes: Floats) -> Floats:
    """Means of the four neighbours of every node; at the edge, it stands for those beyond."""
    padded = np.pad(nodes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around: Floats = (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / np.float32(4)
    return around


def _halved(frame: Floats) -> Floats:
    """Means of 2 x 2 samples; an odd last one is left out."""
    even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
    means: Floats = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / np.float32(4)
    return means


def _continued(step: Floats, nodes: Floats, shift: int) -> Floats:
    """Displacements against the middle frame: those to the neighbour, and the neighbour's where they lead to."""
    at = np.indices(step.shape[1:], dtype=np.float32) + step / np.float32(1 << shift)
    return np.asarray(step + sampled(nodes, at), np.float32)


class Still(NamedTuple):
    """Still frames.

    Attributes
    ----------
    samples : ndarray of float32, shape (n, H, W)
        Where no frame says anything, those of the nearest frame that does.
    known : ndarray of bool
    """

    samples: Floats
    known: NDArray[np.bool_]


def stilled(volume: np.ndarray, field: Field, backend: Backend, sweeps: int = _SWEEPS) -> Still:
    """Still frames whose displacement gives a volume, the more nearly the more sweeps."""
    frames = volume.astype(np.float32)
    weight: Floats = adjoint(np.ones_like(frames), field, backend)
    known, damped = weight > _KNOWN, np.maximum(weight, np.float32(1))
    means = adjoint(frames, field, backend) / np.maximum(weight, _KNOWN)
    still = _filled(means.astype(np.float32), known)
    for _ in range(sweeps):
        still += adjoint(frames - _displaced(still, field, backend), field, backend) / damped
    return Still(still, known)


def inside_of_still(inside: NDArray[np.bool_], field: Field, backend: Backend) -> NDArray[np.bool_]:
    """What of still frames is inside of what most of the frames say is, a mask of all of them; what no frame sees is not."""
    seen, share = (adjoint(each.astype(np.float32), field, backend) for each in (np.ones_like(inside), inside))
    most = np.minimum(np.maximum(seen / 2, _KNOWN), share.max())  # however small a region is, something of it is left
    found: NDArray[np.bool_] = share >= most
    return found


def _filled(still: Floats, known: NDArray[np.bool_]) -> Floats:
    """Fill what is not known from the frame before, else from the one after, else by the mean."""
    found, has = still.copy(), known.copy()
    for order in (range(1, len(still)), range(len(still) - 2, -1, -1)):
        for number in order:
            near = number - order.step
            fill = ~has[number] & has[near]
            found[number][fill], has[number] = found[near][fill], has[number] | fill
    found[~has] = still[known].mean()
    return found


def _displaced(still: Floats, field: Field, backend: Backend) -> Floats:
    return warp(still, (0, 0), field, (0, 0, 0), (len(field.nodes), *field.frame), backend)


@dataclass(frozen=True)
class Displaced:
    """The error of frames that are displaced: what a fit takes in the place of `inrcodec_kernels.pyramid.distortion`."""

    field: Field

    def __call__(
        self,
        latents: list[Any],
        synthesis: Synthesis,
        layout: Layout,
        target: Any,
        backend: Backend,
        weights: Any = None,
        workspace: Workspace | None = None,
        turn: Turn = ALL,
        /,
    ) -> tuple[float, list[Any], Synthesis]:
        """Sum of squared errors of displaced frames, `target` being the frames, times their weights, and its gradients."""
        still = synthesise(latents, synthesis, layout, backend).reshape(len(target), *self.field.still)
        rest = _displaced(still, self.field, backend) - target
        counted = rest if weights is None else rest * weights.reshape(weights.shape[-3:])
        # The gradient of |still - goal|^2 is that of |rest|^2 if the goal is so far off.
        goal = still - adjoint(counted, self.field, backend)
        whole = goal.reshape(layout.shape)
        _, of_latents, of_synthesis = distortion(latents, synthesis, layout, whole, backend, None, workspace, turn)
        return float(np.multiply(rest, counted, dtype=np.float64).sum()), of_latents, of_synthesis
