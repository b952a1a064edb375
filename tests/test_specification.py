"""Streams of the methods `sci` and `pyramid`, and the section FILT, are what a decoder written from the page alone makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inrcodec
from golden.make import stored_integers
from inrcodec.models.pyramid import COARSE, FINE
from inrcodec.options import SciOptions
from page.motion import displaced, motion_of
from page.parted import read_parts
from page.pyramid import read_latents, read_networks, read_pyramid, synthesised
from page.restoration import read_restoration, restored
from page.sci import decoded, integers_of, read_blocks
from page.stream import Index, Stream, read_stream, rounded
from pyramid_streams import ABOVE, SHAPES, SPLIT, made, made_moving, made_parted, made_split, parted_blob
from samples import scan

GOLDEN = Path(__file__).parent / "golden"


def half_flat(shape: Index, dtype: str = "int16") -> np.ndarray:
    """A signal whose blocks are partly constants."""
    signal = scan(shape, dtype)
    signal[..., : shape[-1] // 2] = 77
    return signal


def check(blob: bytes, integers: np.ndarray, samples: np.ndarray) -> None:
    stream = read_stream(blob)
    tree, chunks = read_blocks(stream)
    assert [number for blocks in chunks for number in integers_of(blocks)] == integers.tolist()
    values = decoded(stream, tree, [block for blocks in chunks for block in blocks])
    difference = np.abs(stream.as_listed(values) - samples)
    assert stream.dtype == samples.dtype
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1 + difference.size // 1000


@pytest.mark.parametrize("name", ["sci", "sci_series", "sci_channels", "sci_clip"])
def test_golden_sci_streams_decode_by_the_page(name: str) -> None:
    expected = np.load(GOLDEN / f"{name}.npz")
    check((GOLDEN / f"{name}.inrc").read_bytes(), expected["integers"], expected["samples"])


SEVERAL_CLASSES = (half_flat((20, 30, 36)), {"ratio": 8, "seed": 5, "sci": SciOptions(blocks=60, halo=2, layers=2)})
SHARP_PLANE = (half_flat((50, 70), "uint16"), {"bits_per_voxel": 6, "sci": SciOptions(blocks=40, halo=0, layers=1)})


@pytest.mark.parametrize(("signal", "choices"), [SEVERAL_CLASSES, SHARP_PLANE], ids=["several_classes", "sharp_plane"])
def test_fresh_sci_streams_decode_by_the_page(signal: np.ndarray, choices: dict[str, object]) -> None:
    """What the golden streams lack: constant blocks, several classes, levels above *T*, restoration."""
    blob = inrcodec.encode(signal, method="sci", effort=1, **choices)
    stream = read_stream(blob)
    tree, chunks = read_blocks(stream)
    assert signal.ndim == 2 or "FILT" in stream.sections, "the plane is too small for one to be worth its bytes"
    assert len(tree.leaves) > 2 ** len(signal.shape)
    assert {0, 1} <= {block.kind for blocks in chunks for block in blocks}
    with inrcodec.open(blob) as image:
        check(blob, stored_integers(image), image[...])


def decoded_pyramid(stream: Stream) -> tuple[np.ndarray, list[int], tuple[int, int]]:
    """Samples in coded order, not rounded; latents tile by tile; the range of samples."""
    if "PART" in stream.sections:
        axis, parts = read_parts(stream)
        values, latents, ranges = zip(*map(decoded_pyramid, parts), strict=True)
        assert len(set(ranges)) == 1
        return np.concatenate(values, axis), [y for part in latents for y in part], ranges[0]
    motion, shape = motion_of(stream)
    tree = read_pyramid(stream.sections["TREE"], shape, stream.channels)
    context, synthesis = read_networks(stream.sections["NETW"], tree)
    latents, listed = read_latents(stream, tree, context)
    values = synthesised(latents, tree, synthesis).reshape(shape)
    return displaced(values, motion, stream.shape) if motion else values, listed, (tree.low, tree.high)


def check_pyramid(blob: bytes, integers: np.ndarray, samples: np.ndarray) -> None:
    stream = read_stream(blob)
    assert stream.method == "pyramid" and stream.dtype == samples.dtype
    values, listed, bounds = decoded_pyramid(stream)
    assert listed == integers.tolist()
    difference = np.abs(stream.as_listed(rounded(values, *bounds)) - samples)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1 + difference.size // 1000


@pytest.mark.parametrize("name", ["pyramid", "pyramid_above", "pyramid_fine", "pyramid_fine_above", "pyramid_apart", "pyramid_networks", "pyramid_wide", "pyramid_bands", "pyramid_series", "pyramid_channels", "pyramid_clip", "pyramid_moved", "pyramid_parts"])
def test_golden_pyramid_streams_decode_by_the_page(name: str) -> None:
    expected = np.load(GOLDEN / f"{name}.npz")
    check_pyramid((GOLDEN / f"{name}.inrc").read_bytes(), expected["integers"], expected["samples"])


@pytest.mark.parametrize("name", [*SHAPES, *ABOVE])
def test_random_pyramid_streams_decode_by_the_page(name: str) -> None:
    """What the golden streams lack: escapes, other numbers of axes, one level, axes of one sample; numbers of all sizes in turn."""
    shape, halved, *above = ABOVE[name] if name in ABOVE else SHAPES[name]
    precisions, number = (COARSE, *FINE), [*SHAPES, *ABOVE].index(name)
    precision = precisions[number % len(precisions)]
    networks = 1 if precision == COARSE else min(1 + number % 3, len(halved) + 1)
    blob = made(shape, halved, 4, spread=0.6, above=above[0] if above else (), precision=precision, networks=networks).blob()
    with inrcodec.open(blob) as image:
        check_pyramid(blob, stored_integers(image), image[...])


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("name", ABOVE)
def test_random_pyramid_streams_with_taps_apart_decode_by_the_page(name: str, networks: int) -> None:
    shape, halved, above = ABOVE[name]
    blob = made(shape, halved, 4, spread=0.6, above=above, networks=min(networks, len(halved) + 1), apart=True).blob()
    with inrcodec.open(blob) as image:
        check_pyramid(blob, stored_integers(image), image[...])


@pytest.mark.parametrize("name", [*SHAPES, *ABOVE])
def test_random_pyramid_streams_with_wide_contexts_decode_by_the_page(name: str) -> None:
    shape, halved, *above = ABOVE[name] if name in ABOVE else SHAPES[name]
    blob = made(shape, halved, 4, spread=0.6, above=above[0] if above else (), networks=min(2, len(halved) + 1), apart=True, wide=True).blob()
    with inrcodec.open(blob) as image:
        check_pyramid(blob, stored_integers(image), image[...])


@pytest.mark.parametrize("name", SPLIT)
def test_random_pyramid_streams_in_bands_decode_by_the_page(name: str) -> None:
    blob = made_split(name, 4, spread=0.6).blob()
    with inrcodec.open(blob) as image:
        check_pyramid(blob, stored_integers(image), image[...])


def test_random_displacements_decode_by_the_page() -> None:
    blob = made_moving(spread=0.6).blob()
    with inrcodec.open(blob) as image:
        check_pyramid(blob, stored_integers(image), image[...])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_random_parts_decode_by_the_page(axis: int) -> None:
    blob = parted_blob(made_parted(axis=axis, spread=0.6), axis)
    with inrcodec.open(blob) as image:
        check_pyramid(blob, stored_integers(image), image[...])


def test_restoration_follows_the_page() -> None:
    stream = read_stream((GOLDEN / "restored.inrc").read_bytes())
    network = read_restoration(stream.sections["FILT"], len(stream.shape))
    with inrcodec.open(GOLDEN / "restored.inrc") as image:
        plain = image.read_plain_box(np.zeros(image.ndim, dtype=np.int64), np.array(image.shape)).astype(np.float64)
        step, low, high = image.blocks.step, image.blocks.low, image.blocks.high
    expected = np.load(GOLDEN / "restored.npz")["samples"]
    assert np.abs(rounded(plain, low, high) - expected).max() > 10
    assert np.abs(rounded(restored(plain, network, step), low, high) - expected).max() <= 1
