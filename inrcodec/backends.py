"""Where a call computes, from the device that the user named."""

from __future__ import annotations

from inrcodec_formats.errors import OptionError
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
