"""A second decoder, written from docs/container.md alone: streams of the method `pyramid`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache, cached_property
from itertools import product

import numpy as np

from .restoration import read_tensor
from .stream import Bytes, Chunk, Index, Lanes, RangeDecoder, Stream, proportional

# ---- TREE of the pyramid


@dataclass
class Pyramid:
    """Everything with four axes; grids from that of the signal on, of which the last ones are lattices."""

    width: int
    synthesis: tuple[int, int]
    edge: int
    step: float
    offsets: np.ndarray  # of every channel along t or z, or one for all
    low: int
    high: int
    halved: list[tuple[bool, ...]]
    grids: list[Index]
    bare: int
    g: int  # units of a latent
    bits: int  # of a hidden number
    networks: int  # of the context model
    apart: Index  # taps of the synthesis
    wide: bool  # contexts
    split: int  # lattices

    @property
    def lattices(self) -> list[Index]:
        return self.grids[self.bare :]

    @cached_property
    def levels(self) -> list[tuple[int, tuple[bool, ...]]]:
        """Lattice of each, and the axes along which it is odd."""
        found = []
        for number in range(self.split):
            odd = [b for b in product((True, False), repeat=4) if any(b) and not any(o and not h for o, h in zip(b, self.halved[self.bare + number], strict=True))]
            found += [(number, b) for b in sorted(odd, key=lambda b: -sum(b))]
        return found + [(number, (False,) * 4) for number in range(self.split, len(self.lattices))]

    def on(self, level: int) -> int:
        """The lattice whose places a level has."""
        return self.levels[level][0] + any(self.levels[level][1])

    def between(self, level: int) -> tuple[bool, ...]:
        """Axes halved from a level to the next."""
        fine, coarse = self.on(level), self.on(level + 1)
        return self.halved[self.bare + fine] if coarse > fine else (False,) * 4

    @property
    def present(self) -> list[int]:
        return [a for a in range(4) if self.grids[0][a] > 1]

    @cached_property
    def tiles(self) -> list[tuple[int, Index, Index]]:
        """Level, first latent and end of each."""
        found = []
        for level in reversed(range(len(self.levels))):
            lattice = self.lattices[self.on(level)]
            for start in product(*(range(0, n, self.edge) for n in lattice)):
                found.append((level, start, tuple(min(a + self.edge, n) for a, n in zip(start, lattice, strict=True))))
        return found


def read_pyramid(body: bytes, shape: Index, channels: bool = False) -> Pyramid:
    fields = Bytes(body)
    version, levels, width, s1, s2, edge, step, offset, low, high = fields.fields("BBBBBBfiii")
    assert version in range(7)
    bare, missing = fields.take(1)[0] if version else 0, 4 - len(shape)
    assert bare <= 2 and (bare or version not in (1, 4))
    g, bits = (16, fields.take(1)[0]) if version >= 2 else (8, 11)
    networks = fields.take(1)[0] if version >= 3 else 1
    assert 11 <= bits <= 14 and (2 if version == 3 else 1) <= networks <= levels
    last = fields.take(1)[0] if version >= 6 else 16 * (version == 5)
    wide, split = last >= 16, last % 16
    assert last < 32 and split < levels and (split or version < 6)
    halved = [
        (False,) * missing + tuple(bool(b >> a & 1) for a in range(len(shape)))
        for b in fields.fields(f"{bare + levels - 1}B")
    ]
    further = fields.fields(f"{shape[0] - 1 if channels else 0}i")
    assert not fields.rest()
    offsets = np.array([offset, *further]).reshape(-1, *[1] * (len(shape) - 1))
    grids = [(1,) * missing + shape]
    for axes in halved:
        grids.append(tuple(-(-n // 2) if half else n for n, half in zip(grids[-1], axes, strict=True)))
    apart = tuple(2 ** sum(axes[a] for axes in halved[:bare]) if version >= 4 else 1 for a in range(4))
    assert all(map(any, halved[bare : bare + split]))
    return Pyramid(width, (s1, s2), edge + 1, step, offsets, low, high, halved, grids, bare, g, bits, networks, apart, wide, split)


def unit(axis: int, step: int) -> Index:
    return tuple(step if a == axis else 0 for a in range(4))


def block_taps(present: list[int]) -> list[Index]:
    """{-1, 0, 1}^3 over (z, y, x) in raster order, without absent axes."""
    return list(product((0,), *((-1, 0, 1) if a in present else (0,) for a in (1, 2, 3))))


def own_taps(present: list[int], wide: bool) -> list[Index]:
    before = [tap for tap in block_taps(present) if tap < (0, 0, 0, 0)]
    if wide:
        spans = [range(-2, 3) if a in present else (0,) for a in (1, 2, 3)]
        further = [(0, z, y, x) for z, y, x in product(*spans) if 4 * z + 2 * y + x < 0 and (z > -2 or max(abs(y), abs(x)) < 2) and z <= 0]
        before += [tap for tap in further if tap not in before]
    if 0 not in present:
        return before
    around = [(-1, 0, 0, 0)] + [(-1, *unit(a, s)[1:]) for a in (1, 2, 3) if a in present for s in (-1, 1)]
    return around + before


def cross_taps(present: list[int]) -> list[Index]:
    return [(0, 0, 0, 0)] + [unit(a, s) for a in present for s in (-1, 1)]


def near_taps(present: list[int]) -> list[Index]:
    return block_taps(present) + ([(-1, 0, 0, 0), (1, 0, 0, 0)] if 0 in present else [])


def edge_taps(present: list[int]) -> list[Index]:
    """The edge of the 5 x 5 in a plane, in raster order."""
    spans = [range(-2, 3) if a in present else (0,) for a in (2, 3)]
    return [(0, 0, y, x) for y, x in product(*spans) if max(abs(y), abs(x)) == 2]


# ---- NETW of the pyramid


def least_exponents(g: int) -> dict[str, int]:
    level, skip = (-11, -8) if g == 16 else (-10, -9)
    return {"first": -7, "level bias": level, "second": -7, "second bias": -12, "last": -7, "last bias": -12, "skip": skip}


def read_networks(body: bytes, tree: Pyramid) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The context model in integers, and the synthesis."""
    fields = Bytes(body)
    assert fields.take(4) == bytes(4), "named networks are not read here"
    k, h, (s1, s2), net = len(tree.lattices), tree.width, tree.synthesis, tree.networks
    n = len(own_taps(tree.present, tree.wide)) + len(cross_taps(tree.present)) + 1
    m = len(near_taps(tree.present)) * min(k, 2) + max(k - 2, 0) + tree.wide * len(edge_taps(tree.present))
    shapes = [(net, n, h), (len(tree.levels), h), (net, h, h), (net, h), (net, h, 2), (net, 2), (net, n, 2)]
    coder = RangeDecoder(fields.rest())
    context = {
        name: read_tensor(coder, shape) * 2.0**-e for (name, e), shape in zip(least_exponents(tree.g).items(), shapes, strict=True)
    }
    assert all((values == np.rint(values)).all() for values in context.values())
    context = {name: values.astype(np.int64) for name, values in context.items()}
    context["level bias"] += 2 * tree.g
    context["second bias"] += 64
    context["last bias"] += np.array([2048 // tree.g, 2048])
    names = ("gains", "filters", "first", "first bias", "second", "second bias", "last", "last bias", "skips")
    further = [(k,), (tree.bare + k - 1, 4), (m, s1), (s1,), (s1, s2), (s2,), (s2,), (1,), (k,)]
    return context, {name: read_tensor(coder, shape) for name, shape in zip(names, further, strict=True)}


# ---- Context model


def interpolated(coarse: np.ndarray, halved: Sequence[bool], lattice: Index, unit: int) -> np.ndarray:
    """U of the clipped latents (unit g), or V of a U (unit 1)."""
    total, h = coarse, sum(halved)
    for axis in range(4):
        if halved[axis]:
            i = np.arange(lattice[axis])
            other = np.clip(np.where(i % 2, i // 2 + 1, i // 2 - 1), 0, coarse.shape[axis] - 1)
            total = 3 * np.take(total, i // 2, axis) + np.take(total, other, axis)
    return (unit * total + 4**h // 2) // 4**h


def half_linear(total: np.ndarray, shift: int, largest: int) -> np.ndarray:
    return np.clip(np.where(total >= 0, total >> shift, total >> (shift + 3)), -largest, largest)


def prediction(x: list[int], level: int, w: dict[str, np.ndarray], tree: Pyramid) -> tuple[int, int]:
    """Mean in units of 1/g, number of the scale."""
    log_g, largest, own = tree.g.bit_length() - 1, 2**tree.bits - 1, min(tree.levels[level][0], tree.networks - 1)
    h = half_linear(x @ w["first"][own] + w["level bias"][level], log_g + 2, largest)
    h = half_linear(h @ w["second"][own] + w["second bias"][own], 7, largest)
    mean, scale = (h @ w["last"][own] + x @ w["skip"][own] + w["last bias"][own]).tolist()
    return min(max(mean >> (12 - log_g), -127 * tree.g), 127 * tree.g), min(max(scale >> 12, 0), 63)


@cache
def laplace(j: int, q: int, g: int) -> tuple[int, list[int]]:
    """R_j and the frequencies of the table (j, q)."""
    with localcontext(prec=50):
        b = Decimal(2) ** (Decimal(j) / 6 - 5)
        ratio = int(((-1 / (8 * b)).exp() * 2**48).to_integral_value())
        reach = min(126, 2 + math.ceil(8 * b - Decimal("1e-30")))
    if g == 16:
        ratio = math.isqrt(2**48 * ratio)
    powers = [2**48]
    while len(powers) <= g * (reach + 1):
        powers.append(powers[-1] * ratio // 2**48)

    def below(n: int) -> int:
        return 2**32 - (powers[n] >> 17) if n >= 0 else powers[-n] >> 17

    weights = [below(g * (i - reach) + g // 2 - q) - below(g * (i - reach) - g // 2 - q) for i in range(2 * reach + 1)]
    return reach, proportional([max(w, 1) for w in [*weights, 2**32 - sum(weights)]])


# ---- Chunk of the pyramid


def read_bodies(chunk: Chunk) -> list[tuple[int, bytes]]:
    """The binary logarithm of the lanes, and the bytes, of each tile."""
    fields = Bytes(chunk.body)
    heads = []
    for _ in range(chunk.blocks):
        length = fields.varint()
        heads.append((fields.take(1)[0] if length else 0, length))
    bodies = [(k, fields.take(length)) for k, length in heads]
    assert not fields.rest()
    return bodies


@dataclass
class Contexts:
    """What is known before a tile is decoded."""

    tree: Pyramid
    network: dict[str, np.ndarray]
    level: int
    u: np.ndarray
    v: np.ndarray

    def inputs(self, place: Index, start: Index, tile: np.ndarray) -> list[int]:
        """Of the latent at a place of the tile that begins at `start`."""
        own = [tuple(p + t for p, t in zip(place, tap, strict=True)) for tap in own_taps(self.tree.present, self.tree.wide)]
        inside = [all(0 <= p < n for p, n in zip(at, tile.shape, strict=True)) for at in own]
        found = [self.tree.g * min(max(int(tile[at]), -127), 127) if here else 0 for at, here in zip(own, inside, strict=True)]
        here = [p + s for p, s in zip(place, start, strict=True)]
        for tap in cross_taps(self.tree.present):
            near = (min(max(p + t, 0), n - 1) for p, t, n in zip(here, tap, self.u.shape, strict=True))
            found.append(int(self.u[tuple(near)]))
        return [*found, int(self.v[tuple(here)])]


def read_tile(k: int, body: bytes, start: Index, stop: Index, contexts: Contexts) -> np.ndarray:
    tile = np.zeros([b - a for a, b in zip(start, stop, strict=True)], dtype=np.int64)
    if not body:
        return tile
    coder, stages = Lanes(body, k), {}
    for place in product(*map(range, tile.shape)):
        stages.setdefault(sum(p * w for p, w in zip(place, (8, 4, 2, 1), strict=True)), []).append(place)
    for w in sorted(stages):
        known = tile.copy()
        for i, place in enumerate(stages[w]):
            g = contexts.tree.g
            mean, j = prediction(contexts.inputs(place, start, known), contexts.level, contexts.network, contexts.tree)
            c = (mean + g // 2) // g
            reach, frequencies = laplace(j, mean - g * c, g)
            difference = coder.symbol(i % len(coder.states), frequencies) - reach
            if difference > reach:
                sign = -1 if coder.digit(1) else 1
                difference = sign * (reach + 1 + coder.digit(coder.digit(5)))
            tile[place] = c + difference
    assert np.abs(tile).max() < 2**20
    coder.check_end()
    return tile


def read_latents(stream: Stream, tree: Pyramid, network: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Of every level; and all of them tile by tile."""
    bodies = iter([body for chunk in stream.chunks for body in read_bodies(chunk)])
    latents = [np.zeros(tree.lattices[tree.on(level)], dtype=np.int64) for level in range(len(tree.levels))]
    u, listed, level_before = [np.zeros_like(y) for y in latents], [], -1
    for level, start, stop in tree.tiles:
        if level != level_before:
            level_before, v = level, np.zeros_like(latents[level])
            if level + 1 < len(latents):
                halved, lattice = tree.between(level), latents[level].shape
                u[level] = interpolated(np.clip(latents[level + 1], -127, 127), halved, lattice, tree.g)
                v = interpolated(u[level + 1], halved, lattice, 1)
        tile = read_tile(*next(bodies), start, stop, Contexts(tree, network, level, u[level], v))
        latents[level][tuple(map(slice, start, stop))] = tile
        listed += tile.ravel().tolist()
    assert next(bodies, None) is None
    return latents, listed


# ---- Synthesis of the pyramid


def upsampled(a: np.ndarray, f: np.ndarray, halved: Sequence[bool], lattice: Index) -> np.ndarray:
    for axis in range(4):
        if halved[axis]:
            i, last = np.arange(lattice[axis]), a.shape[axis] - 1
            filters = np.where(i % 2 == 1, f[::-1, None], f[:, None])
            taken = [np.take(a, np.clip(i // 2 - 2 + i % 2 + tap, 0, last), axis) for tap in range(4)]
            form = [-1 if b == axis else 1 for b in range(4)]
            a = sum(weights.reshape(form) * part for weights, part in zip(filters, taken, strict=True))
    return a


EVEN, ODD = np.array([0, 13, 43, 0]) / 64, np.array([3, 3, 45, -5]) / 64


def of_bands(latents: list[np.ndarray], tree: Pyramid) -> list[np.ndarray]:
    """What every lattice holds."""
    found: list[np.ndarray] = [np.zeros(lattice) for lattice in tree.lattices]
    for y, (number, odd) in zip(latents, tree.levels, strict=True):
        a = y.astype(float)
        for axis in range(4):
            if any(odd) and tree.halved[tree.bare + number][axis]:
                i, last = np.arange(tree.lattices[number][axis]), a.shape[axis] - 1
                taps = ODD if odd[axis] else EVEN
                filters = np.where(i % 2 == 1, (-1 if odd[axis] else 1) * taps[::-1, None], taps[:, None])
                taken = [np.take(a, np.clip(i // 2 - 2 + i % 2 + tap, 0, last), axis) for tap in range(4)]
                form = [-1 if b == axis else 1 for b in range(4)]
                a = sum(weights.reshape(form) * part for weights, part in zip(filters, taken, strict=True))
        found[number] += a
    return found


def synthesised(latents: list[np.ndarray], tree: Pyramid, w: dict[str, np.ndarray]) -> np.ndarray:
    channels, latents = [], of_bands(latents, tree)
    for k, y in enumerate(latents):
        c = w["gains"][k] * y
        for step in reversed(range(tree.bare + k)):
            c = upsampled(c, w["filters"][step], tree.halved[step], tree.grids[step])
        channels.append(c)
    shape, x = tree.grids[0], []
    for k, c in enumerate(channels[:2]):
        rings = [(2 * d, 2 * d) for d in tree.apart]
        padded = np.pad(c, rings, mode="edge") if tree.bare + k else np.pad(c, rings)
        for tap in near_taps(tree.present) + (edge_taps(tree.present) if tree.wide and k == 0 else []):
            x.append(padded[tuple(slice(2 * d + d * t, 2 * d + d * t + n) for t, d, n in zip(tap, tree.apart, shape, strict=True))])
    x = np.stack([*x, *channels[2:]], axis=-1)
    for layer in ("first", "second"):
        v = x @ w[layer] + w[f"{layer} bias"]
        x = np.maximum(v, v / 8)
    return tree.offsets + tree.step * (x @ w["last"] + w["last bias"][0] + np.tensordot(w["skips"], channels, 1))
