"""The networks of a pyramid as a stream holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from inrcodec_kernels.pyramid import (
    CONTEXT_ORDER,
    EXACT,
    SITES,
    SYNTHESIS_ORDER,
    Context,
    IntegerContext,
    Synthesis,
    largest_sums,
    network_of,
)

from ..coding.parameters import QuantisedTensor
from ..fitting.feedback import Feedback
from ..fitting.pyramid import FAIR, PyramidFit
from ..fitting.pyramid_places import UPSAMPLING, Places, generous, worth
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

FEWER_SITES = SITES // 4
"""Of each lattice, that tell how networks may be rounded: enough for trials, and for what is only foretold."""
_CUT = 0.9
"""What is left of the largest magnitude of the weights of a sum each time that it is too large."""


_FOLLOWED = 1.5
"""How many times bits of networks count while places are chosen: latents make up for some of what rounding does."""
_TRIES, _FURTHEST = 4, 64.0
"""How many places of all parameters are tried, and by how much at most what is to be lost is corrected each time."""


class Together(NamedTuple):
    """Parameters that are rounded together.

    Attributes
    ----------
    parts : dict of str to index
        Which of the parameters of a name.
    sizes : tuple of int
        How many these are.
    feedback : Feedback
        Of the stream's numbers.
    """

    parts: Mapping[str, Any]
    sizes: tuple[int, ...]
    feedback: Feedback

    @classmethod
    def of(cls, parts: Mapping[str, Any], curvature: NDArray[np.float64], units: Parameters) -> Together:
        """By a curvature of the networks' own numbers; `units` are those that a stream has for one."""
        chosen = [np.ravel(units[name][place]) for name, place in parts.items()]
        scale = np.concatenate(chosen).astype(np.float64)
        return cls(parts, tuple(map(len, chosen)), Feedback(curvature / scale[:, None] / scale))

    def lost(self, name: str) -> float:
        """What rounding a parameter to whole numbers is to cost."""
        variances = dict(zip(self.parts, self._split(self.feedback.variances), strict=True))
        return float(np.sum(variances.get(name, 0.0))) / 12

    def round(self, exact: Parameters, places: Mapping[str, int], found: Mapping[str, QuantisedTensor]) -> None:
        """Write whole numbers of steps to where these parameters are among those found."""
        values = np.concatenate([np.ravel(exact[name][place]) for name, place in self.parts.items()]).astype(np.float64)
        steps = np.concatenate([np.full(n, 2.0 ** -places[name]) for name, n in zip(self.parts, self.sizes, strict=True)])
        whole = self._split(self.feedback.rounded(values, steps))
        for (name, place), numbers in zip(self.parts.items(), whole, strict=True):
            held, limit = found[name].values, int(LARGEST_PARAMETER) << places[name]
            held[place] = np.clip(numbers, -limit, limit).reshape(held[place].shape)

    def _split(self, numbers: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        return np.split(numbers, np.cumsum(self.sizes)[:-1])


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
    def of(
        cls,
        context: Context,
        synthesis: Synthesis,
        base: Parameters,
        places: Mapping[str, int],
        together: Sequence[Together] = (),
        wide: bool = False,
        lattices: Sequence[int] | None = None,
    ) -> StoredNetworks:
        """Round networks to so many binary places, as differences to others.

        Parameters
        ----------
        context, synthesis
        base : mapping of str to ndarray
            Parameters that differences are counted from; what is not there is 0.
        places : mapping of str to int
        together : sequence of Together, optional
            Which of them are rounded so that their errors make up for each other's.
        wide : bool
            As the layout has it.
        lattices : sequence of K int, optional
            As of `integer_contexts`.
        """
        exact = {name: np.clip(v, -LARGEST_PARAMETER, LARGEST_PARAMETER) for name, v in joined(context, synthesis).items()}
        first = {name: base.get(name, np.float32(0)) for name in exact}
        while True:
            wanted = {name: v - first[name] for name, v in exact.items()}
            differences = {name: QuantisedTensor.of(v, -places[name]) for name, v in wanted.items()}
            for each in together:
                each.round(wanted, places, differences)
            held = {name: t.dequantised() + first[name] for name, t in differences.items()}
            stored = {n.removeprefix("context."): v for n, v in held.items() if n.startswith("context.")}
            if found := _finest(stored, wide, lattices):
                return cls(differences, parted(held), *found)
            # Some weights of short fits at fine steps are so large; but what is written must be readable.
            _cut(exact, stored, lattices)
            # What was cut is not to come back with the errors of others.
            together = ()


def _finest(stored: Parameters, wide: bool, lattices: Sequence[int] | None) -> tuple[Precision, tuple[IntegerContext, ...]] | None:
    """A context model in the finest whole numbers whose sums stay small enough, if there are such."""
    for precision in FINE:
        with suppress(ValueError):
            return precision, checked_contexts(stored, precision, wide, lattices)
    return None


def _cut(exact: Parameters, stored: Parameters, lattices: Sequence[int] | None) -> None:
    """Cut what makes sums of the context model too large, and nothing else: where others are cut with it, a fit at a fine step loses decibels."""
    for own, network in enumerate(distinct(integer_contexts(stored, FINE[-1], lattices=lattices))):
        first, second, outputs = (sums >= EXACT for sums in largest_sums(network))
        skipped = network.input * np.abs(network.skip).sum(axis=0) > network.hidden * np.abs(network.last).sum(axis=0)
        for name, columns in {"first": first, "second": second, "last": outputs & ~skipped, "skip": outputs & skipped}.items():
            weights = exact[f"context.{name}"][own]
            most = np.where(columns, _CUT * np.abs(weights).max(axis=0), np.inf)
            np.clip(weights, -most, most, out=weights)


class Settling:
    """Rounds the networks of a fit as finely as is worth its bits.

    Parameters
    ----------
    fit : PyramidFit
    base : mapping of str to ndarray
        Parameters that a stream counts from.
    samples : int
        Of the whole signal, of which a fit may see a part.
    sites : int
        Of each level, that tell how the cost bends.
    """

    def __init__(self, fit: PyramidFit, base: Parameters, samples: int, sites: int = SITES) -> None:
        self._fit, self._base, self._samples, self._sites = fit, base, samples, sites

    def __call__(self, last: bool) -> StoredNetworks:
        """Round all; the last time the fit has them so, before that it only foretells what they take, from fewer sites."""
        fit, together = self._fit, self._together(self._sites if last else min(self._sites, FEWER_SITES))
        places = self._places(together)
        found = self._stored(places, together)
        if last:
            fit.set_networks(*found.networks)
        return found

    def _stored(self, places: Mapping[str, int], together: Sequence[Together] = ()) -> StoredNetworks:
        fit = self._fit
        return StoredNetworks.of(fit.context, fit.synthesis, self._base, places, together, fit.layout.wide, fit.layout.kernel.lattice)

    def _together(self, sites: int) -> list[Together]:
        """Each network of the context model, and the synthesis, with what their changes cost in bits."""
        fit = self._fit
        of_context, of_synthesis = fit.curvatures(sites)
        ones, zeros = (
            joined(Context(*map(fill, fit.context)), Synthesis(*map(fill, fit.synthesis))) for fill in (np.ones_like, np.zeros_like)
        )
        units = {name: ones[name] - zeros[name] for name in ones}
        numbers = np.array([network_of(lattice, len(of_context)) for lattice in fit.layout.kernel.lattice])
        found = []
        for own, matrix in enumerate(of_context):
            served = np.flatnonzero(numbers == own)
            places = {f"context.{name}": served if name == "level_bias" else own for name in CONTEXT_ORDER}
            found.append(Together.of(places, matrix, units))
        every = {f"synthesis.{name}": ... for name in SYNTHESIS_ORDER}
        return [*found, Together.of(every, of_synthesis / (FAIR * fit.pressure), units)]

    def _places(self, together: Sequence[Together]) -> Places:
        """Binary places whose bits are worth what they save: what is to be lost tells which to try, and what is lost corrects it."""
        exact = generous(stored_places(self._samples)) | {name: STORED_PLACES[name] for each in together for name in each.parts}
        found = worth(UPSAMPLING, exact, self._tried)
        own = self._own_bits([name for each in together for name in each.parts])
        # What is done to a sample is done to all of the signal.
        lost = {name: self._whole * sum(each.lost(name) for each in together) for name in own}
        before, least = self._costs(exact, ()), {"context.": math.inf, "synthesis.": math.inf}
        for _ in range(_TRIES):
            tried = _best(own, lost)
            for kind, cost in self._costs(found | tried, together).items():
                of_kind = {name: place for name, place in tried.items() if name.startswith(kind)}
                total = cost + _FOLLOWED * sum(own[name][place] for name, place in of_kind.items())
                if total < least[kind]:
                    least[kind], found = total, found | of_kind
                foretold = sum(lost[name] * 4.0**-place for name, place in of_kind.items())
                off = min(max((cost - before[kind]) / max(foretold, 1e-9), 1 / _FURTHEST), _FURTHEST)
                lost.update({name: lost[name] * off for name in of_kind})
            if _best(own, lost) == tried:
                break
        return found

    @property
    def _whole(self) -> float:
        return self._samples / self._fit.samples

    def _own_bits(self, names: Sequence[str]) -> dict[str, list[float]]:
        """What parameters take with no binary places, one, two and so on."""
        exact = joined(self._fit.context, self._fit.synthesis)
        wanted = {name: exact[name] - self._base.get(name, np.float32(0)) for name in names}
        return {name: [QuantisedTensor.of(v, -place).bits for place in range(STORED_PLACES[name] + 1)] for name, v in wanted.items()}

    def _costs(self, places: Places, together: Sequence[Together]) -> dict[str, float]:
        """Bits of all latents, and what squared errors are worth, with networks so rounded."""
        fit, networks, latents = self._fit, self._fit.networks, self._fit.rounded
        fit.set_networks(*self._stored(places, together).networks)
        found = {"context.": fit.bits(latents), "synthesis.": fit.squares(latents) / (FAIR * fit.pressure)}
        fit.networks = networks
        return {kind: self._whole * cost for kind, cost in found.items()}

    def _tried(self, places: Places) -> float:
        """What parameters of the upsampling take and do to the samples, in bits."""
        fit, networks = self._fit, self._fit.networks
        stored = self._stored(places)
        fit.set_networks(fit.context, stored.networks[1])
        squares = self._whole * fit.squares(fit.rounded) / (FAIR * fit.pressure)
        fit.networks = networks
        return _FOLLOWED * sum(stored.differences[name].bits for name in UPSAMPLING) + squares


def _best(own: Mapping[str, Sequence[float]], lost: Mapping[str, float]) -> Places:
    """Of each parameter the binary places at which its bits and what is lost cost least."""
    return {name: min(range(len(bits)), key=lambda p: _FOLLOWED * bits[p] + lost[name] * 4.0**-p) for name, bits in own.items()}
