"""Work on a CUDA device that is recorded once and launched as a whole: one launch takes the host as long as one kernel's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def replayable(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A step recorded as a CUDA graph, which the host launches as one; where that cannot be, the step itself.

    Recording does not compute anything. Other threads may use the device meanwhile.
    """
    if device.type != "cuda":
        return step
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            step()
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0][:160]
        warnings.warn(f"expected a CUDA graph of a step, found {reason}; launching its parts", RuntimeWarning, stacklevel=2)
        return step
    return graph.replay


class Repeated:
    """A computation that is asked for again and again, of tensors of the same shapes.

    Parameters
    ----------
    compute : callable
        Of tensors; it waits for nothing, and fetches nothing from the host but by `constant`. What it returns holds until it is
        called again.
    """

    def __init__(self, compute: Callable[..., Any]) -> None:
        self._compute, self._called = compute, False
        self._replay: Callable[[], None] | None = None

    def __call__(self, given: Sequence[Tensor]) -> Any:
        """The computation's result; the first time it is not recorded, for then kernels are compiled."""
        if not self._called:
            self._called = True
            return self._compute(*given)
        if self._replay is None:
            self._held = [each.clone() for each in given]
            self._replay = replayable(self._step, given[0].device)
        for held, each in zip(self._held, given, strict=True):
            held.copy_(each)
        self._replay()
        return self._found

    def _step(self) -> None:
        self._found = self._compute(*self._held)


@lru_cache(maxsize=1024)
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor that is made once, and not to be changed: fetching it from the host takes as long as a small kernel, and cannot be recorded."""
    return torch.tensor(values, dtype=dtype, device=device)
