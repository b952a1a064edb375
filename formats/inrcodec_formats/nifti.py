"""NIfTI-1 and NIfTI-2 single files, ``.nii`` and ``.nii.gz``.

The samples are the stored integers, never the scaled floats that ``scl_slope`` makes of them: the slope stays in the
header, and readers of the written file apply it again. A NIfTI file stores x fastest, so the C-order array of shape
``(z, y, x)`` lies in the file exactly as it lies in memory; streaming along axis 0 is then a plain sequential copy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

from .atomic import atomic_output
from .errors import FormatError
from .signal import Signal, SignalHeader, to_coded_integers
from .streams import (
    DEFAULT_AXES,
    GZIP_MAGIC,
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

_NIFTI1_SIZE, _NIFTI2_SIZE = 348, 540
_HEADER_LIMIT = 64 << 20
_NO_PATH = Path("header")
_DTYPES = {2: "u1", 256: "i1", 4: "i2", 512: "u2", 8: "i4", 768: "u4", 1024: "i8", 1280: "u8", 16: "f4", 64: "f8"}
_CODES = {name: code for code, name in _DTYPES.items()}
_COLOURS = {128: 3, 2304: 4}
"""Codes of RGB and RGBA samples, and their number of bytes: channels behind x."""
_COLOUR_CODES = {count: code for code, count in _COLOURS.items()}
_OTHER_TYPES = {1: "binary", 32: "complex64", 1536: "float128", 1792: "complex128"}
_VECTOR = 1007
"""Intent of a file whose fifth axis counts the components of a vector."""
_UNITS = {1: "m", 2: "mm", 3: "um", 8: "s", 16: "ms", 24: "us", 32: "Hz", 40: "ppm", 48: "rad/s"}
_UNIT_CODES = {name: code for code, name in _UNITS.items()}
_MILLIMETRES = {"m": 1e3, "cm": 10.0, "mm": 1.0, "um": 1e-3, "nm": 1e-6, "inch": 25.4}


class Nifti:
    """Reader and writer of NIfTI files; see the module's docstring for the index order."""

    name = "nifti"
    suffixes = (".nii", ".nii.gz")

    def matches(self, head: bytes) -> bool:
        """Tell whether a file that begins with `head` (a few hundred bytes) is NIfTI, gzipped or not."""
        return _magic(_unpacked(head)) is not None

    def check(self, header: SignalHeader) -> None:
        """Refuse a signal that NIfTI cannot hold.

        Raises
        ------
        FormatError
            For axes other than ``x``, ``yx``, ``zyx``, ``tzyx``, ``tyx``, before them channels of any dtype (vectors), or
            behind them 3 or 4 channels of bytes (RGB, RGBA); for time and channels together; for a dtype without a code.
        """
        check_header(header)
        if not _holds(header):
            known = "x, yx, zyx, tyx, tzyx; c before those without t, or behind them for 3 or 4 channels of uint8"
            raise FormatError(f"expected axes that NIfTI can hold ({known}), found {header.axes!r}; write .npy")
        if np.dtype(header.file_dtype).str[1:] not in _CODES:
            raise FormatError(f"expected a dtype that NIfTI can hold, found {header.file_dtype}; write .npy")

    def read(self, path: Path, *, quantise_step: float | None = None) -> Signal:
        """Read a volume or series; an uncompressed one is memory-mapped.

        Parameters
        ----------
        path : Path
        quantise_step : float, optional
            Smallest difference to keep, for files of real values (in stored units, before ``scl_slope``).

        Returns
        -------
        Signal
            Axes ``(t, z, y, x)`` or fewer: nibabel's ``dataobj`` transposed. Components of vectors are channels before
            them, ``(c, z, y, x)``; RGB and RGBA behind them, ``(z, y, x, c)``. ``source_header`` holds every byte before
            the samples, extensions included.

        Raises
        ------
        FormatError
            For damaged, truncated or unsupported files.
        SignalError
            For samples that cannot be coded, see `to_coded_integers`.
        """
        with reading(path, "NIfTI"), open(path, "rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            _require_suffix(path, packed)
            if not packed:
                prefix, parsed = _read_header(path, raw)
                stored = map_samples(path, len(prefix), _shape(path, parsed), _dtype(path, parsed), "NIfTI")
            else:
                with gunzipped(raw) as stream:
                    prefix, parsed = _read_header(path, stream)
                    shape, dtype = _shape(path, parsed), _dtype(path, parsed)
                    check_expansion(path, "NIfTI", shape, dtype)
                    stored = read_samples(stream, shape, dtype)
        coded, step = to_coded_integers(stored, quantise_step)
        axes = _axes(path, parsed)
        spacing, units = _geometry(parsed, axes)
        header = SignalHeader(
            shape=stored.shape,
            dtype=coded.dtype.name,
            axes=axes,
            spacing=spacing,
            units=units,
            file_dtype=stored.dtype.str,
            quantise_step=step,
            source_format=self.name,
            source_header=prefix,
        )
        return Signal(planes=(coded,), header=header)

    def write(self, path: Path, header: SignalHeader, slabs: Iterable[np.ndarray]) -> None:
        """Write slabs of coded integers as a file of ``header.file_dtype``, gzipped when the name ends in ``.gz``.

        A header read from NIfTI goes back byte for byte when shape and dtype are still its own. If they are not
        (a region was cut), its slope, orientation and extensions stay and only the sizes change.
        """
        self.check(header)
        prefix = _prefix(header)
        with atomic_output(path) as out, gzipped(out, path.name.lower().endswith(".gz")) as stream:
            stream.write(prefix)
            for piece in file_pieces(header, slabs):
                stream.write(piece.data)


def _require_suffix(path: Path, packed: bool) -> None:
    suffix = path.name.lower()
    if packed and suffix.endswith(".nii"):
        raise FormatError(f"{path.name}: expected an uncompressed NIfTI file, found gzip data; rename it to .nii.gz")
    if not packed and suffix.endswith(".nii.gz"):
        raise FormatError(f"{path.name}: expected a gzipped NIfTI file, found an uncompressed one; rename it to .nii")


def _unpacked(head: bytes) -> bytes:
    if not head.startswith(GZIP_MAGIC):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _NIFTI2_SIZE)
    except zlib.error:
        return b""


def _magic(block: bytes) -> tuple[int, str] | None:
    """Return (header size, byte order) when `block` begins like a NIfTI file, else None."""
    for size, magic, known in (
        (_NIFTI1_SIZE, block[344:348], (b"n+1\0", b"ni1\0")),
        (_NIFTI2_SIZE, block[4:12], (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")),
    ):
        if magic not in known:
            continue
        if block[:4] == size.to_bytes(4, "little"):
            return size, "<"
        if block[:4] == size.to_bytes(4, "big"):
            return size, ">"
    return None


def _parse(path: Path, block: bytes) -> Any:
    """Turn the first bytes of a file into nibabel's header, without its repairs."""
    found = _magic(block)
    if found is None:
        raise FormatError(f"{path.name}: expected a NIfTI header, found other content; check the file")
    size, order = found
    if len(block) < size:
        raise damaged(path, "NIfTI", f"{len(block)} of {size} bytes of header")
    cls = Nifti1Header if size == _NIFTI1_SIZE else Nifti2Header
    parsed = cls(block[:size], endianness=order, check=False)
    if parsed["magic"].item().startswith(b"ni"):
        raise FormatError(f"{path.name}: expected one .nii file, found a .hdr/.img pair; convert it to .nii first")
    return parsed


def _read_header(path: Path, stream: IO[bytes]) -> tuple[bytes, Any]:
    """Return every byte before the samples, and the parsed header."""
    block = stream.read(_NIFTI2_SIZE)
    parsed = _parse(path, block)
    offset = float(parsed["vox_offset"])
    if not (offset == int(offset) and len(parsed.binaryblock) <= offset <= _HEADER_LIMIT):
        raise damaged(path, "NIfTI", f"vox_offset {offset:g}")
    prefix = block[: int(offset)]
    prefix += stream.read(int(offset) - len(prefix))
    if len(prefix) < offset:
        raise damaged(path, "NIfTI", f"{len(prefix)} of {int(offset)} bytes before the samples")
    # A short NIfTI-1 file without extensions may have its first samples inside the first block.
    stream.seek(int(offset))
    return prefix, parsed


def _holds(header: SignalHeader) -> bool:
    """Whether NIfTI has a place for the axes."""
    scalar = {*DEFAULT_AXES.values(), "tyx"}
    if header.axes.endswith("c"):
        colours = header.file_dtype == "|u1" and header.shape[-1] in _COLOUR_CODES
        return colours and header.axes[:-1] in scalar - {"tyx"}
    return header.axes.removeprefix("c") in scalar and not header.axes.startswith("ct")


def _sizes(path: Path, parsed: Any) -> list[int]:
    """Extents along x, y, z, t, and of the components of vectors where there are any."""
    dim = [int(n) for n in parsed["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        raise damaged(path, "NIfTI", f"dim {dim}")
    sizes = dim[1 : dim[0] + 1]
    while len(sizes) > 4 and sizes[-1] == 1:
        sizes.pop()
    return sizes


def _axes(path: Path, parsed: Any) -> str:
    """Name the axes, slowest first."""
    sizes, colours = _sizes(path, parsed), int(parsed["datatype"]) in _COLOURS
    vectors = len(sizes) == 5 and sizes[3] == 1
    if len(sizes) - vectors + colours > 4:
        found = f"{len(sizes)}: {sizes}" + " of colours" * colours
        raise FormatError(f"{path.name}: expected at most 4 dimensions, found {found}; split the file")
    return "czyx" if vectors else DEFAULT_AXES[len(sizes)] + "c" * colours


def _shape(path: Path, parsed: Any) -> tuple[int, ...]:
    sizes, axes = _sizes(path, parsed), _axes(path, parsed)
    if axes.startswith("c"):
        del sizes[3]
    return (*reversed(sizes), *([_COLOURS[int(parsed["datatype"])]] if axes.endswith("c") else []))


def _dtype(path: Path, parsed: Any) -> np.dtype:
    code = int(parsed["datatype"])
    if code in _COLOURS:
        return np.dtype("u1")
    if code not in _DTYPES:
        found = _OTHER_TYPES.get(code, f"code {code}")
        raise FormatError(f"{path.name}: expected a real scalar datatype, found {found}; convert or split it first")
    return np.dtype(_DTYPES[code]).newbyteorder(parsed.endianness)


def _geometry(parsed: Any, axes: str) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return (spacing, units) per axis; channels have neither."""
    code = int(parsed["xyzt_units"])
    known = {"c": (1.0, "")}
    for axis, step in zip("xyzt", parsed["pixdim"][1:5], strict=True):
        length = abs(float(step))
        unit = _UNITS.get(code & (56 if axis == "t" else 7), "")
        known[axis] = length if length > 0 and math.isfinite(length) else 1.0, unit
    spacing, units = zip(*(known[axis] for axis in axes), strict=True)
    return spacing, units


def _prefix(header: SignalHeader) -> bytes:
    original = _original(header)
    if original is None:
        return _fresh(header)
    found = (_axes(_NO_PATH, original), _shape(_NO_PATH, original), _dtype(_NO_PATH, original))
    same_samples = found == (header.axes, header.shape, np.dtype(header.file_dtype))
    if same_samples and same_spacing(_geometry(original, header.axes)[0], header.spacing):
        return header.source_header
    return _changed(original, header)


def _changed(original: Any, header: SignalHeader) -> bytes:
    """Adapt the signal's own header to another grid or dtype; the origin stays where it was."""
    size, order = len(original.binaryblock), np.dtype(header.file_dtype).str[0]
    changed, tail = original.copy(), header.source_header[size:]
    if order in "<>" and order != original.endianness:
        # Extensions hold numbers in the old byte order that only their makers could swap.
        changed, tail = original.as_byteswapped(order), bytes(4)
        changed["vox_offset"] = size + len(tail)
    _set_grid(changed, header)
    before, after = _geometry(original, "zyx")[0], _geometry(changed, "zyx")[0]
    for axis, (old, new) in enumerate(zip(reversed(before), reversed(after), strict=True)):
        # The qform takes its scale from pixdim; the sform has its own.
        for row in ("srow_x", "srow_y", "srow_z"):
            changed[row][axis] *= new / old
    return changed.binaryblock + tail


def _original(header: SignalHeader) -> Any | None:
    """Return the signal's own NIfTI header if it can hold the signal, else None."""
    if header.source_format != Nifti.name:
        return None
    try:
        parsed = _parse(_NO_PATH, header.source_header)
        _shape(_NO_PATH, parsed), _dtype(_NO_PATH, parsed)
    except FormatError:
        return None
    if int(parsed["vox_offset"]) != len(header.source_header):
        return None
    return parsed if max(header.shape) <= np.iinfo(parsed["dim"].dtype).max else None


def _set_grid(parsed: Any, header: SignalHeader) -> None:
    extents, steps = (dict(zip(header.axes, each, strict=True)) for each in (header.shape, header.spacing))
    places = "xyzt" if "t" in header.axes else "xyz"[: len(header.axes.replace("c", ""))]
    vectors, colours = header.axes.startswith("c"), header.axes.endswith("c")
    places = "xyztc" if vectors else places
    sizes = [extents.get(axis, 1) for axis in places]
    dtype = np.dtype(header.file_dtype)
    parsed["dim"] = [len(sizes), *sizes, *[1] * (7 - len(sizes))]
    parsed["pixdim"][1 : len(sizes) + 1] = [steps.get(axis, 1.0) for axis in places]
    parsed["datatype"] = _COLOUR_CODES[header.shape[-1]] if colours else _CODES[dtype.str[1:]]
    parsed["bitpix"] = dtype.itemsize * 8 * (header.shape[-1] if colours else 1)
    if vectors and parsed["intent_code"] == 0:
        parsed["intent_code"] = _VECTOR


def _fresh(header: SignalHeader) -> bytes:
    """Make a header for a signal from elsewhere: its spacing and units, identity direction, no scaling."""
    order = np.dtype(header.file_dtype).str[0]
    cls = Nifti1Header if max(header.shape) <= np.iinfo(np.int16).max else Nifti2Header
    parsed: Any = cls(endianness=order if order in "<>" else "<")
    scale, code = _space_unit(header)
    spatial = [axis in "zyx" for axis in header.axes]
    scaled = tuple(s * scale if is_space else s for s, is_space in zip(header.spacing, spatial, strict=True))
    _set_grid(parsed, SignalHeader(**{**header.__dict__, "spacing": scaled}))
    parsed["xyzt_units"] = code | _time_code(header)
    parsed["scl_slope"], parsed["scl_inter"] = 1, 0
    affine = np.diag([*parsed["pixdim"][1:4], 1.0])
    parsed.set_qform(affine, code=1)
    parsed.set_sform(affine, code=1)
    size = len(parsed.binaryblock)
    parsed["vox_offset"] = size + 4
    return parsed.binaryblock + bytes(4)


def _space_unit(header: SignalHeader) -> tuple[float, int]:
    """Return (factor for the spacing, NIfTI unit code); lengths NIfTI has no code for become millimetres."""
    units = {unit for axis, unit in zip(header.axes, header.units, strict=True) if axis in "zyx"}
    unit = units.pop() if len(units) == 1 else ""
    if unit in {"m", "mm", "um"}:
        return 1.0, _UNIT_CODES[unit]
    return (_MILLIMETRES[unit], _UNIT_CODES["mm"]) if unit in _MILLIMETRES else (1.0, 0)


def _time_code(header: SignalHeader) -> int:
    unit = header.units[0] if header.axes[0] == "t" else ""
    return _UNIT_CODES.get(unit, 0) if unit not in _MILLIMETRES else 0
