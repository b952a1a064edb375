"""Train the networks that pyramids begin with: ``python -m bench.train_pyramid VOLUME... --out inrcodec/models/networks``.

Boxes of several volumes, each at several steps, are fitted side by side with one pair of networks, a step of one box after
a step of another. What is written is named after its numbers; to ship it, put that name first in `NAMES` of
`inrcodec/models/shipped.py`. A volume's figures in `docs/pyramid.md` are made with networks that never saw it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from inrcodec.coding.parameters import QuantisedTensor
from inrcodec.fitting.goal import Goal
from inrcodec.fitting.pyramid import FAIR, PyramidFit
from inrcodec.fitting.pyramid_course import Schedule
from inrcodec.fitting.pyramid_start import Differences, choose_halvings
from inrcodec.fitting.start import typical_value
from inrcodec.models.pyramid import SHIPPED_PLACES, PyramidLayout, initial_networks, joined
from inrcodec.models.shipped import PER_LEVEL, PER_NETWORK, write_networks
from inrcodec_formats import registry
from inrcodec_kernels.backend import choose

LEVELS, MOST = 5, 8
"""Levels of the boxes, and levels that networks are written for: further ones are as the coarsest trained."""
BITS_PER_VOXEL = (0.06, 0.25, 1.0)
_SHARE_OF_MEASURE = 0.45


def boxes(path: Path, edge: int, count: int, seed: int) -> list[np.ndarray]:
    """Boxes of a volume at random places; of a series, those of its first volume."""
    samples = registry.read(path).samples
    volume = samples if samples.ndim == 3 else samples[0]
    draw, extent = np.random.default_rng(seed), np.minimum(volume.shape, edge)
    found = []
    for _ in range(count):
        start = draw.integers(0, np.array(volume.shape) - extent + 1)
        found.append(np.ascontiguousarray(volume[tuple(slice(a, a + e) for a, e in zip(start, extent, strict=True))]))
    return found


def fits(volumes: list[np.ndarray], seed: int, steps: int) -> list[PyramidFit]:
    """A fit of every box at every size, all with the same networks."""
    backend, found = choose("cpu"), []
    for volume in volumes:
        layout = PyramidLayout(volume.shape, choose_halvings(volume, LEVELS))
        offset = typical_value(volume)
        known = Differences(volume, offset, layout)
        for rate in BITS_PER_VOXEL:
            step = known.step(Goal(bits=rate * volume.size), _SHARE_OF_MEASURE)
            fit = PyramidFit(volume, offset, step, layout, initial_networks(layout, seed), seed + len(found), backend)
            fit.begin(steps, Schedule())
            found.append(fit)
    for fit in found:
        fit.share_networks(found[0])
    return found


def written(fit: PyramidFit, folder: Path) -> str:
    """Write a fit's networks, with rows for further levels."""
    parameters = {}
    for name, values in joined(fit.context, fit.synthesis).items():
        if name in PER_NETWORK:
            (values,) = values
        if name in PER_LEVEL:
            missing = MOST - LEVELS
            falling = 8.0 ** (-np.arange(1, missing + 1) / 2)
            share = {"synthesis.gains": falling, "synthesis.first": 0 * falling}.get(name, 1 + 0 * falling)
            more = [values[-1] * np.float32(s) for s in share]
            values = np.concatenate([values, np.array(more, dtype=np.float32)])
        parameters[name] = QuantisedTensor.of(values, -SHIPPED_PLACES[name]).values.astype(np.int16), SHIPPED_PLACES[name]
    return write_networks(folder, parameters)


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("volumes", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--edge", type=int, default=64)
    parser.add_argument("--boxes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    volumes = [b for i, p in enumerate(options.volumes) for b in boxes(p, options.edge, options.boxes, options.seed + i)]
    found, began = fits(volumes, options.seed, options.steps), time.perf_counter()
    for number in range(options.steps):
        for fit in found:
            fit.advance(number)
        if (number + 1) % 25 == 0:
            costs = [fit.cost() for fit in found]
            mean = np.mean([c.error + FAIR * c.bits / fit.samples for c, fit in zip(costs, found, strict=True)])
            print(f"step {number + 1}: mean cost {mean:.5f}, {time.perf_counter() - began:.0f} s", flush=True)
    print(written(found[0], options.out))


if __name__ == "__main__":
    main()
