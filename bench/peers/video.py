"""Video codecs through FFmpeg (PyAV): the slices of a stack are the frames of a clip.

Streams are bare bitstreams (no mp4 tables), so that a codec is charged for its own bytes only.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..frames import frame_planes, make_frame
from ..signals import BenchSignal
from .base import Peer, PeerError, fold, series_orders, unfold
from .framing import Layout, pack, unpack


class VideoCodec(Peer):
    """Frames through one encoder; volumes as gray where the codec has it, clips in their own layout.

    Attributes
    ----------
    encoder, decoder : str
        FFmpeg's names.
    container : str
        FFmpeg's name of the bare bitstream.
    depths : tuple of int
        Bit depths of gray input, ascending.
    clip_formats : tuple of str
        Chroma layouts of 8-bit clips.
    has_gray : bool
        Without it, volumes travel as 4:2:0 with constant chroma.
    """

    needs = ("av",)
    install = "pip install av"
    encoder: str
    decoder: str | None = None
    container: str
    depths: tuple[int, ...] = (8, 10, 12)
    clip_formats: tuple[str, ...] = ("yuv420p", "yuv422p", "yuv444p")
    has_gray = True

    @property
    def most_bits(self) -> int:  # type: ignore[override]
        """Largest bit depth of gray input."""
        return self.depths[-1]

    @abstractmethod
    def options(self, quality: float | None) -> dict[str, str]:
        """FFmpeg's options for one quality; None asks for lossless."""

    def version(self) -> str:
        """PyAV and the FFmpeg library inside; encoders do not tell theirs."""
        import av

        return f"{self.encoder} of av {av.__version__}"

    def orders(self, signal: BenchSignal) -> tuple[str, ...]:
        """Both layouts of a series."""
        return series_orders(signal)

    def mapping(self, signal: BenchSignal) -> str:
        """In words."""
        if signal.kind == "clip":
            return f"{chroma_layout([plane.shape for plane in signal.planes])}, 8 bit, as stored"
        top = (1 << self.depths[-1]) - 1
        step = (signal.high - signal.low) / top
        gray = "gray" if self.has_gray else "4:2:0 with constant chroma"
        return f"value - {signal.low}, scaled by 1/{step:.4g} to the full {self.depths[-1]} bits, {gray}"

    def refuses(self, signal: BenchSignal, lossless: bool = False) -> str:
        """Unknown chroma layouts too."""
        if signal.kind == "clip" and self.clips:
            layout = chroma_layout([plane.shape for plane in signal.planes])
            return "" if layout in self.clip_formats else f"no {layout}"
        return super().refuses(signal, lossless)

    def encode(self, signal: BenchSignal, quality: float | None) -> bytes:
        """Compress all frames into one bare stream."""
        layout = Layout.of(signal, quality is None)
        pixel_format, frames = self._frames(signal, layout)
        return pack(layout, [self._encode_frames(frames, pixel_format, self.options(quality))])

    def decode(self, data: bytes) -> tuple[np.ndarray, ...]:
        """Decompress; every frame must come back."""
        layout, parts = unpack(data)
        frames = self._decode_frames(parts[0])
        expected = int(np.prod(layout.shapes[0][:-2]))
        if len(frames) != expected:
            raise PeerError(f"expected {expected} frames back, found {len(frames)}")
        if len(layout.shapes) > 1:
            return tuple(np.stack(plane).astype(layout.dtype) for plane in zip(*frames, strict=True))
        shape = layout.shapes[0]
        stack = np.stack([planes[0] for planes in frames])[:, : shape[-2], : shape[-1]]
        top = (1 << self._depth(layout)) - 1
        return (unfold(layout.from_levels(stack, top), shape, self.order),)

    def _depth(self, layout: Layout) -> int:
        """Bits a gray sample gets: all there are, or just enough when nothing may be scaled."""
        return next(depth for depth in self.depths if depth >= layout.bits) if layout.lossless else self.depths[-1]

    def _frames(self, signal: BenchSignal, layout: Layout) -> tuple[str, Iterator[list[np.ndarray]]]:
        if signal.kind == "clip":
            return chroma_layout(layout.shapes), (list(planes) for planes in zip(*signal.planes, strict=True))
        depth = self._depth(layout)
        dtype = np.uint8 if depth <= 8 else np.uint16
        suffix = "" if depth <= 8 else f"{depth}le"
        stack = fold(layout.to_levels(signal.main, (1 << depth) - 1).astype(dtype), self.order)
        if self.has_gray:
            return f"gray{suffix}", ([image] for image in stack)
        even = np.pad(stack, ((0, 0), (0, stack.shape[1] % 2), (0, stack.shape[2] % 2)), mode="edge")
        chroma = np.full((even.shape[1] // 2, even.shape[2] // 2), 1 << (depth - 1), dtype)
        return f"yuv420p{suffix}", ([image, chroma, chroma] for image in even)

    def _encode_frames(self, frames: Iterator[list[np.ndarray]], pixel_format: str, options: dict[str, str]) -> bytes:
        import av

        out = io.BytesIO()
        with av.open(out, "w", format=self.container) as container:
            stream = None
            for number, planes in enumerate(frames):
                if stream is None:
                    stream = container.add_stream(self.encoder, rate=25)
                    stream.height, stream.width = planes[0].shape
                    stream.pix_fmt, stream.options = pixel_format, options
                    stream.thread_count = self.threads
                frame = make_frame(planes, pixel_format)
                frame.pts = number
                container.mux(stream.encode(frame))
            assert stream is not None
            container.mux(stream.encode())
        return out.getvalue()

    def _decode_frames(self, data: bytes) -> list[list[np.ndarray]]:
        import av

        with av.open(io.BytesIO(data), format=self.container) as container:
            stream = container.streams.video[0]
            stream.thread_count = self.threads
            if self.threads > 1:
                stream.thread_type = "AUTO"
            return [frame_planes(frame) for frame in container.decode(stream)]


def chroma_layout(shapes: Any) -> str:
    """FFmpeg's name of an 8-bit chroma layout, from the planes' shapes."""
    if len(shapes) == 1:
        return "gray"
    (_, height, width), (_, h, w) = shapes[0], shapes[1]
    known = {(2, 2): "yuv420p", (1, 2): "yuv422p", (1, 1): "yuv444p"}
    return known.get((-(-height // h), -(-width // w)), f"chroma of {h}x{w} for {height}x{width}")
