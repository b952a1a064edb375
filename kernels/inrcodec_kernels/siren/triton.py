"""Sine networks on CUDA devices: samples, gradients, and fits of many blocks in one launch. README.md has the mathematics.

Triton decides when a kernel is decorated whether it is compiled or interpreted (``TRITON_INTERPRET=1``), so this module is
imported only when its backend has been chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
import triton
from torch import Tensor

from ..backend import interpreted
from .reference import LARGEST
from .triton_cases import compile_cases
from .triton_classes import (
    CHUNK,
    FRACTION_BITS,
    MOST_PARTS,
    PROGRAMS,
    SAMPLES,
    TILES,
    lacking,
    layout_of,
    precision_of,
    program_of,
)
from .triton_kernels import (
    disturb_kernel,
    draw_kernel,
    finish_kernel,
    fit_kernel,
    gradients_kernel,
    orthonormal_kernel,
    reconstruct_kernel,
)

__all__ = [
    "FRACTION_BITS", "Quantiser", "Voxels", "accumulate", "compile_cases", "disturbed", "draw", "finish", "fit_adam", "lacking",
    "loss_and_gradients", "orthonormal", "place",
]  # fmt: skip

SAMPLE_DTYPES = (torch.float32, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32)


class Blocks(Protocol):
    """Boxes of one class: `origin` and `extent` (n, d) int32, in samples; `scale` and `mean` (n,) float32."""

    @property
    def origin(self) -> Tensor: ...
    @property
    def extent(self) -> Tensor: ...
    @property
    def scale(self) -> Tensor: ...
    @property
    def mean(self) -> Tensor: ...


class Networks(Protocol):
    """Quantised networks of one class; those of no widths are zero.

    `widths` of the sine layers; `quantised` (n, P) int32: all layers in raster order, the bias as last row; `steps`
    (n, L + 1) float32; `start` (n, (d + 1) w_1) float32, what is added to the first layer.
    """

    @property
    def widths(self) -> tuple[int, ...]: ...
    @property
    def quantised(self) -> Tensor: ...
    @property
    def steps(self) -> Tensor: ...
    @property
    def start(self) -> Tensor: ...




class Voxels(NamedTuple):
    """Where the samples of each of n blocks are, and the coordinates they have.

    Attributes
    ----------
    samples : Tensor, float32
        All samples, flat.
    begin : Tensor, shape (n,), int32 or int64
        First sample of each block's box.
    box : Tensor, shape (n, d), int32
        Extents of the boxes, whose samples lie in raster order.
    shift, unit : Tensor, shape (n, d), float32
        Coordinate of sample i along an axis: ``(i + shift) * unit - 1``.
    """

    samples: Tensor
    begin: Tensor
    box: Tensor
    shift: Tensor
    unit: Tensor


class Quantiser(NamedTuple):
    """What a fit knows of the quantiser to come.

    Attributes
    ----------
    step : Tensor, shape (n, L + 1), float32
        Step of each layer; larger than 0 where `price` is.
    noise : bool
        Whether weights are disturbed in each step, uniformly within half a step.
    price : Tensor, shape (n, L + 1), float32, or None
        The loss grows by ``price * log2(1 + |w - start| / step)`` for each undisturbed weight.
    start : Tensor, shape (n, (d + 1) w_1), float32, or None
        What the first layer is coded against; 0 if None, as for all other layers.
    """

    step: Tensor
    noise: bool = True
    price: Tensor | None = None
    start: Tensor | None = None


def accumulate(
    total: Tensor, share: Tensor, blocks: Blocks, networks: Networks, halo: int, *, precision: str = "fp32",
    fast_sine: bool = False, unsound: Tensor | None = None, largest: int | None = None,
) -> None:  # fmt: skip
    """Add the weighted samples of blocks that overlap by a halo, and their weights, to a box; `finish` divides.

    Sums are integers, so they do not depend on the order in which the device takes the blocks.

    Parameters
    ----------
    total : Tensor, shape of the box (2 to 4 axes), int64
        Sums of ramp times value, in units of 2^-`FRACTION_BITS`.
    share : Tensor, same shape, int32
        Sums of the ramps, in the same units.
    blocks, networks
        Boxes in the box's coordinates, may reach beyond it; their networks.
    halo : int
        At least 1, in samples; without a halo, see `place`.
    precision : str
        One of `PRECISIONS`.
    fast_sine : bool
        The device's own sine, 5e-7 instead of 2.5e-7; ignored by the interpreter.
    unsound : Tensor, shape (1,), int32, or None
        Set to 1 where a network gives what is not finite or not below `LARGEST`; left alone otherwise. The samples are
        then of no use.
    largest : int or None
        Samples of the largest block with its halo; None has the device count them, and waits for it.

    Raises
    ------
    ValueError
        If shapes, dtypes, widths, halo or precision are not such.
    """
    if halo < 1:
        raise ValueError(f"expected a halo of at least 1 sample, found {halo}; use place")
    if total.dtype != torch.int64 or share.dtype != torch.int32 or total.shape != share.shape:
        found = f"{total.dtype} {tuple(total.shape)} and {share.dtype} {tuple(share.shape)}"
        raise ValueError(f"expected sums of int64 and shares of int32 of one shape, found {found}; make them such")
    _reconstruct(total, share, total, blocks, networks, halo, precision, fast_sine, unsound, largest)


def place(
    out: Tensor, blocks: Blocks, networks: Networks, offset: float, low: float, high: float, *, precision: str = "fp32",
    fast_sine: bool = False, unsound: Tensor | None = None, largest: int | None = None,
) -> None:  # fmt: skip
    """Reconstruct blocks that do not overlap straight into samples of the file.

    Parameters
    ----------
    out : Tensor, shape of the box (2 to 4 axes)
        One of `SAMPLE_DTYPES`; samples outside all blocks are left as they are.
    blocks, networks, precision, fast_sine, unsound, largest
        As in `accumulate`.
    offset : float
        Added to every value.
    low, high : float
        Integers are rounded half to even and clipped to these; float32 samples are stored as they are.

    Raises
    ------
    ValueError
        If shapes, dtypes, widths or precision are not such.
    """
    _check_samples(out)
    limits = _limits(out, offset, low, high)
    _reconstruct(out, out, limits, blocks, networks, 0, precision, fast_sine, unsound, largest)


def finish(total: Tensor, share: Tensor, offset: float, low: float, high: float, out: Tensor) -> None:
    """Make samples of the file from the sums of `accumulate`; where no block has added anything, the offset.

    Parameters
    ----------
    total, share : Tensor
        As in `accumulate`.
    offset, low, high
        As in `place`.
    out : Tensor, same shape
        One of `SAMPLE_DTYPES`.

    Raises
    ------
    ValueError
        If the dtype or the shape of `out` is not such.
    """
    _check_samples(out)
    if out.shape != total.shape:
        raise ValueError(f"expected samples of shape {tuple(total.shape)}, found {tuple(out.shape)}; make them such")
    with _on(out):
        finish_kernel[(triton.cdiv(out.numel(), SAMPLES),)](
            out, total, share, _limits(out, offset, low, high), out.numel(), SAMPLES=SAMPLES
        )


def loss_and_gradients(
    weights: Sequence[Tensor], points: Tensor, targets: Tensor, *, precision: str = "fp32"
) -> tuple[Tensor, list[Tensor]]:
    """Mean squared error of n networks, and the gradient of their sum; no activation is ever stored.

    Parameters
    ----------
    weights : sequence of Tensor, shape (n, n_in + 1, n_out), float32
        All layers, the bias as last row; the last n_out is 1.
    points : Tensor, shape (n, N, d), float32
    targets : Tensor, shape (n, N), float32
    precision : str
        One of `PRECISIONS`.

    Returns
    -------
    errors : Tensor, shape (n,)
        ``mean_j (net_k(x_j) - t_j)^2``
    gradients : list of Tensor
        Of the errors' sum, shaped like `weights`. Sums are taken in one order: same input, same bits.

    Raises
    ------
    ValueError
        If widths or precision are not such.
    """
    nodes, count, axes = points.shape
    layout = layout_of(axes, [w.shape[-1] for w in weights[:-1]])
    program = program_of(layout, training=True)
    tiles = triton.cdiv(count, program["TILE"])
    splits = max(1, min(PROGRAMS // nodes, triton.cdiv(tiles, TILES)))
    per_split = triton.cdiv(tiles, splits) * program["TILE"]
    splits = triton.cdiv(count, per_split)
    packed = torch.cat([w.flatten(1) for w in weights], dim=1)
    errors = points.new_empty(nodes, splits)
    gradients = points.new_empty(nodes, splits, packed.shape[1])
    with _on(points):
        gradients_kernel[(nodes, splits)](
            errors, gradients, packed, points.contiguous(), targets.contiguous(), count, per_split,
            **layout, **program, PRECISION=precision_of(precision),
        )  # fmt: skip
    flat = gradients.sum(1).split([w[0].numel() for w in weights], dim=1)
    return errors.sum(1), [g.reshape(w.shape) for g, w in zip(flat, weights, strict=True)]


def draw(voxels: Voxels, key: Tensor, step: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The samples that a step of the fit sees of each block, see README.md.

    Parameters
    ----------
    voxels : Voxels
    key : Tensor, shape (n,), int32 or uint32
    step : Tensor, shape (1,), int32
        Number of the step, on the device: so a CUDA graph of the launch draws anew.
    count : int

    Returns
    -------
    points : Tensor, shape (n, count, d), float32
    targets : Tensor, shape (n, count), float32
    """
    nodes, axes = voxels.box.shape
    points, targets = (voxels.samples.new_empty(nodes, count, *shape) for shape in ((axes,), ()))
    with _on(points):
        draw_kernel[(nodes, triton.cdiv(count, CHUNK))](
            points, targets, *(tensor.contiguous() for tensor in voxels), key, step, count, D=axes, CHUNK=CHUNK
        )
    return points, targets


def disturbed(weights: Tensor, widths: Sequence[int], axes: int, noise: Tensor, key: Tensor, step: Tensor) -> Tensor:
    """Weights plus the quantiser's noise of a step.

    Parameters
    ----------
    weights : Tensor, shape (n, P), float32
        As in `fit_adam`.
    widths : sequence of int
        Of the sine layers.
    axes : int
    noise : Tensor, shape (n, L + 1), float32
        Step of each layer.
    key, step
        As in `draw`.
    """
    layout = layout_of(axes, widths)
    _check_contiguous(weights, noise)
    noisy = torch.empty_like(weights)
    with _on(weights):
        disturb_kernel[(len(weights),)](
            noisy, weights, noise, key, step, OFFSETS=layout["OFFSETS"], DEPTH=layout["DEPTH"], CHUNK=CHUNK
        )
    return noisy


def orthonormal(matrices: Tensor) -> Tensor:
    """Orthonormal columns of n square matrices, those of their QR decompositions; torch's solver takes one after the other.

    Parameters
    ----------
    matrices : Tensor, shape (n, r, r), float32
        r at most 128.
    """
    size = matrices.shape[-1]
    edge = max(16, triton.next_power_of_2(size))
    out = torch.empty_like(matrices, memory_format=torch.contiguous_format)
    with _on(out):
        orthonormal_kernel[(len(matrices),)](
            out, matrices.contiguous(), size, EDGE=edge, num_warps=1 if edge < 32 else edge // 8
        )
    return out


def fit_adam(
    weights: Tensor, moment: Tensor, square: Tensor, widths: Sequence[int], voxels: Voxels, key: Tensor,
    rates: Sequence[float], *, points: int, first: int = 0, quantiser: Quantiser | None = None,
    betas: tuple[float, float] = (0.9, 0.999), epsilon: float = 1e-8, precision: str = "fp32",
    steps_per_launch: int = 100,
) -> Tensor:  # fmt: skip
    """Fit n networks by Adam on voxels drawn anew in every step, many steps in one launch.

    Parameters
    ----------
    weights : Tensor, shape (n, P), float32
        All layers one after the other in raster order, the bias as last row; changed in place.
    moment, square : Tensor, same shape
        Adam's state, 0 before step 0; changed in place.
    widths : sequence of int
        Of the sine layers.
    voxels : Voxels
    key : Tensor, shape (n,), int32 or uint32
        Seeds of the blocks' draws, see README.md.
    rates : sequence of float
        Learning rate of each step of this call.
    points : int
        Voxels drawn for each block and step.
    first : int
        Number of the first step: those of earlier calls.
    quantiser : Quantiser or None
    betas, epsilon
        As in Kingma & Ba.
    precision : str
        One of `PRECISIONS`.
    steps_per_launch : int
        A launch of many steps saves the host's time, but a device that also draws a screen may not like long ones.

    Returns
    -------
    Tensor, shape (n, len(rates))
        Mean squared error over the voxels of each step, without the rate.

    Raises
    ------
    ValueError
        If shapes, widths or precision are not such.

    References
    ----------
    Kingma & Ba 2015, arXiv:1412.6980.
    """
    nodes, axes = voxels.box.shape
    layout = layout_of(axes, widths)
    if weights.shape != (nodes, layout["OFFSETS"][-1]):
        expected = (nodes, layout["OFFSETS"][-1])
        raise ValueError(f"expected weights of shape {expected}, found {tuple(weights.shape)}; pack all layers")
    _check_contiguous(weights, moment, square)
    noisy = quantiser is not None and quantiser.noise
    price = quantiser.price if quantiser else None
    start = quantiser.start if quantiser else None
    if start is None:
        start = weights.new_zeros(nodes, layout["OFFSETS"][1])
    step = quantiser.step.contiguous() if quantiser else weights
    gradients = torch.empty_like(weights)
    errors = weights.new_empty(nodes, len(rates))
    schedule = _schedule(rates, first, betas).to(weights.device)
    with _on(weights):
        for done in range(0, len(rates), steps_per_launch):
            fit_kernel[(nodes,)](
                errors, weights, moment, square, gradients, torch.empty_like(weights) if noisy else weights,
                *(tensor.contiguous() for tensor in voxels), key, schedule,
                step, weights if price is None else price.contiguous(), start.contiguous(),
                first, done, min(steps_per_launch, len(rates) - done), len(rates), points,
                **layout, **program_of(layout, training=True), PRECISION=precision_of(precision), NOISY=noisy,
                PRICED=price is not None, BETA1=betas[0], BETA2=betas[1], EPSILON=epsilon, CHUNK=CHUNK,
            )  # fmt: skip
    return errors


def _schedule(rates: Sequence[float], first: int, betas: tuple[float, float]) -> Tensor:
    """For each step ``rate / (1 - beta_1^t)`` and ``1 / sqrt(1 - beta_2^t)``, in float64 before they are rounded."""
    t = torch.arange(first + 1, first + 1 + len(rates), dtype=torch.float64)
    rate = torch.as_tensor(rates, dtype=torch.float64) / (1 - betas[0] ** t)
    return torch.stack([rate, (1 - betas[1] ** t).rsqrt()], dim=1).float()


def _reconstruct(
    out: Tensor, share: Tensor, limits: Tensor, blocks: Blocks, networks: Networks, halo: int, precision: str,
    fast_sine: bool, unsound: Tensor | None, largest: int | None,
) -> None:  # fmt: skip
    nodes, axes = blocks.origin.shape
    if out.ndim != axes:
        raise ValueError(f"expected a box of {axes} axes, as the blocks have, found {out.ndim}; reshape it")
    _check_contiguous(out, share)
    layout = layout_of(axes, networks.widths, constant=not networks.widths)
    program = program_of(layout, training=False)
    if largest is None:
        largest = int((blocks.extent.long() + 2 * halo).prod(1).max())
    parts = min(triton.cdiv(largest, program["TILE"] * TILES), MOST_PARTS)
    if unsound is None:
        unsound = out.new_empty(1, dtype=torch.int32)
    # Constants have no numbers: the kernel reads none.
    numbers = (networks.quantised, networks.steps, networks.start) if networks.widths else (blocks.mean,) * 3
    with _on(out):
        reconstruct_kernel[(nodes, parts)](
            out, share, unsound, limits, tuple(out.shape),
            blocks.origin.contiguous(), blocks.extent.contiguous(), blocks.scale.contiguous(), blocks.mean.contiguous(),
            *(tensor.contiguous() for tensor in numbers), **layout, **program, HALO=halo, BITS=FRACTION_BITS,
            LARGEST=LARGEST, PRECISION=precision_of(precision), FAST=fast_sine and not interpreted(),
        )  # fmt: skip


def _check_samples(out: Tensor) -> None:
    if out.dtype not in SAMPLE_DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in SAMPLE_DTYPES)
        raise ValueError(f"expected samples of {names}, found {out.dtype}; convert afterwards")
    _check_contiguous(out)


def _check_contiguous(*tensors: Tensor) -> None:
    if not all(tensor.is_contiguous() for tensor in tensors):
        raise ValueError("expected contiguous tensors to write to, found strided ones; make them contiguous")


def _limits(out: Tensor, offset: float, low: float, high: float) -> Tensor:
    """As a tensor, because Triton rounds scalars to float32."""
    return torch.tensor([offset, low, high], dtype=torch.float64, device=out.device)


def _on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
