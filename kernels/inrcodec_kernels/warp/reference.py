"""Plain definition of the warp, in torch. Any float dtype; torch differentiates."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .layout import BEFORE, PHASES, TAPS, WEIGHTS, Field, Place, positions


def warped(still: Tensor, origin: tuple[int, int], field: Field, start: Place, stop: Place) -> Tensor:
    """As `inrcodec_kernels.warp.warp`."""
    place = torch.from_numpy(positions(field, start, stop)).long()
    weights = torch.from_numpy(WEIGHTS).to(still.dtype)[place % PHASES]
    whole, (y, x) = place // PHASES - BEFORE, (0, 1)
    frame = torch.arange(len(still))[:, None, None]
    found = torch.zeros(whole[:, y].shape, dtype=still.dtype)
    for i in range(TAPS):
        row = (whole[:, y] + i).clamp(0, field.still[0] - 1) - origin[0]
        columns = ((whole[:, x] + j).clamp(0, field.still[1] - 1) - origin[1] for j in range(TAPS))
        line = sum(weights[:, x, ..., j] * still[frame, row, column] for j, column in enumerate(columns))
        found = found + weights[:, y, ..., i] * line
    return found


def adjoint(gradients: NDArray[np.floating], field: Field) -> NDArray[np.floating]:
    """As `inrcodec_kernels.warp.adjoint`, in the dtype of the array."""
    given = torch.from_numpy(gradients)
    still = torch.zeros((len(given), *field.still), dtype=given.dtype, requires_grad=True)
    with torch.enable_grad():
        frames = warped(still, (0, 0), field, (0, 0, 0), (len(given), *field.frame))
        (found,) = torch.autograd.grad(frames, still, given)
    return found.numpy()
