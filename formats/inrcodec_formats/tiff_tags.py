"""Tags of TIFF files: those kept of a source, those of a fresh file, and how pages hold the samples of a pixel."""

from __future__ import annotations

import base64
import json
import math
import uuid
from typing import Any

import numpy as np
import tifffile

from .signal import SignalHeader
from .streams import same_spacing

TIFF = "tiff"
"""Name of the format."""
_COLOUR_MAP = 320
_KEPT_TAGS = (270, 271, 272, 285, 305, 306, 315, 316, _COLOUR_MAP, 50838, 50839)
_RESOLUTION_TAGS = (282, 283, 296)
_TAG_LIMIT = 16 << 20
_OME_DTYPES = {"u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"}
_OME_LENGTHS = {"m", "cm", "mm", "nm", "pm", "km", "in"}
_COLOURS = (2, 6)
"""RGB, and YCbCr, which is read as RGB."""
_SEPARATE = 2
_COLOUR_DTYPES = {"u1", "u2"}


def pixels(header: SignalHeader) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the file and of a page: channels behind ``yx`` are the samples of a pixel, unless there is only one."""
    if not header.axes.endswith("c"):
        return header.shape, header.shape[-2:]
    shape = header.shape[:-1] if header.shape[-1] == 1 else header.shape
    return shape, shape[len(header.axes) - 3 :]


def kept_tags(
    tif: tifffile.TiffFile, axes: str, shape: tuple[int, ...], dtype: np.dtype, spacing: tuple[float, ...]
) -> bytes:
    """Pack the first page's descriptive tags, verbatim, with what is needed to know whether they still apply."""
    page = tif.pages.first
    tags = []
    for tag in page.tags:
        if tag.code in _KEPT_TAGS and tag.valuebytecount <= _TAG_LIMIT:
            tif.filehandle.seek(tag.valueoffset)
            raw = tif.filehandle.read(tag.valuebytecount)
            tags.append([tag.code, int(tag.dtype), int(tag.count), base64.b64encode(raw).decode("ascii")])
    resolution = [_plain(page.tags.valueof(code)) for code in _RESOLUTION_TAGS]
    kept = {
        "axes": axes,
        "shape": list(shape),
        "dtype": dtype.str,
        "spacing": list(spacing),
        "byteorder": tif.byteorder,
        "bigtiff": tif.is_bigtiff,
        "compressed": int(page.compression) != 1,
        "photometric": int(page.photometric),
        "planar": page.samplesperpixel > 1 and int(page.planarconfig) == _SEPARATE,
        "extra": [int(meaning) for meaning in page.extrasamples],
        "resolution": resolution,
        "tags": tags,
    }
    return json.dumps(kept, separators=(",", ":")).encode("ascii")


def _plain(value: Any) -> Any:
    """Make a tag's value fit for JSON."""
    if isinstance(value, tuple):
        return [int(n) for n in value]
    return None if value is None else int(value)


def own_tags(header: SignalHeader) -> dict[str, Any] | None:
    """Return the tags the signal was read with, if they still describe it."""
    if header.source_format != TIFF:
        return None
    try:
        kept: dict[str, Any] = json.loads(header.source_header)
        same = tuple(kept["shape"]) == header.shape and kept["dtype"] == header.file_dtype
        same = same and kept.get("axes", header.axes) == header.axes
        same = same and same_spacing(tuple(kept["spacing"]), header.spacing)
        kept_options(kept, header)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return kept if same else None


def kept_options(kept: dict[str, Any], header: SignalHeader) -> dict[str, Any]:
    """Turn kept tags into arguments of `tifffile.TiffWriter.write`."""
    tags = [
        (int(code), int(kind), int(count), base64.b64decode(value), True)
        for code, kind, count, value in kept["tags"]
        if code in _KEPT_TAGS
    ]
    options: dict[str, Any] = {"extratags": [tag for tag in tags if tag[0] != _COLOUR_MAP]}
    colour = kept["photometric"] in _COLOURS
    options |= _sample_options(header, bool(kept.get("planar")), colour, kept.get("extra", []))
    palettes = [value for code, _, _, value, _ in tags if code == _COLOUR_MAP]
    if kept["photometric"] == 3 and palettes:
        options["photometric"] = "palette"
        options["colormap"] = np.frombuffer(palettes[0], kept["byteorder"] + "u2").reshape(3, -1)
    elif kept["photometric"] == 0:
        options["photometric"] = "miniswhite"
    x, y, unit = kept["resolution"]
    if x and y and x[1] and y[1]:
        options["resolution"] = (tuple(x), tuple(y))
        options["resolutionunit"] = unit if unit in (1, 2, 3) else 1
    if kept["compressed"]:
        options["compression"] = "zlib"
    return options


def _sample_options(header: SignalHeader, planar: bool, colour: bool, extra: list[int]) -> dict[str, Any]:
    """Say what the samples of a pixel are, and whether they lie together or plane by plane."""
    planar = planar and header.axes.endswith("cyx")
    samples = header.shape[-3] if planar else math.prod(pixels(header)[1][2:])
    if samples == 1:
        return {"photometric": "minisblack"}
    colour = colour and samples >= 3
    count = samples - (3 if colour else 1)
    known = [code if code in (0, 1, 2) else 0 for code in extra[:count]]
    return {
        "photometric": "rgb" if colour else "minisblack",
        "planarconfig": "separate" if planar else "contig",
        "extrasamples": known + [0] * (count - len(known)),
    }


def fresh_options(header: SignalHeader) -> dict[str, Any]:
    """Make the arguments of `tifffile.TiffWriter.write` for a signal from elsewhere; 3 or 4 samples are taken for RGB."""
    colour = header.shape[-1] in (3, 4) and np.dtype(header.file_dtype).str[1:] in _COLOUR_DTYPES
    options = _sample_options(header, False, colour, [])
    if np.dtype(header.file_dtype).str[1:] in _OME_DTYPES:
        options["description"] = _ome_xml(header).encode("utf-8")
    elif len(header.shape) > 2:
        # OME has no such sample type; tifffile's own JSON still names the axes.
        described = {"shape": list(pixels(header)[0]), "axes": _stored_axes(header)}
        options["description"] = json.dumps(described)
    return options


def _ome_xml(header: SignalHeader) -> str:
    """Describe shape, spacing and units; the identifier follows from them, so equal signals give equal files."""
    attributes: dict[str, Any] = {}
    for axis, step, unit in zip(header.axes, header.spacing, header.units, strict=True):
        if axis == "c":
            continue
        name = "TimeIncrement" if axis == "t" else f"PhysicalSize{axis.upper()}"
        if unit in {"s", "ms", "min", "h"} if axis == "t" else unit in _OME_LENGTHS | {"um"}:
            attributes[name], attributes[f"{name}Unit"] = step, "µm" if unit == "um" else unit
        elif step != 1.0:
            attributes[name] = step
            attributes[f"{name}Unit"] = "s" if axis == "t" else "pixel"
    identity = uuid.uuid5(uuid.NAMESPACE_OID, repr((header.shape, header.axes, header.file_dtype, attributes)))
    xml = tifffile.OmeXml(Creator="inrcodec", UUID=str(identity))
    shape, (height, width, *samples) = pixels(header)
    count = math.prod(samples)
    stored = (header.voxels // (height * width * count), 1, 1, height, width, count)
    xml.addimage(np.dtype(header.file_dtype).name, shape, stored, axes=_stored_axes(header), **attributes)
    return xml.tostring(declaration=True)


def _stored_axes(header: SignalHeader) -> str:
    """The axes of the file in tifffile's letters: S for samples of a pixel, C for channels in planes."""
    axes = header.axes.upper()
    return axes[:-1] + "S" * (header.shape[-1] > 1) if axes.endswith("C") else axes
