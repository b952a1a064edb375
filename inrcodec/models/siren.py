"""Initial weights of sine layers.

References
----------
Sitzmann et al. 2020, arXiv:2006.09661; here w0 is folded into the stored weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Layer = tuple[Tensor, Tensor]


def coordinate_layer(nodes: int, n_in: int, n_out: int, *, bandwidth: float, generator: torch.Generator) -> Layer:
    """Layer that reads coordinates: weights ``U(+-sqrt(3) bandwidth)`` (radians per unit), biases ``U(+-pi)``."""
    weight = _uniform((nodes, n_in, n_out), math.sqrt(3.0) * bandwidth, generator)
    return weight, _uniform((nodes, n_out), math.pi, generator)


def hidden_layer(nodes: int, n_in: int, n_out: int, *, generator: torch.Generator) -> Layer:
    """Layer that reads sines: weights ``U(+-sqrt(6 / n_in))``, biases 0."""
    weight = _uniform((nodes, n_in, n_out), math.sqrt(6.0 / n_in), generator)
    return weight, torch.zeros(nodes, n_out)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
