"""Section FILT: the network that corrects decoded samples.

One byte of version, one byte of width, the strength (float32, over the quantisation step), then the parameters of `RestorationLayout.shapes` as `coding.parameters` writes them.
"""

from __future__ import annotations

import struct

import torch

from inrcodec_formats.errors import ContainerError

from ..coding.parameters import QuantisedTensor, read_parameters, write_parameters
from ..models.restoration import LARGEST_PARAMETER, Restoration, RestorationLayout

TAG = "FILT"
VERSION = 0
MAX_WIDTH = 64
"""Most channels that a decoder accepts."""
MAX_STRENGTH = 1e6
_FIXED = struct.Struct("<BBf")


def pack(layout: RestorationLayout, parameters: dict[str, QuantisedTensor], strength: float) -> bytes:
    """Bytes of the section; `parameters` in any order, of `layout.shapes`; `strength` is rounded to float32."""
    return _FIXED.pack(VERSION, layout.width, strength) + write_parameters([parameters[name] for name in layout.shapes])


def unpack(data: bytes, ndim: int) -> tuple[Restoration, float]:
    """Inverse of `pack`, for a signal of `ndim` axes: the network, and its strength over the quantisation step.

    Raises
    ------
    ContainerError
        If the section is of another version, short or damaged, or a value is out of its limits.
    """
    if len(data) < _FIXED.size:
        raise ContainerError(f"expected a complete FILT section, found {len(data)} bytes; get a fresh copy of the file")
    version, width, strength = _FIXED.unpack_from(data)
    if version != VERSION:
        raise ContainerError(f"expected version {VERSION} of FILT, found {version}; get a newer inrcodec")
    if not 1 <= width <= MAX_WIDTH:
        raise ContainerError(f"expected 1 to {MAX_WIDTH} channels in FILT, found {width}; get a fresh copy of the file")
    if not 0 < strength <= MAX_STRENGTH:
        raise ContainerError(
            f"expected a strength of 0 to {MAX_STRENGTH:g} in FILT, found {strength}; get a fresh copy of the file"
        )
    layout = RestorationLayout(width, ndim)
    try:
        tensors = read_parameters(data[_FIXED.size :], list(layout.shapes.values()))
    except ContainerError as error:
        raise ContainerError(
            "expected the parameters of a network in FILT, found others; get a fresh copy of the file"
        ) from error
    parameters = {name: torch.from_numpy(t.dequantised()) for name, t in zip(layout.shapes, tensors, strict=True)}
    if any(float(p.abs().max()) > LARGEST_PARAMETER for p in parameters.values()):
        raise ContainerError(
            f"expected parameters of at most {LARGEST_PARAMETER:g} in FILT, found larger ones; get a fresh copy of the file"
        )
    return Restoration(layout, parameters), strength
