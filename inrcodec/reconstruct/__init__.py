"""From decoded integers to samples, one file per system."""

from __future__ import annotations

from collections.abc import Callable

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend

from .base import Chunk, Reconstruction
from .pyramid import PyramidReconstruction
from .restored import Restorer
from .sci import SciReconstruction
from .tinc import TincReconstruction

__all__ = ["Chunk", "Reconstruction", "Restorer", "reconstruction_of"]

_SYSTEMS: dict[str, Callable[[Container, Backend], Reconstruction]] = {
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
    return _SYSTEMS[method](container, backend)
