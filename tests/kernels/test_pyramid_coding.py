"""The coding of tiles: what is written comes back, damage is seen."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec_kernels.backend import REFERENCE, Backend
from inrcodec_kernels.pyramid import Layout, context_coder, context_cpu, context_tables
from inrcodec_kernels.pyramid.context import IntegerContext, Tile, causal_taps, cross_taps, inputs, ring_of
from inrcodec_kernels.pyramid.context_tables import REACH, laplace_tables
from inrcodec_kernels.rans import CodedError, escape_bits, joined, reference

from .coding_cases import AXES, CODERS, SHAPES, axes_of, both, latents_of, network, tile_of


@pytest.mark.parametrize(("names", "shape"), SHAPES)
@pytest.mark.parametrize(("lanes", "largest"), [(1, 3), (4, 300), (32, (1 << 20) - 1)])
def test_tiles_come_back_alike_from_both(names: str, shape: tuple[int, ...], lanes: int, largest: int) -> None:
    random = np.random.default_rng(lanes + sum(shape))
    net = network(axes_of(names), random)
    tile = tile_of(names, shape, random, net.units)
    latents = latents_of(shape, random, largest)
    latents.flat[0] = largest  # so no tile is all zeros
    data = context_coder.encode_tile(latents, tile, net, lanes)
    assert context_cpu.encode_tile(latents, tile, net, lanes) == data
    for coder in CODERS:
        found = coder.decode_tile(np.frombuffer(data, dtype=np.uint8), tile, net, lanes)
        assert found.dtype == np.int32 and found.tolist() == latents.tolist()


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 7)] * 4),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([0.05, 1.0, 40.0]),
    st.integers(0, 2**32),
)
def test_any_tile_comes_back(extents: tuple[int, ...], lanes: int, spread: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    names = "".join(axis for axis in "tzyx" if random.random() < 0.7) or "x"
    shape = tuple(n if here else 1 for n, here in zip(extents, axes_of(names), strict=True))
    net = network(axes_of(names), random, width=4 * int(random.integers(1, 9)))
    tile = tile_of(names, shape, random, net.units)
    latents = np.round(random.laplace(0, spread, shape)).astype(np.int32)
    data = context_cpu.encode_tile(latents, tile, net, lanes)
    assert context_coder.encode_tile(latents, tile, net, lanes) == data
    assert context_cpu.decode_tile(np.frombuffer(data, dtype=np.uint8), tile, net, lanes).tolist() == latents.tolist()


@both
def test_a_tile_of_zeros_takes_no_bytes(coder: ModuleType) -> None:
    random = np.random.default_rng(0)
    net = network(AXES["zyx"], random)
    tile = tile_of("zyx", (1, 3, 4, 5), random, net.units)
    nothing = np.zeros(tile.shape, dtype=np.int32)
    assert coder.encode_tile(nothing, tile, net, 4) == b"" and coder.tile_bits(nothing, tile, net) == 0
    assert not coder.decode_tile(np.empty(0, dtype=np.uint8), tile, net, 4).any()


@pytest.mark.parametrize("spread", [0.2, 3.0, 300.0])
def test_bits_are_counted_as_they_are_written(spread: float) -> None:
    random = np.random.default_rng(4)
    net = network(AXES["zyx"], random)
    tile = tile_of("zyx", (1, 13, 14, 15), random, net.units)
    latents = np.round(random.laplace(0, spread, tile.shape)).astype(np.int32)
    bits = context_coder.tile_bits(latents, tile, net)
    assert context_cpu.tile_bits(latents, tile, net) == pytest.approx(bits, rel=1e-12)
    written = 8 * len(context_cpu.encode_tile(latents, tile, net, 2))
    # Two states of 32 bits, of which the last 16 or so hold symbols; up to a byte of padding.
    assert bits + 16 < written < bits * 1.002 + 80


def test_a_good_network_saves_bits() -> None:
    """Latents that follow the coarser level: a skip from its centre to the mean, and a small scale."""
    random, present = np.random.default_rng(2), AXES["yx"]
    u = random.integers(-500, 501, (1, 1, 20, 20)).astype(np.int16)
    tile = Tile(0, (0, 0, 0, 0), u.shape, present, u, None)
    net = network(present, random, precision=(3, 11), wide=False)
    quiet = net._replace(last=net.last * 0, skip=net.skip * 0, last_bias=np.array([0, 6 << 13]), shifts=(0, 0, 9, 13))
    quiet.skip[len(causal_taps(present)), 0] = 1 << 9
    latents = (u.astype(np.int32) + 4) >> 3
    assert context_cpu.tile_bits(latents, tile, quiet) < 0.4 * latents.size
    assert context_cpu.tile_bits(latents, tile, quiet._replace(skip=quiet.skip * 0)) > 10 * latents.size


def test_results_do_not_depend_on_what_memory_held(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    net = network(AXES["zyx"], random)
    tile = tile_of("zyx", (1, 6, 7, 9), random, net.units)
    latents = latents_of(tile.shape, random)
    data = context_cpu.encode_tile(latents, tile, net, 3)
    bits, means = context_cpu.tile_bits(latents, tile, net), context_cpu.predictions(latents, tile, net)[0]
    u, _ = context_cpu.parents(latents, None, (0, 1, 1, 0), (1, 11, 13, 9), 16)

    def poisoned(shape, dtype=np.float64):  # type: ignore[no-untyped-def]
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max, dtype=dtype)

    monkeypatch.setattr(np, "empty", poisoned)
    assert context_cpu.encode_tile(latents, tile, net, 3) == data
    assert context_cpu.tile_bits(latents, tile, net) == bits
    assert context_cpu.predictions(latents, tile, net)[0].tolist() == means.tolist()
    assert context_cpu.decode_tile(np.frombuffer(data, dtype=np.uint8), tile, net, 3).tolist() == latents.tolist()
    assert context_cpu.parents(latents, None, (0, 1, 1, 0), (1, 11, 13, 9), 16)[0].tolist() == u.tolist()


# ---- Damage


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=120), st.integers(0, 2**32))
def test_both_refuse_or_read_the_same_garbage(data: bytes, seed: int) -> None:
    random = np.random.default_rng(seed)
    net = network(AXES["yx"], random, width=8)
    tile = tile_of("yx", (1, 1, 4, 5), random, net.units)
    outcomes = []
    for coder in CODERS:
        try:
            outcomes.append(coder.decode_tile(np.frombuffer(data, dtype=np.uint8), tile, net, 2).tolist())
        except CodedError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


@both
def test_damage_is_nearly_always_seen(coder: ModuleType) -> None:
    random = np.random.default_rng(3)
    net = network(AXES["zyx"], random)
    tile = tile_of("zyx", (1, 3, 4, 3), random, net.units)
    latents = np.round(random.laplace(0, 3, tile.shape)).astype(np.int32)
    data = bytearray(context_coder.encode_tile(latents, tile, net, 2))
    unseen, tried = 0, range(0, 8 * len(data), 7)
    for bit in tried:
        data[bit // 8] ^= 1 << bit % 8
        try:
            coder.decode_tile(np.frombuffer(bytes(data), dtype=np.uint8), tile, net, 2)
            unseen += 1
        except CodedError:
            pass
        data[bit // 8] ^= 1 << bit % 8
    # The sign and the number of an escape are plain bits: nothing but the tile's checksum can see that they changed.
    assert unseen <= len(tried) // 4


def escaping(excess: int, below: bool) -> tuple[bytes, Tile, IntegerContext, int]:
    """A tile of one latent that escapes by `excess`; the stream, and the latent."""
    present = AXES["yx"]
    net = network(present, np.random.default_rng(0), precision=(3, 11))
    net = net._replace(last=net.last * 0, skip=net.skip * 0, last_bias=np.array([80 << 9, 12 << 13]))
    table, reach = 8 * 12 + 4, REACH[12]
    intervals = laplace_tables(8).tables.intervals(np.array([2 * reach + 1]), np.array([table]))
    words = reference.encode(intervals, np.zeros(1, dtype=np.uint8), 1)
    data = joined(words, np.array([int(below), *escape_bits(excess)], dtype=np.uint8))
    magnitude = reach + 1 + excess
    return data, Tile(0, (0,) * 4, (1,) * 4, present, None, None), net, 10 + (-magnitude if below else magnitude)


@both
@pytest.mark.parametrize("below", [False, True])
def test_escapes_end_where_latents_do(coder: ModuleType, below: bool) -> None:
    _, _, _, nearest = escaping(0, below)
    most = (1 << 20) - 1 + (nearest if below else -nearest)
    data, tile, net, value = escaping(most, below)
    assert abs(value) == (1 << 20) - 1
    assert coder.decode_tile(np.frombuffer(data, dtype=np.uint8), tile, net, 1).item() == value
    assert coder.encode_tile(np.full((1,) * 4, value, dtype=np.int32), tile, net, 1) == data
    for excess in (most + 1, 1 << 30):
        with pytest.raises(CodedError):
            coder.decode_tile(np.frombuffer(escaping(excess, below)[0], dtype=np.uint8), tile, net, 1)


@both
def test_streams_cut_short_or_too_long_are_refused(coder: ModuleType) -> None:
    random = np.random.default_rng(9)
    net = network(AXES["zyx"], random)
    tile = tile_of("zyx", (1, 4, 5, 6), random, net.units)
    data = context_coder.encode_tile(latents_of(tile.shape, random), tile, net, 4)
    for wrong in (
        data[:3],
        data[:15],
        data[:16],
        data[:-1],
        data[:-2],
        data[1:],
        data + b"\0",
        data + b"\0\0",
        b"\0" * len(data),
    ):
        with pytest.raises(CodedError):
            coder.decode_tile(np.frombuffer(wrong, dtype=np.uint8), tile, net, 4)


def test_backends_choose_their_coder() -> None:
    assert context_coder.tile_coder(REFERENCE) is context_coder
    assert (
        context_coder.tile_coder(Backend("numba")) is context_coder.tile_coder(Backend("triton", "cuda")) is context_cpu
    )
    assert context_tables.laplace_tables(16) is laplace_tables(16)


@pytest.mark.parametrize("shape", [(1, 1, 1, 5), (1, 1, 4, 5), (1, 3, 4, 5), (2, 3, 4, 5), (2, 1, 4, 1), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("wide", [False, True], ids=["near", "wide"])
def test_a_fit_and_its_stream_see_the_same_latents(shape: tuple[int, int, int, int], wide: bool) -> None:
    layout, present = Layout(shape, (), wide=wide), tuple(n > 1 for n in shape)
    assert [tuple(tap) for tap in causal_taps(present, wide).tolist()] == list(layout.causal)
    assert [tuple(tap) for tap in cross_taps(present).tolist()] == list(layout.cross)
    assert inputs(present, wide) == layout.context_inputs and ring_of(present, wide) == layout.context_reach
