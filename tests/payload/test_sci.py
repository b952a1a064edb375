"""The TREE section of SCI: every kind of stream comes back, and hostile values are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.models.sci import MAX_WIDTH, weight_shapes
from inrcodec.partition import octree
from inrcodec.payload import sci as module
from inrcodec.payload.sci import SciStream
from inrcodec_formats.errors import ContainerError

SHAPE = (20, 13, 9)
CLASSES = ((), (5,), (12, 7, 3))
EXPONENTS = ((), (3, -128), (127, 0, -4, 9))


def stream_of(shape: tuple[int, ...] = SHAPE, seed: int = 0, edge: int = 4, **others: Any) -> SciStream:
    """Random splits on the last two levels."""
    cells = octree.cell_pyramid(shape, (edge,) * len(shape))
    top = max(len(cells) - 3, 0)
    random = np.random.default_rng(seed)
    splits = [random.random(octree.grid_of(shape, cell)) < 0.5 for cell in cells[top:-1]]
    numbers: dict[str, Any] = {
        "classes": CLASSES, "exponents": EXPONENTS, "seed": 2**32 - 2, "step": float(np.float32(0.37)),
        "offset": -1024, "low": -(2**31), "high": 2**31 - 1, "halo": 3,
    }  # fmt: skip
    return SciStream(octree.build(shape, cells, top, splits), **(numbers | others))


def read(data: bytes, stream: SciStream, **others: Any) -> SciStream:
    arguments = {"shape": stream.tree.shape, "leaves": stream.tree.count} | others
    return SciStream.from_section(data, **arguments)


NUMBERS = ("classes", "exponents", "seed", "step", "offset", "low", "high", "halo")


def assert_same(found: SciStream, expected: SciStream) -> None:
    assert {n: getattr(found, n) for n in NUMBERS} == {n: getattr(expected, n) for n in NUMBERS}
    assert found.tree.cells == expected.tree.cells and found.tree.top == expected.tree.top
    assert np.array_equal(found.tree.level, expected.tree.level)
    assert np.array_equal(found.tree.index, expected.tree.index)


@pytest.mark.parametrize("shape", [(70,), (20, 13), SHAPE, (9, 8, 5, 7), (3, 2), (1,), (1, 1, 300)])
def test_streams_come_back(shape: tuple[int, ...]) -> None:
    for seed in range(4):
        stream = stream_of(shape, seed)
        assert_same(read(stream.tree_section(), stream), stream)


@settings(max_examples=60, deadline=None)
@given(
    step=st.floats(2.0**-40, 2.0**29, width=32),
    offset=st.integers(-(2**31), 2**31 - 1),
    ends=st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1)),
    seed=st.integers(0, 2**32 - 1),
    halo=st.integers(0, module.MAX_HALO),
    classes=st.lists(st.lists(st.integers(1, MAX_WIDTH), min_size=1, max_size=8), max_size=9),
    data=st.data(),
)
def test_numbers_come_back(
    step: float,
    offset: int,
    ends: tuple[int, int],
    seed: int,
    halo: int,
    classes: list[list[int]],
    data: st.DataObject,
) -> None:
    exponents = [tuple(data.draw(st.integers(-128, 127)) for _ in range(len(w) + 1)) for w in classes]
    stream = stream_of(
        classes=((), *map(tuple, classes)), exponents=((), *exponents), seed=seed, step=step, offset=offset,
        low=min(ends), high=max(ends), halo=halo,
    )  # fmt: skip
    assert_same(read(stream.tree_section(), stream), stream)


def test_the_most_that_fits() -> None:
    widths = (MAX_WIDTH,) * module.MAX_LAYERS
    classes = ((), *[widths] * (module.MAX_CLASSES - 1))
    stream = stream_of(classes=classes, exponents=((), *[(0,) * 9] * (module.MAX_CLASSES - 1)), halo=module.MAX_HALO)
    assert_same(read(stream.tree_section(), stream), stream)


def test_unsplit_levels_cost_nothing() -> None:
    """Levels kept only to name the deepest cell are zeros that the coder leaves out."""
    shape = (4000,)
    cells = octree.cell_pyramid(shape, (20,))
    splits = [np.zeros(octree.grid_of(shape, cell), dtype=bool) for cell in cells[2:-1]]
    tree = octree.build(shape, cells, 2, splits)
    stream = replace(stream_of(), tree=tree, classes=((),), exponents=((),))
    data = stream.tree_section()
    assert len(data) == 2 + 23 + 1
    assert_same(read(data, stream), stream)


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "step of 0": ({"step": 0.0}, "positive step"),
    "negative step": ({"step": -1.0}, "positive step"),
    "no step": ({"step": math.nan}, "positive step"),
    "infinite step": ({"step": math.inf}, "positive step"),
    "large step": ({"step": 2.0**31}, "positive step"),
    "range upside down": ({"low": 5, "high": 4}, "ordered range"),
    "halo": ({"halo": module.MAX_HALO + 1}, "found others in TREE"),
    "width 0": ({"classes": ((), (0,), (3, 3, 3))}, f"widths of 1 to {MAX_WIDTH}"),
    "a hidden width of 0": ({"classes": ((), (4,), (3, 0, 3))}, f"widths of 1 to {MAX_WIDTH}"),
    "too wide": ({"classes": ((), (MAX_WIDTH + 1,), (3, 3, 3))}, f"widths of 1 to {MAX_WIDTH}"),
    "no layers": ({"classes": ((), ()), "exponents": ((), (0,))}, "expected 1 to 8 layers, found 0"),
    "nine layers": ({"classes": ((), (4,) * 9), "exponents": ((), (0,) * 10)}, "expected 1 to 8 layers, found 9"),
    "65 classes": ({"classes": ((), *[(2,)] * 64), "exponents": ((), *[(0, 0)] * 64)}, "fewer than 64 classes, found 64"),
}  # fmt: skip


@pytest.mark.parametrize(("hostile", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_numbers_are_refused(hostile: dict[str, Any], words: str) -> None:
    stream = stream_of(**hostile)
    refused(stream.tree_section(), stream, words)


def refused(data: bytes, stream: SciStream, words: str, **others: Any) -> None:
    with pytest.raises(ContainerError, match=words) as error:
        read(data, stream, **others)
    text = str(error.value)
    assert text.startswith("expected ") and ", found " in text and "\n" not in text


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, 0, "impossible values"),
        (3, 17, "impossible values"),
        (5, 255, "impossible values"),
        (6, 1, "known kind of tree"),
        (7, 200, "tree within its limits"),
    ],
)
def test_hostile_bytes_are_refused(at: int, value: int, words: str) -> None:
    stream = stream_of()
    data = bytearray(stream.tree_section())
    data[at] = value
    refused(bytes(data), stream, words)


def test_hostile_trees_are_refused() -> None:
    stream = stream_of((4, 4), classes=((),), exponents=((),))
    data = stream.tree_section()
    refused(data, stream, r"2\*\*34 voxels", shape=(2**18, 2**17))
    fine = bytes([1, 0, 1, 0]) + data[4:]
    refused(fine, stream, "tree within its limits", shape=(2**16, 2**16), leaves=2**32)
    # A pyramid of more levels than a decoder follows; the same from a deeper top is a matter of the flags.
    refused(data, stream, "tree within its limits", shape=(4 << module.MAX_DEPTH, 1), leaves=2**20)
    refused(data, stream, "at most 2\\*\\*24 samples, found 67108864", shape=(8192, 8192))
    deep = bytearray(data)
    deep[2 * len(stream.tree.shape) + 1] = 1
    refused(bytes(deep), stream, "one block per top cell, found 3 blocks", shape=(8192, 8192), leaves=3)


@pytest.mark.parametrize("change", [-1, 1, 100])
def test_wrong_numbers_of_leaves_are_refused(change: int) -> None:
    stream = stream_of()
    refused(stream.tree_section(), stream, "blocks", leaves=stream.tree.count + change)


def test_sections_cut_short_are_refused() -> None:
    """Only zero bytes of the flags may be missing: the reader puts those back."""
    stream = stream_of()
    data = stream.tree_section()
    flags = 6 + 23 + 1 + 5 + 11
    for length in range(len(data)):
        if length < flags:
            refused(data[:length], stream, "expected a complete TREE section, found a short one")
            continue
        try:
            found = read(data[:length], stream)
        except ContainerError as error:
            assert "\n" not in str(error)
        else:
            assert found.tree.count == stream.tree.count


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_sections_raise_nothing_else(data: st.DataObject) -> None:
    stream = stream_of()
    section = bytearray(stream.tree_section())
    for _ in range(data.draw(st.integers(1, 3))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(section), stream)
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert found.tree.count == stream.tree.count and found.step > 0 and found.low <= found.high
        assert found.halo <= module.MAX_HALO


def test_shapes_and_sizes_are_those_of_the_tree() -> None:
    stream = stream_of()
    assert stream.ndim == 3 and stream.shapes.ndim == 3
    assert stream.shapes.sizes == ((), (20, 6), (48, 91, 24, 4))
    assert stream.shapes.totals.tolist() == [0, 26, 167]
    # 64 samples: the root is 2^3, six half octaves.
    assert stream.tree.cells[-1] == (4, 4, 4) and stream.sizes[-1] == 6


def test_steps_give_every_block_the_same_error() -> None:
    stream = stream_of(exponents=((), (3, -5), (0, 0, 0, 0)))
    level, scale = np.array([stream.tree.depth, stream.tree.depth - 1, stream.tree.depth]), np.array([0, 0, 4])
    steps = stream.steps(1, level, scale)
    assert steps.shape == (3, 2)
    assert steps[0] == pytest.approx([stream.step / 2**4.5, stream.step / 2**0.5])
    assert steps[0] / steps[2] == pytest.approx(4), "twice the half octaves of spread"
    larger = np.log2(math.prod(stream.tree.cells[-2]) / 64)
    assert steps[0] / steps[1] == pytest.approx(2 ** (larger / 2), rel=0.5)


def test_weights_are_integers_times_steps_from_the_start() -> None:
    from inrcodec.coding.networks import BlockNetworks

    stream = stream_of(exponents=((), (3, -5), (0, 1, 2, 3)))
    random = np.random.default_rng(0)
    first, kind = 2, np.array([0, 1, 2, 1])
    integers = [random.integers(-9, 9, stream.shapes.totals[k]) for k in kind if k]
    bandwidth = random.integers(-3, 4, (4, 3))
    scale, draw = np.array([0, 3, -2, 1]), np.array([0, 1, 3, 2])
    blocks = BlockNetworks(kind, kind, scale, bandwidth, draw, kind, integers)
    leaves = np.array([first + 3, first + 1])
    found = stream.weights(1, leaves, blocks, first)
    assert [w.shape for w in found] == [(2, *s) for s in weight_shapes(3, (5,))]
    for row, (place, number) in enumerate(((3, 2), (1, 0))):
        steps = stream.steps(1, stream.tree.level[leaves[row : row + 1]], scale[[place]])[0]
        start = stream.starts(1, leaves[row : row + 1], bandwidth[[place]], draw[[place]])[0]
        whole = integers[number].astype(float)
        assert np.allclose(found[0][row], start + (whole[:20] * steps[0]).reshape(4, 5), rtol=1e-5, atol=1e-6)
        assert np.allclose(found[1][row], (whole[20:] * steps[1]).reshape(6, 1), rtol=1e-6)


def test_starts_differ_by_leaf_draw_and_seed() -> None:
    stream = stream_of()
    leaves, bandwidth = np.array([0, 1, 0, 0]), np.zeros((4, 3), dtype=np.int64)
    found = stream.starts(1, leaves, bandwidth, np.array([0, 0, 1, 0]))
    assert np.array_equal(found[0], found[3])
    assert not np.any(found[0] == found[1]) and not np.any(found[0] == found[2]) and not np.any(found[1] == found[2])
    assert not np.any(replace(stream, seed=5).starts(1, leaves, bandwidth, np.zeros(4, dtype=np.int64))[0] == found[0])
