"""Where the cases of this folder run: interpreted on the CPU, or on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from inrcodec_kernels.backend import interpreted

DEVICE = "cpu" if interpreted() else "cuda"


def on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes tensors on the CPU and computes on the device: what it writes into them comes back."""

    def call(*arguments: Any, **options: Any) -> Any:
        moved = [_moved(argument) for argument in arguments]
        result = function(*moved, **options)
        for given, there in zip(arguments, moved, strict=True):
            if isinstance(given, Tensor) and there is not given:
                given.copy_(there)
        return result.cpu() if isinstance(result, Tensor) else result

    return call


def _moved(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return argument.to(DEVICE)
    if isinstance(argument, tuple) and hasattr(argument, "_fields"):
        return type(argument)(*map(_moved, argument))
    if isinstance(argument, list):
        return [_moved(part) for part in argument]
    return argument
