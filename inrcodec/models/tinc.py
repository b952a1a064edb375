"""TINC: networks that share segments along the branches of an octree.

The network of leaf k is a chain: a root segment that all leaves share, one segment for each further network level that
the leaves below the same cell share, and a linear readout of the leaf's own::

    f_k(x) = readout_k( segment_S[ancestor_S(k)]( ... segment_1[ancestor_1(k)]( root(x) ) ) )

Below the last network level S the tree goes on splitting, adaptively: those leaves differ in size and readout only.

The root is either ``separable`` (products of per-axis sine waves of fixed frequencies, see `inrcodec_kernels.separable`;
it has no parameters and no further segments follow it) or ``dense`` (ordinary sine layers, fitted). With ``local`` coordinates every leaf is evaluated at the same block coordinates, so leaves that share
all segments share their features; with ``global`` ones the root sees the position in the volume and every further
segment, besides its parent's activations, its own cell's coordinates.

References
----------
Yang et al. 2023, "TINC: Tree-structured Implicit Neural Compression" (CVPR), arXiv:2211.06689.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from inrcodec_kernels.backend import Backend
from inrcodec_kernels.siren import sine_chain

from .readout import ChainReadout, DenseReadout, Readout, SeparableReadout
from .siren import coordinate_layer, hidden_layer


@dataclass(frozen=True)
class TincLayout:
    """Everything that fixes the shape of a TINC network's parameters.

    Attributes
    ----------
    shape : tuple of int
        Extents of the signal.
    cells : tuple of tuple of int
        Cell extents per tree level, level 0 first.
    top : int
        Shallowest level of a leaf; not above the last network level.
    features : int
        Most readout weights a leaf may have, bias included.
    root : str
        ``"separable"`` or ``"dense"``.
    coordinates : str
        ``"local"`` or ``"global"``.
    hidden : tuple of int
        Widths of a dense root's layers.
    segments : tuple of (int, int)
        (layers, width) of the segments of network levels 1, 2, ...
    axis_weights : tuple of int
        Relative squared frequencies that order a separable root's features, one per axis, 1..255.

    Notes
    -----
    A separable root excludes segments, hidden layers and global coordinates.
    """

    shape: tuple[int, ...]
    cells: tuple[tuple[int, ...], ...]
    top: int
    features: int = 8192
    root: str = "separable"
    coordinates: str = "local"
    hidden: tuple[int, ...] = ()
    segments: tuple[tuple[int, int], ...] = ()
    axis_weights: tuple[int, ...] = ()

    @property
    def ndim(self) -> int:
        """Number of coordinate axes."""
        return len(self.shape)

    @property
    def leaf_levels(self) -> range:
        """Tree levels at which leaves may lie."""
        return range(self.top, len(self.cells))

    @property
    def shared(self) -> bool:
        """Whether all leaves of a level have the same features."""
        return self.coordinates == "local" and not self.segments

    @property
    def networks(self) -> list[int]:
        """Nodes per network level."""
        return [int(np.prod(self.grid(level))) for level in range(len(self.segments) + 1)]

    def grid(self, level: int) -> tuple[int, ...]:
        """Cells of a tree level along each axis."""
        return tuple(-(-n // e) for n, e in zip(self.shape, self.cells[level], strict=True))

    def lattice(self, level: int) -> np.ndarray:
        """Frequency index of each readout weight of a leaf at `level`, the constant first; shape (W, d).

        For a dense root there is no frequency: the first column counts the features in bands, the others are 0.
        """
        if level not in self._lattices:
            self._lattices[level] = self._lattice(level)
            self._lattices[level].flags.writeable = False
        return self._lattices[level]

    @cached_property
    def _lattices(self) -> dict[int, np.ndarray]:
        return {}

    def _lattice(self, level: int) -> np.ndarray:
        cell = self.cells[level]
        most = min(self.features, math.prod(cell))
        if self.root == "dense":
            width = min(most, self.final_width + 1)
            rank = np.zeros((width, self.ndim), dtype=np.int64)
            rank[:, 0] = np.ceil((np.sqrt(8.0 * np.arange(width) + 1) - 1) / 2)
            return rank
        # A wave that a cell cannot hold is of no use there; a cap keeps the table small for large cells.
        edges = [min(e, 32) for e in cell]
        index = np.stack(np.meshgrid(*(np.arange(e) for e in edges), indexing="ij"), -1).reshape(-1, self.ndim)
        radius = (index**2 * np.asarray(self.axis_weights)).sum(1)
        order = np.lexsort((*index.T, radius))
        return index[order[:most]].astype(np.int64)

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of the layers that each leaf's network has of its own; none where all leaves of a level share features."""
        return () if self.shared else (*self.hidden, *(width for layers, width in self.segments for _ in range(layers)))

    @property
    def final_width(self) -> int:
        """Width of the activations that the readouts see when the root is dense."""
        return self.segments[-1][1] if self.segments else self.hidden[-1]


@dataclass
class TincModel:
    """Parameters of the shared segments and the forward definition; readouts live with the coder.

    Attributes
    ----------
    layout : TincLayout
    parameters : dict of str to Tensor
        ``root.i.weight``/``.bias`` and ``segment.l.i.weight``/``.bias`` with a leading node axis; none when the
        root is separable.
    """

    layout: TincLayout
    parameters: dict[str, Tensor]
    _shared: dict[int, Readout] = field(default_factory=dict, repr=False)

    @classmethod
    def initial(cls, layout: TincLayout, *, seed: int = 0, bandwidth: float = 6.0) -> TincModel:
        """Draw the initial parameters.

        Parameters
        ----------
        layout : TincLayout
        seed : int
            Of the draw; a separable root has nothing to draw.
        bandwidth : float
            RMS frequency of the coordinate layers, radians per unit coordinate.
        """
        generator = torch.Generator().manual_seed(seed)
        parameters: dict[str, Tensor] = {}
        shapes = parameter_shapes(layout)
        for name, shape in shapes.items():
            if not name.endswith(".weight"):
                continue
            layer, bias = name.removesuffix(".weight"), name.removesuffix("weight") + "bias"
            draw = partial(coordinate_layer, bandwidth=bandwidth) if layer == "root.0" else hidden_layer
            parameters[name], parameters[bias] = draw(*shape, generator=generator)
        return cls(layout, parameters)

    def with_parameters(self, parameters: dict[str, Tensor]) -> TincModel:
        """The same network with other weights."""
        return TincModel(self.layout, parameters)

    def readout(self, level: int, index: np.ndarray) -> Readout:
        """Readouts of leaves: whitened features and what can be done with them.

        Parameters
        ----------
        level : int
            Tree level of the leaves.
        index : ndarray of int, shape (m, d)
            Positions of the leaves in the grid of `level`; without effect when the features are shared.
        """
        if level in self._shared:
            return self._shared[level]
        cell = self.layout.cells[level]
        made: Readout
        if self.layout.root == "separable":
            made = SeparableReadout(cell, self.layout.lattice(level))
        else:
            made = DenseReadout(lambda points: self.features(level, points, index), cell)
        if self.layout.shared:
            self._shared[level] = made
        return made

    def leaves(self, level: int, index: np.ndarray, backend: Backend) -> Readout | ChainReadout:
        """As `readout`, by a backend that is suited: features that are a leaf's own are evaluated and not stored."""
        if self.layout.shared or backend.name == "reference":
            return self.readout(level, index)
        width = len(self.layout.lattice(level))
        weights = sum(math.prod(shape[1:]) for shape in parameter_shapes(self.layout).values())
        return ChainReadout(
            lambda part: self.chains(level, index[part], backend.device), weights, self.layout.cells[level], width, backend
        )

    def chains(self, level: int, index: np.ndarray, device: str = "cpu") -> list[Tensor]:
        """Layers of the network that each leaf has, over its own block coordinates; see `inrcodec_kernels.chains.moments`.

        Coordinates in an ancestor's cell are ``scale x + shift`` of the leaf's own x, so scale and shift go into the
        weights. Differentiable by the parameters.

        Parameters
        ----------
        level, index
            As in `features`; one chain for all leaves where the features are shared.
        device : str
            Where the layers are wanted.

        Returns
        -------
        list of Tensor, shapes (m or 1, n_in + 1, n_out)
        """
        count, see = 1 if self.layout.shared else len(index), self.layout.coordinates == "global"
        root = torch.zeros(count, dtype=torch.int64)
        made = []
        for i in range(len(self.layout.hidden)):
            layer = self._stacked(f"root.{i}", root, device)
            made.append(self._folded(layer, level, index, 0) if see and i == 0 else layer)
        for network, (layers, _) in enumerate(self.layout.segments, start=1):
            node = torch.from_numpy(self._ancestor(level, index, network))
            for i in range(layers):
                layer = self._stacked(f"segment.{network}.{i}", node, device)
                made.append(self._folded(layer, level, index, network) if see and i == 0 else layer)
        return made

    def _stacked(self, name: str, node: Tensor, device: str) -> Tensor:
        """Weights of a layer of some nodes, the bias the last row."""
        weight, bias = self.parameters[f"{name}.weight"].to(device), self.parameters[f"{name}.bias"].to(device)
        whole = torch.cat([weight, bias.unsqueeze(1)], dim=1)
        return whole.expand(len(node), -1, -1) if len(whole) == 1 else whole[node.to(device)]

    def _folded(self, layer: Tensor, level: int, index: np.ndarray, ancestor: int) -> Tensor:
        """A layer whose last rows but the bias read coordinates in the ancestor's cell, made to read the leaf's own."""
        scale, shift = (array.to(layer.device) for array in self._placement(level, index, ancestor))
        above, coordinates, bias = layer.split([layer.shape[1] - 1 - len(scale), len(scale), 1], dim=1)
        moved = bias.double() + shift.unsqueeze(1) @ coordinates.double()
        return torch.cat([above, (scale[:, None] * coordinates).to(layer.dtype), moved.to(layer.dtype)], dim=1)

    def features(self, level: int, points: Tensor, index: np.ndarray) -> Tensor:
        """Features of a dense root's network that the readouts of leaves at `level` see, the constant 1 first.

        Parameters
        ----------
        level : int
            Tree level of the leaves.
        points : Tensor, shape (N, d)
            Block coordinates, cell-centred: sample i of n lies at ``(2 i + 1) / n - 1``.
        index : ndarray of int, shape (m, d)
            Positions of the leaves in the grid of `level`; without effect when the features are shared.

        Returns
        -------
        Tensor, shape (m or 1, N, W)
        """
        root = [self._layer(f"root.{i}", torch.zeros(1, dtype=torch.int64)) for i in range(len(self.layout.hidden))]
        hidden = sine_chain(self._root_points(level, points, index), root)
        for network, (layers, _) in enumerate(self.layout.segments, start=1):
            node = torch.from_numpy(self._ancestor(level, index, network))
            if self.layout.coordinates == "global":
                own = self._relative_points(level, points, index, network)
                hidden = torch.cat([hidden, own.to(hidden.dtype)], dim=-1)
            chain = [self._layer(f"segment.{network}.{i}", node) for i in range(layers)]
            hidden = sine_chain(hidden, chain)
        ones = torch.ones((*hidden.shape[:-1], 1), dtype=hidden.dtype, device=hidden.device)
        width = len(self.layout.lattice(level))
        return torch.cat([ones, hidden], dim=-1)[..., :width]

    def _layer(self, name: str, node: Tensor) -> tuple[Tensor, Tensor]:
        return self.parameters[f"{name}.weight"][node], self.parameters[f"{name}.bias"][node]

    def _root_points(self, level: int, points: Tensor, index: np.ndarray) -> Tensor:
        points = points.to(next(iter(self.parameters.values())).dtype)
        if self.layout.coordinates == "local":
            return points.unsqueeze(0)
        return self._relative_points(level, points, index, 0)

    def _relative_points(self, level: int, points: Tensor, index: np.ndarray, ancestor: int) -> Tensor:
        """Coordinates of a leaf's points inside its ancestor's cell, shape (m, N, d)."""
        scale, shift = (array.to(points.dtype) for array in self._placement(level, index, ancestor))
        return points.unsqueeze(0) * scale + shift.unsqueeze(1)

    def _placement(self, level: int, index: np.ndarray, ancestor: int) -> tuple[Tensor, Tensor]:
        """Scale (d,) and shift (m, d) from leaves' coordinates to those of their ancestor's cell, float64."""
        cell = np.asarray(self.layout.cells[level])
        outer = np.asarray(self.layout.cells[ancestor])
        start = (index * cell) % outer
        return torch.from_numpy(cell / outer), torch.from_numpy((2 * start + cell) / outer - 1)

    def _ancestor(self, level: int, index: np.ndarray, network: int) -> np.ndarray:
        place = index * np.asarray(self.layout.cells[level]) // np.asarray(self.layout.cells[network])
        return np.ravel_multi_index(tuple(place.T), self.layout.grid(network)).astype(np.int64)


def parameter_shapes(layout: TincLayout) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, in stream order, without making any."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = layout.ndim
    for i, n_out in enumerate(layout.hidden):
        shapes[f"root.{i}.weight"], shapes[f"root.{i}.bias"] = (1, width, n_out), (1, n_out)
        width = n_out
    extra = layout.ndim if layout.coordinates == "global" else 0
    for level, (layers, n_out) in enumerate(layout.segments, start=1):
        nodes = layout.networks[level]
        for i in range(layers):
            n_in = width + extra if i == 0 else n_out
            shapes[f"segment.{level}.{i}.weight"] = (nodes, n_in, n_out)
            shapes[f"segment.{level}.{i}.bias"] = (nodes, n_out)
        width = n_out
    return shapes


def parameter_count(layout: TincLayout) -> int:
    """Number of parameters in the shared segments."""
    return sum(math.prod(shape) for shape in parameter_shapes(layout).values())
