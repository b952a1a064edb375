"""The network that corrects decoded samples: its layout, its parameters, and how boxes are read for it.

Everything is in units of the quantisation step, so that the strength of the correction follows the quantiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.restoration import Parameters, loss_and_gradients, restore

UNITS = 3.0
"""The network's unit is the quantisation step over this: what quantising leaves of samples is then of order 1."""
LEAST_STEP = 2.0**-32
"""Smaller steps count as this one, so that no stored step makes samples overflow."""
LARGEST_PARAMETER = 1024.0
"""Limit of every parameter's magnitude: with it, samples of 32 bits give finite results whatever the parameters and step."""

Read = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``read(start, stop)``: float32 samples of the box [start, stop), which lies in the signal."""


@dataclass(frozen=True)
class RestorationLayout:
    """Sizes of a restoration network.

    Attributes
    ----------
    width : int
        Channels of the hidden layers.
    ndim : int
        Axes of the signal, 1 to 4. Up to the last three are filtered: the first of four, time, is not.
    """

    width: int
    ndim: int

    @property
    def kernel(self) -> tuple[int, int, int]:
        """Taps along the last three axes: 3, or 1 along an axis that the signal does not have."""
        z, y, x = (3 if self.ndim >= axes else 1 for axes in (3, 2, 1))
        return z, y, x

    @property
    def radius(self) -> tuple[int, ...]:
        """Samples needed around a box on each side of each axis of the signal, 0 or 2."""
        return (0,) * (self.ndim - 3) + (2,) * min(self.ndim, 3)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter, in stored order."""
        kernels = (self.width, *self.kernel)
        return {"first": kernels, "biases": (2, self.width), "middle": (self.width, self.width), "last": kernels}

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def batched(self, box: np.ndarray, unit: float) -> Tensor:
        """A box of the signal as the network takes it: over its unit, shape (B, n_z, n_y, n_x), float32, a copy."""
        scaled = np.divide(box, np.float32(unit), dtype=np.float32)
        return torch.from_numpy(scaled.reshape((1,) * (4 - self.ndim) + box.shape))

    def inner(self, box: np.ndarray) -> np.ndarray:
        """View of a box without its ring."""
        return box[tuple(slice(r, n - r) for r, n in zip(self.radius, box.shape, strict=True))]


class Restoration:
    """A restoration network.

    Parameters
    ----------
    layout : RestorationLayout
    parameters : dict of str to Tensor
        float32, of `layout.shapes`. The means of the first kernels are taken off at use.
    """

    def __init__(self, layout: RestorationLayout, parameters: dict[str, Tensor]) -> None:
        self.layout, self.parameters = layout, parameters

    @classmethod
    def initial(cls, layout: RestorationLayout, seed: int) -> Restoration:
        """Random hidden layers and a last one of zeros: nothing is corrected yet."""
        random = torch.Generator().manual_seed(seed)
        shapes = layout.shapes
        return cls(
            layout,
            {
                "first": torch.randn(shapes["first"], generator=random) / math.sqrt(math.prod(layout.kernel)),
                "biases": torch.zeros(shapes["biases"]),
                "middle": torch.randn(shapes["middle"], generator=random) / math.sqrt(layout.width),
                "last": torch.zeros(shapes["last"]),
            },
        )

    @property
    def radius(self) -> tuple[int, ...]:
        """Samples needed around a box on each side of each axis, 0 or 2."""
        return self.layout.radius

    def loss_and_gradients(
        self, samples: Tensor, wanted: Tensor, backend: Backend = REFERENCE
    ) -> tuple[float, dict[str, Tensor]]:
        """Mean squared error of corrections, and its gradients, see `inrcodec_kernels.restoration.loss_and_gradients`."""
        loss, gradients = loss_and_gradients(samples, wanted, Parameters(**self.parameters), backend)
        return loss, gradients._asdict()

    def correct(self, box: np.ndarray, step: float, backend: Backend = REFERENCE) -> np.ndarray:
        """Corrected samples of a box.

        Parameters
        ----------
        box : ndarray of float32, shape (n_1, ..., n_d)
            Decoded samples, with a ring of `radius` samples around those wanted.
        step : float
            Quantisation step in the same units as the samples.
        backend : Backend

        Returns
        -------
        ndarray of float32, shape (n_1 - 2 radius_1, ..., n_d - 2 radius_d)

        Raises
        ------
        ValueError
            If the box is no larger than its ring.
        """
        inner = self.layout.inner(box).shape
        if 0 in inner:
            raise ValueError(f"expected a box with a ring of {self.radius}, found {box.shape}; read a larger box")
        return self.restore(box, self.radius, np.empty(inner, dtype=np.float32), step, 0, 0, backend)

    def restore(
        self,
        box: np.ndarray,
        before: Sequence[int],
        out: np.ndarray,
        step: float,
        low: int,
        high: int,
        backend: Backend = REFERENCE,
    ) -> np.ndarray:
        """Corrected samples, in an integer box rounded and clipped.

        Parameters
        ----------
        box : ndarray of float32, shape (n_1, ..., n_d)
            Decoded samples: those wanted and what the signal has of the ring of `radius` around them. Beyond, the
            samples of the edge count.
        before : sequence of int
            Samples along each axis before the first of those wanted.
        out : ndarray of float32 or integers, shape (s_1, ..., s_d)
            Written.
        step : float
            Quantisation step in the same units as the samples.
        low, high : int
            Range that integers are clipped to.
        backend : Backend

        Returns
        -------
        ndarray
            `out`.
        """
        samples, target = torch.from_numpy(box if box.flags.writeable else box.copy()), torch.from_numpy(out)
        written = target.to(backend.device)
        self.write(samples.to(backend.device), before, written, step, low, high, backend)
        target.copy_(written)
        return out

    def write(
        self, box: Tensor, before: Sequence[int], out: Tensor, step: float, low: int, high: int, backend: Backend
    ) -> None:
        """As `restore`, with tensors on the backend's device."""
        lead = (1,) * (4 - self.layout.ndim)
        parameters = Parameters(**{name: p.to(backend.device) for name, p in self.parameters.items()})
        place = (*(0,) * len(lead), *before)[1:]
        with torch.no_grad():
            restore(
                box.reshape(lead + box.shape), parameters, unit_of(step), low, high,
                out.view(lead + out.shape), place, backend,
            )  # fmt: skip


def unit_of(step: float) -> float:
    """The network's unit in the units of the samples."""
    return max(float(step), LEAST_STEP) / UNITS


def padded_box(
    read: Read,
    start: Sequence[int] | np.ndarray,
    stop: Sequence[int] | np.ndarray,
    shape: tuple[int, ...],
    radius: tuple[int, ...],
) -> np.ndarray:
    """Samples of a box with a ring around it; where the ring leaves the signal, the samples of its edge.

    Parameters
    ----------
    read : callable
        ``read(start, stop)``: float32 samples of a box in the signal.
    start, stop : sequence of int
        The box without its ring.
    shape : tuple of int
        Of the signal.
    radius : tuple of int
        Samples of the ring on each side of each axis.

    Returns
    -------
    ndarray of float32, shape ``stop - start + 2 radius``
    """
    first = np.asarray(start, dtype=np.int64) - np.asarray(radius, dtype=np.int64)
    last = np.asarray(stop, dtype=np.int64) + np.asarray(radius, dtype=np.int64)
    low, high = np.maximum(first, 0), np.minimum(last, np.asarray(shape, dtype=np.int64))
    box = read(low, high)
    missing = list(zip((low - first).tolist(), (last - high).tolist(), strict=True))
    return np.pad(box, missing, mode="edge") if any(map(any, missing)) else box
