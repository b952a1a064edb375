"""Where a call computes, from the device that the user named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from inrcodec_formats.errors import DeviceError, OptionError
from inrcodec_kernels.backend import Backend, choose

from .options import check_device


def backend_for(device: str) -> Backend:
    """The fastest backend on a device.

    Raises
    ------
    OptionError
        If the device is not there, or the environment forces a backend that is not.
    """
    check_device(device)
    try:
        return choose(device)
    except RuntimeError as error:
        raise OptionError(str(error)) from None


@contextmanager
def device_errors(backend: Backend) -> Iterator[None]:
    """Turn what a failing GPU raises into one line.

    Raises
    ------
    DeviceError
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"expected enough memory on {backend.device}, found too little ({_first_line(error)}); use device='cpu'"
        ) from error
    except RuntimeError as error:
        if backend.device == "cpu" or not _of_device(error):
            raise
        raise DeviceError(
            f"expected {backend.device} to work, found {_first_line(error)}; use device='cpu', or look after the GPU"
        ) from error


def _of_device(error: RuntimeError) -> bool:
    """Whether an error comes from a device or its driver, and not from our own code."""
    return isinstance(error, torch.AcceleratorError) or any(
        word in str(error) for word in ("CUDA", "cuda", "cuBLAS", "CUBLAS", "Triton Error")
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:160]
