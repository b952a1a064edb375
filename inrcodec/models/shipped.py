"""Networks that come with the package, from which fits begin and streams count differences.

Each file is named after a hash of its numbers, which a stream that needs it holds; files are never changed or taken away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .pyramid import PyramidLayout

FOLDER = "networks"
NAMES: tuple[str, ...] = ("3053a4f6",)
"""Hashes of the files, the newest first."""
PER_LEVEL = ("context.level_bias", "synthesis.gains", "synthesis.filters", "synthesis.first", "synthesis.skips")
"""Parameters with a row for each level, the coarsest last: a signal with fewer levels takes the first ones."""
PER_NETWORK = tuple(f"context.{name}" for name in ("first", "second", "second_bias", "last", "last_bias", "skip"))
"""Parameters of each network of a context model. Files hold those of one, as which all begin."""


@dataclass(frozen=True)
class ShippedNetworks:
    """Both networks of a pyramid as a stream would hold them.

    Attributes
    ----------
    name : str
        Eight hexadecimal digits.
    parameters : dict of str to ndarray of float32
        ``context.*`` and ``synthesis.*``.
    """

    name: str
    parameters: dict[str, NDArray[np.float32]]

    def fitted_to(self, layout: PyramidLayout) -> dict[str, NDArray[np.float32]] | None:
        """Parameters for a layout, or None if they have other shapes, or were trained to see a finer level, or no bands."""
        if layout.above or layout.split:
            return None
        shapes = {f"context.{name}": shape for name, shape in layout.context_shapes.items()}
        shapes |= {f"synthesis.{name}": shape for name, shape in layout.synthesis_shapes.items()}
        found = {}
        for name, shape in shapes.items():
            values = self.parameters[name]
            found[name] = values[: shape[0]] if name in PER_LEVEL else values
            if name in PER_NETWORK:
                found[name] = np.repeat(values[None], layout.networks, 0)
            if found[name].shape != shape:
                return None
        return found


def shipped(name: str) -> ShippedNetworks:
    """The networks of a name.

    Raises
    ------
    LookupError
        If this version has none of that name, or its file was changed.
    """
    if name not in NAMES:
        raise LookupError(f"expected the networks {name}, found {', '.join(NAMES) or 'none'}")
    return _loaded(name)


def first_shipped(layout: PyramidLayout) -> ShippedNetworks | None:
    """The newest networks that a layout can begin with."""
    return next((n for n in map(shipped, NAMES) if n.fitted_to(layout) is not None), None)


@cache
def _loaded(name: str) -> ShippedNetworks:
    with resources.as_file(resources.files(__package__) / FOLDER / f"{name}.npz") as path, np.load(path) as file:
        whole = {key: file[key] for key in file.files}
    if (found := digest(whole)) != name:
        raise LookupError(f"expected the networks {name}, found {found} in their place")
    places = whole.pop("places")
    values = {
        key: np.ldexp(array.astype(np.float32), -int(p)) for (key, array), p in zip(whole.items(), places.tolist(), strict=True)
    }
    return ShippedNetworks(name, values)


def digest(whole: Mapping[str, NDArray[np.int16]]) -> str:
    """The name of networks given as whole numbers and their binary places."""
    found = hashlib.sha256()
    for key, array in whole.items():
        found.update(f"{key} {array.shape}".encode() + array.astype("<i2").tobytes())
    return found.hexdigest()[:8]


def write_networks(folder: Path, parameters: Mapping[str, tuple[NDArray[np.int16], int]]) -> str:
    """Write a file of networks, given as whole numbers with their binary places; returns its name."""
    whole = {key: array for key, (array, _) in parameters.items()}
    whole["places"] = np.array([p for _, p in parameters.values()], dtype=np.int16)
    name = digest(whole)
    np.savez_compressed(folder / f"{name}.npz", **whole)  # type: ignore[arg-type]
    return name
