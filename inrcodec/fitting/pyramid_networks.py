"""The networks of a pyramid in the making.

Layers move by SOAP, each with its bias as one more row of weights: they are so small that factoring their curvature costs
nothing beside a step's gradients, and it is worth a few times more steps (`docs/pyramid.md`). What is no layer moves by Adam.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Context, Synthesis, adam

from .soap_small import SmallSoap
from .there import zeros

Floats = NDArray[np.float32]

_OF_CONTEXT = (
    ("context.first", "context.level_bias"), ("context.second", "context.second_bias"), ("context.last", "context.last_bias"),
)  # fmt: skip
_OF_SYNTHESIS = (
    ("synthesis.first", "synthesis.first_bias"), ("synthesis.second", "synthesis.second_bias"),
    ("synthesis.last", "synthesis.last_bias"),
)  # fmt: skip
"""Weights and biases of every layer; those of the context model have one more axis, of its networks."""
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


class _Layer(NamedTuple):
    """Names of a layer's weights and biases; of the context model, the place of its network's weights and those of its biases."""

    weights: str
    bias: str
    network: int | None = None
    biases: slice = slice(None)

    def parts(self, arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Weights and biases among all arrays, as matrices that share their memory."""
        weights, bias = arrays[self.weights], np.atleast_1d(arrays[self.bias])[self.biases]
        weights = weights if self.network is None else weights[self.network]
        weights = weights.reshape(len(weights), -1)
        return weights, bias.reshape(-1, weights.shape[1])

    def stacked(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Weights, and under them biases."""
        return np.concatenate(self.parts(arrays)).astype(np.float64)


def _layers(networks: int) -> list[_Layer]:
    """All layers, of a context model of so many networks."""
    # Coarser levels share the last network, and have a bias each.
    places = [(n, slice(n, n + 1 if n + 1 < networks else None)) for n in range(networks)]
    of_context = [_Layer(*names, *place) for names in _OF_CONTEXT for place in places]
    return of_context + [_Layer(*names) for names in _OF_SYNTHESIS]


class Networks:
    """The networks of both kinds, and what their optimisers know.

    Parameters
    ----------
    context : Context
    synthesis : Synthesis
        To begin with.
    """

    def __init__(self, context: Context, synthesis: Synthesis) -> None:
        self._arrays = {name: np.array(p, np.float32) for name, p in _named(context, synthesis).items()}
        layered = {name for names in _OF_CONTEXT + _OF_SYNTHESIS for name in names}
        self._others = {name: Moving(a) for name, a in self._arrays.items() if name not in layered}
        self._layers = [
            (layer, SmallSoap(layer.stacked(self._arrays), momentum=_MOMENTUM, every=_EVERY))
            for layer in _layers(context.networks)
        ]

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
        # Layers that were given out stay as they are.
        self._arrays = {name: a if name in self._others else a.copy() for name, a in self._arrays.items()}
        for layer, soap in self._layers:
            soap.move(layer.stacked(gradients), _FASTER * rate)
            weights, biases = layer.parts(self._arrays)
            weights[...], biases[...] = np.split(soap.values, [len(weights)])


def _named(context: Context, synthesis: Synthesis) -> dict[str, Any]:
    found = {f"context.{name}": values for name, values in context._asdict().items()}
    return found | {f"synthesis.{name}": values for name, values in synthesis._asdict().items()}
