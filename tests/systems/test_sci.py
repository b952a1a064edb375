"""SCI from samples to bytes and back: any shape, targets met, every reader agrees, damage ends in one line."""

from __future__ import annotations

import io
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from hostile_streams import rebuilt
from inrcodec import ContainerError, InrcodecError, TargetError
from inrcodec.options import SciOptions
from inrcodec.payload.sections import KNOWN_SECTIONS
from inrcodec.systems import sci as system
from inrcodec_formats.container import Container, Section, write_container
from inrcodec_formats.zstd import compress, decompress_bounded
from samples import psnr_db, scan


def encode(volume: np.ndarray, **choices: Any) -> bytes:
    return inrcodec.encode(volume, **({"effort": 1, "method": "sci", "restoration": False} | choices))


def smooth(shape: tuple[int, ...], dtype: str = "int16") -> np.ndarray:
    axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape), indexing="ij")
    waves = sum(np.sin((1 + 0.4 * i) * x + i) for i, x in enumerate(axes))
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -1000), min(limits.max, 1500)
    return np.rint(low + (waves - waves.min()) / np.ptp(waves) * (high - low)).astype(dtype)


def bright_voxel() -> np.ndarray:
    volume = np.zeros((12, 14, 16), np.int16)
    volume[5, 6, 7] = 1000
    return volume


ODDITIES: dict[str, np.ndarray] = {
    **{"x".join(map(str, s)): scan(s) for s in ((4000,), (1500,), (50, 40), (12, 20, 24), (5, 8, 9, 10))},
    **{f"{n} slices": scan((n, 40, 44)) for n in (1, 2, 3, 5, 7)},
    **{f"thin {s}": scan(s) for s in ((600, 2, 2), (2, 500, 3), (1, 1, 3000), (3, 3, 3, 200), (1, 50, 50, 1))},
    "smaller than a block": scan((5, 6, 7)),
    "a voxel": np.array([[[7]]], np.int16),
    "two voxels": np.array([0, 99], np.int16),
    "background": np.full((20, 20, 20), -1000, np.int16),
    "bright voxel": bright_voxel(),
    "labels": (scan((16, 16, 20)) > 200).astype(np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (12, 12, 12)).astype(np.uint8),
    "extremes": np.where(scan((12, 16, 16)) > 0, 65535, 0).astype(np.uint16),
    **{dtype: scan((12, 20, 24), dtype) for dtype in ("int8", "uint8", "int16", "uint16")},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("volume", ODDITIES.values(), ids=ODDITIES.keys())
def test_anything_is_encoded_within_its_size(volume: np.ndarray) -> None:
    limit = max(volume.nbytes / 6, 300)
    blob = encode(volume, bits_per_voxel=8 * limit / volume.size)
    assert 0 < len(blob) <= limit
    decoded = inrcodec.decode(blob).samples
    assert decoded.shape == volume.shape and decoded.dtype == volume.dtype
    assert decoded.min() >= volume.min() and decoded.max() <= volume.max()
    assert inrcodec.verify(blob, deep=True).ok
    info = inrcodec.info(blob)
    assert info.method == "sci" and info.blocks >= 1 and info.shape == volume.shape
    assert sum(info.details["blocks_by_size"].values()) == info.blocks  # type: ignore[attr-defined]
    if np.ptp(volume) == 0:
        assert np.array_equal(decoded, volume)
    else:
        # No worse than the mean alone.
        assert psnr_db(volume, decoded) > psnr_db(volume, np.full_like(volume, round(float(volume.mean())))) - 0.5


SPENDERS = ["50x40", "12x20x24", "5x8x9x10", "3 slices", "7 slices", "thin (600, 2, 2)", "uint16", "int16"]


@pytest.mark.parametrize("name", SPENDERS)
@pytest.mark.parametrize("ratio", [3, 6])
def test_sizes_are_made_use_of(name: str, ratio: float) -> None:
    volume = ODDITIES[name]
    limit = volume.nbytes / ratio
    if limit > 700:
        assert 0.9 * limit <= len(encode(volume, ratio=ratio)) <= limit


def test_more_bytes_make_a_better_copy() -> None:
    """As long as there are steps enough for the weights."""
    volume = scan((24, 32, 32))
    found = [psnr_db(volume, inrcodec.decode(encode(volume, ratio=r, effort=4)).samples) for r in (120, 60, 30)]
    assert found == sorted(found) and found[2] > found[0] + 2


def test_impossible_sizes_say_what_is_possible() -> None:
    volume = scan((8, 8, 8))
    with pytest.raises(TargetError, match=r"expected a target of at least (.*) bytes for this signal") as error:
        encode(volume, ratio=1000)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(900,), (40, 50), (16, 20, 24), (3, 30, 30)])
@pytest.mark.parametrize("goal", [25.0, 32.0])
def test_qualities_are_reached(shape: tuple[int, ...], goal: float) -> None:
    """Also where more weights would be fitted worse in these few steps."""
    volume = smooth(shape)
    found = psnr_db(volume, inrcodec.decode(encode(volume, psnr_db=goal, effort=3)).samples)
    assert found >= goal


def test_qualities_out_of_reach_are_refused() -> None:
    with pytest.raises(TargetError, match="expected a PSNR that this signal can reach"):
        encode(np.random.default_rng(0).integers(0, 256, (9, 9, 9)).astype(np.uint8), psnr_db=50)
    assert np.array_equal(inrcodec.decode(encode(np.full((9, 9), 4, np.int16), psnr_db=90)).samples, np.full((9, 9), 4))


EVERY_OPTION = [
    {"partition": "uniform"}, {"blocks": 1}, {"blocks": 1, "layers": 1}, {"blocks": 60}, {"halo": 0}, {"halo": 8},
    {"layers": 8, "taper": 0.0}, {"taper": 4.0}, {"starts": 1}, {"starts": 4}, {"bandwidth": 0.1}, {"bandwidth": 1000.0},
    {"bandwidth_share": 4.0}, {"bits_per_weight": 0.5}, {"bits_per_weight": 20.0},
    *({"allocation": a} for a in ("equal", "size", "variance", "concentration", "spread")),
]  # fmt: skip


@pytest.mark.parametrize("choices", EVERY_OPTION, ids=str)
def test_every_option_makes_a_stream(choices: dict[str, Any]) -> None:
    volume = scan((16, 20, 24))
    blob = encode(volume, ratio=8, sci=SciOptions(**choices))
    assert 0.9 * volume.nbytes / 8 <= len(blob) <= volume.nbytes / 8
    assert psnr_db(volume, inrcodec.decode(blob).samples) > 12
    assert inrcodec.info(blob).details["halo"] == choices.get("halo", 1)
    assert inrcodec.info(blob).blocks <= choices.get("blocks", 1000)


@pytest.mark.parametrize("restoration", [False, True])
def test_giant_networks_are_as_wide_as_a_decoder_takes(restoration: bool) -> None:
    volume = scan((24, 24, 24))
    blob = encode(volume, ratio=2, sci=SciOptions(blocks=1, layers=1, starts=1), restoration=restoration)
    assert inrcodec.info(blob).details["network_classes"] == ["512"]


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    return scan((14, 22, 25))


@pytest.fixture(scope="module")
def stream(volume: np.ndarray) -> bytes:
    return encode(volume, ratio=5, sci=SciOptions(blocks=12, halo=2))


def test_the_same_input_gives_the_same_bytes(volume: np.ndarray, stream: bytes) -> None:
    options = SciOptions(blocks=12, halo=2)
    assert encode(volume, ratio=5, sci=options) == stream
    assert encode(volume.copy(order="F"), ratio=5, sci=options) == stream
    assert encode(volume, ratio=5, sci=options, seed=1) != stream
    seeds = [encode(volume, ratio=5, sci=options, seed=s) for s in (2**32, 2**63 - 1)]
    assert all(inrcodec.verify(blob, deep=True).ok for blob in seeds)


@pytest.mark.parametrize(
    "key",
    [np.s_[3:9, 4:20, 1:24], np.s_[::3, ::-2, 1::5], np.s_[13, ...], np.s_[..., 24:], np.s_[0, 0, 0], np.s_[5:5, :, :]],
    ids=str,
)
def test_regions_are_crops_of_the_whole(stream: bytes, key: Any) -> None:
    whole = inrcodec.decode(stream).samples
    with inrcodec.open(stream) as image:
        found = image[key]
    assert found.shape == whole[key].shape and found.dtype == whole.dtype
    # Products of other sizes round otherwise: a sample half way between two integers may go the other way.
    assert np.all(np.abs(found.astype(int) - whole[key]) <= 1)
    assert np.count_nonzero(found != whole[key]) <= 0.01 * found.size


def test_regions_read_their_own_chunks_only() -> None:
    big = scan((30, 48, 50))
    blob = encode(big, ratio=6, sci=SciOptions(blocks=60, starts=1))
    with inrcodec.open(blob) as image:
        opened, chunks = image.bytes_read, len(image.container.chunks)
        image[0:2, 0:2, 0:2]
        assert chunks > 3 and image.bytes_read - opened < 0.5 * len(blob)
        assert image.voxels_evaluated < 500


def test_slabs_are_the_whole(stream: bytes) -> None:
    with inrcodec.open(stream) as image:
        assert np.array_equal(np.concatenate(list(image.slabs())), inrcodec.decode(stream).samples)
        assert np.abs(image[...].astype(int) - inrcodec.decode(stream).samples).max() <= 1


def test_points_at_voxels_are_the_samples(stream: bytes) -> None:
    whole = inrcodec.decode(stream).samples
    at = np.argwhere(np.ones(whole.shape, dtype=bool))[::7]
    with inrcodec.open(stream) as image:
        assert np.abs(image.sample(at) - whole[tuple(at.T)]).max() <= 0.5 + 0.01
        ends = image.sample(np.array([[-0.5, -0.5, -0.5], np.array(whole.shape) - 0.5]))
    assert np.all(np.isfinite(ends)) and np.all((ends >= whole.min() - 1) & (ends <= whole.max() + 1))


@pytest.mark.parametrize("scale", [0.5, 2.0, 0.3, 1.7])
def test_other_scales(volume: np.ndarray, stream: bytes, scale: float) -> None:
    with inrcodec.open(stream) as image:
        found = image.read(scale=scale)
        assert found.shape == tuple(max(1, round(n * scale)) for n in volume.shape) and found.dtype == volume.dtype
        axes = [(np.arange(m) + 0.5) * n / m - 0.5 for m, n in zip(found.shape, volume.shape, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)[::11]
        assert np.abs(image.sample(points) - found.ravel()[::11]).max() <= 0.5 + 0.05


def test_the_report_tells_what_was_made(volume: np.ndarray, tmp_path: Path) -> None:
    stages: list[tuple[str, float]] = []
    report = inrcodec.encode(
        volume, tmp_path / "a.inrc", ratio=5, effort=1, method="sci", restoration=False,
        progress=lambda stage, fraction, note: stages.append((stage, fraction)),
    )  # fmt: skip
    blob = (tmp_path / "a.inrc").read_bytes()
    info = inrcodec.info(blob)
    assert report.method == info.method == "sci" and report.bytes == info.bytes == len(blob)
    assert report.blocks == info.blocks and report.weights == info.weights > 100
    assert report.psnr_db == pytest.approx(psnr_db(volume, inrcodec.decode(blob).samples), abs=1e-6)
    assert report.choices["classes"] == info.details["network_classes"]
    assert report.choices["constants"] == info.constant_blocks
    assert report.choices["spent_weights"] + report.blocks == report.weights
    assert report.choices["spent_weights"] <= report.choices["budget_weights"]
    assert report.choices["step"] == pytest.approx(info.details["weight_step"])
    assert "fit" in report.seconds and {"partition", "fit", "code"} <= {s for s, _ in stages}
    assert all(0 <= f <= 1 for _, f in stages)


def test_integers_survive_their_coding(volume: np.ndarray, stream: bytes) -> None:
    """Networks of the stream are those quantised: sections and chunks written again are the same bytes."""
    from inrcodec.coding.networks import write_networks

    with inrcodec.open(stream) as image:
        container, blocks = image.container, image.blocks
        assert blocks.stream.tree_section() == container.sections.read("TREE")
        for number in range(len(container.chunks)):
            again = write_networks(blocks.stream.shapes, blocks.statistics, image.decoded_chunk(number))
            assert again == container.read_chunk(number)


def test_chunks_are_cut_by_size_and_count() -> None:
    assert system._bounds(np.full(10, 1000.0)) == [0, 2, 4, 6, 8, 10]
    assert system._bounds(np.full(3, 1e6)) == [0, 1, 2, 3]
    bounds = system._bounds(np.full(5000, 0.01))
    assert max(np.diff(bounds)) == system.MOST_BLOCKS and bounds[0] == 0 and bounds[-1] == 5000
    assert system._bounds(np.array([5.0])) == [0, 1]
    large = system._bounds(np.full(2000, 2000.0))
    assert large == list(range(0, 2001, 2)), "never more than the largest chunk"


# Damage: as in test_bad_tinc.py, here to the sections and chunks of SCI.


@pytest.fixture(scope="module")
def small() -> bytes:
    return encode(scan((9, 10, 11)), ratio=2, sci=SciOptions(blocks=8, starts=1))


def contents(blob: bytes) -> tuple[bytes, bytes, list[tuple[int, bytes]]]:
    """TREE, the statistics unpacked, chunks."""
    with Container.open(blob, known=KNOWN_SECTIONS) as container:
        chunks = [(int(n), container.read_chunk(i)) for i, n in enumerate(container.chunks.count)]
        stat = decompress_bounded(container.sections.read("STAT"), 1 << 20)
        return container.sections.read("TREE"), stat, chunks


def refused_or_harmless(data: bytes) -> None:
    """Refused in one line, or samples within the range that the stream names; in bounded time either way."""
    began = time.process_time()
    try:
        with inrcodec.open(data) as image:
            low, high = image.blocks.low, image.blocks.high
            decoded = image[...]
            points = image.sample(np.array([[0.0, 0, 0], [4, 5, 6], [8, 9, 10]]))
    except InrcodecError as error:
        assert "\n" not in str(error)
    else:
        assert decoded.shape == (9, 10, 11) and decoded.dtype == np.int16
        assert decoded.min() >= low and decoded.max() <= high
        assert np.all((points >= low) & (points <= high))
    assert time.process_time() - began < 5


def test_any_flipped_byte_of_the_file_is_noticed(small: bytes) -> None:
    """Checksums left as they are."""
    for at in range(0, len(small), 5):
        data = bytearray(small)
        data[at] ^= 0x10
        with pytest.raises(ContainerError) as error:
            inrcodec.decode(bytes(data))
        assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None)
@given(where=st.sampled_from(["tree", "stat", "chunk"]), data=st.data())
def test_damage_under_good_checksums(small: bytes, where: str, data: st.DataObject) -> None:
    tree, stat, chunks = contents(small)
    number = data.draw(st.integers(0, len(chunks) - 1))
    damaged = bytearray({"tree": tree, "stat": stat, "chunk": chunks[number][1]}[where])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(len(damaged) // 2, len(damaged)) | st.just(len(damaged))) :]
    refused_or_harmless(with_damage(small, where, number, bytes(damaged)))


def with_damage(blob: bytes, where: str, number: int, damaged: bytes) -> bytes:
    if where == "chunk":
        chunks = contents(blob)[2]
        chunks[number] = chunks[number][0], damaged
        return rebuilt(blob, chunks=chunks)
    return rebuilt(blob, TREE=damaged) if where == "tree" else rebuilt(blob, STAT=compress(damaged))


def test_sections_cut_short(small: bytes) -> None:
    tree, stat, chunks = contents(small)
    for length in range(len(tree)):
        refused_or_harmless(rebuilt(small, TREE=tree[:length]))
    for length in range(0, len(stat), 9):
        with pytest.raises(ContainerError, match="bytes of statistics"):
            inrcodec.decode(rebuilt(small, STAT=compress(stat[:length])))
    for length in range(0, len(chunks[0][1]), 17):
        refused_or_harmless(with_damage(small, "chunk", 0, chunks[0][1][:length]))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_chunks_of_anything(small: bytes, data: bytes) -> None:
    refused_or_harmless(with_damage(small, "chunk", 0, data))


def test_missing_sections(small: bytes) -> None:
    for tag in ("TREE", "STAT"):
        with pytest.raises(ContainerError, match=f"expected a section {tag}, found none"):
            inrcodec.decode(rebuilt(small, **{tag: None}))


def test_chunks_and_tree_disagree(small: bytes) -> None:
    chunks = contents(small)[2]
    for count in (chunks[0][0] + 1, 990):
        with pytest.raises(ContainerError, match="blocks"):
            inrcodec.decode(rebuilt(small, chunks=[(count, chunks[0][1]), *chunks[1:]]))


def test_steps_that_overflow_are_refused(small: bytes) -> None:
    """The largest step, the coarsest layers: weights beyond float32, whose sines are no numbers."""
    tree, _, _ = contents(small)
    wild = bytearray(tree)
    struct.pack_into("<f", wild, 6 + 2 + 4, 2.0**30)
    at, layers = 6 + 23 + 1, tree[6 + 23 + 1]
    exponents = at + 1 + 2 * layers
    wild[exponents : exponents + layers + 1] = struct.pack(f"{layers + 1}b", *[-128] * (layers + 1))
    refused_or_harmless(rebuilt(small, TREE=bytes(wild)))


def test_ranges_beyond_the_dtype_are_refused(small: bytes) -> None:
    tree = bytearray(contents(small)[0])
    struct.pack_into("<ii", tree, 6 + 14, -40_000, 40_000)
    with pytest.raises(ContainerError, match="samples that fit int16, found a range of -40000 to 40000"):
        inrcodec.decode(rebuilt(small, TREE=bytes(tree)))


def test_a_stream_of_another_method_is_told(small: bytes) -> None:
    with Container.open(small, known=KNOWN_SECTIONS) as container:
        kept = [Section(tag, container.sections.read(tag)) for tag in container.sections]
        chunks = [(int(n), container.read_chunk(i)) for i, n in enumerate(container.chunks.count)]
        for method in ("tinc", "sci2"):
            out = io.BytesIO()
            write_container(out, replace(container.header, method=method), kept, chunks)
            with pytest.raises(ContainerError) as error:
                inrcodec.decode(out.getvalue())
            assert "\n" not in str(error.value)
