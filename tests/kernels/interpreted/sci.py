"""SCI streams by the Triton backend from end to end, against those of the CPU; on a GPU pytest runs this file there.

Not collected by name: without a GPU the kernels need Triton's interpreter, see `interpreter.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import inrcodec
from inrcodec.image import Image
from inrcodec.options import SciOptions
from inrcodec.reconstruct.sci import SciReconstruction
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import VARIABLE, Backend, best_on_cpu

from .device import DEVICE

HERE = Backend("triton", DEVICE)
SHAPE = (12, 14, 13)


def volume() -> np.ndarray:
    z, y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in SHAPE), indexing="ij")
    return (1000 + 400 * np.sin(7 * x + 3 * y * z) + 150 * np.cos(9 * y)).astype(np.int16)


@pytest.fixture(
    scope="module", params=[pytest.param(("triton", 1), marks=pytest.mark.slow), ("reference", 2), pytest.param(("triton", 2), marks=pytest.mark.slow)]
)
def stream(request: pytest.FixtureRequest) -> Iterator[bytes]:
    """Streams encoded by two backends: of one block and one sine layer, and of two."""
    backend, size = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, backend)
        yield inrcodec.encode(
            volume(), bits_per_voxel=1.2 + 0.6 * size, method="sci", effort=1, restoration=False, sci=SciOptions(layers=size, blocks=size)
        )


def test_samples_are_those_of_the_cpu(stream: bytes) -> None:
    with Image(stream, HERE) as there, Image(stream, best_on_cpu()) as here:
        assert there.blocks.backend == HERE and here.blocks.backend.device == "cpu"
        found, expected = there[...].astype(int), here[...].astype(int)
        assert found.std() > 100
        assert np.abs(found - expected).max() <= 1 and (found != expected).mean() <= 0.01
        assert np.abs(found - volume()).mean() < 0.6 * np.abs(volume() - volume().mean()).mean()
        start, stop = np.array([3, 0, 5]), np.array([9, 4, 13])
        plain = [image.read_plain_box(start, stop) for image in (there, here)]
        assert np.abs(plain[0] - plain[1]).max() <= 1e-2
        assert np.array_equal(there[3:9, :4, 5:13], found[3:9, :4, 5:13])
        integers = [integers_of(image) for image in (there, here)]
        assert all(np.array_equal(a, b) for a, b in zip(*integers, strict=True))


def integers_of(image: Image) -> list[np.ndarray]:
    return [
        part
        for chunk in image._chunks(np.arange(image.blocks.tree.count))
        for part in (chunk.decoded.kind, chunk.decoded.mean, chunk.decoded.scale, *chunk.decoded.weights)
    ]


def reconstruction(image: Image, **changes: Any) -> SciReconstruction:
    """That of an image, by Triton, with something changed in its stream."""
    assert isinstance(image.blocks, SciReconstruction)
    return SciReconstruction(replace(image.blocks.stream, **changes), image.blocks.statistics, HERE)


def test_hostile_weights_are_refused_and_samples_may_stay_there(stream: bytes) -> None:
    start, stop = np.zeros(3, dtype=np.int64), np.array(SHAPE)
    with Image(stream, HERE) as image:
        sound = reconstruction(image).box_there(start, stop, image._chunks, np.dtype(np.int16))
        assert sound.device.type == DEVICE and np.array_equal(sound.cpu().numpy(), image[...])
        for step in (math.nan, math.inf):
            with pytest.raises(ContainerError, match="finite values"):
                reconstruction(image, step=step).box(start, start + 3, image._chunks)


def test_classes_without_kernels_are_decoded_on_the_cpu(stream: bytes) -> None:
    with Image(stream, HERE) as image:
        found = reconstruction(image, classes=((), (70, 3))).backend
    assert found.device == "cpu" and found.name != "triton"
    assert "2 to 64 neurons, found (70, 3)" in found.reason
