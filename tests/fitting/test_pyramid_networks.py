"""Networks in the making: every parameter but the gains moves, down its gradient, and names stay with their shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inrcodec.fitting.pyramid_networks import Moving, Networks
from inrcodec.models.pyramid import PyramidLayout, initial_networks, joined
from inrcodec_kernels.backend import choose
from inrcodec_kernels.pyramid import Context, Synthesis

LAYOUT = PyramidLayout((16, 16, 16), ((True,) * 3,) * 2, 8, (8, 4))


def test_networks_go_where_their_gradients_lead() -> None:
    """The gradient of half the squared distance to other networks."""
    start, goal = initial_networks(LAYOUT, 0), initial_networks(LAYOUT, 1)
    goal = goal[0]._replace(level_bias=goal[0].level_bias + 1), goal[1]._replace(skips=goal[1].skips * 2)
    networks = Networks(*start)

    def distances() -> dict[str, float]:
        own, other = joined(networks.context, networks.synthesis), joined(*goal)
        return {name: float(np.square(own[name] - other[name]).sum()) for name in own}

    before = distances()
    for number in range(200):
        rate = 0.03 * (1 - number / 200)
        of_context = Context(*(a - b for a, b in zip(networks.context, goal[0], strict=True)))
        of_synthesis = Synthesis(*(np.asarray(a - b) for a, b in zip(networks.synthesis, goal[1], strict=True)))
        networks.move(of_context, of_synthesis, rate, choose("cpu"))
    after = distances()
    for name in ("context.first", "context.level_bias", "context.second", "synthesis.first", "synthesis.last", "synthesis.skips"):
        assert after[name] < 0.05 * before[name], name
    assert [p.shape for p in networks.synthesis] == [p.shape for p in start[1]]
    assert [p.shape for p in networks.context] == [p.shape for p in start[0]]


def test_each_network_of_a_context_model_has_its_own_gradients() -> None:
    """The second of two, which two of three levels share, moves as it would alone; the first one has no gradients and keeps still."""
    start = initial_networks(replace(LAYOUT, networks=2), 0)
    both, alone = Networks(*start), Networks(*initial_networks(LAYOUT, 0))
    of_synthesis = Synthesis(*(np.zeros_like(p) for p in start[1]))
    pushed = Context(*(np.sin(np.arange(p.size, dtype=np.float32)).reshape(p.shape) for p in alone.context))
    of_second = Context(*(np.concatenate([np.zeros_like(p), p]) for p in pushed))
    of_second = of_second._replace(level_bias=np.where([[False], [True], [True]], pushed.level_bias, np.float32(0)))
    for _ in range(4):
        alone.move(pushed, of_synthesis, 0.1, choose("cpu"))
        both.move(of_second, of_synthesis, 0.1, choose("cpu"))
    for name in ("second", "second_bias", "last", "last_bias", "skip"):
        first, second = getattr(both.context, name)
        assert np.array_equal(first, getattr(start[0], name)[0]) and not np.array_equal(second, getattr(start[0], name)[1])
        np.testing.assert_allclose(second, getattr(alone.context, name)[0], rtol=1e-5, atol=1e-6)
    for name, still in (("level_bias", [True, False, False]), ("first", [True, False])):
        kept = getattr(both.context, name) == getattr(start[0], name)
        assert [bool(rows.all()) for rows in kept] == still


def test_gains_keep_still() -> None:
    start = initial_networks(LAYOUT, 0)
    networks = Networks(*start)
    for _ in range(3):
        networks.move(start[0], Synthesis(*(np.ones_like(p) for p in start[1])), 0.1, choose("cpu"))
    assert np.array_equal(networks.synthesis.gains, start[1].gains)
    assert not np.array_equal(networks.synthesis.skips, start[1].skips)


def test_copies_move_on_by_themselves() -> None:
    one = Moving(np.zeros(5, np.float32))
    one.move(np.ones(5, np.float32), 0.1, choose("cpu"))
    other = one.copy()
    other.move(np.ones(5, np.float32), 0.1, choose("cpu"))
    assert one.moved == 1 and other.moved == 2
    assert one.values[0] == pytest.approx(-0.1, rel=1e-3) and other.values[0] < one.values[0]
    np.testing.assert_allclose(one.moments[0], 0.1, rtol=1e-6)
