"""What does not fit a layout is refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from .layout import AXES, Box, Context, Floats, Layout, Place, Synthesis


def check_latents(found: Sequence[Floats], expected: Sequence[Place]) -> None:
    if [a.shape for a in found] != list(expected):
        raise ValueError(
            f"expected lattices of shapes {list(expected)}, found {[a.shape for a in found]}; use their layout"
        )


def check_weights(weights: Floats | None, layout: Layout) -> None:
    if weights is None:
        return
    if weights.ndim != AXES or any(m not in (1, n) for m, n in zip(weights.shape, layout.shape, strict=True)):
        raise ValueError(
            f"expected weights of shape {layout.shape}, or 1 along some axes, found {tuple(weights.shape)}; one a sample"
        )


def check_context(context: Context, layout: Layout) -> None:
    n, width, networks = layout.context_inputs, context.first.shape[-1], min(context.networks, layout.channels.levels)
    of_one = [(n, width), (width, width), (width,), (width, 2), (2,), (n, 2)]
    first, *others = [(networks, *shape) for shape in of_one]
    _check_parameters(context, [first, (layout.levels, width), *others], (width,))


def check_synthesis(synthesis: Synthesis, layout: Layout) -> None:
    n, (thin, thick), levels = layout.synthesis_inputs, synthesis.second.shape, layout.channels.levels
    filters = len(layout.above) + levels - 1
    shapes = [(levels,), (filters, AXES), (n, thin), (thin,), (thin, thick), (thick,), (thick,), (), (levels,)]
    _check_parameters(synthesis, shapes, (thin, thick))


def _check_parameters(
    parameters: Sequence[NDArray[Any]], shapes: Sequence[tuple[int, ...]], widths: Sequence[int]
) -> None:
    found = [p.shape for p in parameters]
    if found != list(shapes) or any(w < 4 or w % 4 for w in widths):
        raise ValueError(
            f"expected parameters of shapes {list(shapes)}, widths multiples of 4, found {found}; use their layout"
        )


def check_held(latents: Sequence[Any], origins: Sequence[Place], boxes: Sequence[Box]) -> None:
    """Whether parts of all levels hold some boxes."""
    if len(latents) != len(boxes) or len(origins) != len(boxes):
        raise ValueError(
            f"expected latents and origins of {len(boxes)} levels, found {len(latents)} and {len(origins)}; give all"
        )
    for level, (own, origin, (low, high)) in enumerate(zip(latents, origins, boxes, strict=True)):
        held = [(o, o + n) for o, n in zip(origin, own.shape, strict=True)]
        if any(a < o or b > e for a, b, (o, e) in zip(low, high, held, strict=True)):
            raise ValueError(
                f"expected latents {low} to {high} of level {level}, found {own.shape} from {origin} on; read more"
            )
