"""A first run on real data that is already on every machine with inrcodec: nibabel's example volume."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from inrcodec_formats.errors import FormatError, OutputError

from .reports import CompareReport, DecodeReport, EncodeReport, Report

Progress = Callable[..., None]

RATIO = 64.0
EFFORT = 2
DESCRIPTION = (
    "The volume: two time points of real EPI brain MRI, 128 x 96 x 24 voxels, 16 bits, background set to zero "
    "(nibabel's own example4d.nii.gz)."
)


@dataclass(frozen=True, kw_only=True)
class DemoReport(Report):
    """What the demo made: the three reports, and the paths of the files it leaves behind."""

    encode: EncodeReport
    decode: DecodeReport
    compare: CompareReport
    compressed: str
    decoded: str
    picture: str


def run_demo(folder: str | os.PathLike[str] = "demo", *, progress: Progress | None = None) -> DemoReport:
    """Encode, decode and compare nibabel's example volume; files of an earlier run are replaced.

    Parameters
    ----------
    folder : path
        Made when missing; receives ``example.inrc``, ``example_decoded.nii.gz`` and ``example.png``.
    progress : callable, optional
        Called as ``progress(stage, fraction, note="")``.

    Returns
    -------
    DemoReport

    Raises
    ------
    FormatError
        If nibabel was installed without its example data.
    OutputError
        If the folder cannot be made or written.
    """
    import inrcodec

    from .comparison import compare

    target = _make_folder(Path(folder))
    compressed, decoded, picture = (target / name for name in ("example.inrc", "example_decoded.nii.gz", "example.png"))
    example = resources.files("nibabel") / "tests" / "data" / "example4d.nii.gz"
    if not example.is_file():
        raise FormatError("expected nibabel's example4d.nii.gz, found nibabel without its test data; reinstall it")
    with resources.as_file(example) as source:
        encoded = inrcodec.encode(source, compressed, ratio=RATIO, effort=EFFORT, progress=progress)
        restored = inrcodec.decode(compressed, decoded, progress=progress)
        compared = compare(
            source, decoded, compressed_bytes=compressed.stat().st_size, picture=picture, progress=progress
        )
    return DemoReport(
        encode=encoded,
        decode=restored,
        compare=compared,
        compressed=str(compressed),
        decoded=str(decoded),
        picture=str(picture),
    )


def next_commands(report: DemoReport) -> list[str]:
    """Commands worth trying after the demo, ready to paste."""
    return [
        f"inrcodec info {report.compressed}",
        f"inrcodec verify {report.compressed} --deep",
        f'inrcodec decode {report.compressed} middle.nii.gz --region "0,10:14,:,:"',
        f"inrcodec decode {report.compressed} half.nii.gz --scale 0.5",
        "inrcodec encode YOUR.nii.gz YOUR.inrc --ratio 64",
    ]


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    return folder
