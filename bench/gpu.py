"""Decoders on a CUDA device: ours, and NVIDIA's own peers where they are installed. ``python -m bench.gpu --out DIR``.

Ours is measured device-resident (voxels stay on the device) and with the copy to the host. nvJPEG2000 comes through
nvImageCodec, NVDEC through FFmpeg's hevc_cuvid; both decode streams of the same peers that the CPU tables time, and what they
return is compared with the CPU decoder's samples. Streams that a device's time is too dear for can be made before, on any
machine (``--make DIR``, then ``--streams DIR``; clips lie there as ``clip-NAME.inrc``). A pyramid's stream is a fitted corner,
repeated (`pyramid_stream.py`). Encoders come last. What cannot run says why; nothing is estimated.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .frames import frame_planes
from .kernels import median_seconds
from .machine import gpu_name, machine_lines
from .peers import PeerError, make_peer
from .peers.framing import unpack
from .peers.x265 import X265
from .signals import BenchSignal, load_signal
from .targets import search_quality

RATE = 0.25
REPEATS = 7
WIDEST: tuple[int, tuple[int, int]] = 24, (16, 16)
"""Widths of the networks that large streams have."""
CORNER = 32
"""Extent of what a pyramid is fitted to here."""
NETWORKS = 2500
"""Bytes of a pyramid's widest networks, those of large streams; once in a stream, whatever its size."""


@dataclass(frozen=True)
class Timed:
    """One decoder: its name, what it decodes, and the work, which returns samples on the host to check or None.

    Attributes
    ----------
    name : str
    bits_per_voxel : float
    work : callable
    expected : ndarray or None
        Samples that `work` must return, up to one unit; None where they stay on the device.
    repeats : int
        Of the work, when it is timed.
    first : int
        Calls before it is timed.
    clip : tuple of int or None
        Samples and frames that the work makes; None stands for the signal's.
    """

    name: str
    bits_per_voxel: float
    work: Callable[[], np.ndarray | None]
    expected: np.ndarray | None
    repeats: int = REPEATS
    first: int = 3
    clip: tuple[int, int] | None = None


Made = Path | None
"""A folder of streams made before, if there is one."""
Decoder = Callable[[BenchSignal, Made], Iterator[Timed]]


def ours(signal: BenchSignal, made: Made) -> Iterator[Timed]:
    """Our decoder; on the host's side of the copy, as the public API returns it."""
    import inrcodec

    if missing := make_peer("tinc").missing():
        raise PeerError(missing)
    stream = stream_of("tinc", signal, made)
    expected = inrcodec.decode(stream, device="cpu").samples
    inrcodec.decode(stream, device="cuda")
    yield Timed("inrcodec TINC, with the copy to the host", _rate(stream, signal), lambda: inrcodec.decode(stream, device="cuda").samples, expected)


def stream_of(method: str, signal: BenchSignal, made: Made = None, device: str = "auto") -> bytes:
    """The signal's stream: one made before, if there is a folder that has it."""
    import inrcodec

    if made is not None and (file := stream_file(made, method, signal)).exists():
        return file.read_bytes()
    return pyramid_stream(signal) if method == "pyramid" else inrcodec.encode(signal.main, bits_per_voxel=RATE, method=method, device=device)


def stream_file(made: Path, method: str, signal: BenchSignal) -> Path:
    """Where a stream of the signal lies."""
    return made / f"{method}-{signal.main.shape[0]}.inrc"


def ours_resident(method: str) -> Decoder:
    """Our decoder from compressed bytes on the host to voxels left on the device."""

    def timed(signal: BenchSignal, made: Made) -> Iterator[Timed]:
        import inrcodec

        stream = stream_of(method, signal, made)
        expected = inrcodec.decode(stream, device="cpu").samples
        with inrcodec.open(stream, device="cuda") as image:
            found = image.read_tensor().cpu().numpy()
        if int(np.abs(found.astype(np.int64) - expected).max()) > 1:
            raise PeerError("the device's samples differ from the CPU's by more than 1")

        def work() -> None:
            with inrcodec.open(stream, device="cuda") as image:
                image.read_tensor()

        yield Timed(f"inrcodec {method.upper()}, device-resident", _rate(stream, signal), work, None)

    return timed


def pyramid_stream(signal: BenchSignal) -> bytes:
    """A stream of the signal's size; its corner is fitted, and repeated: on the CPU a fit of the whole takes some 40 minutes."""
    import inrcodec
    from inrcodec.options import PyramidOptions

    from .pyramid_stream import enlarged

    shape = signal.main.shape
    corner = tuple(min(n, CORNER) for n in shape)
    if any(n % edge for n, edge in zip(shape, corner, strict=True)):
        raise PeerError(f"needs extents that {CORNER} divides, found {shape}; choose another --edge")
    part = np.ascontiguousarray(signal.main[tuple(map(slice, corner))])
    widest = PyramidOptions(context=WIDEST[0], synthesis=WIDEST[1])
    rate = RATE + 8 * NETWORKS / part.size
    small = inrcodec.encode(part, bits_per_voxel=rate, method="pyramid", effort=1, device="cpu", pyramid=widest)
    return enlarged(small, [n // edge for n, edge in zip(shape, corner, strict=True)])


def clips(signal: BenchSignal, made: Made) -> Iterator[Timed]:
    """Clips made before, played: every plane of every frame, decoded and copied to the host."""
    import inrcodec

    files = sorted(made.glob("clip-*.inrc")) if made else []
    if not files:
        raise PeerError("no clip-*.inrc among the streams made before; encode one there")
    for file in files:
        stream = file.read_bytes()
        with inrcodec.open(stream, device="cpu") as here, inrcodec.open(stream, device="cuda") as there:
            (frames, height, width), expected, found = here.shape, here.read(), there.read()
        differences = [np.abs(a.astype(np.int64) - b).max() for a, b in zip(found, expected, strict=True)]
        if max(differences) > 1:
            raise PeerError(f"{file.name} differs from the CPU decoder by up to {max(differences)}")

        def work(stream: bytes = stream) -> None:
            with inrcodec.open(stream, device="cuda") as clip:
                for _ in clip.pieces():
                    pass

        samples = sum(plane.size for plane in expected)
        name = f"inrcodec clip {width}x{height}, with the copy to the host"
        yield Timed(name, 8 * len(stream) / samples, work, None, clip=(samples, frames))


def ours_encoding(method: str) -> Decoder:
    """Our encoder at its default effort, once, after it has run once; what it is compared with is its own decoder, in the report."""

    def timed(signal: BenchSignal, made: Made) -> Iterator[Timed]:
        import inrcodec

        stream = inrcodec.encode(signal.main, bits_per_voxel=RATE, method=method)

        def work() -> None:
            inrcodec.encode(signal.main, bits_per_voxel=RATE, method=method)

        yield Timed(f"inrcodec {method.upper()}, encode", _rate(stream, signal), work, None, repeats=1, first=0)

    return timed


def pyramid_step(signal: BenchSignal, made: Made = None) -> Iterator[Timed]:
    """One step of a pyramid's fit, latents and networks; and the device memory that a fit took at its peak."""
    import torch

    from inrcodec.fitting.goal import Goal
    from inrcodec.fitting.pyramid import PyramidFit
    from inrcodec.fitting.pyramid_course import Schedule
    from inrcodec.fitting.pyramid_start import Differences, choose_halvings
    from inrcodec.fitting.pyramid_trial import GUESS
    from inrcodec.fitting.start import typical_value
    from inrcodec.models.pyramid import PyramidLayout, initial_networks
    from inrcodec.options import PyramidOptions
    from inrcodec_kernels.backend import choose

    volume, offset = signal.main, typical_value(signal.main)
    layout = PyramidLayout(volume.shape, choose_halvings(volume, PyramidOptions().levels), *WIDEST)
    step = Differences(volume, offset, layout).step(Goal(bits=RATE * volume.size), GUESS)
    torch.cuda.reset_peak_memory_stats()
    fit = PyramidFit(volume, offset, step, layout, initial_networks(layout, 0), 0, choose("cuda"))
    fit.begin(300, Schedule())
    number = itertools.count()

    def work() -> None:
        fit.advance(next(number))

    work()
    most = torch.cuda.max_memory_allocated() / volume.size
    yield Timed(f"inrcodec PYRAMID, a step of the fit ({most:.0f} bytes a sample at most)", fit.cost().bits / volume.size, work, None)


def nvjpeg2000(signal: BenchSignal, made: Made = None) -> Iterator[Timed]:
    """Slices of the JPEG 2000 peer, decoded as one batch."""
    try:
        from nvidia import nvimgcodec
    except ImportError:
        raise PeerError("needs nvidia.nvimgcodec, not installed; pip install nvidia-nvimgcodec-cu12") from None
    peer = make_peer("jpeg2000")
    stream = _stream(peer, signal)
    expected = peer.decode(stream)[0]
    layout, parts = unpack(stream)
    decoder = nvimgcodec.Decoder()
    how = nvimgcodec.DecodeParams(allow_any_depth=True, color_spec=nvimgcodec.ColorSpec.UNCHANGED)

    def resident() -> None:
        decoder.decode(parts, how)

    def copied() -> np.ndarray:
        images = [np.asarray(image.cpu()) for image in decoder.decode(parts, how)]
        return layout.stored(np.stack(images).reshape(layout.shapes[0]))

    rate = _rate(stream, signal)
    yield Timed("nvJPEG2000, device-resident", rate, resident, None)
    yield Timed("nvJPEG2000, with the copy to the host", rate, copied, expected)


class Main10(X265):
    """HEVC Main 10: what hardware decoders are made for; 4:2:0 with constant chroma."""

    depths, has_gray = (8, 10), False


def nvdec(signal: BenchSignal, made: Made = None) -> Iterator[Timed]:
    """Main 10 frames through hevc_cuvid; FFmpeg copies them to the host."""
    if missing := make_peer("x265").missing():
        raise PeerError(missing)
    import av

    peer = Main10("slow", threads=8)
    stream = _stream(peer, signal)
    expected = peer.decode(stream)[0]
    layout, parts = unpack(stream)

    def work() -> np.ndarray:
        context = av.CodecContext.create("hevc_cuvid", "r")
        with av.open(io.BytesIO(parts[0]), format="hevc") as container:
            frames = [frame for packet in container.demux(video=0) for frame in context.decode(packet)]
        # P016 keeps 10 bits at the top of each word.
        luma = np.stack([frame_planes(frame)[0] for frame in frames])
        luma = luma >> 6 if luma.dtype == np.uint16 and luma.max() > 1023 else luma
        return layout.from_levels(luma[:, : layout.shapes[0][-2], : layout.shapes[0][-1]], 1023)

    yield Timed("NVDEC (HEVC Main 10), with the copy to the host", _rate(stream, signal), work, expected)


DECODERS: dict[str, Decoder] = {
    "inrcodec TINC, device-resident": ours_resident("tinc"),
    "inrcodec SCI, device-resident": ours_resident("sci"),
    "inrcodec PYRAMID, device-resident": ours_resident("pyramid"),
    "inrcodec TINC, with the copy to the host": ours,
    "inrcodec, clips": clips,
    "inrcodec PYRAMID, a step of the fit": pyramid_step,
    "nvJPEG2000": nvjpeg2000,
    "NVDEC": nvdec,
    "inrcodec TINC, encode": ours_encoding("tinc"),
    "inrcodec SCI, encode": ours_encoding("sci"),
    "inrcodec PYRAMID, encode": ours_encoding("pyramid"),
}


def rows_of(name: str, signal: BenchSignal, made: Made = None) -> list[str]:
    """Table rows of one decoder, or the one that says why there is none."""
    if not gpu_name():
        return [_reason(name, "not measured yet: no CUDA device here")]
    rows = []
    try:
        for timed in DECODERS[name](signal, made):
            rows.append(_row(timed, signal))
    except Exception as error:  # whatever a driver or a decoder raises is a result to report
        rows.append(_reason(name, f"not measured: {' '.join(str(error).split())}"))
    return rows


def _row(timed: Timed, signal: BenchSignal) -> str:
    if timed.expected is not None:
        found = timed.work()
        if found is None or found.shape != timed.expected.shape:
            raise PeerError("the samples did not come back in their shape")
        largest = int(np.abs(found.astype(np.int64) - timed.expected.astype(np.int64)).max())
        if largest > 1:
            raise PeerError(f"differs from the CPU decoder by up to {largest}")
    middle, low, high = median_seconds(timed.work, "cuda", timed.repeats, timed.first)
    samples, frames = timed.clip or (signal.samples, 0)
    speeds = [samples / seconds / 1e9 for seconds in (middle, high, low)]
    name = timed.name + (f", {frames} frames, {frames / middle:.0f} frames/s" if frames else "")
    return f"| {name} | {timed.bits_per_voxel:.4f} | {1e3 * middle:.2f} | {speeds[0]:.3f} ({speeds[1]:.3f} to {speeds[2]:.3f}) |"


def _reason(name: str, why: str) -> str:
    return f"| {name} | | | {why} |"


def _stream(peer: object, signal: BenchSignal) -> bytes:
    """A stream at about `RATE`."""
    if missing := peer.missing():  # type: ignore[attr-defined]
        raise PeerError(missing)
    streams: dict[float, bytes] = {}

    def rate_of(quality: float) -> float:
        streams[quality] = peer.encode(signal, quality)  # type: ignore[attr-defined]
        return _rate(streams[quality], signal)

    return streams[search_quality(rate_of, RATE, peer.scale, {})]  # type: ignore[attr-defined]


def _rate(stream: bytes, signal: BenchSignal) -> float:
    return 8 * len(stream) / signal.samples


def section(signal: BenchSignal, made: Made = None) -> Iterator[str]:
    """The table of one signal, line by line."""
    yield from (f"About {RATE} bits/voxel; medians of {REPEATS} calls (20th to 80th percentile).", "")
    yield from ("| decoder | bits/voxel | ms | Gvoxel/s |", "|---|--:|--:|--:|")
    for name in DECODERS:
        yield from rows_of(name, signal, made)


def main() -> None:
    """Measure and write ``gpu.md``, row by row: a run that is stopped leaves what it has."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Decoders on a CUDA device.")
    parser.add_argument("--edge", type=int, default=256, help="voxels along each axis of the synthetic volume")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="a folder for gpu.md")
    where.add_argument("--make", type=Path, help="a folder for streams; they are made here, on the CPU, and nothing is measured")
    parser.add_argument("--streams", type=Path, help="a folder of streams made before, and of clips")
    options = parser.parse_args()
    signal = load_signal(f"synthetic:{options.edge}")
    if options.make:
        options.make.mkdir(parents=True, exist_ok=True)
        for method in ("tinc", "sci", "pyramid"):
            stream_file(options.make, method, signal).write_bytes(stream_of(method, signal, device="cpu"))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "gpu.md").open("w", encoding="utf-8") as file:
        for line in itertools.chain(["# GPU decoders", "", *machine_lines(), f"{signal.name}.", ""], section(signal, options.streams)):
            print(line, file=file, flush=True)
            print(line, flush=True)


if __name__ == "__main__":
    main()
