"""`Signal`: the stored integers of a volume, series or clip with everything needed to write its file again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .axes import AxisOrder, check_axes
from .errors import SignalError

CODED_DTYPES = ("uint8", "int8", "uint16", "int16")
"""Integer types the codec stores; wider ones are narrowed when every value fits."""


@dataclass(frozen=True)
class SignalHeader:
    """Everything about a signal but its samples.

    Attributes
    ----------
    shape : tuple of int
        Slowest axis first, e.g. ``(D, H, W)``. For NIfTI this is nibabel's ``dataobj`` transposed.
    dtype : str
        Coded integer dtype, one of `CODED_DTYPES`.
    axes : str
        One letter per axis out of ``t z y x c``, e.g. ``"zyx"``; ``c`` (channels) may stand anywhere.
    spacing : tuple of float
        Sample distance per axis, in `units`.
    units : tuple of str
        Unit per axis: ``"mm"``, ``"um"``, ``"s"``, ... or ``""`` when unknown.
    file_dtype : str
        NumPy dtype string (with byte order) of the samples in the source; writers restore it.
    quantise_step : float or None
        For sources of real values: value = `quantise_step` * stored integer. None for integers.
    source_format : str
        Registry name of the format that read the signal, ``"array"`` for a plain array.
    source_header : bytes
        The source's header (and extensions), verbatim, to be written back unchanged.
    """

    shape: tuple[int, ...]
    dtype: str
    axes: str
    spacing: tuple[float, ...]
    units: tuple[str, ...]
    file_dtype: str
    quantise_step: float | None = None
    source_format: str = "array"
    source_header: bytes = b""

    @property
    def voxels(self) -> int:
        """Number of samples."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def order(self) -> AxisOrder:
        """How the axes are permuted to be coded."""
        return AxisOrder.of(self.axes)

    @property
    def raw_bytes(self) -> int:
        """Size of the array in its coded dtype: the numerator of every compression ratio."""
        return self.voxels * np.dtype(self.dtype).itemsize

    def to_file_values(self, coded: np.ndarray) -> np.ndarray:
        """Turn coded integers into the values and dtype of the source file."""
        if self.quantise_step is not None:
            return (coded.astype(np.float64) * self.quantise_step).astype(self.file_dtype)
        return coded.astype(self.file_dtype, copy=False)


@dataclass(frozen=True)
class Signal:
    """Samples on one or several regular grids (one plane for a volume) and their header.

    Attributes
    ----------
    planes : tuple of ndarray
        Coded integers, ``header.dtype``; may be memory-mapped. One plane for volumes.
    header : SignalHeader
    """

    planes: tuple[np.ndarray, ...]
    header: SignalHeader = field(repr=False)

    @property
    def samples(self) -> np.ndarray:
        """The single plane of a volume, in the coded integer dtype, shape ``header.shape``."""
        if len(self.planes) != 1:
            raise SignalError(f"expected a signal of one plane, found {len(self.planes)}; read .planes instead")
        return self.planes[0]

    @property
    def values(self) -> np.ndarray:
        """The samples as the values and dtype of the source file."""
        return self.header.to_file_values(self.samples)

    @classmethod
    def from_array(cls, array: np.ndarray, *, quantise_step: float | None = None, axes: str | None = None) -> Signal:
        """Wrap a plain array (1-D to 4-D, slowest axis first).

        Parameters
        ----------
        array : ndarray
        quantise_step : float, optional
            For real values: the smallest difference to keep.
        axes : str, optional
            One letter per axis, e.g. ``"yxc"`` for a colour picture; the last ones of ``"tzyx"`` unless given.

        Raises
        ------
        SignalError
            If the array is empty, has an unsupported dtype or dimension, holds NaN or infinite values,
            or holds fractions and no `quantise_step` was given; if the axes are not its own.
        """
        if isinstance(array, np.ma.MaskedArray):
            raise SignalError("expected an array without a mask, found a masked one; fill it first, e.g. array.filled(0)")
        array = np.asanyarray(array)
        default = {1: "x", 2: "yx", 3: "zyx", 4: "tzyx"}.get(array.ndim)
        if axes is None:
            if default is None:
                raise SignalError(f"expected an array of 1 to 4 dimensions, found {array.ndim}; slice or reshape it")
            axes = default
        check_axes(axes, array.ndim)
        coded, step = to_coded_integers(array, quantise_step)
        header = SignalHeader(
            shape=tuple(int(n) for n in array.shape),
            dtype=coded.dtype.name,
            axes=axes,
            spacing=(1.0,) * array.ndim,
            units=("",) * array.ndim,
            file_dtype=array.dtype.str,
            quantise_step=step,
        )
        return cls(planes=(coded,), header=header)

    def with_header(self, **changes: object) -> Signal:
        """Return the same samples under a changed header."""
        return Signal(planes=self.planes, header=replace(self.header, **changes))  # type: ignore[arg-type]


def to_coded_integers(array: np.ndarray, quantise_step: float | None = None) -> tuple[np.ndarray, float | None]:
    """Narrow `array` to one of `CODED_DTYPES` without changing a value; returns (coded, step used or None).

    Integers are never rescaled. Real values need `quantise_step` unless all are integers that fit 16 bits.

    Raises
    ------
    SignalError
        For empty arrays, unsupported dtypes, NaN or infinite values, values beyond 16 bits, or fractions
        without a `quantise_step`.
    """
    if array.size == 0:
        raise SignalError(f"expected at least one sample, found an empty array of shape {array.shape}")
    kind = array.dtype.kind
    if kind not in "iuf":
        raise SignalError(
            f"expected integers or real numbers, found dtype {array.dtype}; convert to uint8, int8, uint16, int16 or float32"
        )
    if quantise_step is not None:
        return _quantised(array, quantise_step)
    if array.dtype.name in CODED_DTYPES:
        native = array.dtype.newbyteorder("=")
        return (array if array.dtype == native else array.astype(native)), None
    if kind == "f":
        _require_finite(array)
        if not _all_integers(array):
            raise SignalError(
                "expected integers, found fractions; pass quantise_step= (CLI: --quantise-step), the smallest difference to keep"
            )
    return array.astype(_narrowest(float(array.min()), float(array.max()))), None


def _quantised(array: np.ndarray, step: float) -> tuple[np.ndarray, float]:
    if not (np.isfinite(step) and step > 0):
        raise SignalError(f"expected a positive quantise_step, found {step}")
    if array.dtype.kind != "f":
        raise SignalError(f"quantise_step is for real values, found {array.dtype}; leave it out, integers are stored as they are")
    _require_finite(array)
    low, high = np.rint(float(array.min()) / step), np.rint(float(array.max()) / step)
    dtype = _narrowest(low, high, f"; a quantise_step of at least {(float(array.max()) - float(array.min())) / 65535:.3g} is needed")
    coded = np.empty(array.shape, dtype)
    for rows in _row_slices(array):
        coded[rows] = np.rint(array[rows].astype(np.float64) / step)
    return coded, float(step)


def _require_finite(array: np.ndarray) -> None:
    bad = sum(int(np.count_nonzero(~np.isfinite(array[rows]))) for rows in _row_slices(array))
    if bad:
        raise SignalError(f"expected finite values, found {bad} NaN or infinite samples; replace or mask them first")


def _all_integers(array: np.ndarray) -> bool:
    return all(bool(np.all(array[rows] == np.rint(array[rows]))) for rows in _row_slices(array))


def _row_slices(array: np.ndarray) -> list[slice]:
    """Cut axis 0 into slices of about a million samples: temporaries stay small, and a 1-D signal is not a loop."""
    rows = max(1, array.shape[0] * 2**20 // array.size)
    return [slice(start, start + rows) for start in range(0, array.shape[0], rows)]


def _narrowest(low: float, high: float, hint: str = "; clip or divide them first") -> np.dtype:
    for name in ("uint8", "int8", "uint16", "int16"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return np.dtype(name)
    raise SignalError(f"expected values that fit 16 bits, found {low:g} to {high:g}{hint}")
