"""Boxes of a TINC stream decoded on a CUDA device: compressed bytes go up, and samples stay until they are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_kernels.rans import CodedError, device_coder

from ..coding.lanes import impossible
from ..models.readout import SeparableReadout
from .restored import Restorer

if TYPE_CHECKING:
    from .tinc import TincReconstruction

IntArray = NDArray[np.int64]


class CodedChunks(NamedTuple):
    """Chunks as they lie in a stream.

    Attributes
    ----------
    bodies : list of bytes
    first, stop : ndarray of int, shape (C,)
        Leaves [first, stop) of each.
    """

    bodies: list[bytes]
    first: IntArray
    stop: IntArray


class DeviceBoxes:
    """Decodes boxes with three launches a level: entropy decoding, synthesis of leaves, correction.

    Parameters
    ----------
    tinc : TincReconstruction
        With a separable root and the backend ``"triton"``.
    """

    def __init__(self, tinc: TincReconstruction) -> None:
        self.tinc, self.device = tinc, tinc.backend.device
        self._code = device_coder().DeviceCode.of(tinc.coder.code, self.device)

    def integers(
        self, start: IntArray, stop: IntArray, coded: CodedChunks, dtype: torch.dtype, restorer: Restorer | None
    ) -> Tensor:
        """Samples of the box [start, stop), corrected, rounded and clipped; `coded` holds all leaves of it and its ring.

        Raises
        ------
        ContainerError
            If a chunk cannot have been written by the encoder.
        """
        if restorer is None:
            return self.samples(start, stop, coded, dtype)
        first, last = restorer.ringed(start, stop)
        box = self.samples(first, last, coded, torch.float32)
        out = torch.empty(tuple((stop - start).tolist()), dtype=dtype, device=self.device)
        restorer.write(box, (start - first).tolist(), out, self.tinc.low, self.tinc.high)
        return out

    def samples(self, start: IntArray, stop: IntArray, coded: CodedChunks, dtype: torch.dtype) -> Tensor:
        """Samples of a box before correction: floats, or integers rounded and clipped."""
        tinc, out = self.tinc, torch.empty(tuple((stop - start).tolist()), dtype=dtype, device=self.device)
        leaves = np.concatenate([np.arange(a, b) for a, b in zip(coded.first, coded.stop, strict=True)])
        level = tinc.tree.level[leaves]
        values = self._decoded(coded, np.searchsorted(tinc.stream.geometry.levels, level))
        at = 0
        for kind in tinc.stream.geometry.levels:
            own = leaves[level == kind]
            readout, width = tinc.model.readout(kind, tinc.tree.index[own]), tinc.stream.geometry.bands[kind].width + 1
            assert isinstance(readout, SeparableReadout)
            part = values[at : at + len(own) * width].view(len(own), width)[:, :-1]
            at += part.shape[0] * width
            corner = torch.from_numpy(tinc.tree.origin[own] - start)
            readout.synthesise(out, corner, part, tinc.step, tinc.stream.offset, tinc.low, tinc.high, tinc.backend)
        tinc.evaluated += out.numel()
        return out

    def _decoded(self, coded: CodedChunks, rank: IntArray) -> Tensor:
        """Coefficients of all leaves of some chunks, level by level, a zero behind each leaf's."""
        rows = self.tinc.coder.code.rows(rank)
        begin = np.cumsum([0, *map(len, coded.bodies)])
        first = np.concatenate([[0], np.cumsum(coded.stop - coded.first)])
        data = np.frombuffer(b"".join(coded.bodies), dtype=np.uint8)
        arrays = [torch.from_numpy(a.copy()).to(self.device) for a in (data, begin, rank, first, rows[:-1])]
        data_, begin_, rank_, first_, rows_ = arrays
        lanes = self.tinc.statistics.lanes
        values, _, failed = device_coder().decode_chunks(
            data_, begin_, lanes, rank_, first_, self._code, rows_, int(rows[-1])
        )
        if bool(failed.any()):
            raise impossible(CodedError())
        return values
