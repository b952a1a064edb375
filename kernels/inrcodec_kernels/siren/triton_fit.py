"""Fits by SOAP on a CUDA device: samples, gradients and all state stay there, and a step is one launch where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import in_halves
from ..recorded import replayable
from . import triton
from .reference import Note, Quantiser, Samples, smoothing
from .soap import Soap

_WARM = 2
"""Steps before a graph is made of one: whatever is compiled or set up at first use must be there."""
_NOTED = 20
"""Steps between notes, which wait for the device."""


def fit(
    weights: list[Tensor],
    samples: Samples,
    points: int,
    rates: NDArray[np.float32],
    note: Note,
    quantiser: Quantiser | None = None,
    device: str = "cuda",
) -> NDArray[np.float64]:
    """As `siren.fit`: all blocks together, or half by half where the device has not the memory for all of them."""
    loss = np.ones(len(samples.begin))

    def work(begin: int, end: int) -> None:
        def part(fraction: float, mean: float) -> None:
            note((begin + fraction * (end - begin)) / len(loss), mean)

        mine = None if quantiser is None else Quantiser(*(array[begin:end] for array in quantiser))
        descent = _Descent([w[begin:end] for w in weights], _part(samples, begin, end), points, rates, mine, device)
        loss[begin:end] = descent.run(part)
        for weight, found in zip(weights, descent.weights, strict=True):
            weight[begin:end].copy_(found)

    if len(loss) and len(rates):
        in_halves(work, 0, len(loss))
    return loss


def _part(samples: Samples, begin: int, end: int) -> Samples:
    """Some blocks and no more values than theirs."""
    here = slice(begin, end)
    first, box = samples.begin[here], samples.box[here]
    low, high = first.min(), (first + box.prod(axis=1)).max()
    shift, unit, key = samples.shift[here], samples.unit[here], samples.key[here]
    return Samples(samples.values[low:high], first - low, box, shift, unit, key)


class _Descent:
    """A fit on the device.

    Everything that a step reads lies where it lay in the step before, the step's number included, so that a recorded
    step can be replayed.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        samples: Samples,
        points: int,
        rates: NDArray[np.float32],
        quantiser: Quantiser | None,
        device: str,
    ) -> None:
        self.points, self.steps, self.device = points, len(rates), torch.device(device)
        self.weights = [w.detach().to(self.device, copy=True) for w in weights]
        self.widths = [w.shape[-1] for w in weights[:-1]]
        self.soap = Soap(self.weights, orthonormal=triton.orthonormal)
        self.voxels = triton.Voxels(
            self._up(samples.values, np.float32), self._up(samples.begin, np.int64), self._up(samples.box, np.int32),
            self._up(samples.shift, np.float32), self._up(samples.unit, np.float32),
        )  # fmt: skip
        self.key = self._up(samples.key.view(np.int32), np.int32)
        self.quantiser = None if quantiser is None else _QuantiserThere(quantiser, self.weights, self.device)
        self.schedule = self._up(_schedule(rates, self.soap), np.float32)
        self.number = torch.zeros(1, dtype=torch.int32, device=self.device)
        self.smooth = torch.ones(len(samples.begin), device=self.device)

    def _up(self, array: NDArray[np.generic], dtype: type) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype)).to(self.device)

    @torch.no_grad()
    def run(self, note: Note) -> NDArray[np.float64]:
        """All steps; returns the smoothed loss."""
        advance: Callable[[], None] = self._step
        for step in range(self.steps):
            if step == 0:
                self._differentiate()
                self.soap.look()
            else:
                if step == _WARM:
                    advance = replayable(self._step, self.device)
                advance()
                if (step + 1) % self.soap.every == 0:
                    self.soap.turn()
            if step % _NOTED == 0:
                note((step + 1) / self.steps, float(self.smooth.mean()))
        return self.smooth.double().cpu().numpy()

    def _step(self) -> None:
        rate, of_mean, of_square, _ = self._differentiate()
        self.soap.move(rate, of_mean, of_square)

    def _differentiate(self) -> tuple[Tensor, ...]:
        """Gradients of the step's samples, and the step's line of the schedule."""
        now = self.schedule.index_select(0, self.number)[0].unbind()
        x, targets = triton.draw(self.voxels, self.key, self.number, self.points)
        seen = self.weights
        if self.quantiser is not None:
            seen = self.quantiser.disturbed(self.weights, self.widths, x.shape[-1], self.key, self.number)
        errors, gradients = triton.loss_and_gradients(seen, x, targets)
        if self.quantiser is not None:
            gradients = self.quantiser.priced(self.weights, gradients)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        self.smooth.lerp_(errors, now[3])
        self.number += 1
        return now


class _QuantiserThere:
    """What quantisation does to weights on the device."""

    def __init__(self, quantiser: Quantiser, weights: Sequence[Tensor], device: torch.device) -> None:
        self._noise, price, start = (torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in quantiser)
        self._start = start.view_as(weights[0])
        # Without a price there may be no noise, and no slope.
        self._scale = torch.where(price > 0, self._noise, 1.0)[:, :, None, None]
        self._slope = (price / math.log(2))[:, :, None, None]

    def disturbed(
        self, weights: Sequence[Tensor], widths: Sequence[int], axes: int, key: Tensor, step: Tensor
    ) -> list[Tensor]:
        """Weights with the step's noise."""
        packed = torch.cat([w.flatten(1) for w in weights], dim=1)
        parts = triton.disturbed(packed, widths, axes, self._noise, key, step)
        return [p.reshape(w.shape) for p, w in zip(parts.split([w[0].numel() for w in weights], 1), weights, strict=True)]

    def priced(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """Gradients plus those of what the weights' bits cost."""
        found = []
        for layer, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            moved = weight - self._start if layer == 0 else weight
            found.append(gradient + self._slope[:, layer] * moved.sign() / (self._scale[:, layer] + moved.abs()))
        return found


def _schedule(rates: NDArray[np.float32], soap: Soap) -> NDArray[np.float64]:
    """For each step the rate, SOAP's two corrections and the share of its error in the smoothed loss."""
    lines = [(rate, *soap.corrections(max(step + 1, 2)), smoothing(step)) for step, rate in enumerate(rates.tolist())]
    return np.array(lines)
