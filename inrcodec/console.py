"""What the command line shows: progress on stderr, short tables on stdout."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from .reports import CompareReport, DecodeReport, EncodeReport, InfoReport, VerifyReport

PLAIN_STEP = 0.1
"""Without a terminal, a line is printed each time a stage has advanced by this fraction."""


class ProgressDisplay:
    """A progress callback that draws one bar per stage, on stderr.

    Call it as ``display(stage, fraction, note="")`` inside its ``with`` block. Where stderr is not a terminal
    (a log file), it prints a plain line for each tenth of a stage instead of a moving bar.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._moving = self._console.is_terminal and not quiet
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._current = ""
        self._started = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        if self._moving:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._moving:
            self._bars.stop()

    def __call__(self, stage: str, fraction: float, note: str = "") -> None:
        """Show that `stage` is `fraction` (0 to 1) done; `note` says how it goes."""
        fraction = min(1.0, max(0.0, fraction))
        if self._moving:
            self._move(stage, fraction, note)
        else:
            self._print(stage, fraction, note)

    def _move(self, stage: str, fraction: float, note: str) -> None:
        if stage != self._current and self._current in self._tasks:
            # Stages may be left early (a fit that converged): their clock stops with the next stage.
            self._bars.stop_task(self._tasks[self._current])
        self._current = stage
        task = self._tasks.get(stage)
        if task is None:
            task = self._tasks[stage] = self._bars.add_task(stage, total=1.0, note=note)
        self._bars.update(task, completed=fraction)
        if note:
            self._bars.update(task, note=note)

    def _print(self, stage: str, fraction: float, note: str) -> None:
        last = self._printed.get(stage, -1.0)
        if fraction == last or (fraction < 1.0 and fraction - last < PLAIN_STEP):
            return
        self._printed[stage] = fraction
        elapsed = time.monotonic() - self._started
        line = f"{stage:<10} {fraction:>4.0%}  {elapsed:5.1f} s  {note}".rstrip()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print ``inrcodec: message`` as one line on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"inrcodec: {' '.join(message.split())}", markup=False)


def print_line(text: str = "") -> None:
    """Print a line on stdout, as it is."""
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def show_encode(report: EncodeReport) -> None:
    """Print what an encode made."""
    rows = [
        ("size", f"{size(report.bytes)} of {size(report.raw_bytes)}"),
        ("ratio", f"{report.ratio:.2f}:1 ({report.bits_per_voxel:.4f} bits/voxel)"),
        ("PSNR", f"{decibels(report.psnr_db)} (own range)"),
        *clip_rows(report),
        *region(report),
        ("SSIM", number(report.ssim)),
        ("max error", f"{report.max_abs_error:g} stored units"),
        ("networks", f"{report.blocks} blocks, {report.weights} weights at {report.bits_per_weight:.2f} bits"),
        ("method", f"{report.method}, effort {report.effort}, seed {report.seed}"),
        *choices(report.choices),
        ("backend", backend(report.backend, report.backend_reason)),
        ("time", stages(report.seconds)),
    ]
    _print_table(f"encoded {report.output or ''}", rows)


def clip_rows(report: EncodeReport | CompareReport) -> list[tuple[str, str]]:
    """What is told of clips only."""
    from .reports import ClipCompareReport, ClipEncodeReport

    if isinstance(report, ClipEncodeReport):
        rows = [_by_plane(report.psnr_parts_db), ("frames", f"{report.frames} in {report.groups} groups")]
        if report.carried_bytes:
            rows.append(("carried", f"{size(report.carried_bytes)} of audio and data streams"))
    elif isinstance(report, ClipCompareReport):
        vmaf = f"not computed: {report.vmaf_reason}" if report.vmaf is None else f"{report.vmaf:.2f}"
        rows = [_by_plane(report.psnr_planes_db), ("VMAF", vmaf)]
    else:
        return []
    return rows + [("note", note) for note in report.notes]


def _by_plane(psnr_db: Mapping[str, float]) -> tuple[str, str]:
    return "by plane", ", ".join(f"{name} {decibels(psnr)}" for name, psnr in psnr_db.items())


def region(report: EncodeReport) -> list[tuple[str, str]]:
    """How well the region was kept, and the rest."""
    named = ("region", report.psnr_inside_db), ("outside", report.psnr_outside_db)
    return [(f"PSNR, {where}", decibels(value)) for where, value in named if value is not None]


def choices(made: Mapping[str, object]) -> list[tuple[str, str]]:
    """What the encoder decided that a user may wonder about."""
    rows = []
    if "method_reason" in made:
        rows.append(("trial", str(made["method_reason"])))
    if "restoration_gain_db" in made:
        rows.append(("restoration", f"{made['restoration_width']} channels, {made['restoration_gain_db']:+} dB on boxes held out"))
    return rows


def show_decode(report: DecodeReport) -> None:
    """Print what a decode read and wrote."""
    read = "" if report.bytes_read is None else f", {size(report.bytes_read)} read"
    rows = [
        ("file", f"{size(report.bytes)}{read}"),
        ("samples", f"{report.voxels}"),
        ("time", f"{report.seconds:.2f} s ({report.mvoxels_per_second:.2f} million samples/s)"),
    ]
    if report.backend is not None:
        rows.append(("backend", backend(report.backend, report.backend_reason)))
    rows += [("note", note) for note in report.notes]
    _print_table(f"decoded {report.output or ''}", rows)


def show_info(report: InfoReport) -> None:
    """Print what an ``.inrc`` file says about itself."""
    spacing = zip(report.axes, report.spacing, report.units, strict=True)
    rows = [
        ("size", size(report.bytes)),
        ("ratio", f"{report.ratio:.2f}:1 ({report.bits_per_voxel:.4f} bits/voxel)"),
        ("shape", f"{' x '.join(map(str, report.shape))} ({', '.join(report.axes)})"),
        ("spacing", ", ".join(f"{axis} {step:.4g} {unit}".rstrip() for axis, step, unit in spacing)),
        ("dtype", f"{report.dtype} (source: {report.source_format}, {report.file_dtype})"),
        *_clip_details(report.details),
        ("method", report.method),
        ("target", ", ".join(f"{key} {value}" for key, value in report.target.items()) or "none recorded"),
        ("blocks", f"{report.blocks} ({report.constant_blocks} constant) in {report.chunks} chunks"),
        ("weights", f"{report.weights}"),
    ]
    if report.picture is not None:
        rows.append(("picture", report.picture))
    _print_table(f"{report.path or ''}", rows)
    parts = Table("part", "bytes", "share", "bits/voxel", box=None, header_style="bold", pad_edge=False)
    for column in parts.columns[1:]:
        column.justify = "right"
    for name, count in report.parts.items():
        bits = report.bits_per_voxel * count / max(1, report.bytes)
        parts.add_row(escape(name), f"{count}", f"{count / max(1, report.bytes):.1%}", f"{bits:.5f}")
    Console(highlight=False).print(parts)


def _clip_details(details: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is told of a clip's stream only."""
    if "pixel_format" not in details:
        return []
    carried = ", ".join(details["other_streams"]) or "nothing"
    return [
        ("pictures", f"{details['pixel_format']}, {details['frames_per_second']:.6g} frames a second"),
        ("groups", f"{len(details['first_frames'])}, from frames {', '.join(map(str, details['first_frames'][:8]))}"),
        ("carried", carried),
    ]


def show_verify(report: VerifyReport) -> None:
    """Print what a check covered."""
    how = "decoded in full" if report.deep else "checksums only; --deep decodes as well"
    rows = [
        ("result", "ok" if report.ok else "DAMAGED"),
        ("checked", f"{report.sections_checked} sections, {report.chunks_checked} chunks, {size(report.bytes)}"),
        ("depth", how),
        ("time", f"{report.seconds:.2f} s"),
    ]
    _print_table("verified", rows)


def show_compare(report: CompareReport) -> None:
    """Print how far a decoded volume is from its original."""
    rows = [
        ("PSNR", f"{decibels(report.psnr_db)} over the own range {report.psnr_range:g}"),
        ("", f"{decibels(report.psnr_dtype_db)} over the dtype's full range"),
        *clip_rows(report),
        ("SSIM", number(report.ssim)),
        ("mean error", f"{report.mean_abs_error:.4g} stored units"),
        ("max error", f"{report.max_abs_error:g} stored units{' (identical)' if report.identical else ''}"),
    ]
    if report.bytes is not None:
        rows += [
            ("size", size(report.bytes)),
            ("ratio", f"{report.ratio:.2f}:1 ({report.bits_per_voxel:.4f} bits/voxel)"),
        ]
    if report.picture is not None:
        rows.append(("picture", report.picture))
    _print_table(f"compared {report.voxels} samples", rows)


def size(count: int) -> str:
    """Write a number of bytes, e.g. ``"262144 B (256.0 KiB)"``."""
    if count < 1024:
        return f"{count} B"
    power = min(3, int(math.log(count, 1024)))
    return f"{count} B ({count / 1024**power:.1f} {('KiB', 'MiB', 'GiB')[power - 1]})"


def decibels(value: float) -> str:
    """Write a PSNR; ``"infinite"`` for an identical copy."""
    return "infinite" if math.isinf(value) else f"{value:.2f} dB"


def number(value: float | None) -> str:
    """Write an SSIM, or say that there is none."""
    return "not computed" if value is None else f"{value:.4f}"


def backend(name: str, reason: str | None) -> str:
    """Write which backend computed, and why."""
    return f"{name} ({reason})" if reason else name


def stages(seconds: dict[str, float]) -> str:
    """Write wall time by stage, and the sum when no stage is called ``total``."""
    parts = [f"{name} {value:.1f} s" for name, value in seconds.items()]
    if "total" not in seconds and len(parts) > 1:
        parts.append(f"total {sum(seconds.values()):.1f} s")
    return ", ".join(parts)


def _print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    console = Console(highlight=False)
    console.print(title.strip(), style="bold", markup=False, soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    # Paths must stay on one line to be copied; fold long text rather than cut it.
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(f"  {name}", escape(value))
    console.print(table)
