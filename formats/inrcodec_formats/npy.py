"""NumPy ``.npy`` arrays, read memory-mapped and without pickles."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .atomic import atomic_output
from .errors import FormatError
from .signal import Signal, SignalHeader
from .streams import check_header, file_pieces, reading

_MAGIC = b"\x93NUMPY"


class Npy:
    """Reader and writer of ``.npy`` files: shape and dtype as stored, no geometry."""

    name = "npy"
    suffixes = (".npy",)

    def matches(self, head: bytes) -> bool:
        """Tell whether a file that begins with `head` is an ``.npy`` file."""
        return head.startswith(_MAGIC)

    def check(self, header: SignalHeader) -> None:
        """Refuse a header that contradicts itself; ``.npy`` holds everything else."""
        check_header(header)

    def read(self, path: Path, *, quantise_step: float | None = None) -> Signal:
        """Memory-map an array of 1 to 4 dimensions, in C or Fortran order.

        Raises
        ------
        FormatError
            For damaged files and arrays of Python objects.
        SignalError
            For samples that cannot be coded, see `to_coded_integers`.
        """
        with reading(path, ".npy"):
            try:
                stored = np.load(path, mmap_mode="r", allow_pickle=False)
            except ValueError as error:
                if "object" not in str(error):
                    raise
                raise FormatError(f"{path.name}: expected numbers, found Python objects; convert them") from error
        signal = Signal.from_array(stored, quantise_step=quantise_step)
        return signal.with_header(source_format=self.name)

    def write(self, path: Path, header: SignalHeader, slabs: Iterable[np.ndarray]) -> None:
        """Write slabs of coded integers as an array of ``header.file_dtype`` in C order."""
        self.check(header)
        description = {"descr": header.file_dtype, "fortran_order": False, "shape": header.shape}
        with atomic_output(path) as out:
            np.lib.format.write_array_header_1_0(out, description)
            for piece in file_pieces(header, slabs):
                out.write(piece.data)
