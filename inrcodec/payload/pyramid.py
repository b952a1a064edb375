"""The pyramid payload: sections TREE and NETW, and chunks of tiles, packed and unpacked. Byte layout: docs/container.md."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.pyramid import IntegerContext, Synthesis

from ..coding.lanes import MAX_LANES
from ..coding.parameters import QuantisedTensor, read_parameters, write_parameters
from ..models.pyramid import COARSE, FINE, MOST_ABOVE, Precision, PyramidLayout, checked_contexts
from ..models.shipped import shipped
from ..partition.tiles import TilePyramid
from .sections import MAX_STEP, check_extents

VERSIONS = range(7)
"""Of TREE: 6 where lattices are split into bands, else 5 where networks are wide, else 4 where the finest level is coarser than the signal, else 3 where the context model has several networks, else 2; before it 0 and 1."""
MAX_LATTICES, MAX_WIDTH, MAX_EDGE = 8, 32, 256
MAX_TILE = 1 << 24
"""Most latents of a tile: a single sample takes a few whole tiles to decode."""
LARGEST_PARAMETER = 1024.0
"""Limit of every parameter's magnitude: with it, hostile streams give finite samples."""
_NAME = 4
"""Bytes of the name of shipped networks."""
_FIXED = struct.Struct("<BBBBBBfiii")
_FURTHER = (0, 1, 2, 3, 3, 3, 4)
"""Bytes behind those, of each version."""
_WIDE, _SPLIT = 16, 15
"""Of the last of them: a bit that says that networks are wide, and those that say how many lattices are split."""


@dataclass(frozen=True)
class PyramidStream:
    """What the section TREE says.

    Attributes
    ----------
    layout : PyramidLayout
    edge : int
        Largest extent of a tile along any axis, in latents.
    step : float
        What a unit of the synthesis is worth, in stored units (a float32 value).
    offset : int
        Added to every sample, of the first channel where there are several.
    low, high : int
        Smallest and largest sample: decoded values are clipped to them.
    further_offsets : tuple of int
        Those of the channels behind the first one: channels may lie far from each other, and networks serve all of them.
    precision : Precision
        Of the context model: one of `FINE`, or `COARSE` as in streams of before.
    """

    layout: PyramidLayout
    edge: int
    step: float
    offset: int
    low: int
    high: int
    further_offsets: tuple[int, ...] = ()
    precision: Precision = COARSE

    def offsets(self, start: int, stop: int) -> NDArray[np.float32]:
        """What is added to samples [start, stop) along axis 0; shape (1, ...) or (stop - start, 1, ...)."""
        known = (self.offset, *self.further_offsets)[start:stop] if self.further_offsets else (self.offset,)
        return np.array(known, dtype=np.float32).reshape(-1, *[1] * (self.layout.ndim - 1))

    @cached_property
    def tiles(self) -> TilePyramid:
        """The blocks of the stream."""
        return TilePyramid(self.layout.shape, self.layout.lattices, self.layout.strides, self.edge)

    def tree_section(self) -> bytes:
        """Pack everything."""
        layout, absent = self.layout, len(self.layout.above)
        if self.precision == COARSE:
            plain = layout.networks == 1 and not ((layout.apart and absent) or layout.wide or layout.split)
            assert plain, "older streams have one network, and see neighbours"
            version = int(absent > 0)
        elif layout.split:
            assert layout.apart or not absent, "bands came after taps apart"
            version = 6
        elif layout.wide:
            assert layout.apart or not absent, "wide networks came after taps apart"
            version = 5
        else:
            version = 4 if layout.apart and absent else 2 + (layout.networks > 1)
        last = layout.split + layout.wide * _WIDE
        further = bytes([absent, self.precision.hidden_bits, layout.networks, last])[: _FURTHER[version]]
        fixed = _FIXED.pack(
            version, layout.resolutions, layout.context, *layout.synthesis, self.edge - 1, self.step, self.offset, self.low, self.high
        )
        halved = bytes(sum(1 << axis for axis, half in enumerate(flags) if half) for flags in layout.above + layout.halved)
        return fixed + further + halved + struct.pack(f"<{len(self.further_offsets)}i", *self.further_offsets)

    @classmethod
    def from_section(cls, data: bytes, shape: tuple[int, ...], blocks: int, channels: bool = False) -> PyramidStream:
        """Unpack; `blocks` is the number of tiles that the container's index counts, `channels` whether axis 0 holds such.

        Raises
        ------
        ContainerError
            If a value is out of its limits or the lattices do not have that many tiles.
        """
        check_extents(shape)
        if len(data) < _FIXED.size:
            raise ContainerError("expected a complete TREE section, found a short one; get a fresh copy")
        version, lattices, context, s1, s2, edge, step, offset, low, high = _FIXED.unpack_from(data)
        if version not in VERSIONS:
            raise ContainerError(f"expected version {VERSIONS[-1]} of TREE or an older one, found {version}; get a newer inrcodec")
        # A byte that is not there stands for one that cannot be.
        count = _FURTHER[version]
        known, rest = data[_FIXED.size : _FIXED.size + count].ljust(count, b"\xff"), data[_FIXED.size + count :]
        absent = known[0] if version else 0
        precision = COARSE if version < 2 else FINE[0]._replace(hidden_bits=known[1])
        networks, last = 1 if version < 3 else known[2], known[3] if version >= 6 else _WIDE * (version == 5)
        flags, further = rest[: absent + lattices - 1], rest[absent + lattices - 1 :]
        sound = 1 <= lattices <= MAX_LATTICES - absent and absent <= MOST_ABOVE and (version not in (1, 4) or absent > 0)
        sound = sound and precision in (COARSE, *FINE) and len(flags) == absent + lattices - 1 and all(b < 1 << len(shape) for b in flags)
        sound = sound and len(further) == 4 * (shape[0] - 1 if channels else 0) and (2 if version == 3 else 1) <= networks <= lattices
        split, wide = last & _SPLIT, last & ~_SPLIT
        sound = sound and wide in (0, _WIDE) and split < lattices and (version < 6 or split > 0)
        # What is not halved has no bands.
        sound = sound and all(flags[absent : absent + split])
        if not sound or any(w % 4 or not 4 <= w <= MAX_WIDTH for w in (context, s1, s2)):
            raise ContainerError("expected a known kind of pyramid, found impossible values in TREE; get a fresh copy of the file")
        if not 0 < step <= MAX_STEP or low > high:
            raise ContainerError("expected a step and a range of samples, found impossible ones; get a fresh copy of the file")
        halved = tuple(tuple(bool(b >> axis & 1) for axis in range(len(shape))) for b in flags)
        layout = PyramidLayout(shape, halved[absent:], context, (s1, s2), halved[:absent], networks, version >= 4, wide > 0, split)
        offsets = struct.unpack(f"<{len(further) // 4}i", further)
        stream = cls(layout, edge + 1, step, offset, low, high, offsets, precision)
        found = sum(math.prod(stream.tiles.grid(level)) for level in range(layout.levels))
        if found != blocks:
            raise ContainerError(f"expected {blocks} blocks from the index, found {found} tiles; get a fresh copy")
        if (largest := math.prod(min(n, stream.edge) for n in layout.lattices[0])) > MAX_TILE:
            raise ContainerError(f"expected at most {MAX_TILE} latents in a tile, found {largest}; get a fresh copy of the file")
        return stream


def network_section(parameters: Mapping[str, QuantisedTensor], base: str) -> bytes:
    """Pack the parameters of all networks, as differences to the shipped ones called `base`; "" stands for none."""
    return bytes.fromhex(base or "00000000") + write_parameters(list(parameters.values()))


def networks_from_section(data: bytes, layout: PyramidLayout, precision: Precision) -> tuple[tuple[IntegerContext, ...], Synthesis]:
    """Inverse of `network_section`, for a context model of such whole numbers, which is given as the network of every level.

    Raises
    ------
    ContainerError
        If the shipped networks are not there, a parameter is too large, or the context model's sums would not be whole
        numbers below 2^24.
    """
    base = _base(data[:_NAME], layout)
    of_context, of_synthesis = layout.context_shapes, layout.synthesis_shapes
    tensors = read_parameters(data[_NAME:], [*of_context.values(), *of_synthesis.values()])
    if any(t.exponent < -precision.places[name] for name, t in zip(of_context, tensors, strict=False)):
        raise ContainerError("expected a context model of whole numbers, found fractions; get a fresh copy of the file")
    names = [f"context.{name}" for name in of_context] + [f"synthesis.{name}" for name in of_synthesis]
    values = {
        # Sums of arrays without axes are no arrays.
        name: np.asarray(t.dequantised() + base.get(name, np.float32(0))) for name, t in zip(names, tensors, strict=True)
    }
    if any(float(np.abs(v).max(initial=0)) > LARGEST_PARAMETER for v in values.values()):
        raise ContainerError(
            f"expected parameters of at most {LARGEST_PARAMETER:g} in NETW, found larger ones; get a fresh copy of the file"
        )
    try:
        context = checked_contexts({name: values[f"context.{name}"] for name in of_context}, precision, layout.wide, layout.kernel.lattice)
    except ValueError as error:
        raise ContainerError("expected a context model of small sums, found large ones; get a fresh copy of the file") from error
    return context, Synthesis(**{name: values[f"synthesis.{name}"] for name in of_synthesis})


def _base(name: bytes, layout: PyramidLayout) -> Mapping[str, NDArray[np.float32]]:
    """Parameters that the stored ones are differences to."""
    if len(name) < _NAME:
        raise ContainerError("expected a complete NETW section, found a short one; get a fresh copy")
    if not any(name):
        return {}
    try:
        found = shipped(name.hex()).fitted_to(layout)
    except LookupError as error:
        raise ContainerError(f"{error}; decode with the inrcodec that made the file, or a newer one") from error
    if found is None:
        raise ContainerError(f"expected the networks {name.hex()} to fit the pyramid, found other shapes; get a fresh copy")
    return found


def write_chunk(tiles: Sequence[tuple[int, bytes]]) -> bytes:
    """Pack the lanes and bytes of some tiles; empty bytes stand for a tile of zeros."""
    head = bytearray()
    for lanes, body in tiles:
        head += _varint(len(body))
        if body:
            head.append(lanes.bit_length() - 1)
    return bytes(head) + b"".join(body for _, body in tiles)


def read_chunk(data: bytes, count: int) -> list[tuple[int, NDArray[np.uint8]]]:
    """Inverse of `write_chunk` for `count` tiles.

    Raises
    ------
    ContainerError
        If the lengths do not add up to the chunk's.
    """
    at, found = 0, []
    for _ in range(count):
        length, at = _read_varint(data, at)
        lanes = 1
        if length:
            lanes, at = 1 << min(data[at], 7) if at < len(data) else 0, at + 1
        found.append((lanes, length))
    if at + sum(length for _, length in found) != len(data) or not all(1 <= lanes <= MAX_LANES for lanes, _ in found):
        raise ContainerError("expected tiles that fill their chunk, found others; get a fresh copy of the file")
    tiles = []
    for lanes, length in found:
        tiles.append((lanes, np.frombuffer(data, np.uint8, length, at)))
        at += length
    return tiles


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that more follow. The shortest form is the only one."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes(found) + bytes([number])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place in range(5):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 127) << 7 * place
        if byte < 128 and (byte or not place):
            return number, at + place + 1
    raise ContainerError("expected the length of a tile, found none; get a fresh copy of the file")
