"""Which file format reads or writes a path: decided by suffix and content together."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from .errors import FormatError
from .nifti import Nifti
from .npy import Npy
from .nrrd import Nrrd
from .signal import Signal, SignalHeader
from .streams import cut_slabs
from .tiff import Tiff

_HEAD_BYTES = 4096


class Format(Protocol):
    """One file format.

    Attributes
    ----------
    name : str
        What `SignalHeader.source_format` holds.
    suffixes : tuple of str
        Lower case, with the leading dot.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffixes(self) -> tuple[str, ...]: ...

    def matches(self, head: bytes) -> bool:
        """Tell by its first bytes (4 KiB or the whole file) whether a file is of this format."""
        ...

    def check(self, header: SignalHeader) -> None:
        """Raise `FormatError` if the format cannot hold the signal; called before any sample is produced."""
        ...

    def read(self, path: Path, *, quantise_step: float | None = None) -> Signal:
        """Read a file; raise `FormatError` for the file's faults, `SignalError` for those of its samples."""
        ...

    def write(self, path: Path, header: SignalHeader, slabs: Iterable[np.ndarray]) -> None:
        """Write consecutive slabs along axis 0, of ``header.dtype``, with bounded memory; all or nothing."""
        ...


_FORMATS: tuple[Format, ...] = (Nifti(), Nrrd(), Tiff(), Npy())


def formats() -> tuple[Format, ...]:
    """List the formats that can be read and written."""
    return _FORMATS


def read(path: str | os.PathLike[str], *, quantise_step: float | None = None) -> Signal:
    """Read a file as a `Signal`.

    The content decides; a known suffix must agree with it.

    Parameters
    ----------
    path : str or os.PathLike
    quantise_step : float, optional
        For files of real values: the smallest difference to keep, in the file's stored unit.

    Returns
    -------
    Signal
        Stored integers, slowest axis first, possibly memory-mapped.

    Raises
    ------
    FileNotFoundError, PermissionError
        As `open` raises them.
    FormatError
        If the format is unknown, suffix and content disagree, or the file is damaged or unsupported.
    SignalError
        If the samples cannot be coded as they are.
    """
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path.name}: expected a file, found a folder; name a file inside it")
    with open(path, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
    return _reader_for(path, head).read(path, quantise_step=quantise_step)


def writer_for(path: str | os.PathLike[str], header: SignalHeader) -> Format:
    """Return the format that writes `path`, after checking that it can hold the signal.

    Raises
    ------
    FormatError
        If the suffix is unknown or the format cannot hold the signal.
    """
    path = Path(path)
    found = _by_suffix(path)
    if found is None:
        found_suffix = path.suffix or "no suffix"
        raise FormatError(f"{path.name}: expected a name ending in {_known_suffixes()}, found {found_suffix}; rename it")
    found.check(header)
    return found


def write(path: str | os.PathLike[str], header: SignalHeader, slabs: Iterable[np.ndarray]) -> None:
    """Write a signal slab by slab; the file appears only when all slabs have arrived.

    Parameters
    ----------
    path : str or os.PathLike
        The suffix chooses the format.
    header : SignalHeader
    slabs : iterable of ndarray
        Consecutive pieces along axis 0, dtype ``header.dtype``, shape ``(n, *header.shape[1:])`` with any n.

    Raises
    ------
    FormatError
        If the suffix is unknown or the format cannot hold the signal.
    SignalError
        If the slabs do not add up to the header's shape and dtype.
    OutputError
        If the file cannot be written.
    """
    writer_for(path, header).write(Path(path), header, slabs)


def write_signal(path: str | os.PathLike[str], signal: Signal) -> None:
    """Write a whole signal of one plane; see `write`."""
    write(path, signal.header, cut_slabs(signal.samples))


def _reader_for(path: Path, head: bytes) -> Format:
    named = _by_suffix(path)
    recognised = next((each for each in _FORMATS if each.matches(head)), None)
    if named is not None and recognised is not named:
        found = f"{recognised.name} content" if recognised else ("unrecognised content" if head else "an empty file")
        raise FormatError(f"{path.name}: expected {named.name} content from its name, found {found}; rename or repair it")
    if recognised is None:
        known = ", ".join(each.name for each in _FORMATS)
        raise FormatError(f"{path.name}: expected one of {known}, found unrecognised content; convert the file first")
    return recognised


def _by_suffix(path: Path) -> Format | None:
    name = path.name.lower()
    return next((each for each in _FORMATS if name.endswith(each.suffixes)), None)


def _known_suffixes() -> str:
    return ", ".join(suffix for each in _FORMATS for suffix in each.suffixes)
