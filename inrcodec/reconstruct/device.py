"""Boxes of a TINC stream decoded on a CUDA device: compressed bytes go up, and samples stay until they are fetched."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.rans import CodedError, device_coder

from ..coding.lanes import impossible
from ..coding.readouts import ReadoutCoder
from ..models.tinc import TincModel
from ..payload.tinc import TincStream
from .base import CodedChunks, DeviceBoxes, unsound_refused

IntArray = NDArray[np.int64]


class TincBoxes(DeviceBoxes):
    """See `base.DeviceBoxes`. One launch decodes all chunks, two for each level write its leaves, one corrects them.

    Parameters
    ----------
    stream : TincStream
    model : TincModel
    coder : ReadoutCoder
    backend : Backend
        ``"triton"``.
    evaluated : callable
        ``evaluated(samples)``: told how many samples were made.
    """

    def __init__(
        self,
        stream: TincStream,
        model: TincModel,
        coder: ReadoutCoder,
        backend: Backend,
        evaluated: Callable[[int], None],
    ) -> None:
        super().__init__(stream.low, stream.high, backend)
        self.stream, self.model, self.coder = stream, model, coder
        self.device, self._evaluated = backend.device, evaluated
        self._code = device_coder().DeviceCode.of(coder.code, self.device)

    def leaves(self, start: IntArray, stop: IntArray) -> IntArray:
        """The leaves that a box cuts."""
        return self.stream.tree.overlapping(start, stop)

    def samples(self, start: IntArray, stop: IntArray, coded: CodedChunks, dtype: torch.dtype) -> Tensor:
        """Samples of a box before correction: floats, or integers rounded and clipped."""
        stream, tree, out = self.stream, self.stream.tree, torch.empty(tuple((stop - start).tolist()), dtype=dtype, device=self.device)
        leaves = np.concatenate([np.arange(a, b) for a, b in zip(coded.first, coded.stop, strict=True)])
        level = tree.level[leaves]
        values = self._decoded(coded, np.searchsorted(stream.geometry.levels, level))
        at = 0
        for kind in stream.geometry.levels:
            own = leaves[level == kind]
            width = stream.geometry.bands[kind].width + 1
            part = values[at : at + len(own) * width].view(len(own), width)[:, :-1]
            at += part.shape[0] * width
            corner = torch.from_numpy(tree.origin[own] - start)
            with unsound_refused():
                readout = self.model.leaves(kind, tree.index[own], self.backend)
                readout.synthesise(out, corner, part, stream.step, stream.offset, stream.low, stream.high, self.backend)
        self._evaluated(out.numel())
        return out

    def _decoded(self, coded: CodedChunks, rank: IntArray) -> Tensor:
        """Coefficients of all leaves of some chunks, level by level, a zero behind each leaf's."""
        rows = self.coder.code.rows(rank)
        begin = np.cumsum([0, *map(len, coded.bodies)])
        first = np.concatenate([[0], np.cumsum(coded.stop - coded.first)])
        data = np.frombuffer(b"".join(coded.bodies), dtype=np.uint8)
        arrays = [torch.from_numpy(a.copy()).to(self.device) for a in (data, begin, rank, first, rows[:-1])]
        data_, begin_, rank_, first_, rows_ = arrays
        lanes = self.coder.statistics.lanes
        values, _, failed = device_coder().decode_chunks(
            data_, begin_, lanes, rank_, first_, self._code, rows_, int(rows[-1])
        )
        if bool(failed.any()):
            raise impossible(CodedError())
        return values
