"""The pyramid's shapes and parameters, and the context model in whole numbers beside the one of real numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from inrcodec.models import shipped
from inrcodec.models.pyramid import (
    COARSE,
    FINE,
    STORED_PLACES,
    Precision,
    PyramidLayout,
    initial_networks,
    integer_contexts,
    joined,
    parted,
    stored_places,
)
from inrcodec_kernels.pyramid import Context, IntegerContext, check_context, context
from pyramid_streams import SHAPES, flags, quantised

every_shape = pytest.mark.parametrize("name", SHAPES)


@every_shape
def test_lattices_and_strides_follow_from_the_halved_axes(name: str) -> None:
    shape, halved = SHAPES[name]
    layout = PyramidLayout(shape, halved)
    assert layout.lattices[0] == shape and layout.levels == len(halved) + 1 == len(layout.lattices)
    for lattice, stride in zip(layout.lattices, layout.strides, strict=True):
        assert lattice == tuple(-(-n // s) for n, s in zip(shape, stride, strict=True))
    for fine, coarse, half in zip(layout.strides, layout.strides[1:], halved, strict=False):
        assert coarse == tuple(2 * s if h else s for s, h in zip(fine, half, strict=True))
    assert layout.latents == sum(math.prod(lattice) for lattice in layout.lattices)


def test_inputs_are_those_that_the_page_counts() -> None:
    three = PyramidLayout((9, 9, 9), flags(3, 4))
    assert (three.kernel.context_inputs, three.kernel.synthesis_inputs) == (21, 56)
    four = PyramidLayout((9, 9, 9, 9), flags(4, 4))
    assert (four.kernel.context_inputs, four.kernel.synthesis_inputs) == (30, 60)
    one = PyramidLayout((9,), ())
    assert (one.kernel.context_inputs, one.kernel.synthesis_inputs) == (1 + 3 + 1, 3)


@every_shape
def test_first_networks_have_the_shapes_and_the_count_of_the_layout(name: str) -> None:
    shape, halved = SHAPES[name]
    layout = PyramidLayout(shape, halved, context=8, synthesis=(4, 12), networks=min(2, len(halved) + 1))
    networks = initial_networks(layout, 3)
    parameters = joined(*networks)
    shapes = {f"context.{n}": s for n, s in layout.context_shapes.items()} | {
        f"synthesis.{n}": s for n, s in layout.synthesis_shapes.items()
    }
    assert {n: v.shape for n, v in parameters.items()} == shapes
    assert list(parameters) == list(shapes) == list(STORED_PLACES)
    assert sum(v.size for v in parameters.values()) == layout.parameters
    assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in parameters.values())
    assert not any(v.any() for n, v in parameters.items() if n.endswith("bias") and n != "context.last_bias")


def test_taps_are_as_far_apart_as_latents_of_the_finest_level() -> None:
    full = PyramidLayout((9, 20, 20), ((False, True, True), (True, True, True), (True, True, True)), apart=True)
    layouts = full, full.without_finest, full.without_finest.without_finest
    assert [layout.kernel.apart for layout in layouts] == [(1, 1, 1, 1), (1, 1, 2, 2), (1, 2, 4, 4)]
    # The same taps, seen at half the resolution.
    assert layouts[2].coarser.kernel.apart == (1, 2, 2, 2)
    assert all(replace(layout, apart=False).kernel.apart == (1, 1, 1, 1) for layout in layouts)


def test_first_networks_follow_the_seed() -> None:
    layout = PyramidLayout((9, 9), flags(2, 3))
    one, same, other = (joined(*initial_networks(layout, seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(one[n], same[n]) for n in one)
    several = joined(*initial_networks(replace(layout, networks=3), 0))
    assert all(np.array_equal(several["context.second"][n], one["context.second"][0]) for n in range(3)), "all begin as one"
    assert not np.array_equal(one["context.first"], other["context.first"])


@every_shape
def test_what_is_joined_can_be_parted(name: str) -> None:
    layout = PyramidLayout(*SHAPES[name], context=8)
    random = np.random.default_rng(1)
    context, synthesis = (
        type(network)(*(random.standard_normal(p.shape).astype(np.float32) for p in network))
        for network in initial_networks(layout, 0)
    )
    for before, after in zip((context, synthesis), parted(joined(context, synthesis)), strict=True):
        for a, b in zip(before, after, strict=True):
            assert a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=4e-6)


def test_streams_hold_scales_in_sixths_of_an_octave() -> None:
    layout = PyramidLayout((9, 9), flags(2, 3))
    context, synthesis = initial_networks(layout, 0)
    found = joined(context, synthesis)
    assert np.array_equal(found["context.last"][..., 0], context.last[..., 0])
    assert np.allclose(found["context.last"][..., 1], 6 * context.last[..., 1])
    assert np.allclose(found["context.last_bias"], [[context.last_bias[0, 0], 6 * context.last_bias[0, 1] + 30]])


# ---- Whole numbers


def random_context(layout: PyramidLayout, seed: int) -> Context:
    """Weights of an ordinary size, biases too."""
    random = np.random.default_rng(seed)
    return Context(**{
        name: np.float32(0.5 / math.sqrt(shape[-2]) if len(shape) > 2 else 0.5)
        * random.standard_normal(shape).astype(np.float32)
        for name, shape in layout.context_shapes.items()
    })  # fmt: skip


def whole(network: Context, precision: Precision) -> tuple[dict[str, np.ndarray], tuple[IntegerContext, ...]]:
    """A context model rounded as a stream may hold it, and its whole numbers on every level."""
    zero = initial_networks(PyramidLayout((3,), ((True,),)), 0)[1]
    exact = {n.removeprefix("context."): v for n, v in joined(network, zero).items() if n.startswith("context.")}
    places = precision.places
    held = {n: (np.rint(v * 2.0 ** places[n]) / 2.0 ** places[n]).astype(np.float32) for n, v in exact.items()}
    return held, integer_contexts(held, precision)


def predicted(held: dict[str, np.ndarray], inputs: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and numbers of scales in float64, by the formula."""
    own = {name: v.astype(float)[level if name == "level_bias" else min(level, len(held["first"]) - 1)] for name, v in held.items()}
    h = inputs @ own["first"] + own["level_bias"]
    h = np.maximum(h, h / 8) @ own["second"] + own["second_bias"]
    mean, scale = (np.maximum(h, h / 8) @ own["last"] + inputs @ own["skip"] + own["last_bias"]).T
    return np.clip(mean, -127, 127), np.clip(scale, 0, 63)


every_precision = pytest.mark.parametrize("precision", [COARSE, FINE[2], FINE[3]], ids=str)


@every_precision
@pytest.mark.parametrize("name", ["x", "yx", "zyx", "tzyx"])
def test_whole_numbers_predict_what_real_ones_do(name: str, precision: Precision) -> None:
    for seed in range(3):
        layout = PyramidLayout(*SHAPES[name], context=16, networks=seed + 1)
        held, found = whole(random_context(layout, seed), precision)
        assert len(found) == layout.levels and len({id(network) for network in found}) == layout.networks
        rows = np.rint(np.random.default_rng(seed).laplace(0, 12, (2000, layout.kernel.context_inputs))).astype(
            np.int64
        )
        for level, network in enumerate(found):
            check_context(network)
            means, scales = context.evaluate(rows, level, network)
            mean, scale = predicted(held, rows / network.units, level)
            # Means are in units and scales whole, cut from hidden numbers of 1/32.
            assert np.abs(means / network.units - mean).max() < 0.25 and np.abs(scales - scale).max() < 1.5
            inside = (scale > 0.5) & (scale < 62.5)
            assert abs(np.mean(means / network.units - mean)) < 0.02 and abs(np.mean((scales - scale)[inside])) < 0.1


@pytest.mark.parametrize(
    ("precision", "shifts", "halves"),
    [(COARSE, (5, 7, 9, 12), (16, 64, 256, 2048)), (FINE[0], (6, 7, 8, 12), (32, 64, 128, 2048))],
    ids=str,
)
def test_whole_numbers_are_multiples_and_carry_half_of_what_is_cut(
    precision: Precision, shifts: tuple[int, ...], halves: tuple[int, ...]
) -> None:
    layout = PyramidLayout((9, 9, 9), flags(3, 3), networks=2)
    held, found = whole(random_context(layout, 5), precision)
    for level, network in enumerate(found):
        for name, places in precision.places.items():
            exact = held[name].astype(np.float64) * 2.0**places
            half = {"level_bias": halves[0], "second_bias": halves[1], "last_bias": np.array(halves[2:])}.get(name, 0)
            if name == "level_bias":
                served = slice(0, 1) if level == 0 else slice(1, 3)
                assert np.array_equal(network.level_bias[served], exact[served] + half)
                assert not np.delete(network.level_bias, served, 0).any(), "others would count in the largest sums"
            else:
                assert np.array_equal(getattr(network, name), exact[min(level, 1)] + half)
        assert network.shifts == shifts and network.hidden_bits == precision.hidden_bits


@pytest.mark.parametrize("width", [4, 24, 32])
@every_shape
def test_first_networks_are_small_enough_to_be_exact(name: str, width: int) -> None:
    layout = PyramidLayout(*SHAPES[name], context=width)
    for precision in (COARSE, *FINE[1:]):
        for network in whole(initial_networks(layout, 0)[0], precision)[1]:
            check_context(network)


def test_steps_of_encoders_are_such_that_all_is_whole() -> None:
    assert all(STORED_PLACES[f"context.{n}"] <= places for p in (COARSE, *FINE) for n, places in p.places.items())


# ---- Shipped networks


def test_networks_that_are_not_there() -> None:
    with pytest.raises(LookupError, match="expected the networks 0badcafe, found"):
        shipped.shipped("0badcafe")


@pytest.mark.parametrize("levels", [3, 5])
def test_signals_of_fewer_levels_take_the_first_rows(levels: int) -> None:
    whole = as_shipped(5)
    for networks in (1, 2):
        layout = PyramidLayout((9, 9), flags(2, levels), 8, (4, 12), networks=networks)
        found = shipped.ShippedNetworks("01020304", whole).fitted_to(layout)
        assert found is not None
        for name, expected in quantised(layout, 2).items():
            shape = expected.values.shape
            assert found[name].shape == shape
            if name in shipped.PER_LEVEL:
                assert np.array_equal(found[name], whole[name][: shape[0]])
            else:
                assert np.array_equal(found[name], np.broadcast_to(whole[name], shape)), "all begin as the one"


def as_shipped(levels: int) -> dict[str, np.ndarray]:
    """Parameters as a file holds them: a context model of one network, without an axis for it."""
    found = {n: t.dequantised() for n, t in quantised(PyramidLayout((9, 9), flags(2, levels), 8, (4, 12)), 2).items()}
    return {n: v[0] if n.startswith("context.") and n not in shipped.PER_LEVEL else v for n, v in found.items()}


def test_other_widths_do_not_fit() -> None:
    whole = as_shipped(3)
    for layout in (PyramidLayout((9, 9), flags(2, 3), 12, (4, 12)), PyramidLayout((9,), flags(1, 3), 8, (4, 12))):
        assert shipped.ShippedNetworks("01020304", whole).fitted_to(layout) is None


@pytest.mark.parametrize("name", shipped.NAMES)
def test_shipped_networks_have_their_name_and_small_sums(name: str) -> None:
    networks = shipped.shipped(name)
    levels = len(networks.parameters["synthesis.gains"])
    ndim = {21: 3, 30: 4, 10: 2, 5: 1}[len(networks.parameters["context.first"])]
    width = networks.parameters["context.first"].shape[1]
    layout = PyramidLayout((9,) * ndim, flags(ndim, levels), width, networks.parameters["synthesis.second"].shape)
    found = networks.fitted_to(layout)
    assert found is not None and list(found) == list(STORED_PLACES)
    context = {n.removeprefix("context."): v for n, v in found.items() if n.startswith("context.")}
    for precision in (COARSE, FINE[-1]):
        for network in integer_contexts(context, precision):
            check_context(network)
        whole = {n: np.ldexp(v, precision.places[n]) for n, v in context.items()}
        assert all(np.array_equal(np.rint(v), v) for v in whole.values())


def test_larger_signals_store_finer_networks() -> None:
    small, middle, large = (stored_places(n) for n in (64, 1 << 18, 1 << 26))
    assert all(small[n] <= middle[n] <= large[n] <= STORED_PLACES[n] for n in STORED_PLACES)
    assert small["context.first"] < middle["context.first"] < large["context.first"] == STORED_PLACES["context.first"]
    assert min(small.values()) >= 0
