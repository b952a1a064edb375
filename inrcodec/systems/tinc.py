"""TINC: an adaptive tree of leaves whose readouts share features."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from inrcodec_formats.container import Section
from inrcodec_formats.zstd import compress
from inrcodec_kernels.backend import in_threads

from ..coding.parameters import QuantisedTensor
from ..coding.readouts import ReadoutCoder, ReadoutGeometry
from ..fitting import start, tinc
from ..fitting.analysis import LeafReadouts
from ..fitting.descent import quantised_parameters
from ..fitting.goal import Goal
from ..fitting.tinc import QuantisedReadouts
from ..models.tinc import TincLayout, TincModel, parameter_count
from ..partition.octree import Octree
from ..payload.tinc import TincStream, dequantised, network_section
from .base import SIZE_WINDOW, Draft, Task

CHUNK_BYTES = (1100, 2300)
"""Size of a chunk: 1/256 of the stream within these limits. Small ones for small regions, large ones for small overheads."""


@dataclass
class Network:
    """What is decided before the readouts are quantised.

    Attributes
    ----------
    layout, model : TincLayout, TincModel
        With the parameters that the decoder will see.
    parameters : dict of str to QuantisedTensor or None
        Of the shared segments; None where there are none.
    offset : int
        Taken off the samples.
    tree : Octree
    leaves : LeafReadouts
    """

    layout: TincLayout
    model: TincModel
    parameters: dict[str, QuantisedTensor] | None
    offset: int
    tree: Octree
    leaves: LeafReadouts

    @cached_property
    def geometry(self) -> ReadoutGeometry:
        """What the readout coder needs."""
        return ReadoutGeometry.of(self.layout.cells, self.layout.lattice, self.leaves.level)


class TincSystem:
    """See `base.System`.

    Parameters
    ----------
    task : Task
    """

    name: ClassVar[str] = "tinc"
    step_bounds: ClassVar[tuple[float, float]] = tinc.STEP_BOUNDS
    size_slope: ClassVar[float] = -1.0
    restorable: ClassVar[bool] = True
    size_window: float = SIZE_WINDOW
    psnr_slope: ClassVar[float] = -4.0
    overhead_bytes: ClassVar[int] = 420
    shared_bytes: ClassVar[int] = 1000

    def __init__(self, task: Task) -> None:
        self.task, self.options, self.backend, self.region = task, task.options.tinc, task.backend, task.region
        self.choices: dict[str, object] = {}
        self.step = 1.0

    def prepare(self, goal: Goal) -> None:
        """Choose leaves, fit segments where there are any to fit, and solve all readouts."""
        task, options = self.task, self.options
        sample = self._sample()
        layout, step = tinc.choose_layout(task.volume, sample, options, goal, task.note("partition"))
        model, parameters = TincModel.initial(layout), None
        if options.root == "dense":
            bits = goal.bits or sample.trials(model, task.volume).measure(step)[0]
            layout = start.with_segments(layout, options, bits)
            model, parameters = task.timed("fit", lambda: self._fit(layout, sample, step))
            step = self._step_after_fit(model, parameters, sample, step, goal)
        tree, leaves = task.timed("readout", lambda: self._solve(model, sample, step))
        self.choices.update(leaf=layout.cells[-1], root=layout.root, coordinates=layout.coordinates)
        self.network, self.step = Network(layout, model, parameters, int(sample.offset), tree, leaves), step
        self._allocate(goal)

    @property
    def blocks(self) -> int:
        """Number of leaves."""
        return len(self.network.leaves.level)

    @property
    def decoder_bytes(self) -> int:
        """A float64 block with its coefficients; a batch of float32 samples and the cache of chunks."""
        return 16 * math.prod(self._largest) + (256 << 20)

    @property
    def extents(self) -> tuple[int, ...]:
        """Those of the largest leaves."""
        return self._largest

    @property
    def _largest(self) -> tuple[int, ...]:
        return self.network.layout.cells[self.network.layout.top]

    def _sample(self) -> tinc.Sample:
        options = self.task.options
        offset = start.typical_value(self.task.volume)
        return tinc.Sample(offset, options.seed, options.sample_voxels, self.backend, self.region)

    def _fit(
        self, layout: TincLayout, sample: tinc.Sample, step: float
    ) -> tuple[TincModel, dict[str, QuantisedTensor]]:
        task = self.task
        fitted = tinc.fit_segments(
            layout, task.volume, sample, self.options.starts, step, task.options.fit_steps, task.note("fit")
        )
        parameters = quantised_parameters(fitted)
        return TincModel(layout, dequantised(parameters)), parameters

    def _solve(self, model: TincModel, sample: tinc.Sample, step: float) -> tuple[Octree, LeafReadouts]:
        task = self.task
        return tinc.partition(model, task.volume, sample.offset, step, task.note("readout"), task.backend, sample.region)

    def _step_after_fit(
        self, model: TincModel, parameters: dict[str, QuantisedTensor], sample: tinc.Sample, step: float, goal: Goal
    ) -> float:
        left = None if goal.bits is None else max(goal.bits - 8 * len(network_section(parameters)), 64.0)
        return sample.trials(model, self.task.volume).step_for(Goal(left, goal.error), step)

    def _allocate(self, goal: Goal) -> None:
        options, network, volume = self.options, self.network, self.task.volume
        if options.allocation == "rate":
            return
        bits = goal.bits or self._sample().trials(network.model, volume).measure(self.step)[0]
        shared = 0 if network.parameters is None else parameter_count(network.layout)
        budget = int(bits / options.bits_per_weight) - shared
        widths = tinc.allocate(network.layout, network.tree, network.leaves, volume, options, budget)
        self.choices["budget_weights"] = budget
        self.choices["spent_weights"] = int(widths.sum())

    def draft(self, step: float, pressure: float) -> Draft:
        """Quantise all readouts at a step and code them."""
        network, geometry, backend = self.network, self.network.geometry, self.backend
        choices = self.task.options
        quantised = tinc.quantise(geometry, network.leaves, step, choices.turns, pressure, backend, self.region)
        bounds, lanes = tinc.chunk_bounds(geometry, quantised, *CHUNK_BYTES, backend=backend)
        statistics = replace(quantised.statistics, lanes=lanes)
        stream = TincStream(network.layout, network.tree, quantised.step, network.offset, self.task.low, self.task.high)
        sections = [Section("TREE", stream.tree_section())]
        if network.parameters is not None:
            sections.append(Section("NETW", network_section(network.parameters)))
        sections.append(Section("STAT", compress(statistics.to_bytes())))
        coder = ReadoutCoder(geometry, statistics, backend)

        def chunk(number: int) -> tuple[int, bytes]:
            start, stop = bounds[number], bounds[number + 1]
            return stop - start, coder.write(quantised.values, quantised.widths, start, stop)

        chunks = in_threads(chunk, range(len(bounds) - 1))
        error = network.leaves.distortion(quantised.values, quantised.step)
        return Draft(sections, chunks, self._weights(quantised), error, quantised)

    def _weights(self, quantised: QuantisedReadouts) -> int:
        shared = 0 if self.network.parameters is None else parameter_count(self.network.layout)
        return shared + sum(self._weights_kept(quantised, level) for level in quantised.values)

    def _weights_kept(self, quantised: QuantisedReadouts, level: int) -> int:
        bands = self.network.geometry.bands[level]
        sizes = np.cumsum([len(m) for m in bands.members])
        return int(sizes[quantised.widths[level]].sum())
