"""A folder of numbered PNG files as a clip: read, and written without loss.

Beside the pictures lies ``times.txt``: the time base on its first line, then a line for each frame with its time, and a last one with the end.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import FormatError, OutputError
from .header import MAX_FRAMES, ClipHeader
from .planes import Planes, make_frame
from .source import Tally
from .streams import OtherStream
from .tags import Tagger, tag_encoder

_NUMBERED = re.compile(r"(.*?)(\d+)\.png", re.IGNORECASE)
_TIMES = "times.txt"
_TIMES_HEAD = re.compile(r"time base (\d{1,10})/(\d{1,10})")
_TIME = re.compile(r"-?\d{1,18}")
_LINE_LIMIT = 32
_DEFAULT_RATE = 25
_PNG_FORMATS = {"gray": "gray", "gbrp": "rgb24", "gray16le": "gray16be", "gbrp16le": "rgb48be"}


def is_folder_of_frames(path: Path) -> bool:
    """Tell whether a path is a folder with a numbered PNG file."""
    return path.is_dir() and any(_NUMBERED.fullmatch(entry.name) for entry in path.iterdir())


class FolderSource:
    """The PNG files of a folder, by their numbers; the same face as `FileSource`."""

    source_format, codec = "png", "png"
    field_order, sample_aspect = 0, Fraction(0)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _numbered(path)
        self.time_base, self._times = _read_times(path, len(self._files))
        self.step = 1
        self.notes: tuple[str, ...] = ()
        if not (path / _TIMES).exists():
            self.notes = (f"assumed: {_DEFAULT_RATE} frames a second, as there is no {_TIMES}",)

    def decode(self, tally: Tally, *, from_key: tuple[int, int] | None = None, complete: bool = False) -> Iterator[Any]:
        """Yield every frame, or those from a key on; see `FileSource.decode`."""
        import av

        first = self._times.index(from_key[0]) if from_key else 0
        decoder = av.CodecContext.create("png", "r")
        decoder.options = {"err_detect": "explode"}
        for file, time, end in zip(self._files[first:], self._times[first:-1], self._times[first + 1 :], strict=True):
            tally.keys.append((time, time))
            try:
                packet = av.Packet(file.read_bytes())
                packet.is_keyframe = True  # else FFmpeg adds the picture to the one before
                (frame,) = decoder.decode(packet)
            except (ValueError, av.error.FFmpegError) as error:
                raise FormatError(
                    f"{self._path.name}: expected a PNG picture in {file.name}, found a damaged file; {tally.frames} frames could be read, get a fresh copy"
                ) from error
            tally.frames += 1
            frame.pts, frame.duration, frame.time_base = time, end - time, self.time_base
            yield frame

    def doubts(self, times: Sequence[int], last_duration: int) -> Iterator[str]:
        """None: files have numbers, and a gap in these is an error."""
        return iter(())

    def others(self) -> tuple[tuple[OtherStream, ...], tuple[str, ...]]:
        """Nothing lies beside the pictures."""
        return (), ()


def check_folder(path: Path, header: ClipHeader) -> None:
    """Refuse a folder that holds something, or a clip that PNG files cannot hold.

    Raises
    ------
    FormatError, OutputError
    """
    if header.pixel_format not in _PNG_FORMATS:
        raise FormatError(
            f"{path.name}: expected gray or RGB of 8 or 16 bits for PNG files, found {header.pixel_format}; write .mkv with codec 'ffv1'"
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"expected a new or empty folder for PNG files, found {path} in use; choose another name")
    if not path.parent.is_dir():
        raise OutputError(f"expected a folder for {path.name}, found none at {path.parent}; create it first")


def write_folder(path: Path, header: ClipHeader, frames: Iterable[Planes]) -> None:
    """Write frames as ``000000.png``, ``000001.png``, ...; the folder appears only when all are there."""
    check_folder(path, header)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        temporary.mkdir()
        for number, data in enumerate(_encoded(header, frames)):
            (temporary / f"{number:06}.png").write_bytes(data)
        (temporary / _TIMES).write_text(_times_text(header))
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"expected to write {path}, found: {error.strerror}; free space or choose another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _encoded(header: ClipHeader, frames: Iterable[Planes]) -> Iterator[bytes]:
    import av

    target = _PNG_FORMATS[header.pixel_format]
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = header.width, header.height, target
    encoder.time_base = header.time_base
    tag_encoder(encoder, header)
    tag = Tagger(header, target)
    for time, planes in zip(header.times, frames, strict=True):
        frame = make_frame(planes, header.pixel_format, target)
        frame.pts, frame.time_base = int(time), header.time_base
        yield from map(bytes, encoder.encode(tag(frame)))


def _numbered(path: Path) -> list[Path]:
    found = [(match, entry) for entry in path.iterdir() if (match := _NUMBERED.fullmatch(entry.name))]
    if not found:
        raise FormatError(f"{path.name}: expected numbered PNG files, found none; 0 frames could be read")
    if len(found) > MAX_FRAMES:
        raise FormatError(f"{path.name}: expected at most {MAX_FRAMES} PNG files, found {len(found)}; split the folder")
    names = sorted({match[1] for match, _ in found})
    if len(names) > 1:
        raise FormatError(
            f"{path.name}: expected one series of PNG files, found {names[0]!r} and {names[1]!r}; split them"
        )
    files = {int(match[2]): entry for match, entry in found}
    first = min(files)
    missing = next((number for number in range(first, first + len(found)) if number not in files), None)
    if missing is not None:
        raise FormatError(
            f"{path.name}: expected a PNG file of every number, found none of {missing}; {missing - first} frames could be read"
        )
    return [files[number] for number in sorted(files)]


def _read_times(path: Path, count: int) -> tuple[Fraction, list[int]]:
    """Time base, every frame's time and the last one's end."""
    file = path / _TIMES
    if not file.exists():
        return Fraction(1, _DEFAULT_RATE), list(range(count + 1))
    with open(file, encoding="utf-8", errors="replace") as stream:
        head, *lines = stream.read(_LINE_LIMIT * (count + 2)).splitlines() or [""]
    match = _TIMES_HEAD.fullmatch(head)
    if not match or not int(match[1]) or not int(match[2]) or len(lines) != count + 1:
        raise FormatError(
            f"{path.name}: expected a time base and {count + 1} times in {_TIMES}, found {head[:40]!r} and {len(lines)}; remove the file to assume {_DEFAULT_RATE} frames a second"
        )
    if not all(_TIME.fullmatch(line) for line in lines):
        raise FormatError(
            f"{path.name}: expected a whole number on each line of {_TIMES}, found something else; mend it"
        )
    return Fraction(int(match[1]), int(match[2])), [int(line) for line in lines]


def _times_text(header: ClipHeader) -> str:
    base = header.time_base
    times = [*header.times.tolist(), int(header.times[-1]) + header.last_duration]
    return "\n".join([f"time base {base.numerator}/{base.denominator}", *map(str, times)]) + "\n"
