"""From the frames of a clip to its ``.inrc`` stream: look, share, then code group by group."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import IO, NamedTuple, TypeVar

import numpy as np

from inrcodec_formats.atomic import atomic_output
from inrcodec_formats.container import write_container
from inrcodec_formats.container.header import Quality, StreamHeader
from inrcodec_formats.errors import OptionError, TargetError
from inrcodec_formats.signal import Signal

from ..encoder import Encoder
from ..fitting.displacements import Found
from ..fitting.spread import Spread
from ..metrics import SplitErrors, own_range
from ..options import EncodeOptions
from ..region import Region
from ..reports import ClipEncodeReport, EncodeReport
from .budget import LEAST_STREAM_BYTES, Ledger, error_ledger, size_ledger
from .groups import MOST_SAMPLES
from .sources import ClipSource, is_clip_source, opened
from .stream import AXES, frame_seconds, parts_of, sections
from .stream import join as join_streams
from .survey import Frames, Progress, Survey, groups, look

__all__ = ["ClipEncoder", "encode_clip", "is_clip_source"]

Coded = tuple[bytes, EncodeReport, SplitErrors]
Encode = Callable[[Quality], Coded]
T = TypeVar("T")

_INDEX_ROW_BYTES = 9
"""Most that the index takes for a group."""
_LEAST_PSNR_DB = 1.0
_USUAL = "tinc"
"""The method where none is asked for: a pyramid takes half an hour for three seconds of 640 x 360."""
_REACHED = 0.99
"""Of the size that a stream needs at least, where its share is too small."""


class Made(NamedTuple):
    """What became of one stream."""

    part: int
    errors: SplitErrors
    report: EncodeReport


@dataclass(frozen=True)
class Plan:
    """What is decided before anything is coded.

    Attributes
    ----------
    starts : list of int
        First frame of each group.
    peak : float
        Own range of all planes together.
    motion : list of Found or None
        Of each group.
    ledger : Ledger
    """

    starts: list[int]
    peak: float
    motion: list[Found | None]
    ledger: Ledger


class ClipEncoder:
    """One encoding of a clip.

    Every part of the planes of a group (luma, chroma, or RGB) becomes a stream of its own, coded as a volume is. Within a
    group luma comes last: it is the largest, and best at taking what the others left.

    Parameters
    ----------
    source : Frames
    options : EncodeOptions
    audio : bool
        Whether to keep audio and data streams.
    progress : callable
        ``progress(stage, fraction, note)``.
    """

    def __init__(self, source: Frames, options: EncodeOptions, audio: bool, progress: Progress) -> None:
        self.source, self.options, self.progress = source, options, progress
        self.method: str = options.asked or _USUAL
        self.header = source.header
        self._regions = self._resampled()
        others = source.others()
        self.sections = sections(self.header, others if audio else ())
        self.dropped = () if audio or not others else (f"dropped: {len(others)} audio and data streams, as asked",)
        self.parts = parts_of(self.header)
        self.order = [*range(1, len(self.parts)), 0]
        self.made: list[Made] = []
        self.seconds: dict[str, float] = {}
        self.choices: dict[str, object] = {}

    def write(self, target: IO[bytes]) -> ClipEncodeReport:
        """Encode into an open file, group by group."""
        starts, peak = self._timed("read", lambda: look(self.source, self._most_samples, self.progress))
        self._choose_method(starts)
        survey = self._timed("measure", lambda: self._survey(starts))
        self.plan = Plan(starts, peak, survey.motion, self._ledger(starts, peak, survey.spreads))
        size = self._timed("encode", lambda: write_container(target, self._front(), self.sections, self._chunks()))
        self._check_size(size)
        return self._report(size)

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        self.progress(stage, 0.0, "")
        value = work()
        self.progress(stage, 1.0, "")
        self.seconds[stage] = time.perf_counter() - began
        return value

    @property
    def _frame_samples(self) -> int:
        return sum(math.prod(shape) for shape in self.header.plane_shapes)

    @property
    def _samples(self) -> int:
        """Of all planes of all frames."""
        return self.header.frames * self._frame_samples

    @property
    def _raw_bytes(self) -> int:
        return self._samples * self.header.dtype.itemsize

    @property
    def _most_samples(self) -> int:
        """Of a group of large frames: where it may be a pyramid's, one that is not cut into parts, which have no motion."""
        options = self.options
        return min(MOST_SAMPLES, options.pyramid.part_samples) if self.method in ("pyramid", "auto") else MOST_SAMPLES

    @property
    def _target_bytes(self) -> float | None:
        target = self.options.target
        if target.kind == "ratio":
            return self._raw_bytes / target.value
        return self._samples * target.value / 8 if target.kind == "bits_per_voxel" else None

    def _survey(self, starts: list[int]) -> Survey:
        inside = {} if self._target_bytes is not None else self._regions
        survey = Survey([self.parts[part] for part in self.order], self.options.motion, inside)
        for number, group in enumerate(groups(self.source, starts)):
            self.progress("measure", number / len(starts), f"group {number + 1} of {len(starts)}")
            survey.add(group)
        return survey

    def _ledger(self, starts: list[int], peak: float, spreads: list[Spread]) -> Ledger:
        size = self._target_bytes
        if size is None:
            inside = self.header.frames * sum(map(self._inside, self.header.plane_shapes))
            return error_ledger(inside * peak**2 / 10 ** (self.options.target.value / 10), spreads)
        fixed = self._fixed_bytes(len(starts))
        of_stream = LEAST_STREAM_BYTES[self.method]
        least = fixed + of_stream * len(spreads)
        if size < least:
            carried = sum(len(section.data) for section in self.sections[1:])
            hint = f" ({carried} of them audio and data streams, which audio=False leaves out)" if carried else ""
            raise TargetError(
                f"expected a target of at least {least} bytes for this clip{hint}, found {size:.0f}; ask for more"
            )
        return size_ledger(size - fixed, spreads, of_stream)

    def _fixed_bytes(self, groups: int) -> int:
        """All of the file but the streams of the groups."""
        front = write_container(io.BytesIO(), self._front(), self.sections)
        return front + groups * (_INDEX_ROW_BYTES + 4 * (len(self.parts) - 1))

    def _front(self) -> StreamHeader:
        header = self.header
        group = self._frame_samples * header.dtype.itemsize * min(header.frames, 64)
        return StreamHeader(
            shape=(header.frames, header.height, header.width),
            dtype=header.dtype.name,
            axes=AXES,
            spacing=(frame_seconds(header), 1.0, float(header.sample_aspect) or 1.0),
            units=("s", "", ""),
            file_dtype=header.dtype.str,
            method=self.method,
            quality=Quality(self.options.target.kind, self.options.target.value),
            # A group decoded, its planes as floats while they are, and what a batch of blocks takes.
            memory_bytes=6 * group + (256 << 20),
            source_format=header.source_format,
        )

    def _choose_method(self, starts: list[int]) -> None:
        """Decide once for all groups: on luma, or RGB, of the middle one."""
        if self.method != "auto":
            return
        middle, edges = len(starts) // 2, [*starts, self.header.frames]
        frames = self.source.frames(edges[middle], edges[middle + 1])
        first = self.parts[0].joined(tuple(map(np.stack, zip(*frames, strict=True))))
        target, size = self.options.target, self._target_bytes
        if size is not None:
            target = Quality("bits_per_voxel", 8 * size / self._samples)
        trial = Encoder(_signal(first), replace(self.options, target=target), self.progress)
        self.method = self._timed("trial", trial.chosen_method)
        self.choices.update(trial.choices)

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        """Code group by group."""
        self.began, self.done = time.perf_counter(), 0
        for number, group in enumerate(groups(self.source, self.plan.starts)):
            streams: dict[int, bytes] = {}
            for part in self.order:
                samples = self.parts[part].joined(group)
                streams[part] = self._coded(number, part, samples)
                self.done += samples.size
            yield len(group[0]), join_streams([streams[part] for part in range(len(self.parts))])

    def _coded(self, group: int, part: int, samples: np.ndarray) -> bytes:
        where = self._where(group, part)

        def encode(target: Quality) -> Coded:
            return self._encoded(samples, target, self._note(where), group, part)

        try:
            blob, report, errors = self._within(samples, self.plan.ledger.share(), encode)
        except TargetError as error:
            raise TargetError(f"{where}: {error}") from error
        self.plan.ledger.spend(errors.inside.sum_squares if self._target_bytes is None else len(blob))
        self.made.append(Made(part, errors, report))
        return blob

    def _within(self, samples: np.ndarray, share: float, encode: Encode) -> Coded:
        """Encode within a share of the size, or of the squared error."""
        if self._target_bytes is not None:
            return self._of_size(samples, share, encode)
        psnr = 10 * math.log10(own_range(samples) ** 2 * self._inside_of(samples) / max(share, 1e-9))
        return encode(Quality("psnr_db", max(psnr, _LEAST_PSNR_DB)))

    def _of_size(self, samples: np.ndarray, size: float, encode: Encode) -> Coded:
        """Encode into that many bytes, or as few as it takes."""
        try:
            return encode(Quality("bits_per_voxel", 8 * size / samples.size))
        except TargetError as error:
            if error.least_bytes is None:
                raise
            least = error.least_bytes / _REACHED
        return encode(Quality("bits_per_voxel", 8 * least / samples.size))

    def _encoded(self, samples: np.ndarray, target: Quality, note: Progress, group: int, part: int) -> Coded:
        motion, found = self.options.motion, self.plan.motion[group] if self.parts[part].alone else None
        # Of planes coded as channels beside another one nothing is displaced, and what was looked for in vain is not looked for again.
        if found is None and (motion == "auto" or len(self.parts) > 1):
            motion = False
        region = self._regions.get(samples.shape[1:3])
        options = replace(self.options, target=target, method=self.method, region=region, motion=motion)  # type: ignore[arg-type]
        encoder = Encoder(_signal(samples), options, note, found)
        return *encoder.run(), encoder.errors

    def _resampled(self) -> dict[tuple[int, ...], Region]:
        """The region of planes of each size: that of frames, in as many samples; refused before the work if it does not fit."""
        region, frame = self.options.region, (self.header.height, self.header.width)
        return {} if region is None else {shape: region.resampled(frame, shape) for shape in self.header.plane_shapes}

    def _inside(self, size: tuple[int, ...]) -> int:
        """Samples of a plane of a size that are inside."""
        region = self._regions.get(size)
        return math.prod(size) if region is None else int(np.count_nonzero(region.mask(size)))

    def _inside_of(self, samples: np.ndarray) -> int:
        """Samples of a stream that are inside."""
        return self._inside(samples.shape[1:3]) * (samples.size // math.prod(samples.shape[1:3]))

    def _where(self, group: int, part: int) -> str:
        starts = [*self.plan.starts, self.header.frames]
        return f"frames {starts[group] + 1} to {starts[group + 1]} of {starts[-1]}, {self.parts[part].name}"

    def _note(self, where: str) -> Progress:
        """Progress of one stream as a note to that of all."""

        def note(stage: str, fraction: float, text: str) -> None:
            self.progress("encode", self.done / self._samples, f"{where}, {stage} {fraction:.0%}{self._expected()}")

        return note

    def _expected(self) -> str:
        """How long the rest takes, once a stream is done."""
        if not self.done:
            return ""
        left = (time.perf_counter() - self.began) * (self._samples / self.done - 1)
        return f", about {left / 60:.0f} min to go" if left >= 90 else f", about {left:.0f} s to go"

    def _check_size(self, size: int) -> None:
        limit = self._target_bytes
        if limit is not None and size > limit:
            raise TargetError(
                f"expected a target of at least about {size} bytes for this clip, found {limit:.0f}; ask for more"
            )

    def _report(self, size: int) -> ClipEncodeReport:
        reports, parted = [made.report for made in self.made], self.options.region is not None
        errors, peak = self._errors(), self.plan.peak
        weights = sum(report.weights for report in reports)
        return ClipEncodeReport(
            bytes=size,
            raw_bytes=self._raw_bytes,
            ratio=self._raw_bytes / size,
            bits_per_voxel=8 * size / self._samples,
            psnr_db=errors.whole.psnr(peak),
            ssim=None,
            max_abs_error=max(report.max_abs_error for report in reports),
            target={self.options.target.kind: self.options.target.value},
            method=self.method,
            blocks=sum(report.blocks for report in reports),
            weights=weights,
            bits_per_weight=8 * size / max(weights, 1),
            seconds=self.seconds,
            backend=reports[0].backend,
            backend_reason="; ".join(dict.fromkeys(filter(None, (r.backend_reason for r in reports)))),
            seed=self.options.seed,
            effort=self.options.effort,
            choices=self.choices,
            psnr_inside_db=errors.inside.psnr(peak) if parted else None,
            psnr_outside_db=errors.outside.psnr(peak) if parted and errors.outside.voxels else None,
            frames=self.header.frames,
            groups=len(self.plan.starts),
            psnr_parts_db={part.name: self._errors(n).whole.psnr(peak) for n, part in enumerate(self.parts)},
            carried_bytes=sum(len(section.data) for section in self.sections[1:]),
            notes=(*self.source.notes, *self.dropped),
        )

    def _errors(self, part: int | None = None) -> SplitErrors:
        """Of the streams of a part, or of all."""
        return sum((made.errors for made in self.made if part in (None, made.part)), SplitErrors())


def encode_clip(
    source: ClipSource,
    target: str | os.PathLike[str] | None,
    options: EncodeOptions,
    quantise_step: float | None,
    audio: bool,
    progress: Progress,
) -> ClipEncodeReport | bytes:
    """Read a clip and encode it, into a file that appears whole or not at all, or into bytes."""
    if quantise_step is not None:
        raise OptionError(f"expected quantise_step for real values, found {quantise_step} for a clip; leave it out")
    with opened(source) as frames:
        encoder = ClipEncoder(frames, options, audio, progress)
        if target is None:
            encoder.write(held := io.BytesIO())
            return held.getvalue()
        with atomic_output(target) as stream:
            report = encoder.write(stream)
        return replace(report, output=os.fspath(target))


def _signal(samples: np.ndarray) -> Signal:
    return Signal.from_array(samples, axes=AXES + "c" * (samples.ndim - len(AXES)))
