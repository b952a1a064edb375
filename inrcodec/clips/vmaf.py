"""VMAF of pairs of frames, by FFmpeg's filter libvmaf: in PyAV's build where that has it, otherwise in an ``ffmpeg`` program's.

References
----------
Li, Aaron, Katsavounidis, Moorthy, Manohara, "Toward a practical perceptual video quality metric", Netflix Technology Blog, 2016.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import IO

import numpy as np

from inrcodec_formats.video.header import ClipHeader
from inrcodec_formats.video.planes import make_frame

Pair = tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]

_FILTER = "libvmaf"
_RATE = 25
"""Frames a second; nothing but the order counts."""
_SECONDS = 20
"""That a program may take to list its filters."""


def vmaf(pairs: Iterable[Pair], header: ClipHeader) -> tuple[float | None, str | None]:
    """Mean VMAF of pairs (original, decoded), all of which are taken; None and the reason where it cannot be had."""
    import av

    inside = _FILTER in av.filter.filters_available
    program = None if inside else program_with(_FILTER)
    if not inside and program is None:
        for _ in pairs:
            pass
        return None, f"neither PyAV {av.__version__} nor an ffmpeg program here has the filter {_FILTER}; pip install imageio-ffmpeg"
    with tempfile.TemporaryDirectory() as folder:
        log = os.path.join(folder, "vmaf.json")
        if program is None:
            through_filter(pairs, header, _FILTER, f"log_fmt=json:log_path={log}")
        else:
            # A bare name in its own folder: letters of drives and quotes mean something else to filters.
            arguments = f"log_fmt=json:log_path=vmaf.json:n_threads={os.cpu_count() or 1}"
            failed = through_program(program, pairs, header, _FILTER, arguments, folder)
            if failed or not os.path.exists(log):
                return None, f"{program} failed: {failed or 'it wrote no score'}"
        with open(log, encoding="utf-8") as stream:
            return float(json.load(stream)["pooled_metrics"]["vmaf"]["mean"]), None


@cache
def program_with(name: str) -> str | None:
    """An ffmpeg program that has a filter: the one on the path, or the one that imageio-ffmpeg brings."""
    for program in (shutil.which("ffmpeg"), _packaged()):
        if program is None:
            continue
        try:
            listed = subprocess.run(
                [program, "-hide_banner", "-filters"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=True
            ).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if any(line.split()[1:2] == [name] for line in listed.splitlines()):
            return program
    return None


def _packaged() -> str | None:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def through_program(program: str, pairs: Iterable[Pair], header: ClipHeader, name: str, arguments: str, folder: str) -> str:
    """Send pairs (original, decoded) through a filter of a program that runs in a folder, decoded first; returns why it failed, or nothing.

    One pipe has the frames of both in turns, so that neither waits for the other.
    """
    graph = (
        f"[0]split[a][b];[a]select=not(mod(n\\,2)),setpts=N/{_RATE}/TB[original];"
        f"[b]select=mod(n\\,2),setpts=N/{_RATE}/TB[decoded];[decoded][original]{name}={arguments}"
    )
    command = [program, "-hide_banner", "-loglevel", "error", "-f", "nut", "-i", "pipe:0", "-lavfi", graph, "-f", "null", "-"]
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as complaints:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints, cwd=folder)
        assert process.stdin is not None
        try:
            whole = _write_in_turns(process.stdin, pairs, header)
        finally:
            with suppress(OSError):
                process.stdin.close()
            process.wait()
        complaints.seek(0)
        last = complaints.read().strip().rpartition("\n")[2]
        # A filter may write what it has seen though the program fails.
        return "" if whole and process.returncode == 0 else last or f"exit status {process.returncode}"


def _write_in_turns(stream: IO[bytes], pairs: Iterable[Pair], header: ClipHeader) -> bool:
    """Take all pairs, and write them as long as somebody reads; whether all were written."""
    import av

    failures = OSError, av.error.FFmpegError
    taken, written, whole = 0, 0, False
    container = av.open(stream, "w", format="nut")
    video = container.add_stream("rawvideo", rate=_RATE)
    video.width, video.height, video.pix_fmt = header.width, header.height, header.pixel_format
    for pair in pairs:
        taken += 1
        frames = [make_frame(planes, header.pixel_format, header.pixel_format) for planes in pair]
        with suppress(*failures):
            for frame in frames:
                container.mux(video.encode(frame))
                written += 1
    with suppress(*failures):
        container.mux(video.encode(None))
        container.close()
        whole = written == 2 * taken
    return whole


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
