"""All tiles of a level in one launch, against the reference tile by tile. Run by `test_pyramid_triton.py`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from inrcodec_kernels import pyramid
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Tile, context, context_coder, triton, triton_coding
from inrcodec_kernels.pyramid.context import IntegerContext
from inrcodec_kernels.rans import CodedError

from ..coding_cases import axes_of, latents_of, network
from .device import DEVICE

TRITON = Backend("triton", DEVICE)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What `torch.empty` returns is filled with the largest numbers; few latents at a time."""
    monkeypatch.setattr(triton_coding, "TILE", 4)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def fresh() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)  # seen where a test fails
    return np.random.default_rng(seed)


def tiles_of(
    names: str, lattice: tuple[int, ...], edge: int, random: np.random.Generator, coarser: int, units: int = 8
) -> list[Tile]:
    """All tiles of a lattice; of a level that has so many coarser ones."""
    u, v = random.integers(-127 * units, 127 * units + 1, (2, *lattice)).astype(np.int16)
    starts = np.stack(np.meshgrid(*(np.arange(0, n, edge) for n in lattice), indexing="ij"), -1).reshape(-1, 4).tolist()
    found = []
    for start in starts:
        shape = tuple(min(edge, n - s) for n, s in zip(lattice, start, strict=True))
        above = (u if coarser > 0 else None), (v if coarser > 1 else None)
        found.append(Tile(2 - coarser, tuple(start), shape, axes_of(names), *above))
    return found


def part(lattice: np.ndarray, tile: Tile) -> np.ndarray:
    return lattice[tuple(slice(s, s + n) for s, n in zip(tile.start, tile.shape, strict=True))]


def expected(data: bytes, tile: Tile, net: IntegerContext, lanes: int) -> np.ndarray | None:
    try:
        return context_coder.decode_tile(np.frombuffer(data, np.uint8), tile, net, lanes)
    except CodedError:
        return None


def found(
    data: list[bytes], tiles: list[Tile], net: IntegerContext, lanes: list[int], lattice: tuple[int, ...]
) -> list[np.ndarray | None]:
    latents = np.full(lattice, -7, dtype=np.int32)
    bodies = [np.frombuffer(body, np.uint8) for body in data]
    failed = pyramid.decode_tiles(bodies, tiles, net, lanes, latents, TRITON)
    assert failed.dtype == np.bool_
    return [None if wrong else part(latents, tile) for wrong, tile in zip(failed, tiles, strict=True)]


def assert_alike(a: list[np.ndarray | None], b: list[np.ndarray | None]) -> None:
    assert [x is None for x in a] == [y is None for y in b]
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True) if x is not None and y is not None)


@pytest.mark.parametrize(
    ("names", "lattice", "edge", "coarser", "width", "precision"),
    [
        ("zyx", (1, 3, 2, 5), 2, 2, 4, (4, 14)),
        ("tzyx", (2, 3, 2, 2), 2, 2, 12, (4, 12)),
        ("yx", (1, 1, 3, 7), 4, 1, 4, (3, 11)),
        ("x", (1, 1, 1, 11), 8, 0, 24, (3, 11)),
        ("tx", (3, 1, 1, 4), 3, 2, 4, (4, 13)),
    ],
)
def test_tiles_come_back(
    names: str, lattice: tuple[int, ...], edge: int, coarser: int, width: int, precision: tuple[int, int]
) -> None:
    """Tiles of several extents and numbers of lanes, one of zeros, with escapes of all lengths."""
    random = fresh()
    tiles = tiles_of(names, lattice, edge, random, coarser, 1 << precision[0])
    net = network(axes_of(names), random, width=width, precision=precision)
    latents = latents_of(lattice, random, 2**20 - 1)
    part(latents, tiles[-1])[...] = 0
    lanes = [int(n) for n in random.choice([1, 2, 5, 8, 32], len(tiles))]
    data = [context_coder.encode_tile(part(latents, t), t, net, n) for t, n in zip(tiles, lanes, strict=True)]
    assert data[-1] == b""
    assert_alike(found(data, tiles, net, lanes, lattice), [part(latents, tile) for tile in tiles])


def test_tensors_stay_where_they_are() -> None:
    random, lattice = fresh(), (1, 2, 2, 3)
    tiles = tiles_of("zyx", lattice, 3, random, 2)
    net, latents = network(axes_of("zyx"), random, width=4), latents_of(lattice, random)
    bodies = [np.frombuffer(context_coder.encode_tile(part(latents, t), t, net, 3), np.uint8) for t in tiles]
    there = torch.full(lattice, -7, dtype=torch.int32, device=DEVICE)
    u, v = (torch.from_numpy(lattice).to(DEVICE) for lattice in (tiles[0].u, tiles[0].v) if lattice is not None)
    failed = pyramid.decode_tiles(bodies, [t._replace(u=u, v=v) for t in tiles], net, [3] * len(tiles), there, TRITON)
    assert isinstance(failed, torch.Tensor) and not failed.any()
    assert np.array_equal(there.cpu().numpy(), latents)


def test_damage_is_refused_alike() -> None:
    """Shorter and longer bytes, garbage, changed bits: refused where the reference refuses, else the same latents."""
    random, shape = fresh(), (1, 1, 2, 2)
    (tile,) = tiles_of("zyx", shape, 4, random, 2)
    net = network(axes_of("zyx"), random, width=4)
    data = context_coder.encode_tile(latents_of(shape, random, 9000) + 500, tile, net, 2)
    changed = [bytearray(data) for _ in range(2)]
    for body in changed:
        body[int(random.integers(len(body)))] ^= 1 << int(random.integers(8))
    # Words and escapes of four latents never take 16 bytes more; one byte more may be the end of other escapes.
    certain = [data + bytes(16), data[:7], b"\0" * 20, random.bytes(30)]
    bodies = [data, data[:-1], data[1:], *certain, data + b"\0", *map(bytes, changed)]
    # Each at a place of its own.
    lattice = (1, 1, 2 * len(bodies), 2)
    u, v = (np.concatenate([each] * len(bodies), axis=2) for each in (tile.u, tile.v) if each is not None)
    tiles = [tile._replace(start=(0, 0, 2 * i, 0), u=u, v=v) for i in range(len(bodies))]
    wanted = [expected(body, t, net, 2) for body, t in zip(bodies, tiles, strict=True)]
    # The first one's contexts differ beside its faces, so that it need not come back at other places.
    assert_alike(found(bodies, tiles, net, [2] * len(bodies), lattice), wanted)
    assert all(each is None for each in wanted[3:7])


def test_bytes_that_nothing_reads_are_refused() -> None:
    """Without escapes, a byte more changes nothing but the length."""
    random, shape = fresh(), (1, 1, 1, 4)
    (tile,) = tiles_of("x", shape, 4, random, 0)
    net = network(axes_of("x"), random, width=4)
    wide = net._replace(last=0 * net.last, skip=0 * net.skip, last_bias=np.array([0, 63 << 13]))
    data = context_coder.encode_tile(np.array([[[[9, -30, 100, 1]]]], np.int32), tile, wide, 1)
    tiles = [tile._replace(start=(0, 0, 0, 4 * i)) for i in range(2)]
    assert [each is None for each in found([data, data + b"\0"], tiles, wide, [1, 1], (1, 1, 1, 8))] == [False, True]


def test_latents_out_of_range_are_refused() -> None:
    """An escape's number may lead beyond 2^20; the largest one that does not is decoded."""
    random, shape = fresh(), (1, 1, 1, 1)
    (tile,) = tiles_of("x", shape, 4, random, 0)
    net = network(axes_of("x"), random, width=4)
    bodies, limit = [], context.LIMIT
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context, "LIMIT", 1 << 30)
        for value in (limit - 1, 1 - limit, limit, -limit, 1 << 29):
            bodies.append(context_coder.encode_tile(np.full(shape, value, np.int32), tile, net, 1))
    tiles = [tile._replace(start=(0, 0, 0, i)) for i in range(5)]
    refused = [each is None for each in found(bodies, tiles, net, [1] * 5, (1, 1, 1, 5))]
    assert refused == [expected(body, tile, net, 1) is None for body in bodies] == [False] * 2 + [True] * 3


def test_more_lanes_than_a_warp_has() -> None:
    random, lattice = fresh(), (1, 1, 1, 5)
    tiles = tiles_of("x", lattice, 8, random, 1)
    net, latents = network(axes_of("x"), random, width=4), latents_of(lattice, random)
    data = [context_coder.encode_tile(latents, tiles[0], net, 40)]
    assert_alike(found(data, tiles, net, [40], lattice), [latents])
    there = torch.full(lattice, -7, dtype=torch.int32, device=DEVICE)
    (tile,) = (t._replace(u=torch.from_numpy(t.u).to(DEVICE)) for t in tiles)
    for cut, wrong in ((0, False), (1, True)):
        bodies = [np.frombuffer(data[0][cut:], np.uint8)]
        failed = pyramid.decode_tiles(bodies, [tile], net, [40], there, TRITON)
        assert isinstance(failed, torch.Tensor) and failed.tolist() == [wrong]
        assert np.array_equal(there.cpu().numpy(), latents)


@pytest.mark.parametrize(
    ("shape", "halved", "units"),
    [
        ((1, 5, 6, 7), (False, True, True, True), 16),
        ((3, 4, 1, 5), (True, False, True, True), 8),
        ((2, 3, 4, 5), (True, True, True, True), 16),
        ((1, 1, 1, 9), (False, False, False, False), 8),
    ],
)
def test_parents(shape: tuple[int, ...], halved: tuple[bool, ...], units: int) -> None:
    random = fresh()
    extents = tuple(-(-n // 2) if h else n for n, h in zip(shape, halved, strict=True))
    coarse = random.integers(-200, 201, extents).astype(np.int32)
    above = random.integers(-1016, 1017, extents).astype(np.int16)
    for second in (above, None):
        given = None if second is None else torch.from_numpy(second).to(DEVICE)
        results = triton.parents(torch.from_numpy(coarse).to(DEVICE), given, halved, shape, units)
        for a, b in zip(results, context.parents(coarse, second, halved, shape, units), strict=True):
            assert (a is None) == (b is None)
            assert a is None or b is None or (a.dtype == torch.int16 and np.array_equal(a.cpu().numpy(), b))
    with pytest.raises(ValueError, match="take the one that belongs to it"):
        triton.parents(torch.from_numpy(coarse).to(DEVICE), None, halved, (*shape[:3], 4 * shape[3]), units)


def test_misfits_are_refused() -> None:
    random, lattice = fresh(), (1, 1, 1, 5)
    net = network(axes_of("x"), random, width=4)
    tiles = triton.DeviceTiles.of([(0, 0, 0, 0)], [lattice], lattice, axes_of("x"), DEVICE)
    there = triton.DeviceContext.of(net, axes_of("x"), DEVICE)
    zero, latents = (
        torch.zeros(1, dtype=torch.int64, device=DEVICE),
        torch.zeros(lattice, dtype=torch.int32, device=DEVICE),
    )
    data, lanes = torch.zeros(9, dtype=torch.uint8, device=DEVICE), torch.ones(1, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="take those of the level"):
        triton.decode_tiles(data, zero, zero, lanes, tiles, 0, there, None, None, latents[..., :4])
    with pytest.raises(ValueError, match="give those of each tile"):
        triton.decode_tiles(data, zero[:0], zero, lanes, tiles, 0, there, None, None, latents)
    with pytest.raises(ValueError, match="take the stream's network"):
        triton.decode_tiles(data, zero, zero, lanes, tiles, 3, there, None, None, latents)
    with pytest.raises(ValueError, match="cut them to it"):
        triton.DeviceTiles.of([(0, 0, 0, 1)], [lattice], lattice, axes_of("x"), DEVICE)
    with pytest.raises(ValueError, match="decode it on the CPU"):
        triton.DeviceContext.of(net, axes_of("yx"), DEVICE)
    assert triton.decode_tiles(data, zero, zero, lanes - 1, tiles, 0, there, None, None, latents).tolist() == [True]
