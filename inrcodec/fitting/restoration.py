"""Fitting the restoration network of one volume, and deciding whether it is worth its bytes.

The network is trained on the volume that it will correct: there is no data to generalise to, only boxes of the same
volume that were not read. The loss is the mean squared error over the volume, so boxes lie evenly over it and each
counts once an epoch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrcodec_kernels.backend import Backend

from ..coding.parameters import QuantisedTensor, write_parameters
from ..models.restoration import (
    LARGEST_PARAMETER,
    REFERENCE,
    Read,
    Restoration,
    RestorationLayout,
    padded_box,
    unit_of,
)
from .soap import Soap

TRAINING_VOXELS, HELD_OUT_VOXELS = 3_500_000, 1_000_000
"""Most samples read for training and for measuring the gain."""
BOX, TILE = 24**3, 24**3
"""Samples of a box that is read, and of a tile of it that is trained on. Boxes of 40^3 are quicker to read, but a million samples in so few of
them measure the gain three times less sharply."""
LEAST_BOXES = 16
"""Small volumes are cut in at least so many boxes, or none could be held out."""
HELD_OUT_EVERY = 5
BATCH = 3
"""Tiles in a step's mini-batch."""
LEARNING_RATES = {"first": 1e-2, "biases": 3e-2, "middle": 3e-2, "last": 3e-3}
"""Largest of the schedule. Adam with one rate of 1e-2 needs three times the steps for the same gain."""
WARM_PART = 0.3
"""First part of the steps, in which the learning rates rise."""
ASTRAY = 1e12
"""Squared error in the network's units that a fit is given up at: its gain, measured as any other's, will not pay."""
NOISY_PART = 0.3
"""Last part of the steps, in which the parameters carry the noise of their quantisation."""
FINENESS = 4
"""Steps of a tensor's quantisation to its RMS, at least: some 5 bits a weight. Twice as many gain 0.01 dB and take a sixth more."""
PRICE = 5.0
"""Decibels that a doubling of the bytes buys otherwise: the codec's rate-distortion slope is 3 to 5."""
OVERHEAD = 15
"""Bytes of the section besides its parameters: version, width, and its entry in the container."""

Note = Callable[[float, str], None]


@dataclass(frozen=True)
class Pairs:
    """Decoded boxes and what they should have been.

    Attributes
    ----------
    decoded : list of ndarray of float32
        With the ring around each box.
    original : list of ndarray
        Without ring.
    counted : list of ndarray of bool
        Where errors count, without ring.
    """

    decoded: list[np.ndarray]
    original: list[np.ndarray]
    counted: list[np.ndarray]


@dataclass(frozen=True)
class RestorationChoice:
    """A network that is worth its bytes.

    Attributes
    ----------
    layout : RestorationLayout
    parameters : dict of str to QuantisedTensor
    gain_db : float
        Measured on boxes that were not trained on.
    size : int
        Bytes of its section.
    """

    layout: RestorationLayout
    parameters: dict[str, QuantisedTensor]
    gain_db: float
    size: int

    @property
    def model(self) -> Restoration:
        """The network as the decoder will have it."""
        return restored_model(self.layout, self.parameters)


class BoxPlan:
    """Boxes of a volume, in an order whose every beginning lies evenly over it.

    Parameters
    ----------
    shape : tuple of int
        Of the volume.
    layout : RestorationLayout
    """

    def __init__(self, shape: tuple[int, ...], layout: RestorationLayout) -> None:
        self.shape, self.layout = shape, layout
        size = max(1, min(BOX, math.prod(shape) // LEAST_BOXES))
        edges = _box_edges(shape, layout.radius, size)
        self._cuts = [
            np.linspace(0, n, math.ceil(n / e) + 1).astype(np.int64) for n, e in zip(shape, edges, strict=True)
        ]

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of boxes along each axis."""
        return tuple(len(c) - 1 for c in self._cuts)

    def boxes(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Start and stop of each box, all of them, each once."""
        for place in _spread(self.grid, seed):
            start = np.array([c[p] for c, p in zip(self._cuts, place, strict=True)])
            yield start, np.array([c[p + 1] for c, p in zip(self._cuts, place, strict=True)])


def read_pairs(
    read: Read, volume: np.ndarray, layout: RestorationLayout, seed: int, inside: np.ndarray | None = None
) -> tuple[Pairs, Pairs]:
    """Read a bounded number of boxes, to train on and to hold out.

    Parameters
    ----------
    read : callable
        ``read(start, stop)``: decoded float32 samples of a box of the volume.
    volume : ndarray
        The original samples.
    layout : RestorationLayout
    seed : int
    inside : ndarray of bool, shape of the volume, optional
        Boxes without any of it are not read, and only it counts.

    Returns
    -------
    training, held_out : Pairs
        Boxes that do not overlap; a volume of a single sample leaves nothing to hold out.
    """
    parts = (Pairs([], [], []), Pairs([], [], []))
    room = [TRAINING_VOXELS, HELD_OUT_VOXELS]
    for number, (start, stop) in enumerate(_boxes_of_interest(BoxPlan(volume.shape, layout), seed, inside)):
        part = int(number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 or number == 1)
        voxels = int(np.prod(stop - start))
        if max(room) < voxels:
            break
        if room[part] >= voxels:
            room[part] -= voxels
            box = tuple(map(slice, start, stop))
            parts[part].decoded.append(padded_box(read, start, stop, volume.shape, layout.radius))
            parts[part].original.append(volume[box])
            parts[part].counted.append(np.ones(volume[box].shape, bool) if inside is None else inside[box])
    return parts


def _boxes_of_interest(plan: BoxPlan, seed: int, inside: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start, stop in plan.boxes(seed):
        if inside is None or inside[tuple(map(slice, start, stop))].any():
            yield start, stop


def fit_pairs(
    pairs: Pairs,
    step: float,
    layout: RestorationLayout,
    steps: int,
    seed: int,
    note: Note,
    backend: Backend = REFERENCE,
) -> dict[str, QuantisedTensor]:
    """Fit a network to boxes of a decoded volume.

    Parameters
    ----------
    pairs : Pairs
        What to train on, see `read_pairs`.
    step : float
        Quantisation step, in the units of the samples.
    layout : RestorationLayout
    steps, seed : int
    note : callable
        ``note(fraction, text)``, for progress.
    backend : Backend

    Returns
    -------
    dict of str to QuantisedTensor
        Rounded parameters, of `layout.shapes`.
    """
    samples, residual = _tiles(pairs, step, layout)
    model = Restoration.initial(layout, seed)
    _descend(model, samples, residual, steps, seed, note, backend)
    return quantised_parameters(model)


def gain_db(
    model: Restoration, pairs: Pairs, step: float, low: int, high: int, backend: Backend = REFERENCE
) -> float:
    """Gain in PSNR by the correction, rounded and clipped as the decoder does.

    Parameters
    ----------
    model : Restoration
        With its quantised parameters.
    pairs : Pairs
        Boxes held out from its training.
    step : float
        Quantisation step, in the units of the samples.
    low, high : int
        Range that decoded samples are clipped to.
    backend : Backend

    Returns
    -------
    float
        Decibels; 0 without boxes or where there is no error to correct.
    """
    before = after = 0.0
    for decoded, original, counted in zip(pairs.decoded, pairs.original, pairs.counted, strict=True):
        exact = original.astype(np.float64)
        before += _squared_error(model.layout.inner(decoded), exact, counted, low, high)
        after += _squared_error(model.correct(decoded, step, backend), exact, counted, low, high)
    return 10 * math.log10(before / max(after, 1e-12 * before)) if before > 0 else 0.0


def choose_restoration(
    read: Read,
    volume: np.ndarray,
    step: float,
    *,
    low: int,
    high: int,
    stream_bytes: int,
    steps: int,
    seed: int,
    backend: Backend = REFERENCE,
    inside: np.ndarray | None = None,
    note: Note = lambda fraction, text: None,
) -> RestorationChoice | None:
    """The network that gains most beyond what its bytes would buy otherwise, or None if none does.

    Parameters
    ----------
    read : callable
        ``read(start, stop)``: decoded float32 samples of a box of the volume.
    volume : ndarray
        The original samples.
    step : float
        Quantisation step, in the units of the samples.
    low, high : int
        Range that decoded samples are clipped to.
    stream_bytes : int
        Size of the stream without the network.
    steps, seed : int
    backend : Backend
    inside : ndarray of bool, shape of the volume, optional
        Only boxes with some of it are trained on, and only it is measured.
    note : callable
        ``note(fraction, text)``, for progress.
    """
    best: tuple[float, RestorationChoice] | None = None
    widths = widths_to_try(stream_bytes)
    layouts = [RestorationLayout(width, volume.ndim) for width in widths]
    training, held_out = read_pairs(read, volume, layouts[0], seed, inside)
    for number, layout in enumerate(layouts):

        def part(fraction: float, text: str, number: int = number) -> None:
            note((number + fraction) / len(layouts), text)

        parameters = fit_pairs(training, step, layout, steps, seed, part, backend)
        size = OVERHEAD + len(write_parameters(list(parameters.values())))
        gain = gain_db(restored_model(layout, parameters), held_out, step, low, high, backend)
        surplus = gain - price_db(size, stream_bytes)
        if surplus > 0 and (best is None or surplus > best[0]):
            best = surplus, RestorationChoice(layout, parameters, gain, size)
    return None if best is None else best[1]


def price_db(size: int, stream_bytes: int) -> float:
    """Decibels that `size` bytes more would buy a stream otherwise, by its rate-distortion slope."""
    return PRICE * math.log2(1 + size / max(1, stream_bytes))


def widths_to_try(stream_bytes: int) -> tuple[int, ...]:
    """Widths whose networks can be worth their bytes in a stream of this size."""
    if stream_bytes > 100_000:
        return (16,)
    return (8, 16) if stream_bytes > 20_000 else (4, 8)


def quantised_parameters(model: Restoration) -> dict[str, QuantisedTensor]:
    """Round each tensor to its step; what a fit that went astray left is brought within the decoder's limits."""
    sound = {
        name: torch.nan_to_num(p).clamp(-LARGEST_PARAMETER, LARGEST_PARAMETER) for name, p in model.parameters.items()
    }
    return {name: QuantisedTensor.of(p.numpy(), tensor_exponent(p)) for name, p in sound.items()}


def restored_model(layout: RestorationLayout, parameters: dict[str, QuantisedTensor]) -> Restoration:
    """The network of quantised parameters."""
    return Restoration(layout, {name: torch.from_numpy(t.dequantised()) for name, t in parameters.items()})


def tensor_exponent(tensor: Tensor) -> int:
    """Exponent of a tensor's quantisation step: 1/8 to 1/4 of its RMS."""
    rms = float(tensor.detach().double().square().mean().sqrt())
    if not 0 < rms < math.inf:
        return 0
    return int(np.clip(math.floor(math.log2(rms / FINENESS)), -20, 2))


def _descend(
    model: Restoration, samples: Tensor, residual: Tensor, steps: int, seed: int, note: Note, backend: Backend
) -> None:
    """SOAP with one cycle of learning rates; the same seed gives the same steps."""
    random = torch.Generator().manual_seed(seed)
    # One matrix a tensor, of the same memory: its first axis by all others.
    leaves = {name: p.reshape(1, len(p), -1) for name, p in model.parameters.items()}
    optimisers = {name: Soap([leaf], momentum=0.9) for name, leaf in leaves.items()}
    losses: list[float] = []
    for step, picked in zip(range(steps), _batches(len(samples), random), strict=False):
        network = _with_noise(model, random) if step >= (1 - NOISY_PART) * steps else model
        loss, gradients = network.loss_and_gradients(samples[picked], residual[picked], backend)
        if not loss < ASTRAY:
            break
        for name, optimiser in optimisers.items():
            leaves[name].grad = gradients[name].reshape(leaves[name].shape)
            optimiser.step(LEARNING_RATES[name] * _cycle((step + 1) / steps))
        losses.append(loss)
        if step % 20 == 0 or step + 1 == steps:
            note((step + 1) / steps, f"error {np.mean(losses[-20:]):.4f}")


def _cycle(fraction: float) -> float:
    """Learning rate over its largest after a part of the steps: up along a cosine, then down to zero along another."""
    if fraction < WARM_PART:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * fraction / WARM_PART)) / 2
    return (1 + math.cos(math.pi * (fraction - WARM_PART) / (1 - WARM_PART))) / 2


def _with_noise(model: Restoration, random: torch.Generator) -> Restoration:
    noisy = {
        name: p + (torch.rand(p.shape, generator=random) - 0.5) * 2.0 ** tensor_exponent(p)
        for name, p in model.parameters.items()
    }
    return Restoration(model.layout, noisy)


def _batches(count: int, random: torch.Generator) -> Iterator[Tensor]:
    """Numbers of the tiles of each step, without end; every tile comes once before any comes again."""
    left = torch.empty(0, dtype=torch.int64)
    while True:
        while len(left) < min(BATCH, count):
            left = torch.cat([left, torch.randperm(count, generator=random)])
        yield left[: min(BATCH, count)]
        left = left[min(BATCH, count) :]


def _tiles(pairs: Pairs, step: float, layout: RestorationLayout) -> tuple[Tensor, Tensor]:
    """Decoded tiles with ring (T, ...) and their residuals (T, ...) in the network's units, all of one size."""
    unit = unit_of(step)
    least = tuple(min(b.shape[axis] for b in pairs.original) for axis in range(layout.ndim))
    edges = tuple(min(n, e) for n, e in zip(least, _box_edges(least, layout.radius, TILE), strict=True))
    samples, residual = [], []
    for number, (decoded, original, counted) in enumerate(zip(pairs.decoded, pairs.original, pairs.counted, strict=True)):
        # What does not count is left as it is; it errs by so much that a network would learn little else.
        missing = (original - layout.inner(decoded)) * counted
        for corner in itertools.product(*(_evenly(n, e, number) for n, e in zip(original.shape, edges, strict=True))):
            core = tuple(slice(c, c + e) for c, e in zip(corner, edges, strict=True))
            around = tuple(slice(c, c + e + 2 * r) for c, e, r in zip(corner, edges, layout.radius, strict=True))
            samples.append(layout.batched(decoded[around], unit))
            residual.append(layout.batched(missing[core], unit))
    return torch.cat(samples), torch.cat(residual)


def _evenly(extent: int, edge: int, turn: int) -> list[int]:
    """First samples of the windows of `edge` on an axis; up to an eighth of one is left out, at either end in turn.

    Boxes of one volume differ by a sample, and a second window for it would count the others twice.
    """
    count = max(1, math.ceil((extent - edge // 8) / edge))
    if count * edge <= extent:
        return [number * edge + (extent - count * edge) * (turn % 2) for number in range(count)]
    return np.linspace(0, extent - edge, count).astype(np.int64).tolist()


def _box_edges(shape: tuple[int, ...], radius: tuple[int, ...], size: int) -> tuple[int, ...]:
    """Edges of a box of about `size` samples: one along axes without ring, else as nearly equal as the shape lets them be."""
    edges = [1] * len(shape)
    open_axes = [a for a, r in enumerate(radius) if r]
    left = float(size)
    for number, axis in enumerate(sorted(open_axes, key=lambda a: shape[a])):
        edges[axis] = min(shape[axis], max(1, round(left ** (1 / (len(open_axes) - number)))))
        left = max(1.0, left / edges[axis])
    return tuple(edges)


def _spread(grid: tuple[int, ...], seed: int) -> Iterator[tuple[int, ...]]:
    """Every cell of a grid once: first along an additive recurrence of low discrepancy, then those it left out, shuffled.

    References
    ----------
    Roberts 2018, "The unreasonable effectiveness of quasirandom sequences".
    """
    random = np.random.default_rng(seed)
    ratio = 2.0
    for _ in range(64):
        ratio = (1 + ratio) ** (1 / (len(grid) + 1))
    advance = ratio ** -np.arange(1.0, len(grid) + 1)
    shift = random.random(len(grid))
    seen = set()
    for number in range(min(4096, 4 * math.prod(grid))):
        place = tuple(((shift + number * advance) % 1.0 * grid).astype(np.int64).tolist())
        if place not in seen:
            seen.add(place)
            yield place
    for flat in random.permutation(math.prod(grid)):
        place = tuple(int(p) for p in np.unravel_index(flat, grid))
        if place not in seen:
            yield place


def _squared_error(samples: np.ndarray, exact: np.ndarray, counted: np.ndarray, low: int, high: int) -> float:
    rounded = np.clip(np.rint(samples), low, high).astype(np.float64)
    return float(np.square(rounded - exact).sum(where=counted))
