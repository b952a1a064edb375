"""A box of blended blocks on a CUDA device: sums stay there, and so may the samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import in_halves
from . import triton
from .reference import UNSOUND, Blocks, Format, Networks


class _Blocks(NamedTuple):
    origin: Tensor
    extent: Tensor
    scale: Tensor
    mean: Tensor


class _Networks(NamedTuple):
    widths: tuple[int, ...]
    quantised: Tensor
    steps: Tensor
    start: Tensor


class Box:
    """As `siren.BlendedBox`. Without a halo every block is rounded straight into the samples.

    Parameters
    ----------
    shape : tuple of int
    halo : int
    form : Format
    device : str
    """

    def __init__(self, shape: tuple[int, ...], halo: int, form: Format, device: str) -> None:
        self.halo, self.form = halo, form
        self._unsound = torch.zeros(1, dtype=torch.int32, device=device)
        if halo:
            self._total = torch.zeros(shape, dtype=torch.int64, device=device)
            self._share = torch.zeros(shape, dtype=torch.int32, device=device)
        else:
            empty = np.clip(np.rint(form.offset), form.low, form.high) if form.rounded else form.offset
            self._out = torch.full(shape, float(empty), dtype=form.torch_dtype, device=device)

    def add(self, blocks: Blocks, networks: Networks) -> None:
        """Add blocks of one class, in halves where the device has not the memory for all of them."""

        def work(begin: int, end: int) -> None:
            self._add(blocks.part(begin, end), networks.part(begin, end))

        if len(blocks.origin):
            in_halves(work, 0, len(blocks.origin))

    def _add(self, blocks: Blocks, networks: Networks) -> None:
        largest = int((blocks.extent + 2 * self.halo).prod(axis=1).max())
        there, nets = self._uploaded(blocks, networks)
        if self.halo:
            triton.accumulate(
                self._total, self._share, there, nets, self.halo, unsound=self._unsound, largest=largest
            )
        else:
            triton.place(
                self._out, there, nets, self.form.offset, self.form.low, self.form.high,
                unsound=self._unsound, largest=largest,
            )  # fmt: skip

    def _uploaded(self, blocks: Blocks, networks: Networks) -> tuple[_Blocks, _Networks]:
        def up(array: NDArray[np.generic], dtype: type) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array, dtype)).to(self._unsound.device)

        origin, extent, scale, mean = blocks
        widths, quantised, steps, start = networks
        return (
            _Blocks(up(origin, np.int32), up(extent, np.int32), up(scale, np.float32), up(mean, np.float32)),
            _Networks(widths, up(quantised, np.int32), up(steps, np.float32), up(start, np.float32)),
        )

    def finish(self) -> Tensor:
        """Samples, on the device; waits for it, to refuse networks that are not finite."""
        if self.halo:
            self._out = torch.empty(self._total.shape, dtype=self.form.torch_dtype, device=self._total.device)
            triton.finish(self._total, self._share, self.form.offset, self.form.low, self.form.high, self._out)
        if int(self._unsound):
            raise ValueError(UNSOUND)
        return self._out
