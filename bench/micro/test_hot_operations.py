"""The hot operations, one each, for ``make bench-micro``: a step of a fit, blocks rebuilt, a chunk's entropy decoding.

Run by pytest-benchmark; nothing is asserted about speed. Every benchmark checks its result once, so that it cannot time nonsense.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import inrcodec
from bench.signals import synthetic_volume
from inrcodec.coding.readouts import ReadoutCoder, band_counts
from inrcodec.fitting.descent import SegmentFit, TrainingCells
from inrcodec.image import Image
from inrcodec.models.readout import SeparableReadout
from inrcodec.models.tinc import TincLayout, TincModel
from inrcodec.partition import octree
from inrcodec_kernels.siren import sine_chain

EDGE, BLOCKS = 16, 128


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return synthetic_volume(96)


@pytest.fixture(scope="module")
def image(volume: np.ndarray) -> Image:
    return Image(inrcodec.encode(volume, ratio=64, effort=1, method="tinc"))


def test_fit_step(benchmark, volume: np.ndarray) -> None:
    """Loss and gradients of one mini-batch of a network with a dense root, as `descent` takes thousands of."""
    cells = octree.cell_pyramid(volume.shape, (8, 8, 8))
    layout = TincLayout(
        volume.shape, cells, len(cells) - 2, root="dense", hidden=(24, 64), features=64, axis_weights=(16, 16, 16)
    )
    index = np.argwhere(np.ones(layout.grid(layout.top + 1), dtype=bool))
    training = TrainingCells(np.full(len(index), layout.top + 1), index)
    fit = SegmentFit(layout, volume, 900.0, training, step=40.0, seed=0)
    model = TincModel.initial(layout, seed=0, bandwidth=6.0)
    for parameter in model.parameters.values():
        parameter.requires_grad_(True)

    def step() -> float:
        loss = fit.loss(model, np.random.default_rng(0))
        loss.backward()
        return float(loss.detach())

    assert np.isfinite(benchmark(step))
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters.values())


def test_analysis_of_blocks(benchmark) -> None:
    """Samples to readouts in closed form: the fit of TINC's default root."""
    readout, samples = _readout(), torch.randn(BLOCKS, EDGE**3, generator=torch.Generator().manual_seed(0))
    found = benchmark(readout.project, samples)
    assert found.shape == (BLOCKS, len(readout.lattice))
    benchmark.extra_info["samples"] = samples.numel()


def test_reconstruct_blocks(benchmark) -> None:
    """Readouts to samples: what every decoded block goes through."""
    readout = _readout()
    coefficients = torch.randn(BLOCKS, len(readout.lattice), generator=torch.Generator().manual_seed(0))
    samples = benchmark(readout.reconstruct, coefficients)
    assert torch.allclose(readout.project(samples), coefficients, atol=1e-3)
    benchmark.extra_info["samples"] = samples.numel()


def test_reconstruct_siren_blocks(benchmark) -> None:
    """64 networks of 3-24-24-1 on 16^3 points each."""
    random = torch.Generator().manual_seed(0)
    points = torch.rand(1, EDGE**3, 3, generator=random) * 2 - 1
    shapes = [(3, 24), (24, 24), (24, 1)]
    layers = [(torch.randn(64, a, b, generator=random) / a, torch.randn(64, b, generator=random)) for a, b in shapes]
    samples = benchmark(sine_chain, points, layers)
    assert samples.shape == (64, EDGE**3, 1)
    benchmark.extra_info["samples"] = samples.numel()


def test_entropy_decode(benchmark, image: Image) -> None:
    """The largest chunk of a stream, bytes to integers."""
    container, geometry = image.container, image.blocks.stream.geometry
    sizes = [len(container.read_chunk(chunk)) for chunk in range(len(container.chunks))]
    chunk = int(np.argmax(sizes))
    data, first, count = container.read_chunk(chunk), int(container.chunks.first[chunk]), int(container.chunks.count[chunk])
    coder = ReadoutCoder(geometry, image.blocks.statistics, image.backend)
    values = benchmark(coder.read, data, first, first + count)
    assert sum(int(band_counts(geometry.bands[level], v).sum()) for level, v in values.items()) > 0
    benchmark.extra_info["symbols"] = sum(v.size for v in values.values())


def _readout() -> SeparableReadout:
    lattice = np.array([k for k in product(range(EDGE), repeat=3) if sum(k) < EDGE], dtype=np.int64)
    return SeparableReadout((EDGE,) * 3, lattice)
