"""NRRD files with attached samples, ``.nrrd``, raw or gzipped.

NRRD lists its axes fastest first, so the C-order array of the reversed sizes is the file's own order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nrrd as pynrrd
import numpy as np

from .atomic import atomic_output
from .errors import FormatError
from .signal import Signal, SignalHeader, to_coded_integers
from .streams import (
    check_expansion,
    check_header,
    damaged,
    file_pieces,
    gunzipped,
    gzipped,
    map_samples,
    read_samples,
    reading,
    same_spacing,
)

_MAGIC = b"NRRD000"
_HEADER_LIMIT = 16 << 20
_GZIP = ("gzip", "gz")
_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|long long int|signed long long|signed long long int|int64|int64_t",
    "u8": "ulonglong|unsigned long long|unsigned long long int|uint64|uint64_t",
    "f4": "float",
    "f8": "double",
}
_DTYPES = {alias: dtype for dtype, aliases in _TYPES.items() for alias in aliases.split("|")}
_FRESH_NAMES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32"}
_FRESH_NAMES |= {"i8": "int64", "u8": "uint64", "f4": "float", "f8": "double"}
_SPATIAL_KINDS = {"domain", "space", "none", "???"}
_SERIES_KINDS = {"time", "list"}
_CHANNEL_KINDS = ("list", "vector", "color", "normal", "gradient", "matrix", "quaternion")
"""Endings of the kinds that hold the components of a sample; a list is one where it is not the slowest axis."""
_FRESH_KINDS = {"t": "time", "c": "vector"}
_PLAIN_UNIT = re.compile(r"[A-Za-z0-9/%^.-]{0,32}")


@dataclass(frozen=True)
class _Layout:
    """What the header text says, slowest axis first."""

    shape: tuple[int, ...]
    dtype: np.dtype
    axes: str
    spacing: tuple[float, ...]
    units: tuple[str, ...]
    packed: bool


class Nrrd:
    """Reader and writer of attached NRRD files."""

    name = "nrrd"
    suffixes = (".nrrd", ".nhdr")

    def matches(self, head: bytes) -> bool:
        """Tell whether a file that begins with `head` is NRRD."""
        return head.startswith(_MAGIC)

    def check(self, header: SignalHeader) -> None:
        """Refuse a signal that NRRD cannot hold.

        Raises
        ------
        FormatError
            For axes out of order, or a dtype without an NRRD name.
        """
        check_header(header)
        space = header.axes.removeprefix("t").replace("c", "")
        if space not in ("", "x", "yx", "zyx"):
            known = "x, yx or zyx, t in front, and c anywhere behind t"
            raise FormatError(f"expected axes that NRRD can hold ({known}), found {header.axes!r}; write .npy")
        if np.dtype(header.file_dtype).str[1:] not in _FRESH_NAMES:
            raise FormatError(f"expected a dtype that NRRD can hold, found {header.file_dtype}; write .npy")

    def read(self, path: Path, *, quantise_step: float | None = None) -> Signal:
        """Read a volume or series; raw samples are memory-mapped.

        Returns
        -------
        Signal
            Axes ``(t, z, y, x)`` or fewer, and ``c`` where the components of vectors, colours or matrices lie.
            ``source_header`` is the header text with its closing blank line.

        Raises
        ------
        FormatError
            For detached headers, several axes that are not space, other encodings, damaged or truncated files.
        SignalError
            For samples that cannot be coded, see `to_coded_integers`.
        """
        with reading(path, "NRRD"), open(path, "rb") as raw:
            text = _read_text(path, raw)
            layout = _parse(path, text)
            if layout.packed:
                check_expansion(path, "NRRD", layout.shape, layout.dtype)
                with gunzipped(raw) as stream:
                    stored = read_samples(stream, layout.shape, layout.dtype)
            else:
                stored = map_samples(path, len(text), layout.shape, layout.dtype, "NRRD")
        coded, step = to_coded_integers(stored, quantise_step)
        header = SignalHeader(
            shape=layout.shape,
            dtype=coded.dtype.name,
            axes=layout.axes,
            spacing=layout.spacing,
            units=layout.units,
            file_dtype=layout.dtype.str,
            quantise_step=step,
            source_format=self.name,
            source_header=text,
        )
        return Signal(planes=(coded,), header=header)

    def write(self, path: Path, header: SignalHeader, slabs: Iterable[np.ndarray]) -> None:
        """Write slabs of coded integers as ``header.file_dtype``.

        A header text read from NRRD goes back byte for byte, with its encoding, when shape, dtype and spacing are
        still its own; else a fresh one is made and the samples are gzipped.
        """
        self.check(header)
        if path.name.lower().endswith(".nhdr"):
            raise FormatError(f"{path.name}: expected a name for an attached NRRD file, found .nhdr; name it .nrrd")
        text, packed = _own_text(header) or (_fresh(header), True)
        with atomic_output(path) as out:
            out.write(text)
            with gzipped(out, packed) as stream:
                for piece in file_pieces(header, slabs):
                    stream.write(piece.data)


def _read_text(path: Path, raw: IO[bytes]) -> bytes:
    """Read the header up to and with the blank line that ends it."""
    lines: list[bytes] = []
    size = 0
    while size < _HEADER_LIMIT:
        line = raw.readline(_HEADER_LIMIT)
        if not line:
            break
        lines.append(line)
        size += len(line)
        if not line.strip():
            return b"".join(lines)
    fields = b"".join(lines).lower()
    if b"\ndata file:" in fields or b"\ndatafile:" in fields:
        raise _detached(path)
    raise damaged(path, "NRRD", f"no blank line after {size} bytes of header")


def _detached(path: Path) -> FormatError:
    return FormatError(f"{path.name}: expected attached samples, found a detached header; join with `unu save -f nrrd`")


def _parse(path: Path, text: bytes) -> _Layout:
    fields: dict[str, Any] = dict(pynrrd.read_header(text.splitlines(keepends=True)))
    if "data file" in fields or "datafile" in fields:
        raise _detached(path)
    for name in ("byte skip", "byteskip", "line skip", "lineskip"):
        if fields.get(name, 0) != 0:
            raise FormatError(f"{path.name}: expected samples right after the header, found {name}; save it again without")
    encoding = str(fields["encoding"]).lower()
    if encoding not in ("raw", *_GZIP):
        raise FormatError(f"{path.name}: expected encoding raw or gzip, found {encoding[:40]}; save it again as gzip")
    sizes = [int(n) for n in fields["sizes"]]
    if len(sizes) != int(fields["dimension"]) or not sizes or min(sizes) < 1:
        raise damaged(path, "NRRD", f"dimension {fields['dimension']} with sizes {sizes[:8]}")
    if len(sizes) > 4:
        raise FormatError(f"{path.name}: expected at most 4 dimensions, found {len(sizes)}; split the file")
    spacing, units = _geometry(fields, len(sizes))
    return _Layout(
        shape=tuple(reversed(sizes)),
        dtype=_dtype(path, fields),
        axes=_axes(path, fields, sizes),
        spacing=tuple(reversed(spacing)),
        units=tuple(reversed(units)),
        packed=encoding in _GZIP,
    )


def _dtype(path: Path, fields: dict[str, Any]) -> np.dtype:
    name = str(fields["type"])
    if name not in _DTYPES:
        raise FormatError(f"{path.name}: expected a scalar type, found {name[:40]!r}; convert it first")
    dtype = np.dtype(_DTYPES[name])
    if dtype.itemsize == 1:
        return dtype
    endian = str(fields.get("endian", "none")).lower()
    if endian not in ("little", "big"):
        raise damaged(path, "NRRD", f"endian {endian[:40]} for {name} samples")
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _axes(path: Path, fields: dict[str, Any], sizes: list[int]) -> str:
    """Name the axes, slowest first: those of space, the slowest one if it is time or a list, and one of components."""
    kinds = [str(kind).lower() for kind in fields.get("kinds", [])[: len(sizes)]]
    kinds += ["domain"] * (len(sizes) - len(kinds))
    for i, direction in enumerate(_directions(fields)[: len(sizes)]):
        if direction is None and kinds[i] in _SPATIAL_KINDS:
            kinds[i] = "list"
    names = [_letter(path, i, kind, slowest=i == len(sizes) - 1) for i, kind in enumerate(kinds)]
    if names.count("c") > 1:
        raise FormatError(f"{path.name}: expected one axis of components, found {names.count('c')}; split the file")
    space = iter("xyzt")
    return "".join(reversed([name or next(space) for name in names]))


def _letter(path: Path, axis: int, kind: str, slowest: bool) -> str:
    """Letter of an axis that is not space; an axis of space gets none here."""
    if kind in _SPATIAL_KINDS:
        return ""
    if slowest and kind in _SERIES_KINDS:
        return "t"
    if kind.endswith(_CHANNEL_KINDS):
        return "c"
    raise FormatError(
        f"{path.name}: expected axes of space, a slowest one of time and one of components, found axis {axis} of kind "
        f"{kind[:40]!r}; permute the axes or split the file"
    )


def _directions(fields: dict[str, Any]) -> list[np.ndarray | None]:
    rows = [np.asarray(row, np.float64) if row is not None else None for row in fields.get("space directions", [])]
    return [row if row is not None and np.isfinite(row).all() else None for row in rows]


def _geometry(fields: dict[str, Any], ndim: int) -> tuple[list[float], list[str]]:
    """Return (spacing, units), fastest axis first."""
    spacing, units = [1.0] * ndim, [""] * ndim
    for i, step in enumerate(list(fields.get("spacings", []))[:ndim]):
        spacing[i] = float(step)
    for i, unit in enumerate(list(fields.get("units", []))[:ndim]):
        units[i] = str(unit)
    space_units = [str(unit) for unit in fields.get("space units", [])]
    for i, direction in enumerate(_directions(fields)[:ndim]):
        if direction is not None:
            spacing[i] = float(np.linalg.norm(direction))
            # World axes may differ in unit; an oblique image axis then has none.
            units[i] = space_units[0] if len(set(space_units)) == 1 else ""
    spacing = [abs(step) if step and math.isfinite(step) else 1.0 for step in spacing]
    return spacing, [unit if _PLAIN_UNIT.fullmatch(unit) else "" for unit in units]


def _own_text(header: SignalHeader) -> tuple[bytes, bool] | None:
    """Return the signal's own header text and whether it says gzip, if it still describes the samples."""
    if header.source_format != Nrrd.name:
        return None
    try:
        with reading(Path("header"), "NRRD"):
            layout = _parse(Path("header"), header.source_header)
    except FormatError:
        return None
    same = (layout.shape, layout.axes) == (header.shape, header.axes) and layout.dtype == np.dtype(header.file_dtype)
    return (header.source_header, layout.packed) if same and same_spacing(layout.spacing, header.spacing) else None


def _fresh(header: SignalHeader) -> bytes:
    dtype = np.dtype(header.file_dtype)
    units = [unit if _PLAIN_UNIT.fullmatch(unit) else "" for unit in reversed(header.units)]
    spacings = ["NaN" if axis == "c" else repr(float(step)) for axis, step in zip(header.axes, header.spacing, strict=True)]
    lines = [
        "NRRD0004",
        f"type: {_FRESH_NAMES[dtype.str[1:]]}",
        f"dimension: {len(header.shape)}",
        "sizes: " + " ".join(str(n) for n in reversed(header.shape)),
        "spacings: " + " ".join(reversed(spacings)),
        "units: " + " ".join(f'"{unit}"' for unit in units),
        "kinds: " + " ".join(_FRESH_KINDS.get(axis, "domain") for axis in reversed(header.axes)),
        *([] if dtype.itemsize == 1 else [f"endian: {'big' if dtype.str[0] == '>' else 'little'}"]),
        "encoding: gzip",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")
