"""Networks as a stream holds them: rounded, and cut where a context model's sums would be too large."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec.models.pyramid import STORED_PLACES, PyramidLayout, initial_networks, joined, stored_places
from inrcodec.systems.pyramid_networks import StoredNetworks
from inrcodec_kernels.pyramid import EXACT, Context, check_context, largest_sums
from pyramid_streams import flags

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
