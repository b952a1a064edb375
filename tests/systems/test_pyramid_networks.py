"""Networks as a stream holds them: rounded, and cut where a context model's sums would be too large."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.fitting.pyramid import FAIR, PyramidFit, Schedule
from inrcodec.fitting.pyramid_places import LARGE, names
from inrcodec.fitting.pyramid_start import choose_halvings
from inrcodec.models.pyramid import STORED_PLACES, PyramidLayout, initial_networks, joined, stored_places
from inrcodec.systems.pyramid_networks import Settling, StoredNetworks
from inrcodec_kernels.backend import choose
from inrcodec_kernels.pyramid import EXACT, Context, check_context, largest_sums
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
    """Of one fit, whose latents keep still: what is found by trying costs less than what the formula says, and takes fewer bits."""
    exact, costs = (fit.context, fit.synthesis), []
    for stored in (StoredNetworks.of(*exact, {}, stored_places(fit.samples)), Settling(fit, {}, fit.samples)(True)):
        fit.set_networks(*stored.networks)
        own = sum(tensor.bits for tensor in stored.differences.values())
        costs.append((own, fit.bits(fit.rounded) + fit.squares(fit.rounded) / (FAIR * fit.pressure)))
        fit.set_networks(*exact)
    (by_rule, rest_by_rule), (own, rest) = costs
    assert own < 0.95 * by_rule and 2 * own + rest < 2 * by_rule + rest_by_rule


def test_the_first_turn_holds_large_matrices_alone_and_the_last_everything(fit: PyramidFit) -> None:
    exact, settling = joined(fit.context, fit.synthesis), Settling(fit, {}, fit.samples)
    large = names(LARGE)
    settling(False)
    held = joined(fit.context, fit.synthesis)
    assert {name for name, values in exact.items() if not np.array_equal(values, held[name])} == large
    found = settling(True)
    for name, values in joined(fit.context, fit.synthesis).items():
        step = 2.0 ** found.differences[name].exponent
        np.testing.assert_allclose(values, step * np.rint(values / step), atol=1e-5)
        assert name not in large or np.array_equal(values, held[name]), "large matrices are as they were held"
