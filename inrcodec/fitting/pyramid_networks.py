"""Both networks of a pyramid in the making.

Layers move by SOAP, each with its bias as one more row of weights: they are so small that factoring their curvature costs
nothing beside a step's gradients, and it is worth a few times more steps (`docs/pyramid.md`). What is no layer moves by Adam.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Context, Synthesis, adam

from .soap_small import SmallSoap
from .there import zeros

Floats = NDArray[np.float32]

_LAYERS = (
    ("context.first", "context.level_bias"), ("context.second", "context.second_bias"), ("context.last", "context.last_bias"),
    ("synthesis.first", "synthesis.first_bias"), ("synthesis.second", "synthesis.second_bias"),
    ("synthesis.last", "synthesis.last_bias"),
)  # fmt: skip
"""Weights and biases of every layer."""
_FASTER = 4.0
"""Learning rate of layers, over that of the others."""
_SLOWER = {"context.skip": 0.1, "synthesis.filters": 0.1, "synthesis.gains": 0.0}
"""Of the learning rate. Gains keep still: skips and first weights can do what they could."""
_MOMENTUM, _EVERY = 0.9, 3
"""Of SOAP: gradients change fast in so few steps, and eigenbases with them."""
DECAYS = 0.9, 0.95
"""Of Adam's moments: gradients shrink fast at first, and so must their squares."""


class Moving:
    """An array, or a tensor, its two moments, and how often it moved."""

    def __init__(self, values: Floats) -> None:
        self.values, self.moved = values, 0
        self.moments = zeros(values), zeros(values)

    def copy(self) -> Moving:
        """Another one that moves on from here."""
        return deepcopy(self)

    def move(self, gradient: Floats, rate: float, backend: Backend) -> None:
        """A step of Adam."""
        self.moved += 1
        adam(self.values.reshape(-1), gradient.reshape(-1), self.moments, self.moved, rate, DECAYS, backend=backend)


class Networks:
    """Both networks, and what their optimisers know.

    Parameters
    ----------
    context : Context
    synthesis : Synthesis
        To begin with.
    """

    def __init__(self, context: Context, synthesis: Synthesis) -> None:
        layers = {name for pair in _LAYERS for name in pair}
        self._arrays = {name: np.array(p, np.float32) for name, p in _named(context, synthesis).items()}
        self._others = {name: Moving(a) for name, a in self._arrays.items() if name not in layers}
        self._layers = [SmallSoap(_stacked(self._arrays, pair), momentum=_MOMENTUM, every=_EVERY) for pair in _LAYERS]

    @property
    def context(self) -> Context:
        """The context model as it is now."""
        return Context(*(self._arrays[f"context.{name}"] for name in Context._fields))

    @property
    def synthesis(self) -> Synthesis:
        """The synthesis as it is now."""
        return Synthesis(*(self._arrays[f"synthesis.{name}"] for name in Synthesis._fields))

    def move(self, of_context: Context, of_synthesis: Synthesis, rate: float, backend: Backend) -> None:
        """A step down the gradients."""
        gradients = _named(of_context, of_synthesis)
        for name, other in self._others.items():
            other.move(np.asarray(gradients[name], np.float32), _SLOWER.get(name, 1.0) * rate, backend)
        for layer, (weights, bias) in zip(self._layers, _LAYERS, strict=True):
            layer.move(_stacked(gradients, (weights, bias)), _FASTER * rate)
            rows = layer.values.astype(np.float32)
            count = self._arrays[weights].shape[0]
            for name, part in ((weights, rows[:count]), (bias, rows[count:])):
                self._arrays[name] = part.reshape(self._arrays[name].shape)


def _named(context: Context, synthesis: Synthesis) -> dict[str, Any]:
    found = {f"context.{name}": values for name, values in context._asdict().items()}
    return found | {f"synthesis.{name}": values for name, values in synthesis._asdict().items()}


def _stacked(arrays: dict[str, Any], layer: tuple[str, str]) -> NDArray[np.float64]:
    """A layer's weights, and under them its biases."""
    weights, bias = (np.asarray(arrays[name], np.float64) for name in layer)
    weights = weights.reshape(len(weights), -1)
    return np.concatenate([weights, bias.reshape(-1, weights.shape[1])])
