"""`ClipHeader`: everything about a clip but its frames, as an object and as a few bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from ..errors import ContainerError
from ..records import MAX_TEXT_BYTES, Record, text, varint
from ..zstd import compress, decompress_bounded
from .planes import PIXEL_FORMATS, PixelFormat

FieldOrder = Literal["progressive", "top", "bottom"]

MAX_SIDE = 2**15
MAX_PIXELS = 2**28
MAX_FRAMES = 2**24

_VERSION = 1
_FIELD_ORDERS: tuple[FieldOrder, ...] = get_args(FieldOrder)
_MAX_TIME = 2**61
_MAX_TERM = 2**31 - 1
_MATRIX = struct.Struct("<9i")
_STEP_DTYPES = ("<u1", "<u2", "<u4", "<u8")


@dataclass(frozen=True)
class ColourInfo:
    """How samples are meant as colours, in FFmpeg's numbers, which are those of ITU-T H.273 for the middle three.

    Attributes
    ----------
    range : int
        0 unknown, 1 limited ("tv"), 2 full ("pc").
    matrix, primaries, transfer : int
        E.g. 0 RGB (matrix only), 1 BT.709, 2 unknown, 5 BT.601, 9 BT.2020.
    chroma_location : int
        0 unknown, 1 left, 2 centre, 3 top left, 4 top, 5 bottom left, 6 bottom.
    """

    range: int = 0
    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    chroma_location: int = 0

    def __post_init__(self) -> None:
        within = (self.range <= 2, self.matrix < 256, self.primaries < 256, self.transfer < 256)
        if min(self.numbers) < 0 or not all(within) or self.chroma_location > 6:
            raise ContainerError(f"expected FFmpeg's numbers of colours, found {self.numbers}; get a newer inrcodec")

    @property
    def numbers(self) -> tuple[int, int, int, int, int]:
        """All five, in the order of the attributes."""
        return (self.range, self.matrix, self.primaries, self.transfer, self.chroma_location)


@dataclass(frozen=True, eq=False)
class ClipHeader:
    """Everything about a clip but its frames. Headers are equal when their bytes are.

    Attributes
    ----------
    width, height : int
        Size in pixels, as decoded: neither rotated nor stretched.
    pixel_format : str
        One of `planes.PIXEL_FORMATS`.
    time_base : Fraction
        Seconds of a unit of `times`.
    times : ndarray
        When each frame is shown, in units of `time_base`; int64, strictly increasing.
    last_duration : int
        How long the last frame is shown, in units of `time_base`; 0 when unknown.
    colour : ColourInfo
    sample_aspect : Fraction
        Width of a pixel over its height; 0 when unknown.
    display_matrix : tuple of int
        The nine numbers (16.16 and 2.30 fixed point) by which players rotate and flip, verbatim; empty when there are none.
    field_order : {"progressive", "top", "bottom"}
        Which field of interlaced frames comes first.
    source_format, codec : str
        What the clip was, e.g. ``"mp4"`` and ``"h264"``: for information.

    Raises
    ------
    ContainerError
        When a field is out of its limits, whether the header was made here or read from a file.
    """

    width: int
    height: int
    pixel_format: str
    time_base: Fraction
    times: np.ndarray
    last_duration: int = 0
    colour: ColourInfo = field(default_factory=ColourInfo)
    sample_aspect: Fraction = Fraction(0)
    display_matrix: tuple[int, ...] = ()
    field_order: FieldOrder = "progressive"
    source_format: str = "array"
    codec: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", _frozen(self.times))
        _check_picture(self)
        _check_times(self)
        _check_rest(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ClipHeader) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    @property
    def frames(self) -> int:
        """Number of frames; at least 1."""
        return len(self.times)

    @property
    def pixels(self) -> PixelFormat:
        """The pixel format's numbers."""
        return PIXEL_FORMATS[self.pixel_format]

    @property
    def plane_shapes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of every plane of a frame."""
        return self.pixels.shapes(self.height, self.width)

    @property
    def bit_depth(self) -> int:
        """Bits of a sample, 8 to 16."""
        return self.pixels.depth

    @property
    def dtype(self) -> np.dtype:
        """Type of the samples: uint8 or uint16."""
        return self.pixels.dtype

    @property
    def rotation(self) -> float:
        """Degrees, anticlockwise, by which players turn the picture; 0 without a display matrix."""
        if not self.display_matrix:
            return 0.0
        a, b = self.display_matrix[:2]
        return float(-np.rad2deg(np.arctan2(b, a))) + 0.0

    def to_bytes(self) -> bytes:
        """Serialise; the inverse of `from_bytes`. Equal headers give equal bytes."""
        out = bytearray((_VERSION,))
        out += varint(self.width) + varint(self.height) + text(self.pixel_format)
        out += varint(self.time_base.numerator) + varint(self.time_base.denominator)
        out += bytes(self.colour.numbers)
        out += varint(self.sample_aspect.numerator) + varint(self.sample_aspect.denominator)
        out += bytes((bool(self.display_matrix), _FIELD_ORDERS.index(self.field_order)))
        out += _MATRIX.pack(*self.display_matrix) if self.display_matrix else b""
        out += text(self.source_format) + text(self.codec)
        return bytes(out + varint(self.last_duration) + _pack_times(self.times))

    @classmethod
    def from_bytes(cls, data: bytes) -> ClipHeader:
        """Parse what `to_bytes` wrote.

        Raises
        ------
        ContainerError
            For anything else, whatever its bytes are.
        """
        record = Record(data)
        version = record.byte()
        if version != _VERSION:
            raise ContainerError(f"expected clip header version {_VERSION}, found {version}; get a newer inrcodec")
        width, height, pixel_format = record.varint(), record.varint(), record.text()
        time_base = _fraction(record)
        colour = ColourInfo(*record.take(5))
        sample_aspect = _fraction(record)
        has_matrix = record.choice((False, True), "display matrix")
        field_order = record.choice(_FIELD_ORDERS, "field order")
        header = cls(
            width=width,
            height=height,
            pixel_format=pixel_format,
            time_base=time_base,
            colour=colour,
            sample_aspect=sample_aspect,
            field_order=field_order,
            display_matrix=_MATRIX.unpack(record.take(_MATRIX.size)) if has_matrix else (),
            source_format=record.text(),
            codec=record.text(),
            last_duration=record.varint(),
            times=_unpack_times(record),
        )
        record.finish()
        return header


def _frozen(times: Sequence[int] | np.ndarray) -> np.ndarray:
    own = np.array(times, np.int64)
    own.setflags(write=False)
    return own


def _check_picture(header: ClipHeader) -> None:
    if header.pixel_format not in PIXEL_FORMATS:
        raise ContainerError(f"expected a planar pixel format, found {header.pixel_format!r}; get a newer inrcodec")
    sides = (header.width, header.height)
    if not (min(sides) >= 1 and max(sides) <= MAX_SIDE and header.width * header.height <= MAX_PIXELS):
        raise ContainerError(
            f"expected frames of 1 to {MAX_SIDE} pixels a side and at most 2**28 together, found {header.width}x{header.height}; crop the clip"
        )


def _check_times(header: ClipHeader) -> None:
    times = header.times
    if times.ndim != 1 or not 1 <= len(times) <= MAX_FRAMES:
        raise ContainerError(f"expected 1 to 2**24 frames, found times of shape {times.shape}; cut the clip")
    if max(abs(int(times[0])), abs(int(times[-1])), header.last_duration) >= _MAX_TIME or header.last_duration < 0:
        raise ContainerError("expected times below 2**61 units, found longer ones; get a fresh copy of the file")
    if not np.all(times[1:] > times[:-1]):
        raise ContainerError("expected each frame later than the one before, found others; give increasing times")


def _check_rest(header: ClipHeader) -> None:
    for value, least in ((header.time_base, 1), (header.sample_aspect, 0)):
        if value.numerator < least or max(value.numerator, value.denominator) > _MAX_TERM:
            raise ContainerError(f"expected fractions of 31-bit numbers, found {value}; round them")
    matrix = header.display_matrix
    if len(matrix) not in (0, 9) or any(not -(2**31) <= number < 2**31 for number in matrix):
        raise ContainerError(f"expected no display matrix or one of 9 numbers of 32 bits, found {matrix}; leave it out")
    if header.field_order not in _FIELD_ORDERS:
        raise ContainerError(
            f"expected a field order out of {', '.join(_FIELD_ORDERS)}, found {header.field_order!r}; name one of them"
        )
    for name in (header.source_format, header.codec):
        if not name.isprintable() or len(name.encode()) > MAX_TEXT_BYTES:
            raise ContainerError(
                f"expected printable names of at most {MAX_TEXT_BYTES} bytes, found {name!r}; shorten it"
            )


def _fraction(record: Record) -> Fraction:
    numerator, denominator = record.varint(), record.varint()
    if denominator == 0:
        raise ContainerError("expected a fraction, found a denominator of 0; get a fresh copy of the file")
    return Fraction(numerator, denominator)


def _pack_times(times: np.ndarray) -> bytes:
    """Number of frames, first time, and one step for all, or a zstd frame with every step in as few bytes as hold it."""
    first = int(times[0])
    out = varint(len(times)) + varint(2 * first if first >= 0 else -2 * first - 1)
    steps = np.diff(times)
    if len(steps) == 0:
        return out
    if steps.min() == steps.max():
        return out + b"\0" + varint(int(steps[0]))
    width = next(code for code, dtype in enumerate(_STEP_DTYPES) if int(steps.max()) <= np.iinfo(dtype).max)
    packed = compress(steps.astype(_STEP_DTYPES[width]).tobytes())
    return out + bytes((1 + width,)) + varint(len(packed)) + packed


def _unpack_times(record: Record) -> np.ndarray:
    count, first = record.varint(), record.varint()
    if not 1 <= count <= MAX_FRAMES:
        raise ContainerError(f"expected 1 to 2**24 frames, found {count}; get a fresh copy of the file")
    start = first // 2 if first % 2 == 0 else -(first // 2) - 1
    steps = _unpack_steps(record, count - 1) if count > 1 else np.zeros(0)
    # A float sum cannot wrap; what it admits fits in 64 bits with room for its rounding.
    if abs(start) >= _MAX_TIME or float(steps.sum(dtype=np.float64)) >= 2 * _MAX_TIME:
        raise ContainerError("expected times below 2**61 units, found longer ones; get a fresh copy of the file")
    return start + np.concatenate([[0], np.cumsum(steps.astype(np.int64))])


def _unpack_steps(record: Record, count: int) -> np.ndarray:
    kind = record.choice((None, *_STEP_DTYPES), "kind of time steps")
    if kind is None:
        return np.full(count, record.varint(), np.uint64)
    wanted = count * np.dtype(kind).itemsize
    data = decompress_bounded(record.take(record.varint()), wanted)
    if len(data) != wanted:
        raise ContainerError(f"expected {wanted} bytes of time steps, found {len(data)}; get a fresh copy of the file")
    return np.frombuffer(data, kind)
