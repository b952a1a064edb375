"""The pyramid on CUDA devices. README.md and CODING.md have the mathematics and the design.

Triton decides when a kernel is decorated whether it is compiled or interpreted (``TRITON_INTERPRET=1``), so this module
is imported only when its backend has been chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .layout import Box, Layout, Place, Synthesis
from .triton_cases import compile_cases
from .triton_synthesis import DeviceSynthesis, synthesise_box

__all__ = ["DeviceSynthesis", "box_of", "compile_cases", "synthesise_box"]


def box_of(
    latents: Sequence[Any], origins: Sequence[Place], synthesis: Synthesis, layout: Layout, box: Box, device: str
) -> Any:
    """As `inrcodec_kernels.pyramid.synthesise_box`, of arrays or of tensors."""
    there = [_up(own, device) for own in latents]
    return _like(synthesise_box(there, origins, DeviceSynthesis.of(synthesis, layout, device), layout, box), latents[0])


def _up(values: Any, device: str) -> Tensor:
    """On the device, float32; a tensor that is there stays as it is."""
    return torch.as_tensor(values).to(device, torch.float32)


def _like(found: Tensor, given: Any) -> Any:
    """A tensor for a tensor, an array for an array."""
    return found if isinstance(given, Tensor) else found.cpu().numpy()
