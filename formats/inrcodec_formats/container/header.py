"""`StreamHeader`: the compact record at the front of an ``.inrc`` file. Byte layout: ``docs/container.md``."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..axes import LETTERS, MAX_AXES, AxisOrder
from ..errors import ContainerError
from ..records import MAX_TEXT_BYTES, U64_MAX, Record, text, varint
from ..signal import CODED_DTYPES, SignalHeader

QualityKind = Literal["ratio", "bits_per_voxel", "psnr_db"]

MAX_DIMS = MAX_AXES
MAX_VOXELS = 2**40

_QUALITY_KINDS: tuple[QualityKind, ...] = get_args(QualityKind)
_NAME = re.compile(r"[!-~]{1,32}")
_FILE_DTYPE = re.compile(r"[<>|][biuf](1|2|4|8|12|16)")
_SPACING_IS_F32 = 1
_HAS_QUANTISE_STEP = 2


@dataclass(frozen=True)
class Quality:
    """What the encoder was asked to reach.

    Attributes
    ----------
    kind : {"ratio", "bits_per_voxel", "psnr_db"}
        The unit of `value`.
    value : float
        The target; finite and positive.
    """

    kind: QualityKind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in _QUALITY_KINDS:
            raise ContainerError(
                f"expected a quality kind out of {', '.join(_QUALITY_KINDS)}, found {self.kind!r}; name one of them"
            )
        _require_positive("quality value", self.value)


@dataclass(frozen=True)
class StreamHeader:
    """All that a reader must know before it touches a section.

    It holds every field of `SignalHeader` but ``source_header``, which travels compressed in the section ``META``.

    Attributes
    ----------
    shape, dtype, axes, spacing, units, file_dtype, quantise_step, source_format
        As in `SignalHeader`.
    method : str
        Name of the method that made the stream, e.g. ``"tinc"``; 1 to 32 printable ASCII characters.
    quality : Quality
        The contract the encoder was given.
    memory_bytes : int
        Working memory a decoder needs, in bytes, so that it can decline before it starts.

    Raises
    ------
    ContainerError
        When a field is out of its limits: the same checks hold for headers made here and headers read from a file.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: str
    spacing: tuple[float, ...]
    units: tuple[str, ...]
    file_dtype: str
    method: str
    quality: Quality
    memory_bytes: int
    quantise_step: float | None = None
    source_format: str = "array"

    def __post_init__(self) -> None:
        _check_geometry(self)
        if self.dtype not in CODED_DTYPES:
            raise ContainerError(
                f"expected a coded dtype out of {', '.join(CODED_DTYPES)}, found {self.dtype!r}; get a newer inrcodec"
            )
        _check_file_dtype(self.file_dtype)
        for label, name in (("method", self.method), ("source format", self.source_format)):
            if not _NAME.fullmatch(name):
                raise ContainerError(
                    f"expected a {label} of 1 to 32 printable ASCII characters, found {name!r}; rename it"
                )
        if self.quantise_step is not None:
            _require_positive("quantise_step", self.quantise_step)
        if not 0 <= self.memory_bytes <= U64_MAX:
            raise ContainerError(
                f"expected memory_bytes from 0 to 2**64 - 1, found {self.memory_bytes}; state the decoder's need in bytes"
            )

    @property
    def voxels(self) -> int:
        """Number of samples; at most `MAX_VOXELS`."""
        return math.prod(self.shape)

    @property
    def order(self) -> AxisOrder:
        """How the axes are permuted to be coded."""
        return AxisOrder.of(self.axes)

    @property
    def coded_shape(self) -> tuple[int, ...]:
        """Extents in the order in which the method's sections and chunks see the axes."""
        return self.order.to_coded(self.shape)

    @classmethod
    def from_signal(cls, signal: SignalHeader, *, method: str, quality: Quality, memory_bytes: int) -> StreamHeader:
        """Make the stream's header of a signal's; ``source_header`` goes into the section ``META`` instead."""
        return cls(
            shape=tuple(int(n) for n in signal.shape),
            dtype=signal.dtype,
            axes=signal.axes,
            spacing=tuple(float(s) for s in signal.spacing),
            units=signal.units,
            file_dtype=signal.file_dtype,
            method=method,
            quality=quality,
            memory_bytes=memory_bytes,
            quantise_step=signal.quantise_step,
            source_format=signal.source_format,
        )

    def to_signal(self, source_header: bytes = b"") -> SignalHeader:
        """Give back the signal's header."""
        return SignalHeader(
            shape=self.shape,
            dtype=self.dtype,
            axes=self.axes,
            spacing=self.spacing,
            units=self.units,
            file_dtype=self.file_dtype,
            quantise_step=self.quantise_step,
            source_format=self.source_format,
            source_header=source_header,
        )

    def to_bytes(self) -> bytes:
        """Serialise; the inverse of `from_bytes`. Equal headers give equal bytes."""
        narrow = all(_fits_f32(s) for s in self.spacing)
        stepped = self.quantise_step is not None
        flags = narrow * _SPACING_IS_F32 | stepped * _HAS_QUANTISE_STEP
        out = bytearray((flags, CODED_DTYPES.index(self.dtype)))
        out += text(self.axes)
        for size in self.shape:
            out += varint(size)
        out += struct.pack(f"<{len(self.spacing)}{'f' if narrow else 'd'}", *self.spacing)
        # One unit stands for every axis when they agree, as they nearly always do.
        out += text(",".join(self.units if len(set(self.units)) > 1 else self.units[:1]))
        out += text(self.file_dtype)
        if stepped:
            out += struct.pack("<d", self.quantise_step)
        out += text(self.source_format) + text(self.method)
        out += struct.pack("<Bd", _QUALITY_KINDS.index(self.quality.kind), self.quality.value)
        return bytes(out + varint(self.memory_bytes))

    @classmethod
    def from_bytes(cls, data: bytes) -> StreamHeader:
        """Parse what `to_bytes` wrote.

        Raises
        ------
        ContainerError
            For anything else, whatever its bytes are.
        """
        record = Record(data)
        flags = record.byte()
        if flags & ~(_SPACING_IS_F32 | _HAS_QUANTISE_STEP):
            raise ContainerError(f"expected header flags within 0x03, found {flags:#04x}; get a newer inrcodec")
        dtype = record.choice(CODED_DTYPES, "coded dtype")
        axes = record.text()
        if not 1 <= len(axes) <= MAX_DIMS:
            raise ContainerError(f"expected 1 to {MAX_DIMS} axes, found {len(axes)}; get a fresh copy of the file")
        shape = tuple(record.varint() for _ in axes)
        number = "f" if flags & _SPACING_IS_F32 else "d"
        spacing = tuple(record.number(number) for _ in axes)
        units = tuple(record.text().split(","))
        header = cls(
            shape=shape,
            dtype=dtype,
            axes=axes,
            spacing=spacing,
            units=units * len(axes) if len(units) == 1 else units,
            file_dtype=record.text(),
            quantise_step=record.number("d") if flags & _HAS_QUANTISE_STEP else None,
            source_format=record.text(),
            method=record.text(),
            quality=Quality(record.choice(_QUALITY_KINDS, "quality kind"), record.number("d")),
            memory_bytes=record.varint(),
        )
        record.finish()
        return header


def _check_geometry(header: StreamHeader) -> None:
    dims = len(header.shape)
    if not 1 <= dims <= MAX_DIMS:
        raise ContainerError(f"expected 1 to {MAX_DIMS} dimensions, found {dims}; slice or reshape the array")
    if min(header.shape) < 1 or header.voxels > MAX_VOXELS:
        raise ContainerError(
            f"expected positive sizes of at most 2**40 voxels together, found shape {header.shape}; split the volume"
        )
    if {len(header.axes), len(header.spacing), len(header.units)} != {dims}:
        raise ContainerError(
            f"expected {dims} axes, spacings and units, found {len(header.axes)}, {len(header.spacing)}, {len(header.units)}; give one per dimension"
        )
    if len(set(header.axes)) != dims or not set(header.axes) <= set(LETTERS):
        raise ContainerError(f"expected distinct axes out of '{LETTERS}', found {header.axes!r}; rename them")
    if not all(map(math.isfinite, header.spacing)):
        raise ContainerError(f"expected finite spacings, found {header.spacing}; replace unknown ones by 1.0")
    # Unprintable characters would reach the terminal of whoever asks for the file's information.
    if not all(unit.isprintable() and "," not in unit for unit in header.units):
        raise ContainerError(f"expected printable units without commas, found {header.units!r}; rename them")
    if len(",".join(header.units).encode()) > MAX_TEXT_BYTES:
        raise ContainerError(
            f"expected units of at most {MAX_TEXT_BYTES} bytes together, found {header.units!r}; use symbols such as 'mm'"
        )


def _check_file_dtype(name: str) -> None:
    """Admit plain numbers only: 'O' or '<U1000000' would be handed to NumPy when the file is written."""
    try:
        sound = bool(_FILE_DTYPE.fullmatch(name)) and np.dtype(name).itemsize > 0
    except TypeError:
        sound = False
    if not sound:
        raise ContainerError(
            f"expected a file dtype such as '<i2', '|u1' or '<f4', found {name!r}; convert the samples to plain numbers"
        )


def _require_positive(label: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ContainerError(f"expected a finite {label} above zero, found {value}; give a positive number")


def _fits_f32(value: float) -> bool:
    try:
        return bool(struct.unpack("<f", struct.pack("<f", value))[0] == value)
    except OverflowError:
        return False
