"""Where a pyramid's fit keeps what has as many numbers as the signal: arrays on the host, or tensors on its kernels' device.

Kernels take either, and products, sums and `round` are written the same for both. What differs is here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend, on_device


def up(values: NDArray[np.float32], backend: Backend) -> Any:
    """The values where the backend's kernels run: a tensor there, or on the host the array itself."""
    return torch.from_numpy(values).to(backend.device) if on_device(backend) else values


def down(values: Any) -> Any:
    """The values as an array; those of a tensor are waited for."""
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values


def zeros(like: Any) -> Any:
    """As many zeros, in a row, where some values are."""
    return like.new_zeros(like.numel()) if isinstance(like, torch.Tensor) else np.zeros(like.size, np.float32)
