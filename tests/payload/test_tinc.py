"""TREE and NETW sections: every kind of layout comes back, and hostile values are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inrcodec.coding.parameters import QuantisedTensor
from inrcodec.coding.readouts import ReadoutGeometry
from inrcodec.models.tinc import TincLayout, TincModel
from inrcodec.partition import octree
from inrcodec.payload import tinc as module
from inrcodec.payload.tinc import TincStream, dequantised, model_from_section, network_section
from inrcodec_formats.errors import ContainerError

KINDS: dict[str, dict[str, Any]] = {
    "separable": {},
    "dense, local": {"root": "dense", "hidden": (7, 300)},
    "dense, global": {"root": "dense", "hidden": (7,), "coordinates": "global"},
    "dense, local, segments": {"root": "dense", "hidden": (7,), "segments": ((2, 9), (1, 8))},
    "dense, global, segments": {"root": "dense", "hidden": (7,), "segments": ((3, 9),), "coordinates": "global"},
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
SHAPE = (20, 13, 9)


def stream_of(kind: dict[str, Any], shape: tuple[int, ...] = SHAPE, seed: int = 0, **others: Any) -> TincStream:
    """Random splits below the last level but one; the last but two where there is room."""
    cells = octree.cell_pyramid(shape, (4,) * len(shape))
    top = max(len(cells) - 2, 0)
    random = np.random.default_rng(seed)
    choices = {"top": top, "features": 40, "axis_weights": tuple(random.integers(1, 256, len(shape)).tolist())}
    layout = TincLayout(shape, cells, **(choices | kind))
    splits = [random.random(octree.grid_of(shape, cell)) < 0.5 for cell in cells[top:-1]]
    tree = octree.build(shape, cells, top, splits)
    numbers = {"step": float(np.float32(12.7)), "offset": -1024, "low": -(2**31), "high": 2**31 - 1} | others
    return TincStream(layout, tree, **numbers)


def read(data: bytes, stream: TincStream, **others: Any) -> TincStream:
    arguments = {"shape": stream.layout.shape, "leaves": stream.tree.count} | others
    return TincStream.from_section(data, **arguments)


SHAPES = [(70,), (20, 13), SHAPE, (9, 8, 5, 7), (3, 2), (1,)]
# Each network level needs a tree level above the leaves.
CASES = [(kind, s) for kind in KINDS.values() for s in SHAPES if max(s) > 4 << len(kind.get("segments", ()))]


@pytest.mark.parametrize(("kind", "shape"), [*CASES, (KINDS["separable"], (3, 2)), (KINDS["dense, local"], (1,))])
def test_streams_come_back(kind: dict[str, Any], shape: tuple[int, ...]) -> None:
    for seed in range(4):
        stream = stream_of(kind, shape, seed)
        again = read(stream.tree_section(), stream)
        assert again.layout == stream.layout
        assert (again.step, again.offset, again.low, again.high) == (stream.step, -1024, -(2**31), 2**31 - 1)
        assert np.array_equal(again.tree.level, stream.tree.level)
        assert np.array_equal(again.tree.index, stream.tree.index)
        assert again.tree.top == stream.tree.top and again.tree.cells == stream.tree.cells


@settings(max_examples=60, deadline=None)
@given(
    step=st.floats(2.0**-40, 2.0**29, width=32),
    offset=st.integers(-(2**31), 2**31 - 1),
    ends=st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1)),
)
def test_numbers_come_back(step: float, offset: int, ends: tuple[int, int]) -> None:
    stream = stream_of({}, step=step, offset=offset, low=min(ends), high=max(ends))
    again = read(stream.tree_section(), stream)
    assert (again.step, again.offset, again.low, again.high) == (step, offset, min(ends), max(ends))


def test_geometry_knows_the_levels_and_their_bands() -> None:
    stream = stream_of({})
    geometry = stream.geometry
    assert geometry.levels == sorted(set(stream.tree.level.tolist())) and geometry.cells == stream.layout.cells
    assert [geometry.bands[v].width for v in geometry.levels] == [
        len(stream.layout.lattice(v)) for v in geometry.levels
    ]
    assert ReadoutGeometry.of(stream.layout.cells, stream.layout.lattice, np.array([1, 1])).levels == [1]


HOSTILE: dict[str, dict[str, Any]] = {
    "features of 1": {"features": 1},
    "too many features": {"features": module.MAX_FEATURES + 1},
    "a top below the tree": {"top": 9},
    "separable with layers": {"hidden": (8,)},
    "separable with segments": {"segments": ((1, 8),)},
    "separable and global": {"coordinates": "global"},
    "dense without layers": {"root": "dense"},
    "a layer of width 0": {"root": "dense", "hidden": (0,)},
    "a layer too wide": {"root": "dense", "hidden": (module.MAX_FEATURES + 1,)},
    "too many layers": {"root": "dense", "hidden": (4,) * (module.MAX_LAYERS + 1)},
    "a segment of no layers": {"root": "dense", "hidden": (4,), "segments": ((0, 4),)},
    "a segment of too many layers": {"root": "dense", "hidden": (4,), "segments": ((9, 4),)},
    "a segment of width 0": {"root": "dense", "hidden": (4,), "segments": ((1, 0),)},
    "segments below the top": {"root": "dense", "hidden": (4,), "segments": ((1, 4), (1, 4))},
    "too many segments": {"root": "dense", "hidden": (4,), "segments": ((1, 4),) * 6},
    "an axis of weight 0": {"axis_weights": (1, 0, 1)},
    "edges of 0": {"cells": ((8, 8, 8), (0, 4, 4))},
    "edges of 33": {"cells": ((66, 66, 66), (33, 4, 4))},
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_layouts_are_refused(hostile: dict[str, Any]) -> None:
    stream = stream_of({})
    stream = replace(stream, layout=replace(stream.layout, **({"top": 1} | hostile)))
    with pytest.raises(ContainerError, match=r"^expected .*, found "):
        read(stream.tree_section(), stream)


@pytest.mark.parametrize(
    "hostile",
    [{"step": s} for s in (0.0, -1.0, math.nan, math.inf, -math.inf)] + [{"low": 5, "high": 4}],
    ids=str,
)
def test_hostile_numbers_are_refused(hostile: dict[str, Any]) -> None:
    stream = stream_of({}, **hostile)
    with pytest.raises(ContainerError, match="positive step and an ordered range"):
        read(stream.tree_section(), stream)


def test_unknown_kinds_are_refused() -> None:
    stream = stream_of({})
    data = bytearray(stream.tree_section())
    data[6] = 4
    with pytest.raises(ContainerError, match="known kind of tree"):
        read(bytes(data), stream)


@EVERY_KIND
def test_sections_cut_short_are_refused(kind: dict[str, Any]) -> None:
    """Only zero bytes of the flags may be missing: the reader puts those back."""
    stream = stream_of(kind)
    data = stream.tree_section()
    for length in range(len(data)):
        try:
            found = read(data[:length], stream)
        except ContainerError:
            continue
        assert found.tree.count == stream.tree.count and length > 26


@pytest.mark.parametrize("change", [-1, 1, 100])
def test_wrong_numbers_of_leaves_are_refused(change: int) -> None:
    stream = stream_of({})
    with pytest.raises(ContainerError, match="blocks"):
        read(stream.tree_section(), stream, leaves=stream.tree.count + change)


def test_too_few_leaves_for_the_top_cells_are_refused_before_the_tree_is_read() -> None:
    stream = stream_of({})
    with pytest.raises(ContainerError, match="one block per top cell, found 2 blocks"):
        read(stream.tree_section(), stream, leaves=2)


def test_huge_signals_are_refused_before_anything_is_made() -> None:
    stream = stream_of({}, (4, 4))
    with pytest.raises(ContainerError, match=r"2\*\*34 voxels"):
        read(stream.tree_section(), stream, shape=(2**18, 2**17))
    fine = replace(stream.layout, cells=((2, 2), (1, 1)), top=0)
    data = replace(stream, layout=fine).tree_section()
    with pytest.raises(ContainerError, match="within their limits"):
        read(data, stream, shape=(2**16, 2**16), leaves=2**32)


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(list(KINDS.values())), data=st.data())
def test_damaged_sections_raise_nothing_else(kind: dict[str, Any], data: st.DataObject) -> None:
    stream = stream_of(kind)
    section = bytearray(stream.tree_section())
    for _ in range(data.draw(st.integers(1, 3))):
        section[data.draw(st.integers(0, len(section) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(section), stream)
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        assert found.tree.count == stream.tree.count and found.step > 0 and found.low <= found.high


def parameters_of(layout: TincLayout) -> dict[str, QuantisedTensor]:
    return {name: QuantisedTensor.of(p.numpy(), -7) for name, p in TincModel.initial(layout).parameters.items()}


@EVERY_KIND
def test_networks_come_back(kind: dict[str, Any]) -> None:
    layout = stream_of(kind).layout
    stored = parameters_of(layout)
    model = model_from_section(network_section(stored), layout)
    assert model.layout == layout and list(model.parameters) == list(stored)
    for name, tensor in dequantised(stored).items():
        assert tensor.dtype == torch.float32 and torch.equal(model.parameters[name], tensor)


def test_separable_roots_need_no_section() -> None:
    assert model_from_section(None, stream_of({}).layout).parameters == {}


@pytest.mark.parametrize("kind", [k for k in KINDS.values() if k])
def test_networks_that_are_missing_or_cut_off_are_refused(kind: dict[str, Any]) -> None:
    layout = stream_of(kind).layout
    with pytest.raises(ContainerError, match="expected a NETW section for this network, found none"):
        model_from_section(None, layout)
    with pytest.raises(ContainerError, match="found"):
        model_from_section(b"", layout)


def test_networks_larger_than_their_bytes_can_hold_are_refused() -> None:
    layout = replace(stream_of({}).layout, root="dense", hidden=(4096, 4096))
    with pytest.raises(ContainerError, match="parameters, found 100 bytes"):
        model_from_section(bytes(100), layout)
