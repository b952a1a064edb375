"""Triton kernels of sine networks against float64; on a GPU ``pytest tests/kernels/interpreted/siren.py`` runs them there.

Not collected by name: without a GPU they need Triton's interpreter, see `interpreter.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from inrcodec.partition.blocks import blend_ramp
from inrcodec_kernels.siren import triton as siren
from inrcodec_kernels.siren import triton_network as device

from .device import DEVICE


class Blocks(NamedTuple):
    origin: Tensor
    extent: Tensor
    scale: Tensor
    mean: Tensor


class Networks(NamedTuple):
    widths: tuple[int, ...]
    quantised: Tensor
    steps: Tensor
    start: Tensor


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def random_layers(nodes: int, axes: int, widths: tuple[int, ...]) -> list[Tensor]:
    """Float32 weights in float64, as large as those of initialised networks."""
    every = (axes, *widths, 1)
    layers = [normal(nodes, a + 1, b, seed=i) * math.sqrt(2 / a) for i, (a, b) in enumerate(itertools.pairwise(every))]
    return [layer.float().double() for layer in layers]


def network(layers: list[Tensor], points: Tensor) -> Tensor:
    h = points
    for i, layer in enumerate(layers):
        h = torch.cat([h, torch.ones_like(h[..., :1])], -1) @ layer
        h = torch.sin(h) if i < len(layers) - 1 else h
    return h[..., 0]


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found.cpu().double() - expected).norm() / expected.norm())


def on_device(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.is_floating_point() else tensor).to(DEVICE)


@triton.jit
def sines_kernel(x, sine, sine_too, cosine, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i)
    s, c = device.sine_and_cosine(value)
    tl.store(sine + i, device.sine(value, False))
    tl.store(sine_too + i, s)
    tl.store(cosine + i, c)


def test_sine_and_cosine() -> None:
    N = 1 << 16
    exact_zeros = torch.arange(-31, 32, dtype=torch.float64) * (math.pi / 2)
    x = torch.cat([exact_zeros, torch.rand(N - 63, generator=generator(0), dtype=torch.float64) * 200 - 100]).float()
    sine, sine_too, cosine = (torch.full((N,), math.nan, device=DEVICE) for _ in range(3))
    sines_kernel[(1,)](x.to(DEVICE), sine, sine_too, cosine, N)
    expected = x.double()
    assert torch.equal(sine, sine_too)
    assert (sine.cpu() - expected.sin()).abs().max() <= 2.5e-7
    assert (cosine.cpu() - expected.cos()).abs().max() <= 2.5e-7


# ----------------------------------------------------------------------------------------------------- gradients

CLASSES = [(2, (8,), 45), (3, (13, 24, 40), 70), (4, (16, 9), 1), (3, (32, 13), 33)]
SLOW = [
    (3, (64, 64, 64), 131),
    (4, (64, 33, 8, 9, 2, 5), 50),
    (2, (24, 24, 24, 24, 24), 300),
    (3, (32, 32, 32, 32), 64),
]


def check_gradients(axes: int, widths: tuple[int, ...], count: int, precision: str, bound: float) -> None:
    layers = [layer.requires_grad_() for layer in random_layers(2, axes, widths)]
    points = (torch.rand(2, count, axes, generator=generator(90), dtype=torch.float64) * 2 - 1).float().double()
    targets = normal(2, count, seed=91).float().double()
    expected = (network(layers, points) - targets).square().mean(1)
    expected.sum().backward()
    errors, gradients = siren.loss_and_gradients(
        [on_device(layer.detach()) for layer in layers], on_device(points), on_device(targets), precision=precision
    )
    assert relative(errors, expected.detach()) <= bound
    for found, layer in zip(gradients, layers, strict=True):
        assert layer.grad is not None
        assert relative(found, layer.grad) <= bound


@pytest.mark.parametrize(
    ("axes", "widths", "count"), [*CLASSES, *(pytest.param(*c, marks=pytest.mark.slow) for c in SLOW)]
)
def test_loss_and_gradients(axes: int, widths: tuple[int, ...], count: int) -> None:
    check_gradients(axes, widths, count, "fp32", 1e-5)


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_loss_and_gradients_of_lower_precision(precision: str) -> None:
    check_gradients(3, (24, 32), 50, precision, 2e-3)


@pytest.mark.parametrize("magnitude", [1e-7, 1e6])
def test_half_precision_follows_residuals_of_any_size(magnitude: float) -> None:
    layers = random_layers(1, 2, (16, 16))
    layers[-1] *= magnitude
    points = torch.rand(1, 40, 2, generator=generator(5))
    arguments = (
        [on_device(layer) for layer in layers],
        on_device(points),
        on_device(magnitude * normal(1, 40, seed=6)),
    )
    half = siren.loss_and_gradients(*arguments, precision="fp16")[1]
    full = siren.loss_and_gradients(*arguments)[1]
    for a, b in zip(half, full, strict=True):
        assert relative(a, b.cpu().double()) <= 2e-3


# --------------------------------------------------------------------------------------------------- reconstruct


def random_networks(nodes: int, axes: int, widths: tuple[int, ...]) -> tuple[Networks, list[Tensor]]:
    """Quantised networks, and their layers as they are meant."""
    every = (axes, *widths, 1)
    shapes = [(a + 1, b) for a, b in itertools.pairwise(every)]
    steps = torch.rand(nodes, len(shapes), generator=generator(70)) * 0.02 + 0.01
    layers = random_layers(nodes, axes, widths)
    integers = [(layer / steps[:, i, None, None]).round().int() for i, layer in enumerate(layers)]
    start = normal(nodes, (axes + 1) * widths[0], seed=71).float()
    meant = [q.double() * steps[:, i, None, None].double() for i, q in enumerate(integers)]
    meant[0] = meant[0] + start.double().reshape(meant[0].shape)
    packed = torch.cat([q.flatten(1) for q in integers], 1)
    return Networks(widths, packed.to(DEVICE), steps.to(DEVICE), start.to(DEVICE)), meant


def tiled(shape: tuple[int, ...], cuts: list[list[int]]) -> Blocks:
    """Blocks that tile a box; cuts may lie outside of it."""
    spans = [list(itertools.pairwise(cut)) for cut in cuts]
    boxes = list(itertools.product(*spans))
    origin = torch.tensor([[a for a, _ in box] for box in boxes], dtype=torch.int32)
    extent = torch.tensor([[b - a for a, b in box] for box in boxes], dtype=torch.int32)
    scale = torch.rand(len(boxes), generator=generator(60)) * 30 + 10
    mean = torch.rand(len(boxes), generator=generator(61)) * 100
    return Blocks(*(tensor.to(DEVICE) for tensor in (origin, extent, scale, mean)))


def blended(shape: tuple[int, ...], blocks: Blocks, layers: list[Tensor], halo: int) -> Tensor:
    """The definition, block after block, in float64."""
    total, share = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for k, (origin, extent) in enumerate(zip(blocks.origin.tolist(), blocks.extent.tolist(), strict=True)):
        inside = [
            np.arange(max(o - halo, 0), min(o + e + halo, n)) for o, e, n in zip(origin, extent, shape, strict=True)
        ]
        local = [torch.from_numpy((2 * (i - o) + 1) / e - 1) for i, o, e in zip(inside, origin, extent, strict=True)]
        points = torch.stack(torch.meshgrid(*local, indexing="ij"), -1)
        value = network([layer[k] for layer in layers], points) * blocks.scale[k].item() + blocks.mean[k].item()
        ramp = torch.ones((), dtype=torch.float64)
        for i, o, e in zip(inside, origin, extent, strict=True):
            ramp = ramp[..., None] * torch.from_numpy(blend_ramp(i, o, e, halo))
        where = tuple(slice(int(i[0]), int(i[-1]) + 1) for i in inside)
        total[where] += value * ramp
        share[where] += ramp
    return total / share


CUTS = [[-2, 3, 9], [0, 7], [-1, 4, 12]]
SHAPE = (9, 7, 11)


@pytest.mark.parametrize("dtype", siren.SAMPLE_DTYPES, ids=str)
def test_place(dtype: torch.dtype) -> None:
    networks, layers = random_networks(4, 3, (13, 17))
    blocks = tiled(SHAPE, CUTS)
    low, high = 20, 120
    expected = blended(SHAPE, blocks, layers, 0) + 3
    poison = math.nan if dtype == torch.float32 else 19
    out = torch.full(SHAPE, poison, dtype=dtype, device=DEVICE)
    siren.place(out, blocks, networks, 3.0, low, high)
    check_samples(out, expected, low, high)


def check_samples(out: Tensor, expected: Tensor, low: float, high: float) -> None:
    if out.dtype == torch.float32:
        assert relative(out, expected) <= 1e-5
        return
    expected = expected.clamp(low, high)
    assert expected.min() == low and expected.max() == high
    assert (out.cpu().double() - expected).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("shape", "cuts", "widths", "halo"),
    [
        ((13, 10), [[-1, 5, 13], [0, 4, 6, 10]], (9, 16, 5), 1),
        (SHAPE, CUTS, (24,), 2),
        ((3, 4, 5, 6), [[0, 3], [0, 2, 4], [0, 5], [0, 6]], (10, 18), 1),
        pytest.param((17, 14, 15), [[0, 17], [0, 6, 14], [0, 8, 15]], (40, 24, 64), 3, marks=pytest.mark.slow),
    ],
)
def test_accumulate_and_finish(
    shape: tuple[int, ...], cuts: list[list[int]], widths: tuple[int, ...], halo: int
) -> None:
    blocks = tiled(shape, cuts)
    networks, layers = random_networks(len(blocks.origin), len(shape), widths)
    expected = blended(shape, blocks, layers, halo) - 7
    total, share = accumulated(shape, blocks, networks, halo)
    for dtype in (torch.float32, torch.uint16):
        out = torch.full(shape, math.nan if dtype == torch.float32 else 1, dtype=dtype, device=DEVICE)
        siren.finish(total, share, -7.0, 40, 70, out)
        check_samples(out, expected, 40, 70)


def accumulated(
    shape: tuple[int, ...], blocks: Blocks, networks: Networks, halo: int, **choices: str
) -> tuple[Tensor, Tensor]:
    total = torch.zeros(shape, dtype=torch.int64, device=DEVICE)
    share = torch.zeros(shape, dtype=torch.int32, device=DEVICE)
    siren.accumulate(total, share, blocks, networks, halo, **choices)
    return total, share


def test_sums_do_not_depend_on_the_order_of_blocks() -> None:
    networks, _ = random_networks(4, 3, (13, 17))
    blocks = tiled(SHAPE, CUTS)
    order = torch.tensor([2, 0, 3, 1], device=DEVICE)
    shuffled = Networks(networks.widths, *(tensor[order] for tensor in networks[1:]))
    once = accumulated(SHAPE, blocks, networks, 2)
    again = accumulated(SHAPE, Blocks(*(tensor[order] for tensor in blocks)), shuffled, 2)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_reconstruction_of_lower_precision(precision: str) -> None:
    networks, layers = random_networks(1, 2, (24, 16))
    blocks = tiled((6, 5), [[0, 6], [0, 5]])
    out = torch.full((6, 5), math.nan, device=DEVICE)
    siren.place(out, blocks, networks, 0.0, 0, 0, precision=precision, fast_sine=True)
    assert relative(out, blended((6, 5), blocks, layers, 0)) <= 2e-3


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_a_constant_stays_that_constant_and_halves_go_to_even(dtype: torch.dtype) -> None:
    blocks = tiled((9, 9), [[0, 4, 9], [0, 5, 9]])
    blocks = blocks._replace(scale=torch.zeros_like(blocks.scale), mean=torch.full_like(blocks.mean, 41.0))
    networks, _ = random_networks(4, 2, (8,))
    total, share = accumulated((9, 9), blocks, networks, 2)
    out = torch.zeros((9, 9), dtype=dtype, device=DEVICE)
    for offset, expected in ((0.5, 42), (1.5, 42), (1.25, 42), (-0.5, 40), (1e9, 200), (-1e9, 1)):
        siren.finish(total, share, offset, 1, 200, out)
        assert (out == expected).all()


def test_finish_keeps_large_integers() -> None:
    values = torch.tensor([[2**31 - 1, -(2**31), 123456789, 0]], dtype=torch.int64, device=DEVICE)
    out = torch.zeros(1, 4, dtype=torch.int32, device=DEVICE)
    share = torch.full((1, 4), 1 << siren.FRACTION_BITS, dtype=torch.int32, device=DEVICE)
    siren.finish(values << siren.FRACTION_BITS, share, 0.0, -(2**31), 2**31 - 1, out)
    assert torch.equal(out.long(), values)


# ----------------------------------------------------------------------------------------------------------- fit


def mix(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    x = x ^ (x >> np.uint64(16))
    x = x * np.uint64(0x85EBCA6B) & mask
    x = x ^ (x >> np.uint64(13))
    x = x * np.uint64(0xC2B2AE35) & mask
    return x ^ (x >> np.uint64(16))


def stream(key: int, step: int, count: int) -> np.ndarray:
    """`count` integers of 32 bits."""
    mask = np.uint64(0xFFFFFFFF)
    start = mix(mix(np.uint64(key)) + np.uint64(step * 0x9E3779B9 & 0xFFFFFFFF) & mask)
    numbers = np.arange(count, dtype=np.uint64) * np.uint64(0x85EBCA77) & mask
    return mix(start + numbers & mask)


@dataclasses.dataclass
class Fit:
    """One small fit and its twin in float64."""

    axes: int = 3
    widths: tuple[int, ...] = (11, 18)
    points: int = 40
    rates: tuple[float, ...] = (0.01, 0.02, 0.005)

    def __post_init__(self) -> None:
        self.layers = random_layers(2, self.axes, self.widths)
        box = torch.tensor([[5, 4, 7], [3, 6, 2]], dtype=torch.int32)[:, : self.axes]
        volumes = box.long().prod(1)
        self.voxels = siren.Voxels(
            normal(int(volumes.sum()), seed=80).float(),
            torch.tensor([0, int(volumes[0])]),
            box.contiguous(),
            torch.rand(2, self.axes, generator=generator(81)),
            2 / (box + 1.0),
        )
        self.key = torch.tensor([123456789, -987654321], dtype=torch.int32)
        self.step = torch.rand(2, len(self.layers), generator=generator(82)) * 0.02 + 0.01
        self.price = torch.rand(2, len(self.layers), generator=generator(83)) * 1e-3
        self.start = normal(2, self.layers[0][0].numel(), seed=84).float()
        self.start[0, 0] = self.layers[0][0, 0, 0].float()  # no slope where a weight is what it is coded against

    def packed(self) -> Tensor:
        return torch.cat([layer.flatten(1) for layer in self.layers], 1)

    def drawn(self, k: int, step: int) -> tuple[Tensor, Tensor]:
        box = self.voxels.box[k].tolist()
        flat = (
            stream(int(self.key[k]) & 0xFFFFFFFF, step, self.points) * np.uint64(math.prod(box)) >> np.uint64(32)
        ).astype(np.int64)
        indices = torch.from_numpy(np.stack(np.unravel_index(flat, box), -1))
        points = (indices + self.voxels.shift[k].double()) * self.voxels.unit[k].double() - 1
        return points, self.voxels.samples[int(self.voxels.begin[k]) + torch.from_numpy(flat)].double()

    def noise(self, k: int, step: int) -> list[Tensor]:
        u = stream(int(self.key[k]) & 0xFFFFFFFF ^ 0xA511E9B3, step, self.packed().shape[1])
        uniform = torch.from_numpy((u >> np.uint64(8)).astype(np.float64) * 2.0**-24 - 0.5)
        parts = uniform.split([layer[0].numel() for layer in self.layers])
        return [
            part.reshape(layer[0].shape) * self.step[k, i]
            for i, (part, layer) in enumerate(zip(parts, self.layers, strict=True))
        ]

    def rate(self, k: int, layers: list[Tensor]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i, layer in enumerate(layers):
            change = layer.flatten() - (self.start[k].double() if i == 0 else 0)
            total = total + self.price[k, i] * torch.log2(1 + change.abs() / self.step[k, i].double()).sum()
        return total

    def twin(self, noise: bool, price: bool) -> tuple[Tensor, Tensor]:
        """Weights and errors after all steps, with torch's own Adam."""
        weights, errors = [], []
        for k in range(2):
            layers = [layer[k].clone().requires_grad_() for layer in self.layers]
            optimiser = torch.optim.Adam(layers)
            for step, rate in enumerate(self.rates):
                points, targets = self.drawn(k, step)
                added = self.noise(k, step) if noise else [torch.zeros_like(layer) for layer in layers]
                error = (network([a + b for a, b in zip(layers, added, strict=True)], points) - targets).square().mean()
                optimiser.zero_grad()
                (error + (self.rate(k, layers) if price else 0)).backward()
                optimiser.param_groups[0]["lr"] = rate
                optimiser.step()
                errors.append(error.detach())
            weights.append(torch.cat([layer.detach().flatten() for layer in layers]))
        return torch.stack(weights), torch.stack(errors).reshape(2, -1)

    def run(self, noise: bool, price: bool, per_launch: int = 100, calls: int = 1) -> tuple[Tensor, Tensor]:
        weights = on_device(self.packed())
        moment, square = torch.zeros_like(weights), torch.zeros_like(weights)
        step, cost, start = (tensor.to(DEVICE) for tensor in (self.step, self.price, self.start))
        quantiser = siren.Quantiser(step, noise, cost if price else None, start) if noise or price else None
        voxels = siren.Voxels(*(tensor.to(DEVICE) for tensor in self.voxels))
        errors, first = [], 0
        for rates in np.array_split(self.rates, calls):
            errors.append(
                siren.fit_adam(
                    weights,
                    moment,
                    square,
                    self.widths,
                    voxels,
                    self.key.to(DEVICE),
                    rates.tolist(),
                    points=self.points,
                    first=first,
                    quantiser=quantiser,
                    steps_per_launch=per_launch,
                )
            )
            first += len(rates)
        return weights, torch.cat(errors, 1)


@pytest.mark.parametrize(("noise", "price"), [(False, False), (True, False), (True, True), (False, True)])
def test_fit_is_adam_on_the_drawn_voxels(noise: bool, price: bool) -> None:
    fit = Fit()
    expected_weights, expected_errors = fit.twin(noise, price)
    weights, errors = fit.run(noise, price)
    assert relative(errors, expected_errors) <= 1e-5
    # Adam's first steps have the size of the rate whatever the gradient, so that rounding shows where it is nearly 0.
    assert relative(weights - on_device(fit.packed()), expected_weights - fit.packed()) <= 2e-4


@pytest.mark.parametrize(("axes", "widths"), [(2, (40, 9, 5)), (3, (8,))])
def test_fit_of_other_classes(axes: int, widths: tuple[int, ...]) -> None:
    fit = Fit(axes, widths, points=33, rates=(0.01, 0.01))
    expected_weights, expected_errors = fit.twin(False, False)
    weights, errors = fit.run(False, False)
    assert relative(errors, expected_errors) <= 1e-5
    assert relative(weights - on_device(fit.packed()), expected_weights - fit.packed()) <= 2e-4


def test_launches_and_calls_do_not_change_a_fit() -> None:
    fit = Fit(widths=(8,), points=20)
    once = fit.run(True, True)
    for again in (fit.run(True, True, per_launch=2), fit.run(True, True, calls=2)):
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


# ------------------------------------------------------------------------------------------------------ refusals


def test_refusals() -> None:
    networks, _ = random_networks(1, 2, (8,))
    blocks = tiled((6, 5), [[0, 6], [0, 5]])
    total, share = (
        torch.zeros(6, 5, dtype=torch.int64, device=DEVICE),
        torch.zeros(6, 5, dtype=torch.int32, device=DEVICE),
    )
    out = torch.zeros(6, 5, device=DEVICE)
    with pytest.raises(ValueError, match="halo"):
        siren.accumulate(total, share, blocks, networks, 0)
    with pytest.raises(ValueError, match="int64"):
        siren.accumulate(out, share, blocks, networks, 1)
    with pytest.raises(ValueError, match="precision"):
        siren.place(out, blocks, networks, 0.0, 0, 1, precision="fp8")
    with pytest.raises(ValueError, match="float64"):
        siren.place(out.double(), blocks, networks, 0.0, 0, 1)
    with pytest.raises(ValueError, match="axes"):
        siren.place(out[0], blocks, networks, 0.0, 0, 1)
    with pytest.raises(ValueError, match="contiguous"):
        siren.place(out.T, blocks, networks, 0.0, 0, 1)
    with pytest.raises(ValueError, match="shape"):
        siren.finish(total, share, 0.0, 0, 1, out[:3])
    for widths in ((1,), (65,), (8,) * 7):
        with pytest.raises(ValueError, match="sine layers"):
            siren.place(out, blocks, networks._replace(widths=widths), 0.0, 0, 1)
    with pytest.raises(ValueError, match="2 to 4 axes"):
        siren.loss_and_gradients(random_layers(1, 1, (8,)), torch.zeros(1, 5, 1), torch.zeros(1, 5))
    fit = Fit()
    with pytest.raises(ValueError, match="weights of shape"):
        siren.fit_adam(*(torch.zeros(2, 5),) * 3, fit.widths, fit.voxels, fit.key, [0.1], points=3)
