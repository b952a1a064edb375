"""Networks as a stream holds them: rounded, and cut where a context model's sums would be too large."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inrcodec.fitting.pyramid import FAIR, PyramidFit
from inrcodec.fitting.pyramid_course import Schedule
from inrcodec.fitting.pyramid_start import choose_halvings
from inrcodec.models.pyramid import STORED_PLACES, PyramidLayout, initial_networks, joined, stored_places
from inrcodec.systems.pyramid_networks import _FOLLOWED, FEWER_SITES, Settling, StoredNetworks
from inrcodec_kernels.backend import choose
from inrcodec_kernels.pyramid import EXACT, SITES, Context, check_context, largest_sums
from pyramid_streams import flags
from samples import tissue

LAYOUT = PyramidLayout((9, 10, 11), flags(3, 3), 8, (8, 4), networks=2)


@pytest.mark.parametrize("based", [False, True])
def test_networks_are_rounded_to_so_many_places(based: bool) -> None:
    context, synthesis = initial_networks(LAYOUT, 0)
    exact, places = joined(context, synthesis), stored_places(9 * 10 * 11)
    base = joined(*initial_networks(LAYOUT, 1)) if based else {}
    found = StoredNetworks.of(context, synthesis, base, places)
    for name, held in joined(*found.networks).items():
        assert np.abs(held - exact[name]).max(initial=0) <= 0.5001 * 2.0 ** -places[name] + 1e-5
        assert found.differences[name].exponent == -places[name]
    assert len(found.context) == LAYOUT.levels and found.context[0] is not found.context[1] is found.context[2]


@pytest.mark.parametrize("name", ["first", "second", "last", "skip"])
def test_where_sums_are_too_large_the_weights_that_make_them_are_cut_and_nothing_else(name: str) -> None:
    """A synthesis of weights as large as those stays what it is, and so do the context model's biases."""
    context, synthesis = initial_networks(LAYOUT, 0)
    weights = getattr(context, name).copy()
    weights[1, :, -1] = np.where(weights[1, :, -1] < 0, np.float32(-60), np.float32(60))
    wild: Context = context._replace(**{name: weights})
    large = synthesis._replace(first=100 * synthesis.first, last=100 * synthesis.last)
    biased = wild._replace(last_bias=wild.last_bias + np.float32([20, 5]))
    exact, found = joined(biased, large), StoredNetworks.of(biased, large, {}, STORED_PLACES)
    held = joined(*found.networks)
    for network in found.context:
        check_context(network)
    changed = {n: np.abs(held[n] - v) > 2.0 ** -STORED_PLACES[n] for n, v in exact.items()}
    assert {n for n, where in changed.items() if where.any()} == {f"context.{name}"}
    # Of one network one sum, by tenths: a tenth more would have been too much.
    assert set(map(tuple, np.argwhere(changed[f"context.{name}"])[:, ::2])) == {(1, weights.shape[2] - 1)}
    assert max(int(sums.max()) for sums in largest_sums(found.context[1])) > 0.8 * EXACT


@pytest.fixture
def fit() -> PyramidFit:
    volume = tissue((16, 24, 28))
    layout = PyramidLayout(volume.shape, choose_halvings(volume, 4), 8, (4, 4))
    found = PyramidFit(volume, 0.0, 60.0, layout, initial_networks(layout, 0), 0, choose("cpu"))
    found.run(60, None, Schedule(), lambda fraction, text: None)
    return found


def test_networks_take_what_they_are_worth(fit: PyramidFit) -> None:
    """Of one fit, whose latents keep still: what is found costs less than what the formula says, their bits counted as where it is sought."""
    exact, costs = (fit.context, fit.synthesis), []
    for stored in (StoredNetworks.of(*exact, {}, stored_places(fit.samples)), Settling(fit, {}, fit.samples)(True)):
        fit.set_networks(*stored.networks)
        own = sum(tensor.bits for tensor in stored.differences.values())
        costs.append((own, fit.bits(fit.rounded) + fit.squares(fit.rounded) / (FAIR * fit.pressure)))
        fit.set_networks(*exact)
    (by_rule, rest_by_rule), (own, rest) = costs
    assert _FOLLOWED * own + rest < 0.97 * (_FOLLOWED * by_rule + rest_by_rule)


@pytest.mark.parametrize("sites", [SITES, FEWER_SITES])
def test_what_is_foretold_changes_nothing_and_what_is_settled_stays(fit: PyramidFit, sites: int) -> None:
    exact, settling = joined(fit.context, fit.synthesis), Settling(fit, {}, fit.samples, sites)
    foretold = settling(False)
    assert all(np.array_equal(values, exact[name]) for name, values in joined(fit.context, fit.synthesis).items())
    found = settling(True)
    for name, values in joined(fit.context, fit.synthesis).items():
        np.testing.assert_allclose(values, joined(*found.networks)[name], atol=1e-6)
        if sites == FEWER_SITES:
            assert np.array_equal(found.differences[name].values, foretold.differences[name].values), "nothing moved in between, and the sites are the same"


@pytest.mark.parametrize(("sites", "last", "used"), [(SITES, True, SITES), (SITES, False, FEWER_SITES), (100, True, 100), (100, False, 100)])
def test_what_is_only_foretold_is_from_fewer_sites(fit: PyramidFit, sites: int, last: bool, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    curvatures = PyramidFit.curvatures

    def counted(self: PyramidFit, sites: int) -> Any:
        seen.append(sites)
        return curvatures(self, min(sites, 200))

    monkeypatch.setattr(PyramidFit, "curvatures", counted)
    Settling(fit, {}, fit.samples, sites)(last)
    assert seen == [used]


def test_errors_make_up_for_each_other(fit: PyramidFit) -> None:
    """With the same binary places, networks that are rounded together do less to bits and to samples than those rounded one number after the other."""
    settling, exact = Settling(fit, {}, fit.samples), (fit.context, fit.synthesis)
    together = settling._together(SITES)
    places = {name: min(4, most) for name, most in STORED_PLACES.items()} | {"synthesis.gains": 14, "synthesis.filters": 12}
    latents, lost = fit.rounded, []
    before = fit.bits(latents), fit.squares(latents)
    for parts in ((), together):
        fit.set_networks(*StoredNetworks.of(*exact, {}, places, parts).networks)
        lost.append((fit.bits(latents) - before[0], fit.squares(latents) - before[1]))
        fit.set_networks(*exact)
    (bits, squares), (fewer_bits, fewer_squares) = lost
    assert bits > 0 and fewer_bits < 0.7 * bits and squares > 0 and fewer_squares < 0.7 * squares


def test_losses_are_foretold(fit: PyramidFit) -> None:
    """At fine places, where errors are small: what all networks lose, within a factor of four, of a fit of so few steps and samples."""
    settling, exact = Settling(fit, {}, fit.samples), (fit.context, fit.synthesis)
    together, latents = settling._together(SITES), fit.rounded
    places = {name: min(5, most) for name, most in STORED_PLACES.items()} | {"synthesis.gains": 20, "synthesis.filters": 20}
    before = fit.bits(latents) + fit.squares(latents) / (FAIR * fit.pressure)
    fit.set_networks(*StoredNetworks.of(*exact, {}, places, together).networks)
    lost = fit.bits(latents) + fit.squares(latents) / (FAIR * fit.pressure) - before
    foretold = sum(each.lost(name) * 4.0 ** -places[name] for each in together for name in each.parts)
    assert foretold / 4 < lost < 4 * foretold
