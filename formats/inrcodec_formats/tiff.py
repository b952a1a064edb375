"""TIFF stacks: plain pages, OME-TIFF and ImageJ hyperstacks.

What is kept of a TIFF is its first page's descriptive tags (ImageDescription with OME-XML or ImageJ text, resolution,
software, date, colour map, ImageJ metadata), verbatim, packed as JSON into ``source_header``. Strip layout, compression
scheme and sub-resolutions are not kept.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import tifffile

from .atomic import atomic_output
from .axes import MAX_AXES
from .errors import FormatError
from .signal import Signal, SignalHeader, to_coded_integers
from .streams import (
    byte_count,
    check_expansion,
    check_header,
    checked_slabs,
    collect,
    damaged,
    map_samples,
    reading,
)
from .tiff_tags import TIFF, fresh_options, kept_options, kept_tags, own_tags, pixels

_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_EXPANSION_LIMIT = 100_000
_CLASSIC_LIMIT = 4_000_000_000
_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"}
_MICRO = {"µm", "μm", "um", "micron", "microns", "\\u00B5m", "micrometer"}
_RESOLUTION_UNITS = {2: (25.4, "mm"), 3: (10.0, "mm")}
_TYPE_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_GREY_PHOTOMETRICS = (0, 1, 3)
_RGB, _YCBCR, _JPEG = 2, 6, 7


def _is_stack(axes: str) -> bool:
    """Whether pages can hold the axes: ``yx``, channels behind or before them, time and depth before."""
    front = axes.removesuffix("c").removesuffix("yx")
    whole = f"{front}yxc" if axes.endswith("c") else f"{front}yx"
    return whole == axes and len(axes) <= MAX_AXES and set(front) <= set("tzc") and len(set(axes)) == len(axes)


class Tiff:
    """Reader and writer of TIFF stacks: grey, colour, or several channels."""

    name = TIFF
    suffixes = (".tif", ".tiff", ".btf", ".tf8")

    def matches(self, head: bytes) -> bool:
        """Tell whether a file that begins with `head` is a TIFF or BigTIFF."""
        return head[:4] in _MAGICS

    def check(self, header: SignalHeader) -> None:
        """Refuse a signal that TIFF cannot hold.

        Raises
        ------
        FormatError
            For axes that do not end in ``yx`` or ``yxc``, or a dtype without a TIFF sample format.
        """
        check_header(header)
        if not _is_stack(header.axes):
            raise FormatError(f"expected axes that TIFF can hold (yx or yxc after z, t and c), found {header.axes!r}; write .npy")
        if np.dtype(header.file_dtype).str[1:] not in _DTYPES:
            raise FormatError(f"expected a dtype that TIFF can hold, found {header.file_dtype}; write .npy")

    def read(self, path: Path, *, quantise_step: float | None = None) -> Signal:
        """Read the only series of a file; uncompressed contiguous pages are memory-mapped.

        Returns
        -------
        Signal
            Axes in file order without those of length one other than ``yx``; samples of a pixel (RGB) are channels.

        Raises
        ------
        FormatError
            For several series, more than four axes, planes out of order or missing, damaged or truncated files.
        SignalError
            For samples that cannot be coded, see `to_coded_integers`.
        """
        # Planes of other files that an OME-XML names are never opened: a file must not choose what is read.
        with reading(path, "TIFF"), tifffile.TiffFile(path, _multifile=False) as tif:
            _check_chain(path, tif)
            _check_ome_claims(path, tif)
            series = _only_series(path, tif)
            if tif.is_ome and series.kind != "ome":
                raise FormatError(f"{path.name}: expected planes of this file, found OME-XML naming other files; join them")
            axes, shape = _axes(path, series)
            stored = _samples(path, tif, series, shape)
            spacing, units = _geometry(tif, axes)
            kept = kept_tags(tif, axes, shape, stored.dtype, spacing)
        coded, step = to_coded_integers(stored, quantise_step)
        header = SignalHeader(
            shape=shape,
            dtype=coded.dtype.name,
            axes=axes,
            spacing=spacing,
            units=units,
            file_dtype=stored.dtype.str,
            quantise_step=step,
            source_format=self.name,
            source_header=kept,
        )
        return Signal(planes=(coded,), header=header)

    def write(self, path: Path, header: SignalHeader, slabs: Iterable[np.ndarray]) -> None:
        """Write slabs of coded integers page by page as ``header.file_dtype``.

        The tags read from a TIFF go back verbatim while shape, dtype and spacing are still their own; else the
        file carries fresh OME-XML (plain pages for the 64-bit integers and half floats that OME lacks). Files beyond
        4 GB are BigTIFF. A source that was compressed is written with deflate.
        """
        self.check(header)
        dtype = np.dtype(header.file_dtype)
        kept = own_tags(header)
        options = fresh_options(header) if kept is None else kept_options(kept, header)
        order: Literal["<", ">"] = ">" if (kept or {}).get("byteorder", dtype.str[0]) == ">" else "<"
        size = byte_count(header.shape, dtype) + 1024 * math.prod(header.shape[:-2])
        big = size > _CLASSIC_LIMIT or bool((kept or {}).get("bigtiff"))
        with atomic_output(path) as out, tifffile.TiffWriter(out, bigtiff=big, byteorder=order) as writer:
            planar = options.get("planarconfig") == "separate"
            pages = _pages(header, slabs, header.shape[-3:] if planar else pixels(header)[1])
            writer.write(pages, shape=pixels(header)[0], dtype=dtype, software=False, metadata=None, **options)
            # tifffile stops at the last page it needs; one more step lets a surplus or missing row be seen.
            next(pages, None)


def _check_chain(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file whose chain of pages breaks off: tifffile would return the pages before the break.

    It also drops tags whose values lie beyond the end; those of the first and last page are looked at here.
    """
    for index in {0, len(tif.pages) - 1}:
        entries, following = _directory(tif, tif.pages[index].offset)
        for kind, count, value in entries:
            size = count * _TYPE_SIZES.get(kind, 1)
            if size > tif.tiff.offsetsize and value + size > tif.filehandle.size:
                raise damaged(path, "TIFF", f"a tag of page {index} beyond the end of the file")
    if following != 0:
        raise damaged(path, "TIFF", f"a broken chain after page {len(tif.pages)}")


def _directory(tif: tifffile.TiffFile, offset: int) -> tuple[list[tuple[int, int, int]], int]:
    """Return (type, count, value or offset) of each entry of a page's directory, and the offset of the next page."""
    order = tif.tiff.byteorder
    entry, pointer = (f"{order}2xHII", f"{order}I") if tif.tiff.offsetsize == 4 else (f"{order}2xHQQ", f"{order}Q")
    tif.filehandle.seek(offset)
    count = int.from_bytes(tif.filehandle.read(tif.tiff.tagnosize), "little" if order == "<" else "big")
    raw = tif.filehandle.read(count * struct.calcsize(entry))
    (following,) = struct.unpack(pointer, tif.filehandle.read(tif.tiff.offsetsize))
    return list(struct.iter_unpack(entry, raw)), following


def _check_ome_claims(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse OME-XML that claims more planes than the file has pages, before tifffile makes lists of that length."""
    if tif.ome_metadata is None:
        return
    if "ModuloAlong" in tif.ome_metadata:
        raise FormatError(f"{path.name}: expected OME axes X, Y, Z, T, found a modulo axis; save it without")
    pages = len(tif.pages) * max(1, tif.pages.first.samplesperpixel)
    for element in ElementTree.fromstring(tif.ome_metadata).iter():
        kind = element.tag.rpartition("}")[2]
        claims = {name: value for name, value in element.attrib.items() if name in _PLANE_COUNTS.get(kind, ())}
        planes = math.prod(int(value) for value in claims.values()) if kind == "Pixels" else 0
        largest = max([planes, *(int(value) for value in claims.values())], default=0)
        if largest > pages:
            raise FormatError(
                f"{path.name}: expected all planes of the OME-XML in this file, found {pages} of {largest}; "
                "join a multi-file set into one file first"
            )


_PLANE_COUNTS = {
    "Pixels": ("SizeZ", "SizeC", "SizeT"),
    "TiffData": ("IFD", "PlaneCount", "NumPlanes", "FirstZ", "FirstC", "FirstT"),
}


def _only_series(path: Path, tif: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    found = tif.series
    if len(found) != 1:
        names = ", ".join(f"{i}: {s.name or 'unnamed'} {s.shape}" for i, s in enumerate(found[:6]))
        raise FormatError(f"{path.name}: expected one series, found {len(found)} ({names}); save the wanted one alone")
    return found[0]


def _axes(path: Path, series: tifffile.TiffPageSeries) -> tuple[str, tuple[int, ...]]:
    """Name the axes in file order, dropping those of length one except Y and X."""
    pairs = [(a, int(n)) for a, n in zip(series.axes, series.shape, strict=True) if n > 1 or a in "YX"]
    letters = "".join(axis for axis, _ in pairs)
    page = series.keyframe
    # tifffile turns the YCbCr of JPEG strips into RGB; other YCbCr stays subsampled.
    colour = "S" in letters and (page.photometric == _RGB or (page.photometric == _YCBCR and page.compression == _JPEG))
    if not colour and int(page.photometric) not in _GREY_PHOTOMETRICS:
        raise FormatError(f"{path.name}: expected grey or RGB samples, found {tifffile.PHOTOMETRIC(page.photometric).name}; convert it to RGB")
    names = "".join({"I": "z", "Q": "z", "S": "c"}.get(axis, axis.lower()) for axis in letters)
    if not _is_stack(names):
        raise FormatError(
            f"{path.name}: expected at most four axes out of Z, T, C, Y, X (samples S are channels), found {letters}; "
            "split or reorder the file"
        )
    return names, tuple(n for _, n in pairs)


def _samples(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, shape: tuple[int, ...]) -> np.ndarray:
    dtype = np.dtype(series.dtype).newbyteorder(tif.byteorder)
    if dtype.kind not in "iuf" or dtype.itemsize not in (1, 2, 4, 8):
        raise FormatError(f"{path.name}: expected integers or real numbers, found {dtype}; convert it first")
    pages = list(series.pages)
    indices = [page.index for page in pages if page is not None]
    if len(indices) < len(pages):
        missing = len(pages) - len(indices)
        raise FormatError(f"{path.name}: expected all planes in this file, found {missing} missing; join the set first")
    if indices != list(range(len(pages))):
        raise FormatError(f"{path.name}: expected planes in order, found pages {indices[:6]}; save it again in order")
    offset = series.dataoffset
    if offset is not None and series.keyframe.is_final:
        return map_samples(path, offset, shape, dtype, "TIFF")
    check_expansion(path, "TIFF", shape, dtype, _EXPANSION_LIMIT)
    if byte_count(shape, dtype) != len(pages) * series.keyframe.nbytes:
        raise damaged(path, "TIFF", f"{len(pages)} pages of {series.keyframe.nbytes} bytes for shape {shape}")
    return collect((_page_bytes(path, page, dtype) for page in pages), shape, dtype)


def _page_bytes(path: Path, page: Any, dtype: np.dtype) -> bytes:
    """Decode one page, refusing missing strips, which tifffile would fill with zeros."""
    size = path.stat().st_size
    segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if not segments or any(count == 0 or offset + count > size for offset, count in segments):
        raise damaged(path, "TIFF", f"strips missing on page {page.index}")
    return np.ascontiguousarray(page.asarray(), dtype).tobytes()


def _geometry(tif: tifffile.TiffFile, axes: str) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Return (spacing, units) per axis from OME-XML, ImageJ text or the resolution tags, in this order."""
    known = _ome_geometry(tif) if tif.is_ome else _page_geometry(tif)
    pairs = [known.get(axis, (1.0, "")) for axis in axes]
    pairs = [(step, unit) if step > 0 and math.isfinite(step) else (1.0, "") for step, unit in pairs]
    return tuple(step for step, _ in pairs), tuple(_unit(unit) for _, unit in pairs)


def _unit(text: str) -> str:
    if text in _MICRO:
        return "um"
    return text if text.isascii() and text.isprintable() and "," not in text and len(text) <= 12 else ""


def _ome_geometry(tif: tifffile.TiffFile) -> dict[str, tuple[float, str]]:
    known: dict[str, tuple[float, str]] = {}
    for element in ElementTree.fromstring(tif.ome_metadata or "<OME/>").iter():
        if element.tag.rpartition("}")[2] != "Pixels":
            continue
        for axis in "tzyx":
            name, default = ("TimeIncrement", "s") if axis == "t" else (f"PhysicalSize{axis.upper()}", "um")
            if name in element.attrib:
                known[axis] = float(element.attrib[name]), element.attrib.get(f"{name}Unit", default)
        break
    return known


def _page_geometry(tif: tifffile.TiffFile) -> dict[str, tuple[float, str]]:
    tags = tif.pages.first.tags
    scale, unit = _RESOLUTION_UNITS.get(int(tags.valueof(296, default=1)), (1.0, ""))
    imagej = tif.imagej_metadata or {}
    if imagej:
        scale, unit = 1.0, str(imagej.get("unit", ""))
    known = {}
    for axis, code in (("x", 282), ("y", 283)):
        over, under = tags.valueof(code, default=(1, 1))
        if over and under:
            known[axis] = scale * under / over, unit
    if "spacing" in imagej:
        known["z"] = float(imagej["spacing"]), unit
    if "finterval" in imagej:
        known["t"] = float(imagej["finterval"]), str(imagej.get("tunit", "s"))
    return known


def _pages(header: SignalHeader, slabs: Iterable[np.ndarray], page_shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Yield whole pages of file values; rows of a single page are gathered first."""
    if math.prod(page_shape) == header.voxels:
        page = np.empty(header.shape, header.file_dtype)
        row = 0
        for slab in checked_slabs(header, slabs):
            page[row : row + len(slab)] = header.to_file_values(slab)
            row += len(slab)
        yield page.reshape(page_shape)
        return
    for slab in checked_slabs(header, slabs):
        for page in slab.reshape(-1, *page_shape):
            yield np.ascontiguousarray(header.to_file_values(page))
