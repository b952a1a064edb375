"""From what a caller gives, a file, an array or a `Signal`, to a `Signal` that can be coded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

import numpy as np

from inrcodec_formats import registry
from inrcodec_formats.axes import check_axes
from inrcodec_formats.errors import OptionError
from inrcodec_formats.signal import Signal

SignalSource: TypeAlias = str | os.PathLike[str] | np.ndarray | Signal

_UNNAMED = ("array", "npy")
"""Sources that do not say what their axes are."""


def read_signal(source: SignalSource, quantise_step: float | None, axes: str | None = None) -> Signal:
    """Turn a source into a `Signal` of one plane.

    Parameters
    ----------
    source : path, ndarray or Signal
    quantise_step : float, optional
        For real values: the smallest difference to keep.
    axes : str, optional
        One letter per axis, of an array or a ``.npy`` file.

    Raises
    ------
    OptionError
        If axes are given to a source that names its own.
    SignalError, FormatError
        If the source cannot be coded or read.
    """
    if isinstance(source, Signal):
        signal = source
    elif isinstance(source, (str, os.PathLike)):
        signal = registry.read(Path(source), quantise_step=quantise_step)
    else:
        return Signal.from_array(np.asanyarray(source), quantise_step=quantise_step, axes=axes)
    named = signal.header.source_format
    if axes is not None and named not in _UNNAMED:
        raise OptionError(f"expected axes for an array or a .npy file only, found {axes!r} for one of {named}; leave them out")
    check_axes(axes or signal.header.axes, len(signal.header.shape))
    return signal.with_header(axes=axes) if axes else signal
