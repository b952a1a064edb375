"""Timed work on one signal with one codec, in a process of its own: ``python -m bench.timing TASK``.

``warm`` measures the codec alone, inside one process after a first call; ``encode`` and ``decode`` are whole processes, from
the start of the interpreter to the file on the disk, that their parent times.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .curve import quiet_ffmpeg
from .peers import Peer, PeerError, make_peer
from .quality import check_decoded, measure_psnr
from .signals import BenchSignal, load_signal
from .targets import search_quality

LEAST_REPEATS = 3
BUDGET_S = 30.0
"""Repeats stop when this is spent, but not before the third."""


def repeated(work: Callable[[], Any], repeats: int, budget_s: float = BUDGET_S) -> list[float]:
    """Seconds of each of at most `repeats` calls, after one that does not count."""
    work()
    seconds: list[float] = []
    while len(seconds) < repeats and (len(seconds) < LEAST_REPEATS or sum(seconds) < budget_s):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


def warm(peer: Peer, signal: BenchSignal, target: float | None, repeats: int) -> dict[str, Any]:
    """Quality for a target rate (None: lossless), then repeated encodes and decodes.

    Raises
    ------
    PeerError
        If the stream does not decode to the signal's shape, or lossless is not exact.
    """
    quality = None if target is None else _quality_for(peer, signal, target)
    stream = peer.encode(signal, quality)
    decoded = peer.decode(stream)
    check_decoded(signal, decoded)
    if quality is None:
        _check_exact(signal, decoded)
    return {
        "quality": quality,
        "bytes": len(stream),
        "psnr_db": measure_psnr(signal, decoded),
        "encode_s": repeated(lambda: peer.encode(signal, quality), repeats),
        "decode_s": repeated(lambda: peer.decode(stream), repeats),
    }


def _quality_for(peer: Peer, signal: BenchSignal, target: float) -> float:
    if peer.scale is None:
        raise PeerError("lossless only")
    return search_quality(lambda quality: 8 * len(peer.encode(signal, quality)) / signal.samples, target, peer.scale, {})


def _check_exact(signal: BenchSignal, decoded: tuple[np.ndarray, ...]) -> None:
    wrong = sum(int(np.count_nonzero(a != b)) for a, b in zip(signal.planes, decoded, strict=True))
    if wrong:
        raise PeerError(f"expected every sample back, found {wrong} of {signal.samples} changed")


def encode_file(peer: Peer, spec: str, quality: float | None, stream: Path) -> None:
    """Read the source, compress it, write the stream."""
    stream.write_bytes(peer.encode(load_signal(spec), quality))


def decode_file(peer: Peer, stream: Path, target: Path) -> None:
    """Read the stream, decompress it, write the samples."""
    with open(target, "wb") as file:
        for plane in peer.decode(stream.read_bytes()):
            file.write(np.ascontiguousarray(plane).data)


def main(task: dict[str, Any]) -> None:
    """Run one task and print what it found as JSON."""
    quiet_ffmpeg()
    peer = make_peer(task["peer"], task["order"], task["threads"])
    if task["do"] == "warm":
        try:
            found = warm(peer, load_signal(task["signal"]), task["target"], task["repeats"])
        except PeerError as error:
            found = {"error": str(error)}
        print(json.dumps(found), flush=True)
    elif task["do"] == "encode":
        encode_file(peer, task["signal"], task["quality"], Path(task["stream"]))
    else:
        decode_file(peer, Path(task["stream"]), Path(task["target"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
