"""The networks of a pyramid as a stream holds them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.pyramid import EXACT, Context, IntegerContext, Synthesis, largest_sums

from ..coding.parameters import QuantisedTensor
from ..fitting.pyramid import FAIR, PyramidFit
from ..fitting.pyramid_places import LARGE, SMALL, Groups, Places, generous, names, worth
from ..models.pyramid import (
    FINE,
    STORED_PLACES,
    Precision,
    checked_contexts,
    distinct,
    integer_contexts,
    joined,
    parted,
    stored_places,
)
from ..payload.pyramid import LARGEST_PARAMETER

Parameters = Mapping[str, NDArray[np.float32]]

_CUT = 0.9
"""What is left of the largest magnitude of the weights of a sum each time that it is too large."""


_FOLLOWED, _FOLLOWED_SMALL = 3, 2
"""How many times bits of the large matrices, and of what is small, count while what their rounding does is looked at: the latter, and latents,
make up for the rest."""


@dataclass(frozen=True)
class StoredNetworks:
    """Rounded networks.

    Attributes
    ----------
    differences : dict of str to QuantisedTensor
        What a stream holds, in its order.
    networks : tuple of Context and Synthesis
        As a decoder has them.
    precision : Precision
        Of the context model's whole numbers.
    context : tuple of K IntegerContext
        The context model in these.
    """

    differences: dict[str, QuantisedTensor]
    networks: tuple[Context, Synthesis]
    precision: Precision
    context: tuple[IntegerContext, ...]

    @classmethod
    def of(cls, context: Context, synthesis: Synthesis, base: Parameters, places: Mapping[str, int]) -> StoredNetworks:
        """Round networks to so many binary places, as differences to others.

        Parameters
        ----------
        context, synthesis
        base : mapping of str to ndarray
            Parameters that differences are counted from; what is not there is 0.
        places : mapping of str to int
        """
        exact = {name: np.clip(v, -LARGEST_PARAMETER, LARGEST_PARAMETER) for name, v in joined(context, synthesis).items()}
        first = {name: base.get(name, np.float32(0)) for name in exact}
        while True:
            differences = {name: QuantisedTensor.of(v - first[name], -places[name]) for name, v in exact.items()}
            held = {name: t.dequantised() + first[name] for name, t in differences.items()}
            stored = {n.removeprefix("context."): v for n, v in held.items() if n.startswith("context.")}
            if found := _finest(stored):
                return cls(differences, parted(held), *found)
            # Some weights of short fits at fine steps are so large; but what is written must be readable.
            _cut(exact, stored)


def _finest(stored: Parameters) -> tuple[Precision, tuple[IntegerContext, ...]] | None:
    """A context model in the finest whole numbers whose sums stay small enough, if there are such."""
    for precision in FINE:
        with suppress(ValueError):
            return precision, checked_contexts(stored, precision)
    return None


def _cut(exact: Parameters, stored: Parameters) -> None:
    """Cut what makes sums of the context model too large, and nothing else: where others are cut with it, a fit at a fine step loses decibels."""
    for own, network in enumerate(distinct(integer_contexts(stored, FINE[-1]))):
        first, second, outputs = (sums >= EXACT for sums in largest_sums(network))
        skipped = network.input * np.abs(network.skip).sum(axis=0) > network.hidden * np.abs(network.last).sum(axis=0)
        for name, columns in {"first": first, "second": second, "last": outputs & ~skipped, "skip": outputs & skipped}.items():
            weights = exact[f"context.{name}"][own]
            most = np.where(columns, _CUT * np.abs(weights).max(axis=0), np.inf)
            np.clip(weights, -most, most, out=weights)


class Settling:
    """Rounds the networks of a fit as finely as is worth its bits: the large matrices, and later what was small and could follow them.

    Parameters
    ----------
    fit : PyramidFit
    base : mapping of str to ndarray
        Parameters that a stream counts from.
    samples : int
        Of the whole signal, of which a fit may see a part.
    """

    def __init__(self, fit: PyramidFit, base: Parameters, samples: int) -> None:
        self._fit, self._base, self._samples = fit, base, samples
        self._large: Places = {}

    def __call__(self, last: bool) -> StoredNetworks:
        """Round all, of which a fit holds the large matrices, or, the last time, everything."""
        fit, first = self._fit, generous(stored_places(self._samples))
        if not self._large:
            # What is small is as good as exact until it is its turn.
            exact = {name: STORED_PLACES[name] for name in names(SMALL)}
            self._large = self._places(LARGE, first | exact, _FOLLOWED)
        # In the first turn this says only what it will take, about.
        small = {name: first[name] for name in names(SMALL)}
        places = self._places(SMALL, self._large | small, _FOLLOWED_SMALL)
        found = StoredNetworks.of(fit.context, fit.synthesis, self._base, places)
        if last:
            fit.set_networks(*found.networks)
        else:
            fit.networks.hold(*found.networks)
        return found

    def _places(self, groups: Groups, first: Places, followed: float) -> Places:
        """Binary places, from first ones on, of which those of some groups change; bits of networks count so many times."""
        fit, networks = self._fit, self._fit.networks
        exact, latents = (fit.context, fit.synthesis), fit.rounded
        # What is done to a sample is done to all of the signal.
        whole, price = self._samples / fit.samples, FAIR * fit.pressure

        def cost(kind: str, tried: Places) -> float:
            """What a network takes, and does to the latents or to the samples, in bits."""
            stored = StoredNetworks.of(*exact, self._base, tried)
            fit.set_networks(*stored.networks)
            own = sum(t.bits for name, t in stored.differences.items() if name.startswith(kind))
            return followed * own + whole * (fit.bits(latents) if kind == "context" else fit.squares(latents) / price)

        places = first
        for kind, together in groups.items():
            places = worth(together, places, partial(cost, kind))
        fit.networks = networks
        return places
