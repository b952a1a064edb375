"""From decoded integers to samples, one file per system."""

from __future__ import annotations

from collections.abc import Callable

from inrcodec_formats.container import Container
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend

from ..payload import motion
from ..payload.parted import TAG as IN_PARTS
from .base import Chunk, Reconstruction
from .moved import MovedPyramid
from .parted import PartedPyramid
from .pyramid import PyramidReconstruction
from .restored import Restorer
from .sci import SciReconstruction
from .tinc import TincReconstruction

__all__ = ["Chunk", "Reconstruction", "Restorer", "reconstruction_of"]


def _pyramid(container: Container, backend: Backend) -> Reconstruction:
    if IN_PARTS in container.sections:
        return PartedPyramid.of(container, backend)
    return (MovedPyramid if motion.TAG in container.sections else PyramidReconstruction).of(container, backend)


_SYSTEMS: dict[str, Callable[[Container, Backend], Reconstruction]] = {
    "pyramid": _pyramid,
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
