"""VMAF of pairs of frames, by FFmpeg's filter libvmaf where the installed build has it.

References
----------
Li, Aaron, Katsavounidis, Moorthy, Manohara, "Toward a practical perceptual video quality metric", Netflix Technology Blog, 2016.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable

import numpy as np

from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.planes import make_frame

Pair = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]

_FILTER = "libvmaf"


def vmaf(pairs: Iterable[Pair], header: ClipHeader) -> tuple[float | None, str | None]:
    """Mean VMAF of pairs (original, decoded), all of which are taken; None and the reason where it cannot be had."""
    import av

    if _FILTER not in av.filter.filters_available:
        for _ in pairs:
            pass
        return None, f"this build of FFmpeg (PyAV {av.__version__}) has no filter {_FILTER}"
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "vmaf.json")
        through_filter(pairs, header, _FILTER, f"log_fmt=json:log_path={log}")
        with open(log, encoding="utf-8") as stream:
            return float(json.load(stream)["pooled_metrics"]["vmaf"]["mean"]), None


def through_filter(pairs: Iterable[Pair], header: ClipHeader, name: str, arguments: str) -> None:
    """Send pairs (original, decoded) through one of FFmpeg's filters that compare two videos, decoded first."""
    import av

    graph = av.filter.Graph()
    shape = f"width={header.width}:height={header.height}:pix_fmt={header.pixel_format}:time_base=1/25"
    inputs = [graph.add("buffer", shape, name=side) for side in ("decoded", "original")]
    compared, sink = graph.add(name, arguments), graph.add("buffersink")
    for place, source in enumerate(inputs):
        source.link_to(compared, 0, place)
    compared.link_to(sink)
    graph.configure()
    for number, (original, decoded) in enumerate(pairs):
        for source, planes in zip(inputs, (decoded, original), strict=True):
            frame = make_frame(planes, header.pixel_format, header.pixel_format)
            frame.pts = number
            source.push(frame)
        _drain(sink)
    for source in inputs:
        source.push(None)
    _drain(sink)


def _drain(sink: object) -> None:
    import av

    try:
        while True:
            sink.pull()  # type: ignore[attr-defined]
    except (av.error.BlockingIOError, av.error.EOFError):
        return
