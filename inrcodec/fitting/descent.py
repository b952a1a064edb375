"""Gradient descent on the shared segments; readouts are eliminated by least squares at every step.

The loss of a block with whitened coefficients c is its expected rate-distortion cost in units of t = theta^2::

    loss = |x - Q c|^2 / t + sum_i log(1 + c_i^2 / t)

Small coefficients cost their energy (they will be dropped), large ones the logarithm of their size (the bits they
will take): reverse water-filling, with theta tied to the quantisation step. So the rate is in the loss from the first
step, and segments learn features that make readouts few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.chains import moments, suited

from ..coding.parameters import QuantisedTensor
from ..models.readout import factor_of, sample_points
from ..models.tinc import TincLayout, TincModel
from ..partition.blocks import gather

THETA = 0.5
"""theta in quantisation steps."""
BLOCKS = 96
"""Blocks in a step's mini-batch."""
POINTS = 1024
"""Samples drawn from each block in a step."""
LEARNING_RATE = 5e-3
"""Of Adam. With w0 folded into the weights, published rates (1e-4 at w0 = 30) become about 3e-3."""
TRAINING_RIDGE = 1e-5
"""Firmer than the decoder's: gradients pass through the Cholesky factor."""
PATIENCE, PROGRESS = 5, 2e-4
"""Stop when the smoothed loss has fallen by less than PROGRESS (relative) over 1/PATIENCE of the steps."""

Note = Callable[[float, str], None]


@dataclass(frozen=True)
class TrainingCells:
    """Cells to fit to: leaves of a provisional tree.

    Attributes
    ----------
    level : ndarray of int64, shape (B,)
    index : ndarray of int64, shape (B, d)
    """

    level: NDArray[np.int64]
    index: NDArray[np.int64]


class SegmentFit:
    """Fits the parameters of a network's segments to the blocks of a volume.

    Parameters
    ----------
    layout : TincLayout
    volume : ndarray, shape `layout.shape`
    offset : float
        Taken off the samples.
    cells : TrainingCells
    step : float
        Quantisation step that the readouts will have.
    seed : int
    backend : Backend
        What evaluates networks and their derivatives, where it is suited.
    """

    def __init__(
        self, layout: TincLayout, volume: np.ndarray, offset: float, cells: TrainingCells, step: float, seed: int,
        backend: Backend = REFERENCE,
    ) -> None:  # fmt: skip
        self.layout, self.volume, self.offset, self.cells = layout, volume, offset, cells
        self.threshold = (THETA * step) ** 2
        self.seed = seed
        self.backend = suited(backend, layout.ndim, layout.widths or layout.hidden)
        self._levels = np.unique(cells.level)
        samples = [int((cells.level == v).sum()) * math.prod(layout.cells[v]) for v in self._levels]
        self._chances = np.array(samples) / sum(samples)

    def loss(self, model: TincModel, random: np.random.Generator) -> Tensor:
        """Loss per sample of a random mini-batch of one level's cells."""
        level = int(random.choice(self._levels, p=self._chances))
        members = np.flatnonzero(self.cells.level == level)
        picked = members[random.integers(len(members), size=min(BLOCKS, len(members)))]
        index = self.cells.index[picked]
        cell = self.layout.cells[level]
        samples = torch.from_numpy(gather(self.volume, index * np.asarray(cell), cell)) - self.offset
        points = sample_points(cell)
        chosen = self._draw_points(level, len(points), random)
        drawn = samples[:, chosen] * math.sqrt(len(points) / len(chosen))
        coefficients = self._coefficients(model, level, index, points[chosen], drawn)
        outside = ((drawn.double() ** 2).sum(1) - (coefficients**2).sum(1)).clamp(min=0)
        cost = outside / self.threshold + torch.log1p(coefficients**2 / self.threshold).sum(1)
        return cost.mean() / len(points)

    def _coefficients(
        self, model: TincModel, level: int, index: NDArray[np.int64], points: Tensor, drawn: Tensor
    ) -> Tensor:
        """Best whitened readouts (B, W) of blocks' samples (B, N) at points (N, d): ``L^-1 F^T x``, float64."""
        layers = model.chains(level, index, self.backend.device)
        # Chains of their own have one target each, a shared one has all.
        targets = drawn.unsqueeze(0 if self.layout.shared else 1).to(self.backend.device)
        gram, products = moments(layers, points.to(self.backend.device), targets, self.backend)
        width = len(self.layout.lattice(level))
        factor = factor_of(gram[:, :width, :width], TRAINING_RIDGE)
        solved = torch.linalg.solve_triangular(factor, products[:, :, :width].mT, upper=False)
        return solved.mT.flatten(0, 1).cpu()

    def _draw_points(self, level: int, count: int, random: np.random.Generator) -> Tensor:
        least = 2 * len(self.layout.lattice(level))
        if count <= max(POINTS, least):
            return torch.arange(count)
        return torch.from_numpy(np.sort(random.permutation(count)[: max(POINTS, least)]))

    def run(self, steps: int, starts: int, note: Note, bandwidth: float = 6.0) -> TincModel:
        """Fit: several random starts for the first 5 % of the steps, the best one for the rest.

        Adam with a cosine schedule; in the last third the parameters carry the noise of their quantisation.
        """
        random = np.random.default_rng(self.seed)
        trial_steps = max(1, steps // 20)
        best: tuple[float, TincModel] | None = None
        for start in range(starts):
            model = TincModel.initial(self.layout, seed=self.seed + start, bandwidth=bandwidth)
            # Every start sees the same batches, or the draw of the batches would decide.
            same = np.random.default_rng(self.seed)
            losses = self._descend(model, trial_steps, trial_steps, same, lambda f, t: None, noisy=False)
            score = float(np.mean(losses[-max(1, len(losses) // 3) :]))
            if best is None or score < best[0]:
                best = score, model
        assert best is not None
        self._descend(best[1], steps, steps, random, note, noisy=True)
        return best[1]

    def _descend(
        self, model: TincModel, steps: int, horizon: int, random: np.random.Generator, note: Note, *, noisy: bool
    ) -> list[float]:
        for parameter in model.parameters.values():
            parameter.requires_grad_(True)
        optimiser = torch.optim.Adam(model.parameters.values(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, horizon)
        losses: list[float] = []
        for step in range(steps):
            noise = noisy and step > 2 * steps // 3
            loss = self.loss(_with_noise(model, random) if noise else model, random)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            if step % 5 == 0 or step + 1 == steps:
                note((step + 1) / steps, f"cost {np.mean(losses[-20:]):.4f} a voxel")
            if noisy and _stalled(losses, steps):
                break
        for parameter in model.parameters.values():
            parameter.requires_grad_(False)
        return losses


def quantised_parameters(model: TincModel) -> dict[str, QuantisedTensor]:
    """Round each tensor to the step that its fit was made robust to; see `tensor_exponent`."""
    return {
        name: QuantisedTensor.of(p.detach().numpy(), tensor_exponent(p.detach().numpy()))
        for name, p in model.parameters.items()
    }


def tensor_exponent(tensor: np.ndarray) -> int:
    """Exponent of a tensor's step: about 1/32 of its RMS, i.e. some 7 bits a weight, never coarser than 1/16."""
    rms = float(np.sqrt(np.mean(np.square(tensor, dtype=np.float64)))) or 1.0
    return int(np.clip(math.floor(math.log2(rms / 32)), -12, -4))


def _with_noise(model: TincModel, random: np.random.Generator) -> TincModel:
    noisy = {}
    for name, parameter in model.parameters.items():
        step = 2.0 ** tensor_exponent(parameter.detach().numpy())
        uniform = random.random(tuple(parameter.shape), dtype=np.float32) - 0.5
        noisy[name] = parameter + torch.from_numpy(uniform) * step
    return model.with_parameters(noisy)


def _stalled(losses: list[float], steps: int) -> bool:
    window = max(10, steps // PATIENCE)
    if len(losses) < 2 * window:
        return False
    before, after = np.mean(losses[-2 * window : -window]), np.mean(losses[-window:])
    return bool(before - after <= PROGRESS * abs(before))
