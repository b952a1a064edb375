"""Whole TINC streams on the GPU backend against the CPU's samples. Run by `test_tinc_triton.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import inrcodec
from inrcodec.fitting.descent import SegmentFit, TrainingCells
from inrcodec.image import Image
from inrcodec.models.restoration import Restoration, RestorationLayout
from inrcodec.models.tinc import TincLayout
from inrcodec.options import TincOptions
from inrcodec.partition.octree import cell_pyramid
from inrcodec.reconstruct import Restorer
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend
from samples import scan

from .device import DEVICE

GPU, CPU = Backend("triton", DEVICE), Backend("numba")


@pytest.fixture(scope="module")
def stream() -> bytes:
    return inrcodec.encode(scan((6, 11, 9)), ratio=5, effort=1, restoration=False, device="cpu", method="tinc")


def pair(stream: bytes, restored: bool) -> tuple[Image, Image]:
    """The same stream on the GPU and on the CPU, with a network that changes its samples if wanted."""
    images = []
    for backend in (GPU, CPU):
        image = Image(stream, backend)
        if restored:
            network = Restoration.initial(RestorationLayout(width=4, ndim=3), seed=3)
            network.parameters["last"] = torch.linspace(-0.4, 0.5, network.parameters["last"].numel()).reshape(network.parameters["last"].shape)
            image.restorer = Restorer(network, 9 * image.blocks.step, image.read_plain_box, image.shape, backend)
        images.append(image)
    return images[0], images[1]


def check_samples(there: Image, here: Image, start: list[int], stop: list[int]) -> None:
    """All samples are those of the CPU, and those of a box a part of them."""
    found = there.read_tensor()
    assert found.device.type == DEVICE and there.backend == GPU
    difference = np.abs(found.cpu().numpy().astype(int) - here[...])
    assert difference.max() <= 1 and np.count_nonzero(difference) <= 2
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    assert np.array_equal(there.read_box(np.array(start), np.array(stop)), found.cpu().numpy()[box])
    assert there.voxels_evaluated >= here.voxels_evaluated > 0


@pytest.mark.parametrize("restored", [False, True], ids=["plain", "restored"])
def test_samples_are_those_of_the_cpu(stream: bytes, restored: bool) -> None:
    check_samples(*pair(stream, restored), [1, 2, 3], [4, 9, 8])


@pytest.mark.parametrize("restored", [pytest.param(False, id="plain", marks=pytest.mark.slow), pytest.param(True, id="restored")])
def test_displaced_frames_are_those_of_the_cpu(restored: bool) -> None:
    clip = np.stack([scan((1, 9, 12), "uint8")[0, t : t + 6, 2 * t : 2 * t + 6] for t in range(2)])
    there, here = pair(inrcodec.encode(clip, bits_per_voxel=40, effort=1, restoration=False, device="cpu", axes="tyx", motion=True, method="tinc"), restored)
    assert "still_frames" in there.blocks.details()
    check_samples(there, here, [1, 2, 3], [2, 5, 6])


def test_a_box_too_large_for_the_device_is_halved(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = pair(stream, False)
    plain, refused = Image.read_tensor, []

    def small(image: Image, start: np.ndarray, stop: np.ndarray) -> torch.Tensor:
        if np.prod(stop - start) > 400:
            refused.append(0)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(image, start, stop)

    monkeypatch.setattr(Image, "read_tensor", small)
    assert np.array_equal(np.concatenate(list(there.slabs())), here[...]) and refused
    monkeypatch.setattr(Image, "read_tensor", lambda image, start, stop: small(image, np.zeros(1), np.full(1, 999)))
    with pytest.raises(torch.OutOfMemoryError):
        there.read_box(np.zeros(3, dtype=np.int64), np.ones(3, dtype=np.int64))


def test_a_damaged_chunk_is_refused(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    there, _ = pair(stream, False)
    assert there.blocks.on_device is not None
    coded = there._coded(there.blocks.on_device.leaves(np.zeros(3, dtype=np.int64), np.array(there.shape)))
    broken = coded._replace(bodies=[coded.bodies[0][:4] + b"\xff" + coded.bodies[0][4:], *coded.bodies[1:]])
    monkeypatch.setattr(Image, "_coded", lambda image, leaves: broken)
    with pytest.raises(ContainerError, match="impossible data"):
        there.read_tensor()


DENSE: dict[str, dict[str, Any]] = {
    "local": {"coordinates": "local", "layers": (1,), "level_ratios": (1.0,)},
    "global": {"coordinates": "global", "layers": (2,), "level_ratios": (1.0,)},
    "local, segments": {"coordinates": "local", "layers": (1, 1), "level_ratios": (1.0, 0.8)},
    "global, segments": {"coordinates": "global", "layers": (1, 2), "level_ratios": (1.0, 0.8)},
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, id=name, marks=[pytest.mark.slow] * ("segments" not in name)) for name, kind in DENSE.items()]
)
def test_dense_roots_are_evaluated_on_the_device(kind: dict[str, Any]) -> None:
    options = TincOptions(root="dense", network_share=0.3, starts=1, leaf_edge=4, leaf_levels=1, **kind)
    dense = inrcodec.encode(scan((6, 8, 7)), ratio=2, effort=1, restoration=False, device="cpu", tinc=options, method="tinc")
    with Image(dense, GPU) as there, Image(dense, CPU) as here:
        assert there.backend == GPU
        found, expected = there[...].astype(int), here[...].astype(int)
        difference = np.abs(found - expected)
        assert difference.max() <= 1 and np.count_nonzero(difference) <= 2
        start, stop = np.array([1, 2, 3]), np.array([5, 4, 6])
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        assert np.array_equal(there.read_box(start, stop), found[box])


def test_a_dense_root_is_fitted_on_the_device() -> None:
    """The same draws give the same loss and the same gradients, so the same network."""
    volume = scan((6, 8, 7))
    cells = cell_pyramid(volume.shape, (2, 2, 2))
    layout = TincLayout(
        volume.shape, cells, len(cells) - 2, features=16, root="dense", coordinates="global", hidden=(8,), segments=((1, 7),)
    )
    index = np.argwhere(np.ones(layout.grid(layout.top), dtype=bool))[:4]
    found = [
        SegmentFit(layout, volume, 0.0, TrainingCells(np.full(len(index), layout.top), index), 9.0, 3, backend)
        .run(2, 1, lambda fraction, note: None)
        .parameters
        for backend in (GPU, CPU)
    ]
    for name, parameter in found[0].items():
        assert torch.allclose(parameter, found[1][name], atol=1e-4)


def test_a_dense_root_too_wide_for_kernels_stays_on_the_cpu_and_says_why() -> None:
    options = TincOptions(root="dense", layers=(8,), level_ratios=(1.0,), leaf_levels=1, starts=1)
    dense = inrcodec.encode(scan((6, 8, 7)), ratio=2, effort=1, restoration=False, device="cpu", tinc=options, method="tinc")
    with Image(dense, GPU) as image:
        assert image.backend.name == "numba" and "Triton: expected 1 to 6 sine layers" in image.backend.reason
        assert np.array_equal(image[...], Image(dense, CPU)[...])
