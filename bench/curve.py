"""One rate–distortion curve: one signal, one codec, all targets. Runs in a process of its own and prints rows as JSON.

A native codec that crashes takes only this process with it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from .peers import Peer, PeerError, UnreachableError, make_peer
from .quality import check_decoded, measure_quality
from .signals import BenchSignal, load_signal
from .targets import search_quality

FAR = 0.3
"""Octaves of the rate beyond which a target at either end of a codec's scale counts as not reached."""

Row = dict[str, Any]


class Trials:
    """Encodes of one codec; keeps the streams of the latest search only."""

    def __init__(self, peer: Peer, signal: BenchSignal, known: dict[float, float]) -> None:
        self.peer, self.signal, self.known = peer, signal, known
        self.streams: dict[float, tuple[bytes, float]] = {}

    def rate_of(self, quality: float) -> float:
        """Encode and return bits/voxel."""
        began = time.perf_counter()
        stream = self.peer.encode(self.signal, quality)
        self.streams[quality] = stream, time.perf_counter() - began
        return 8 * len(stream) / self.signal.samples

    def stream_of(self, quality: float) -> tuple[bytes, float]:
        """The stream at a quality and the seconds it took."""
        if quality not in self.streams:
            self.rate_of(quality)
        return self.streams[quality]


def curve_rows(peer: Peer, signal: BenchSignal, targets: list[float], known: dict[float, float]) -> Iterator[Row]:
    """Measure every target rate, ascending, and yield its row: ok, unreachable or failed."""
    assert peer.scale is not None
    trials = Trials(peer, signal, known)
    used: set[float] = set()
    for target in sorted(targets):
        trials.streams.clear()
        try:
            quality = search_quality(trials.rate_of, target, peer.scale, known)
            if quality in used:
                yield {"target": target, "status": "unreachable", "reason": _limit(known, target)}
                continue
            row = _measured(trials, quality, target)
        except UnreachableError as error:
            row = {"target": target, "status": "unreachable", "reason": _one_line(error)}
        except Exception as error:  # a peer's failure of any kind is a result to report, not to skip
            row = {"target": target, "status": "failed", "reason": _one_line(error)}
        if row["status"] == "ok":
            used.add(quality)
        yield row


def _measured(trials: Trials, quality: float, target: float) -> Row:
    rate, rates = trials.known[quality], trials.known.values()
    # Between two of a codec's own steps the nearest one stands for the target, however coarse they are.
    between = min(rates) < target < max(rates)
    if not between and not 2**-FAR <= rate / target <= 2**FAR:
        return {"target": target, "status": "unreachable", "reason": _limit(trials.known, target)}
    stream, encode_s = trials.stream_of(quality)
    began = time.perf_counter()
    decoded = trials.peer.decode(stream)
    decode_s = time.perf_counter() - began
    check_decoded(trials.signal, decoded)
    return {
        "target": target,
        "status": "ok",
        "quality": f"{trials.peer.scale.name}={quality:g}",  # type: ignore[union-attr]
        "bytes": len(stream),
        "bits_per_voxel": rate,
        "ratio": trials.signal.raw_bytes / len(stream),
        "encode_s": encode_s,
        "decode_s": decode_s,
        **measure_quality(trials.signal, decoded),
    }


def _limit(known: dict[float, float], target: float) -> str:
    rates = sorted(known.values())
    near = min(rates, key=lambda rate: abs(rate / target - 1))
    return f"nearest rate is {near:.4g} bits/voxel (tried {rates[0]:.4g} to {rates[-1]:.4g})"


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, PeerError) else f"{type(error).__name__}: {text}"


def main(task: dict[str, Any], emit: Callable[[Row], None]) -> None:
    """Run a task: signal, peer, order, threads, targets, and rates known from before."""
    quiet_ffmpeg()
    signal = load_signal(task["signal"])
    peer = make_peer(task["peer"], task["order"], task["threads"])
    known = {float(q): float(r) for q, r in task["known"]}
    for row in curve_rows(peer, signal, task["targets"], known):
        emit(row)


def quiet_ffmpeg() -> None:
    """Keep FFmpeg's chatter out of the log; errors are raised anyway."""
    try:
        import av
    except ModuleNotFoundError:
        return
    av.logging.set_level(av.logging.PANIC)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), lambda row: print(json.dumps(row), flush=True))
