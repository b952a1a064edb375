"""Layouts, latents and networks of the pyramid's float kernels, what the definition says of them, and how results are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inrcodec_kernels import pyramid
from inrcodec_kernels.backend import Backend
from inrcodec_kernels.pyramid import Context, Layout, Synthesis, reference

Case = TypeVar("Case")

NUMBA = Backend("numba")
LEAST = -2.0
CLEAR = 2e-6
"""Hidden numbers of cases are farther from zero than this, and scales from their limits: rounding to float32 does not decide on which side of a kink they lie."""
INSENSITIVE, WAYS = 5e-6, (1, 2, 3, 4)
"""Rounding what goes into a case, in any of these ways, changes what comes out by less than this."""
YES, NO = True, False

# Odd extents, absent axes, axes of extent 1 on coarse levels, axes that are not halved, no latents on the finest lattices, more slabs than one,
# taps that are no neighbours, some farther from each other than the signal is long; contexts that see further.
LAYOUTS = [
    Layout((1, 9, 10, 13), ((NO, YES, YES, YES),) * 2),
    Layout((3, 5, 6, 7), ((YES, YES, YES, YES), (NO, YES, NO, YES))),
    Layout((1, 1, 1, 50), ((NO, NO, NO, YES),) * 3),
    Layout((1, 1, 7, 30), ((NO, NO, YES, YES), (NO, NO, YES, NO))),
    Layout((2, 6, 1, 5), ((YES, YES, NO, YES),)),
    Layout((1, 5, 6, 7), ()),
    Layout((1, 1, 1, 1), ((YES, YES, YES, YES),)),
    Layout((1, 1, 1, 70001), ((NO, NO, NO, YES),)),
    Layout((2, 21, 41, 43), ((NO, YES, YES, YES),) * 3),
    Layout((1, 5, 9, 12), ((NO, NO, YES, YES),), ((NO, YES, YES, YES),)),
    Layout((2, 3, 7, 8), (), ((NO, NO, YES, YES), (YES, YES, YES, NO))),
    Layout((1, 1, 13, 11), ((NO, NO, YES, YES),) * 2, ((NO, NO, YES, YES),)),
    Layout((1, 5, 9, 12), ((NO, NO, YES, YES),), ((NO, YES, YES, YES),), (1, 2, 2, 2)),
    Layout((2, 3, 7, 8), (), ((NO, NO, YES, YES), (YES, YES, YES, NO)), (2, 2, 4, 2)),
    Layout((1, 1, 1, 9), ((NO, NO, NO, YES),), (), (1, 1, 1, 3)),
    Layout((1, 41, 41, 43), ((NO, YES, YES, YES),), ((NO, YES, YES, YES),) * 2, (1, 4, 4, 4)),
    Layout((1, 7, 8, 11), ((NO, YES, YES, YES),) * 2, wide=True),
    Layout((3, 3, 6, 7), ((YES, YES, YES, YES),), wide=True),
    Layout((1, 1, 13, 11), ((NO, NO, YES, YES),) * 2, ((NO, NO, YES, YES),), (1, 1, 2, 2), wide=True),
    Layout((1, 41, 41, 43), ((NO, YES, YES, YES),), wide=True),
]
SMALL = [layout for layout in LAYOUTS if math.prod(layout.shape) < 2000]


def slow_where_large(layouts: Iterable[Layout], samples: int = 800) -> list[Any]:
    """Layouts as parameters; the interpreter takes seconds for one of so many samples."""
    return [pytest.param(each, marks=[pytest.mark.slow] * (math.prod(each.shape) > samples)) for each in layouts]


def name(layout: Layout) -> str:
    above, apart = f"_above{len(layout.above)}" * bool(layout.above), f"_apart{max(layout.apart)}" * (max(layout.apart) > 1)
    return "x".join(map(str, layout.shape)) + above + apart + "_wide" * layout.wide + f"_split{layout.split}" * (layout.split > 0)


def fresh() -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)  # seen where a test fails
    return np.random.default_rng(seed)


def clear_case(draw: Callable[[], Case], define: Callable[[Case], Any]) -> tuple[Case, Any]:
    """A case, drawn until none of its hidden numbers is nearly zero, no scale nearly at a limit, and no sum nearly cancels, and what the definition says of it.

    Where one is, its slope is that of one side or the other; where a sum cancels, roundings are all that single precision
    has to show: there is nothing to compare with.
    """
    distances: list[float] = []

    def watched(values: torch.Tensor) -> torch.Tensor:
        distances.append(float(values.detach().abs().min()))
        return leaky(values)

    def limited(values: torch.Tensor, location: torch.Tensor, log_scale: torch.Tensor, least: float) -> torch.Tensor:
        distances.extend(float((log_scale.detach() - limit).abs().min()) for limit in (least, reference.MOST))
        return laplace_bits(values, location, log_scale, least)

    leaky, laplace_bits = reference.leaky, reference.laplace_bits
    for _ in range(100):
        case = draw()
        distances.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reference, "leaky", watched)
            patch.setattr(reference, "laplace_bits", limited)
            expected = define(case)
        if min(distances, default=math.inf) > CLEAR and all(sensitivity(expected, define(nudged(case, way))) < INSENSITIVE for way in WAYS):
            return case, expected
    raise AssertionError("no case without hidden numbers near zero, scales near their limits, or sums that cancel, in 100 draws")


def nudged(case: Any, way: int) -> Any:
    """All numbers of a case off by half a last place of single precision, this way and that, in one of several ways: where a sum cancels, one may not show it."""
    if isinstance(case, np.ndarray):
        ways = np.where(np.arange(case.size).reshape(case.shape) * way % 5 < 2, 1, -1)
        return case.astype(np.float64) * (1 + 2.0**-24 * ways)
    if isinstance(case, (list, tuple)):
        parts = (nudged(part, way) for part in case)
        return type(case)(*parts) if hasattr(case, "_fields") else type(case)(parts)
    return case


def sensitivity(expected: Any, other: Any) -> float:
    """The largest difference of two results, over the largest element of each array."""
    if isinstance(expected, (list, tuple)):
        return max((sensitivity(a, b) for a, b in zip(expected, other, strict=True)), default=0.0)
    size = np.abs(expected).max(initial=1e-3)
    return float(np.abs(np.asarray(other) - expected).max(initial=0) / size)


def single(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def double(values: Any) -> Any:
    """The same numbers in float64: those of a list or of parameters."""
    arrays = [np.asarray(a, np.float64) for a in values]
    return type(values)(*arrays) if hasattr(values, "_fields") else arrays


def normal(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return single(random.normal(size=shape) / math.sqrt(shape[0] if shape else 1))


def latents(random: np.random.Generator, layout: Layout) -> list[NDArray[np.float32]]:
    return [single(2 * random.normal(size=shape)) for shape in layout.shapes]


def context(random: np.random.Generator, layout: Layout, width: int = 8, networks: int | None = None) -> Context:
    """Of one to as many networks as there are lattices, if nothing else is said."""
    n, networks = layout.context_inputs, networks or int(random.integers(1, layout.channels.levels + 1))
    shapes = [(n, width), (width, width), (width,), (width, 2), (2,), (n, 2)]
    first, *others = (np.stack([normal(random, *shape) for _ in range(networks)]) for shape in shapes)
    return Context(first, normal(random, layout.levels, width), *others)


def synthesis(random: np.random.Generator, layout: Layout, thin: int = 8, thick: int = 4) -> Synthesis:
    n, levels = layout.synthesis_inputs, layout.channels.levels
    filters = single(np.array(pyramid.CUBIC) + 0.1 * random.normal(size=(len(layout.above) + levels - 1, 4)))
    shapes = [(n, thin), (thin,), (thin, thick), (thick,), (thick,), ()]
    gains, skips = (single(1 + 0.2 * random.normal(size=levels)) for _ in range(2))
    return Synthesis(gains, filters, *(normal(random, *shape) for shape in shapes), skips)


def assert_near(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Every array, by its largest element."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype in (np.float32, np.float64)
        assert np.isfinite(a).all()
        if np.size(a):
            assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-3)


def targets(random: np.random.Generator, layout: Layout) -> NDArray[np.float32]:
    """Samples to reach, all far on one side: the gradient of the last bias, a sum of errors, does not cancel."""
    return single(6 + random.normal(size=layout.shape))


def rate_defined(ys: Any, p: Context, layout: Layout) -> Any:
    """What the definition says in float64."""
    return reference.rate(double(ys), double(p), layout, LEAST)


def distortion_defined(ys: Any, p: Synthesis, target: Any, layout: Layout, counted: Any = None) -> Any:
    """What the definition says in float64."""
    exact = None if counted is None else counted.astype(np.float64)
    return pyramid.distortion(double(ys), double(p), layout, target.astype(np.float64), weights=exact)


def weights(random: np.random.Generator, shape: tuple[int, ...], same: tuple[int, ...]) -> NDArray[np.float32]:
    """What samples count, zeros among them, the same along some axes."""
    extents = [1 if axis in same else n for axis, n in enumerate(shape)]
    return single(random.random(extents) * (random.random(extents) < 0.8))


SAME = pytest.mark.parametrize("same", [(), (0, 1), (1, 2), (0, 1, 2, 3)], ids=lambda axes: f"same{''.join(map(str, axes))}")
