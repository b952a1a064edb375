"""From decoded integers to samples, one file per system."""

from __future__ import annotations

from collections.abc import Callable

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend

from ..payload.parted import TAG as IN_PARTS
from .base import Chunk, Reconstruction
from .moved import Moved, field_of
from .parted import PartedPyramid
from .pyramid import PyramidReconstruction
from .restored import Restorer
from .sci import SciReconstruction
from .tinc import TincReconstruction

__all__ = ["Chunk", "Reconstruction", "Restorer", "reconstruction_of"]


Make = Callable[[Container, tuple[int, ...], Backend], Reconstruction]
"""Reads a stream's sections, of a signal of a shape."""

_SYSTEMS: dict[str, Make] = {
    "pyramid": PyramidReconstruction.of,
    "sci": SciReconstruction.of,
    "tinc": TincReconstruction.of,
}


def reconstruction_of(container: Container, backend: Backend) -> Reconstruction:
    """Read the sections of a stream by the system that made it.

    Raises
    ------
    ContainerError
        If the method is unknown, a section is missing or its contents are impossible.
    """
    method = container.header.method
    if method not in _SYSTEMS:
        known = ", ".join(_SYSTEMS)
        raise ContainerError(f"expected the method {known}, found {method!r}; get a newer inrcodec")
    if method == "pyramid" and IN_PARTS in container.sections:
        return PartedPyramid.of(container, backend)
    make, shape, field = _SYSTEMS[method], container.header.coded_shape, field_of(container)
    if field is None:
        return make(container, shape, backend)
    return Moved(make(container, (len(field.nodes), *field.still), backend), field)
