"""Rate and distortion of a pyramid with all gradients, and its synthesis, in compiled loops.

Every lattice is held flat with a ring (`frames.py`), so that a tap is a shift. A span of positions goes through a
network and all the way back before the next one (`networks.py`); what shifts make of the ends of lines is computed, and
counts for nothing. Threads take slabs, first every second one, then those between: no two that touch the same samples
at a time, and sums in an order that does not depend on the threads.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..backend import in_threads
from .blocks import SPAN
from .frames import BLOCK, Frame, Slab, Thinning, Weights, alternate, slabs, whole_slabs
from .laplace import bits_and_gradients
from .layout import CENTRE, Box, Context, Floats, Layout, Place, Synthesis, Turn, needed_of_all, place_of
from .networks import SUMS, Net, Scratch, back, begin_spans, end_spans, forward, through, total
from .reference import LINEAR
from .upsampling import add_adjoint, upsample
from .workspace import Workspace

_LINEAR = np.array(LINEAR, np.float32)
_F = np.float32


def rate(
    latents: Sequence[Floats], context: Context, layout: Layout, least: float, workspace: Workspace, turn: Turn
) -> tuple[NDArray[np.float64], list[Floats], Context]:
    """As `inrcodec_kernels.pyramid.rate`."""
    frames = [Frame.of(shape, layout.context_reach) for shape in layout.shapes]
    inputs = _context_inputs(latents, layout, frames, workspace)
    gradients = [workspace.cleared(f"context gradients {k}", 3 * frame.size) for k, frame in enumerate(frames)]
    # Latents of coarse lattices are large numbers.
    nets = [_of_context(context, k, layout, frame).tiled(fine=layout.lattice[k] > 1) for k, frame in enumerate(frames)]

    def work(level: int, slab: Slab, share: int) -> tuple[float, list[Floats]]:
        with _scratch(workspace, nets[level], share) as scratch:
            bits = _rate_slab(inputs[level], gradients[level], slab, nets[level], scratch, _F(least), share > 0)
            return bits, scratch.gradients(nets[level], share)

    cut = [slabs(frame, (CENTRE, frame.extents)) for frame in frames]
    found = _over_slabs(work, cut, frames, turn, layout.lattice)
    levels = [_totals((part for _, part in level), net) for level, net in zip(found, nets, strict=True)]
    of_context = Context(*map(_single, Context.of_levels(levels, layout.lattice, context.networks, np.stack)))
    bits = np.array([sum(bits for bits, _ in level) for level in found])
    return bits, _context_adjoint(gradients, latents, layout, frames), of_context


def _of_context(context: Context, level: int, layout: Layout, frame: Frame) -> Net:
    ins = [*_shifts(frame, layout.causal, 0), *_shifts(frame, layout.cross, 1), 2 * frame.size]
    *layers, skip = context.of_level(level, layout.lattice[level])
    return Net.of(layers, skip, ins, ins)


@lru_cache(maxsize=64)
def _channel_shifts(frame: Frame, taps: tuple[tuple[int, Place], ...]) -> tuple[int, ...]:
    """Shifts of taps on channels of a flat array that has these one after the other."""
    return tuple(channel * frame.size + frame.shift(tap) for channel, tap in taps)


@lru_cache(maxsize=64)
def _shifts(frame: Frame, taps: tuple[Place, ...], channel: int) -> tuple[int, ...]:
    """The same of taps on one channel."""
    return _channel_shifts(frame, tuple((channel, tap) for tap in taps))


def _context_inputs(
    latents: Sequence[Floats], layout: Layout, frames: Sequence[Frame], workspace: Workspace
) -> list[Floats]:
    """Flat arrays of three channels for every level: its latents, and what the two coarser levels say."""
    # What is not written, rings above all, stays zero.
    found = [workspace.kept(f"context {k}", 3 * frame.size) for k, frame in enumerate(frames)]
    for own, frame, flat in zip(latents, frames, found, strict=True):
        frame.inside(flat)[...] = own
    for k in reversed(range(layout.levels - 1)):
        _, one, two = found[k].reshape(3, -1)
        upsample(latents[k + 1], CENTRE, _LINEAR, layout.steps[k], CENTRE, one, frames[k])
        frames[k].repeat_edge(one)
        if k + 2 < layout.levels:
            source = np.ascontiguousarray(frames[k + 1].inside(found[k + 1].reshape(3, -1)[1]))
            upsample(source, CENTRE, _LINEAR, layout.steps[k], CENTRE, two, frames[k])
    return found


def _context_adjoint(
    gradients: Sequence[Floats], latents: Sequence[Floats], layout: Layout, frames: Sequence[Frame]
) -> list[Floats]:
    """Adjoint of `_context_inputs`; what it is given is changed."""
    found = [frame.inside(flat).copy() for frame, flat in zip(frames, gradients, strict=True)]
    from_finer = None
    for k in range(layout.levels - 1):
        _, one, two = gradients[k].reshape(3, -1)
        frames[k].fold_edge(one)
        if from_finer is not None:
            frames[k].inside(one)[...] += from_finer
        add_adjoint(one, frames[k], _LINEAR, layout.steps[k], found[k + 1])
        if k + 2 < layout.levels:
            from_finer = np.zeros(layout.shapes[k + 1], np.float32)
            add_adjoint(two, frames[k], _LINEAR, layout.steps[k], from_finer)
    return found


def _over_slabs(
    work: Callable[[int, Slab, int], Any],
    levels: Sequence[Sequence[Slab]],
    frames: Sequence[Frame],
    turn: Turn,
    lattice: Sequence[int] = (0,),
) -> list[list[Any]]:
    """Results of all slabs of all levels, in order; slabs side by side never at a time. Bands of a lattice take turns as if they were one level: a network serves them all."""
    found: list[list[Any]] = [[None] * len(level) for level in levels]
    before, parts, positions = list[int](), Counter[int](), Counter[int]()
    for own, level, frame in zip(lattice, levels, frames, strict=True):
        before.append(parts[own])
        parts[own] += len(level)
        positions[own] += math.prod(frame.extents)

    def place(task: tuple[int, int]) -> None:
        level, number = task
        own = lattice[level]
        # Small lattices have smaller slabs, and are not many samples for that.
        share = turn.share(before[level] + number, min(parts[own], whole_slabs(positions[own])))
        found[level][number] = work(level, levels[level][number], share)

    for numbers in zip(*(alternate(len(level)) for level in levels), strict=True):
        tasks = [(level, number) for level, chosen in enumerate(numbers) for number in chosen]
        in_threads(lambda i, tasks=tasks: place(tasks[i]), range(len(tasks)))  # type: ignore[misc]
    return found


@contextmanager
def _scratch(workspace: Workspace, net: Net, share: int) -> Iterator[Scratch]:
    """Rows for a slab; sums are zeros where it counts."""
    with workspace.lent(("scratch", net.key), lambda: Scratch.of(net)) as scratch:
        if share:
            scratch.clear()
        yield scratch


def _totals(parts: Iterable[list[Floats]], net: Net) -> list[NDArray[np.float64]]:
    """Sums of gradients of all parameters of a network, in double precision: of those parts that count, in their order."""
    counted = [part for part in parts if part]
    return [sum((a.astype(np.float64) for a in arrays), np.zeros(p.shape)) for p, *arrays in zip(net.parameters, *counted, strict=True)]


def _single(values: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(values, np.float32)


@njit(nogil=True, cache=True)
def _rate_slab(inputs, gradient, slab, net, scratch, least, counts):  # type: ignore[no-untyped-def]
    """Bits of a slab; adds the gradients of parameters, where it counts for them, to `scratch`, and those by the inputs to `gradient`."""
    values, outs = scratch.values, scratch.outs
    unused, bits, found = np.zeros(len(scratch.by_inputs), np.float32), np.empty(SPAN, np.float32), 0.0
    begin_spans(scratch)
    for begin in slab.begins:
        for here in range(0, slab.length, SPAN):
            at, count = begin + here, min(SPAN, slab.length - here)
            span = -(-count // BLOCK) * BLOCK
            through(scratch, unused, inputs, at, net, span)
            location, scale = values[outs[0] : outs[0] + span], values[outs[1] : outs[1] + span]
            own, mask = inputs[at : at + span], slab.mask[here : here + span]
            bits_and_gradients(own, location, scale, mask, bits[:span], net.last_bias[0], net.last_bias[1], least)
            found += total(bits[:span])
            _subtract(gradient[at : at + count], location)
            back(scratch, unused, inputs, gradient, at, net, span, count, counts)
    end_spans(scratch)
    return found


@njit(nogil=True, cache=True)
def _subtract(out, values):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] -= values[i]


def distortion(
    latents: Sequence[Floats],
    synthesis: Synthesis,
    layout: Layout,
    target: Floats,
    weights: Floats | None,
    workspace: Workspace,
    turn: Turn,
    thinned: tuple[int, ...],
) -> tuple[float, list[Floats], Synthesis]:
    """As `inrcodec_kernels.pyramid.distortion`, of channels; `thinned` is that of the layout of the latents."""
    frame = Frame.of(layout.shape, layout.synthesis_reach)
    scaled = [_single(gain * own) for gain, own in zip(synthesis.gains, latents, strict=True)]
    inputs = workspace.kept("channels", layout.levels * frame.size)
    boxes: list[Box] = [(CENTRE, shape) for shape in layout.whole.shapes]
    sources = _channels(scaled, synthesis, layout, boxes, frame, inputs)
    gradients = workspace.cleared("channel gradients", layout.levels * frame.size)
    wanted = workspace.kept("target", frame.size)
    frame.inside(wanted)[...] = target
    net, counted = _of_synthesis(synthesis, layout, frame).tiled(fine=True), Weights.of(weights, layout)

    # How often each line counts whose turn it is.
    times = turn.lines if thinned else 1
    cut = slabs(frame, (CENTRE, frame.extents), Thinning(thinned, times, turn.number % times) if times > 1 else None)

    def work(_: int, slab: Slab, share: int) -> tuple[float, list[Floats]]:
        begins = counted.begins(slab.begins, frame)
        with _scratch(workspace, net, share) as scratch:
            squares = _distortion_slab(inputs, gradients, wanted, counted.flat, begins, slab, net, scratch, _F(times), share > 0)
            return squares, scratch.gradients(net, share)

    (found,) = _over_slabs(work, [cut], [frame], turn)
    first, first_bias, second, second_bias, last, last_bias, skips = _totals((part for _, part in found), net)
    by_scaled, filters = _channels_adjoint(gradients, sources, synthesis, layout, frame)
    gains = np.array([np.vdot(own, by).astype(np.float64) for own, by in zip(latents, by_scaled, strict=True)])
    shapes = [p.shape for p in synthesis]
    sums = (gains, filters, first, first_bias, second, second_bias, last, last_bias, skips)
    of_synthesis = Synthesis(*(_single(p).reshape(shape) for p, shape in zip(sums, shapes, strict=True)))
    by_latents = [_single(gain * by) for gain, by in zip(synthesis.gains, by_scaled, strict=True)]
    return float(sum(squares for squares, _ in found)), by_latents, of_synthesis


def _of_synthesis(synthesis: Synthesis, layout: Layout, frame: Frame) -> Net:
    _, _, first, first_bias, second, second_bias, last, last_bias, skips = synthesis
    ins = _channel_shifts(frame, layout.seen)
    centres = [k * frame.size for k in range(layout.levels)]
    layers = first, first_bias, second, second_bias, last.reshape(-1, 1), last_bias.reshape(1)
    return Net.of(layers, skips.reshape(-1, 1), ins, centres)


def _channels(
    scaled: Sequence[Floats], synthesis: Synthesis, layout: Layout, boxes: Sequence[Box], frame: Frame, out: Floats
) -> list[list[Floats]]:
    """Upsample the boxes of all lattices to that of the signal.

    `out` gets all channels there, in the frame's layout, one after the other; what is zero in it and not written are rings.

    Returns
    -------
    list of lists of ndarray
        For every lattice but the signal's its own channel, if it holds latents, then those that came to it from coarser ones;
        finest first.
    """
    whole, absent, filters = layout.whole, len(layout.above), _single(synthesis.filters)
    sources: list[list[Floats]] = [[] for _ in (*boxes, None)]
    for j in reversed(range(1, whole.levels)):
        own = [scaled[j - absent]] if j >= absent else []
        sources[j] = own + [_upsampled(source, filters[j], whole, boxes, j) for source in sources[j + 1]]
    inputs = out.reshape(layout.levels, frame.size)
    if not absent:
        frame.inside(inputs[0])[...] = scaled[0]
    for flat, source in zip(inputs[0 if absent else 1 :], sources[1], strict=True):
        upsample(source, boxes[1][0], filters[0], whole.halved[0], boxes[0][0], flat, frame)
    for channel in _repeated(layout):
        frame.repeat_edge(inputs[channel])
    return sources


def _repeated(layout: Layout) -> range:
    """Channels whose neighbours the network sees, and which repeat their edge: all that were upsampled."""
    return range(0 if layout.above else 1, min(2, layout.levels))


def _upsampled(source: Floats, taps: Floats, layout: Layout, boxes: Sequence[Box], level: int) -> Floats:
    start, stop = boxes[level]
    frame = Frame.bare([b - a for a, b in zip(start, stop, strict=True)])
    out = np.empty(frame.size, np.float32)
    upsample(source, boxes[level + 1][0], taps, layout.halved[level], start, out, frame)
    return out.reshape(frame.extents)


def _channels_adjoint(
    gradients: Floats, sources: Sequence[list[Floats]], synthesis: Synthesis, layout: Layout, frame: Frame
) -> tuple[list[Floats], NDArray[np.float64]]:
    """Gradients by the scaled latents and by the filters; `gradients` is changed."""
    flats, filters = list(gradients.reshape(layout.levels, -1)), _single(synthesis.filters)
    for channel in _repeated(layout):
        frame.fold_edge(flats[channel])
    whole, absent, found, of_filters = layout.whole, len(layout.above), [], np.zeros((len(filters), 4))
    for j in range(whole.levels):
        if j >= absent:
            found.append(frame.inside(flats.pop(0)))
        if not flats:
            break
        coarser = []
        for flat, source in zip(flats, sources[j + 1], strict=True):
            coarser.append(np.zeros(source.shape, np.float32))
            of_filters[j] += add_adjoint(flat, frame, filters[j], whole.halved[j], coarser[-1], source)
        flats, frame = [by.reshape(-1) for by in coarser], Frame.bare(whole.shapes[j + 1])
    return found, of_filters


@njit(nogil=True, cache=True)
def _distortion_slab(inputs, gradient, wanted, weights, weights_at, slab, net, scratch, times, counts):  # type: ignore[no-untyped-def]
    """Sum of squared errors of a slab, each so many times; adds gradients as `_rate_slab` does."""
    values, outs = scratch.values, scratch.outs
    unused, squares, found = np.zeros(len(scratch.by_inputs), np.float32), np.empty(SPAN, np.float32), 0.0
    begin_spans(scratch)
    for run in range(len(slab.begins)):
        for here in range(0, slab.length, SPAN):
            at, count = slab.begins[run] + here, min(SPAN, slab.length - here)
            span = -(-count // BLOCK) * BLOCK
            through(scratch, unused, inputs, at, net, span)
            out, mask = values[outs[0] : outs[0] + span], slab.mask[here : here + span]
            _errors(out, wanted[at : at + span], mask, squares[:span], net.last_bias[0], times)
            if len(weights):
                begin = weights_at[run] + here
                _weigh(out, squares[:span], weights[begin : begin + span])
            found += total(squares[:span])
            back(scratch, unused, inputs, gradient, at, net, span, count, counts)
    end_spans(scratch)
    return found


@njit(nogil=True, cache=True, fastmath=SUMS)
def _errors(out, wanted, mask, squares, bias, times):  # type: ignore[no-untyped-def]
    """Put the gradient of the square in the place of the outputs."""
    for i in range(len(out)):
        error = (out[i] + bias - wanted[i]) * mask[i]
        counted = times * error
        squares[i] = counted * error
        out[i] = counted + counted


@njit(nogil=True, cache=True, fastmath=SUMS)
def _weigh(out, squares, weights):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        out[i] *= weights[i]
        squares[i] *= weights[i]


def synthesise_box(
    latents: Sequence[Floats], origins: Sequence[Place], synthesis: Synthesis, layout: Layout, box: Box
) -> Floats:
    """As `inrcodec_kernels.pyramid.synthesise_box`."""
    boxes = needed_of_all(layout, *box)
    scaled = []
    for own, origin, (start, stop), gain in zip(latents, origins, boxes[len(layout.above) :], synthesis.gains, strict=True):
        inside = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, origin, strict=True))
        scaled.append(_single(gain * own[inside]))
    frame = Frame.of([b - a for a, b in zip(*boxes[0], strict=True)], layout.synthesis_reach)
    inputs = np.zeros(layout.levels * frame.size, np.float32)
    _channels(scaled, synthesis, layout, boxes, frame, inputs)
    net, out = _of_synthesis(synthesis, layout, frame), np.empty(frame.size, np.float32)
    low, high = (place_of(a - o for a, o in zip(place, boxes[0][0], strict=True)) for place in box)
    parts = slabs(frame, (low, high))

    def work(number: int) -> None:
        _synthesis_slab(inputs, out, parts[number], net)

    in_threads(work, range(len(parts)))
    return frame.inside(out)[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


@njit(nogil=True, cache=True)
def _synthesis_slab(inputs, out, slab, net):  # type: ignore[no-untyped-def]
    """Samples of a slab, a block at a time: its hidden layers stay in the first-level cache."""
    width, thick_width = len(net.first_bias), len(net.second_bias)
    values, unused = np.empty((width + thick_width + 1) * BLOCK, np.float32), np.zeros(1, np.float32)
    places = np.arange(width + thick_width + 1) * BLOCK
    thin, thick, outs = places[:width], places[width:-1], places[-1:]
    for begin in slab.begins:
        for here in range(0, slab.length, BLOCK):
            at, count = begin + here, min(BLOCK, slab.length - here)
            forward(values, thin, thick, outs, unused, inputs, at, net, BLOCK)
            for i in range(count):
                out[at + i] = values[outs[0] + i] + net.last_bias[0]
