"""Pyramid streams on the GPU backend against the CPU's latents and samples. Run by `test_pyramid_triton.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from inrcodec.image import Image
from inrcodec.payload.pyramid import networks_from_section, write_chunk
from inrcodec.reconstruct import latents, pyramid_there
from inrcodec.reconstruct.pyramid import PyramidReconstruction
from inrcodec_formats.errors import ContainerError
from inrcodec_kernels.backend import Backend, best_on_cpu
from pyramid_streams import Made, made, random_field

from .device import DEVICE

HERE = Backend("triton", DEVICE)
SMALL = {
    "yx": made((5, 6), ((True, True),), 4, widths=(4, 4, 4)),
    "zyx": made((2, 3, 5), ((False, True, True), (True, True, True)), 4, widths=(4, 4, 4), networks=2),
    "tzyx": made((2, 2, 2, 4), ((False, True, True, True),), 3, widths=(4, 4, 4)),
    "bands": made((2, 3, 5), ((False, True, True), (True, True, True)), 4, widths=(4, 4, 4), networks=2, apart=True, split=1),
}
"""Several tiles on the finest level, some of them cut; the interpreter takes a second for 30 latents."""


@pytest.fixture(scope="module", params=SMALL)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Made, Image, Image]]:
    """A stream, on the GPU and on the CPU; tiles that one test has decoded are there in the next one."""
    blob = SMALL[request.param].blob()
    with Image(blob, HERE) as there, Image(blob, best_on_cpu()) as here:
        yield SMALL[request.param], there, here


def few_differ(found: np.ndarray, expected: np.ndarray) -> bool:
    """Rounding may fall to either side, in rare samples."""
    difference = np.abs(found.astype(int) - expected)
    return found.dtype == expected.dtype and difference.max() <= 1 and np.count_nonzero(difference) <= 2


def test_samples_are_those_of_the_cpu(pair: tuple[Made, Image, Image]) -> None:
    of, there, here = pair
    before = there.voxels_evaluated, here.voxels_evaluated
    found = there.read_tensor()
    assert found.device.type == DEVICE and found.cpu().numpy().std() > 1
    assert few_differ(found.cpu().numpy(), here[...]) and there.backend == HERE
    after = there.voxels_evaluated, here.voxels_evaluated
    assert [b - a for a, b in zip(before, after, strict=True)] == 2 * [found.numel()]
    for level, coded in enumerate(of.latents):
        decoded = there.blocks.latents.read(level, (0, 0, 0, 0), coded.shape)
        assert decoded.device.type == DEVICE and np.array_equal(decoded.cpu().numpy(), coded)


def test_displaced_frames_are_those_of_the_cpu() -> None:
    still = made((2, 5, 6), ((False, True, True),), 4, widths=(4, 4, 4))
    blob = replace(still, field=random_field((2, 4, 5), (5, 6), most=20)).blob()
    with Image(blob, HERE) as there, Image(blob, best_on_cpu()) as here:
        whole = there.read_tensor()
        assert whole.device.type == DEVICE and whole.cpu().numpy().std() > 1
        assert few_differ(whole.cpu().numpy(), here[...])
        assert there.voxels_evaluated == here.voxels_evaluated > whole.numel()
        assert np.array_equal(there[1, 1:4, 2:], whole.cpu().numpy()[1, 1:4, 2:])
        points = np.array([[0.5, 1.25, 3.0], [1.0, 3.0, 0.5]])
        assert np.abs(there.sample(points) - here.sample(points)).max() <= 1e-2


def test_every_way_to_ask_gives_the_same(pair: tuple[Made, Image, Image]) -> None:
    _, there, here = pair
    whole = there[...]
    start, stop = np.minimum(1, np.array(whole.shape) - 2), np.array(whole.shape) - 1
    assert np.array_equal(there.read_box(start, stop), whole[tuple(map(slice, start, stop))])
    key = (slice(None, None, -2),) * whole.ndim
    assert np.array_equal(there[key], whole[key])
    assert np.array_equal(np.concatenate(list(there.slabs())), whole)
    points = np.random.default_rng(0).uniform(-0.5, np.array(whole.shape) - 0.5, (9, whole.ndim))
    assert np.abs(there.sample(points) - here.sample(points)).max() <= 1e-2
    assert few_differ(there.read(scale=1.5), here.read(scale=1.5))
    plain = [image.read_plain_box(start, stop) for image in (there, here)]
    assert plain[0].dtype == np.float32 and np.abs(plain[0] - plain[1]).max() <= 1e-2


@pytest.mark.parametrize("pair", ["zyx"], indirect=True)
def test_a_box_comes_in_parts_and_in_halves(pair: tuple[Made, Image, Image], monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts where there are many latents; halved where the device's memory does not do."""
    _, there, _ = pair
    whole, refused = there[...], []
    monkeypatch.setattr(pyramid_there, "_SAMPLES", 1)
    assert np.array_equal(there[...], whole)
    plain = Image.read_tensor

    def small(image: Image, start: np.ndarray, stop: np.ndarray) -> torch.Tensor:
        if np.prod(stop - start) > whole.size // 2:
            refused.append(0)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(image, start, stop)

    monkeypatch.setattr(Image, "read_tensor", small)
    assert np.array_equal(there[...], whole) and refused


def test_channels_have_an_offset_each() -> None:
    of = made((3, 2, 4), ((False, True, True),), 4, widths=(4, 4, 4), further_offsets=(200, -300))
    for axes, shape in (("cyx", (3, 2, 4)), ("yxc", (2, 4, 3))):
        blob = of.blob(axes=axes, shape=shape)
        with Image(blob, HERE) as there, Image(blob, best_on_cpu()) as here:
            assert few_differ(there[...], here[...]) and there.shape == shape
            assert few_differ(there[1:3, 1:, 1:], here[1:3, 1:, 1:])


def test_only_what_is_seen_is_decoded_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "_CACHE_BYTES", 0)
    of = made((1, 12), ((False, True),), 4, widths=(4, 4, 4))
    with Image(of.blob(), HERE) as there, Image(of.blob(), best_on_cpu()) as here:
        held = []
        for columns in (slice(0, 1), slice(11, 12)):
            assert few_differ(there[:, columns], here[:, columns])
            kept = there.blocks.latents
            held.append(set(kept._decoded))
            assert kept._bytes == sum(tile.nbytes for tile in kept._decoded.values())
            assert held[-1] == set(here.blocks.latents._decoded)
        assert held[0] != held[1] and max(map(len, held)) < of.stream.tiles.count


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_tile_is_refused(number: int) -> None:
    """Of the coarser level, and of the finer one; the latents of neither are kept."""
    of = made((1, 4), ((False, True),), 4, widths=(4, 4, 4))
    tiles = list(of.tiles)
    tiles[number] = tiles[number][0], tiles[number][1] + b"\0\0"
    with Image(of.blob(chunks=[(2, write_chunk(tiles))]), HERE) as image:
        for read in (image.read_tensor, lambda: image[0, 0], lambda: image.sample(np.zeros((1, 2)))):
            with pytest.raises(ContainerError, match="impossible data"):
                read()
        assert list(image.blocks.latents._decoded) == list(range(number))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # of NaN, by the interpreter
def test_networks_beyond_all_numbers_are_refused() -> None:
    of = made((1, 3), (), 4, widths=(4, 4, 4))
    start, stop = np.zeros(2, dtype=np.int64), np.array([1, 3])
    with Image(of.blob(), HERE) as image:
        for step in (math.inf, math.nan, 1e30):
            stream = replace(of.stream, step=step)
            wild = PyramidReconstruction(stream, *networks_from_section(of.network, of.stream.layout, of.stream.precision), HERE)
            for dtype in (np.int16, np.float32):
                with pytest.raises(ContainerError, match="finite values"):
                    wild.box_there(start, stop, image._chunks, np.dtype(dtype))


def test_zeros_take_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    of = made((2, 3), (), 4, widths=(4, 4, 4))
    with Image(of.blob(chunks=[(1, write_chunk([(1, b"")]))]), HERE) as there:
        monkeypatch.setattr(there.blocks.latents._there._kernels, "decode_tiles", None)
        assert np.ptp(there[...]) == 0 and not there.blocks.latents.read(0, (0, 0, 0, 0), (1, 1, 2, 3)).any()
