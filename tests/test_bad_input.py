"""Bad input ends in a correct result or in one line that says what was expected, what was found and what to do."""

from __future__ import annotations

import io
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import inrcodec
from inrcodec import ContainerError, OptionError, OutputError, SignalError, TargetError, cli
from inrcodec.options import TincOptions
from inrcodec.payload.sections import KNOWN_SECTIONS
from inrcodec_formats.container import Container, Section, write_container
from inrcodec_formats.zstd import compress, decompress_bounded
from samples import psnr_db, scan

LARGEST_HEAP = 64 << 20
"""Python heap that a hostile file of a kilobyte may cost."""


@pytest.fixture(scope="module")
def stream() -> bytes:
    return inrcodec.encode(scan((9, 10, 11)), ratio=4, effort=1)


@pytest.fixture(scope="module")
def dense_stream() -> bytes:
    options = TincOptions(root="dense", network_share=0.3, starts=1)
    return inrcodec.encode(scan((9, 10, 11)), ratio=3, effort=1, tinc=options)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = cli.main([str(a) for a in arguments])
    return code, capsys.readouterr().err


def assert_refused(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> str:
    """The command fails with one line, and the folder holds what it held."""
    before = sorted(folder.rglob("*"))
    code, err = run(capsys, *arguments, "--quiet")
    assert code not in (0, None)
    assert len(err.strip().splitlines()) == 1
    assert sorted(folder.rglob("*")) == before
    return err


# Signals


BAD_SIGNALS = {
    "empty": np.zeros(0, "int16"),
    "empty axis": np.zeros((3, 0, 2), "uint8"),
    "no dimension": np.array(5),
    "five dimensions": np.zeros((1, 1, 1, 1, 1), "uint8"),
    "bool": np.zeros((3, 3, 3), bool),
    "complex": np.zeros((3, 3), complex),
    "object": np.array([1, 2], dtype=object),
    "text": np.array(["a", "b"]),
    "dates": np.array(["2020-01-01"], "M8[D]"),
    "records": np.zeros(3, [("a", "u1")]),
    "NaN": np.array([[1.0, np.nan]]),
    "infinity": np.array([[1.0, -np.inf]], "float32"),
    "fractions": np.array([0.5, 0.25]),
    "beyond 16 bits": np.array([0, 70000]),
    "masked": np.ma.masked_array([1, 2, 3], [False, True, False]),
    "None": None,
}


@pytest.mark.parametrize("name", BAD_SIGNALS)
def test_signals_that_cannot_be_coded(name: str, tmp_path: Path) -> None:
    with pytest.raises(SignalError) as error:
        inrcodec.encode(BAD_SIGNALS[name], tmp_path / "o.inrc", ratio=8, effort=1)
    assert "expected" in one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [n for n in BAD_SIGNALS if n not in ("object", "masked", "None")])
def test_files_that_cannot_be_coded(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", BAD_SIGNALS[name])
    err = assert_refused(capsys, tmp_path, "encode", tmp_path / "a.npy", tmp_path / "o.inrc", "--ratio", 8)
    assert "expected" in err


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 1, 1), (1, 1, 1, 1), (2,), (1, 3, 1), (2, 2, 2, 2)])
def test_smallest_signals(shape: tuple[int, ...]) -> None:
    volume = scan(shape)
    decoded = inrcodec.decode(inrcodec.encode(volume, psnr_db=30, effort=1)).samples
    assert decoded.shape == shape
    assert psnr_db(volume, decoded) >= 30


@pytest.mark.parametrize("value", [-32768, 0, 77, 32767])
@pytest.mark.parametrize("shape", [(50,), (7, 9), (9, 8, 7), (2, 3, 4, 5)])
def test_constant_signals(shape: tuple[int, ...], value: int) -> None:
    blob = inrcodec.encode(np.full(shape, value, "int16"), psnr_db=60, effort=1)
    assert (inrcodec.decode(blob).samples == value).all()
    assert len(blob) < 220


def test_one_outlier_does_not_spoil_the_rest() -> None:
    volume = scan((12, 12, 12))
    volume[3, 4, 5] = 32767
    decoded = inrcodec.decode(inrcodec.encode(volume, psnr_db=60, effort=1)).samples
    assert psnr_db(volume, decoded) >= 60


# Options


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"ratio": 8, "psnr_db": 40},
        {"ratio": 8, "bits_per_voxel": 1, "psnr_db": 40},
        {"ratio": 0},
        {"ratio": -3},
        {"ratio": math.nan},
        {"bits_per_voxel": math.inf},
        {"psnr_db": "40"},
        {"ratio": True},
        {"ratio": 8, "method": "jpeg"},
        {"ratio": 8, "effort": 0},
        {"ratio": 8, "effort": 2.5},
        {"ratio": 8, "device": "abacus"},
        {"ratio": 8, "seed": -1},
        {"ratio": 8, "tinc": {"root": "dense"}},
    ],
)
def test_options_out_of_range(choices: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(OptionError) as error:
        inrcodec.encode(scan((4, 4)), tmp_path / "o.inrc", **choices)
    assert "expected" in one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_step_for_integers_is_refused() -> None:
    with pytest.raises(SignalError, match="real values"):
        inrcodec.encode(scan((4, 4)), ratio=8, quantise_step=0.5)


def test_numpy_numbers_are_numbers() -> None:
    assert inrcodec.encode(scan((9, 9)), psnr_db=np.float32(30), effort=1)


# Targets


def test_a_ratio_beyond_the_header_says_what_can_be_had(tmp_path: Path) -> None:
    volume = scan((10, 10, 10))
    with pytest.raises(TargetError) as error:
        inrcodec.encode(volume, tmp_path / "o.inrc", ratio=1e6, effort=1)
    words = one_line(error).split()
    least = int(words[words.index("least") + 1])
    assert list(tmp_path.iterdir()) == []
    assert len(inrcodec.encode(volume, bits_per_voxel=8 * least / volume.size, effort=1)) <= least


def test_a_ratio_beyond_the_header_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", scan((9, 9)))
    err = assert_refused(capsys, tmp_path, "encode", tmp_path / "a.npy", tmp_path / "o.inrc", "--ratio", 1e6, "--effort", 1)
    assert "at least" in err


@pytest.mark.parametrize("goal", [500.0, 5000.0])
def test_beyond_every_psnr_is_lossless(goal: float) -> None:
    volume = scan((8, 9, 10))
    assert (inrcodec.decode(inrcodec.encode(volume, psnr_db=goal, effort=1)).samples == volume).all()


def test_a_psnr_that_networks_cannot_reach_says_what_can_be_had(tmp_path: Path) -> None:
    options = TincOptions(root="dense", features=2, starts=1)
    with pytest.raises(TargetError) as error:
        inrcodec.encode(scan((8, 9, 10)), tmp_path / "o.inrc", psnr_db=70, effort=1, tinc=options)
    assert "at most" in one_line(error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("choices", [{"ratio": 1e-3}, {"bits_per_voxel": 1e3}])
def test_more_room_than_needed_is_not_filled(choices: dict[str, float]) -> None:
    volume = scan((6, 7, 8))
    blob = inrcodec.encode(volume, effort=1, **choices)
    assert len(blob) < 4 * volume.nbytes
    assert (inrcodec.decode(blob).samples == volume).all()


# Files


def test_encode_refuses_outputs_before_the_work(tmp_path: Path) -> None:
    def no_work(stage: str, fraction: float, note: str) -> None:
        raise AssertionError("the work had begun")

    volume = scan((6, 6))
    with pytest.raises(OptionError, match=r"\.inrc"):
        inrcodec.encode(volume, tmp_path / "o.nii.gz", ratio=2, progress=no_work)
    with pytest.raises(OutputError, match="folder"):
        inrcodec.encode(volume, tmp_path / "no" / "o.inrc", ratio=2, progress=no_work)
    (tmp_path / "folder.inrc").mkdir()
    with pytest.raises(OutputError, match="folder"):
        inrcodec.encode(volume, tmp_path / "folder.inrc", ratio=2, progress=no_work)


def test_decode_refuses_outputs(stream: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("o.xyz", "o", "o.inrc"):
        with pytest.raises(inrcodec.FormatError) as error:
            inrcodec.decode(stream, tmp_path / name)
        one_line(error)
    with pytest.raises(OutputError):
        inrcodec.decode(stream, tmp_path / "no" / "o.npy")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.inrc").write_bytes(stream)
    assert_refused(capsys, tmp_path, "decode", tmp_path / "a.inrc", tmp_path / "o.xyz")


@pytest.mark.parametrize("source", [None, 3, io.StringIO("text"), b"", b"\x93NUMPY", bytearray(b"abc")])
def test_sources_that_are_no_streams(source: object) -> None:
    for act in (inrcodec.decode, inrcodec.open, inrcodec.info, inrcodec.verify):
        with pytest.raises(ContainerError) as error:
            act(source)
        one_line(error)


def test_other_files_under_the_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", scan((6, 6)))
    (tmp_path / "a.npy").rename(tmp_path / "a.inrc")
    for command in (["info"], ["verify"], ["decode"]):
        rest = [tmp_path / "o.npy"] if command == ["decode"] else []
        assert_refused(capsys, tmp_path, *command, tmp_path / "a.inrc", *rest) if command != ["info"] else None
    assert run(capsys, "info", tmp_path / "a.inrc")[0] == 1


@pytest.mark.parametrize("stage", ["read", "partition", "code", "verify"])
def test_interrupted_encode_leaves_nothing(stage: str, tmp_path: Path) -> None:
    def interrupt(now: str, fraction: float, note: str) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inrcodec.encode(scan((6, 6, 6)), tmp_path / "o.inrc", bits_per_voxel=8, effort=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_decode_leaves_nothing(stream: bytes, tmp_path: Path) -> None:
    def interrupt(stage: str, fraction: float, note: str) -> None:
        if fraction > 0:
            raise KeyboardInterrupt

    for name in ("o.nii", "o.nii.gz", "o.nrrd", "o.tif", "o.npy"):
        with pytest.raises(KeyboardInterrupt):
            inrcodec.decode(stream, tmp_path / name, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


# Damage


def all_refuse(data: bytes) -> None:
    for act in (inrcodec.verify, inrcodec.decode, lambda d: inrcodec.open(d)[...]):
        with pytest.raises(ContainerError) as error:
            act(data)
        one_line(error)


def test_every_flipped_byte_is_found(stream: bytes) -> None:
    for at in range(len(stream)):
        damaged = bytearray(stream)
        damaged[at] ^= 1 << at % 8
        all_refuse(bytes(damaged))


def test_every_truncation_is_found(stream: bytes) -> None:
    for length in range(len(stream)):
        all_refuse(stream[:length])


def test_damage_on_the_command_line(stream: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "a.inrc"
    damaged.write_bytes(stream[:200] + bytes([stream[200] ^ 4]) + stream[201:])
    assert_refused(capsys, tmp_path, "decode", damaged, tmp_path / "o.npy")
    assert_refused(capsys, tmp_path, "verify", damaged)
    damaged.write_bytes(stream[:-5])
    assert_refused(capsys, tmp_path, "decode", damaged, tmp_path / "o.npy")


# Hostile contents under sound checksums: attacks 32 to 45 of attacks/README.md


def rebuilt(stream: bytes, *, shape: tuple[int, ...] | None = None, chunks: list[tuple[int, bytes]] | None = None, **sections: bytes | None) -> bytes:
    """The stream with other contents and fresh checksums; a section set to None is left out."""
    from dataclasses import replace

    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        kept = {tag: container.sections.read(tag) for tag in container.sections}
        kept.update({tag: data for tag, data in sections.items() if data is not None})
        listed = [Section(tag, data) for tag, data in kept.items() if sections.get(tag, b"") is not None]
        old = [(int(n), container.read_chunk(i)) for i, n in enumerate(container.chunks.count)]
        header = container.header if shape is None else replace(container.header, shape=shape)
        out = io.BytesIO()
        write_container(out, header, listed, old if chunks is None else chunks)
    return out.getvalue()


def section(stream: bytes, tag: str) -> bytes:
    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        return container.sections.read(tag)


def refused_cheaply(data: bytes) -> None:
    """Refused, or decoded to samples of the right kind, by every reader and without memory to speak of."""
    tracemalloc.start()
    try:
        for act in (inrcodec.info, lambda d: inrcodec.verify(d, deep=True), inrcodec.decode):
            with pytest.raises(ContainerError) as error:
                act(data)
            one_line(error)
        assert tracemalloc.get_traced_memory()[1] < LARGEST_HEAP
    finally:
        tracemalloc.stop()


def refused_or_harmless(data: bytes, stream: bytes) -> None:
    try:
        decoded = inrcodec.decode(data).samples
    except ContainerError as error:
        assert "\n" not in str(error)
    else:
        good = inrcodec.decode(stream).samples
        assert decoded.shape == good.shape
        assert decoded.dtype == good.dtype


def tree_with(stream: bytes, **fields: object) -> bytes:
    """The TREE section of a stream of three axes with some of its fixed fields replaced."""
    data = bytearray(section(stream, "TREE"))
    places = {
        "finest": (0, "3B"), "weights": (3, "3B"), "kind": (6, "B"), "top": (7, "B"), "features": (8, "<H"),
        "hidden": (10, "B"), "step": (11, "<f"), "offset": (15, "<i"), "low": (19, "<i"), "high": (23, "<i"), "segments": (27, "B"),
    }  # fmt: skip
    for name, value in fields.items():
        at, form = places[name]
        struct.pack_into(form, data, at, *(value if isinstance(value, tuple) else (value,)))
    return bytes(data)


@pytest.mark.parametrize(
    "fields",
    [
        {"finest": (0, 8, 8)},
        {"finest": (255, 255, 255)},
        {"weights": (0, 1, 1)},
        {"kind": 255},
        {"top": 255},
        {"features": 0},
        {"features": 65535},
        {"hidden": 255},
        {"segments": 255},
        {"step": math.nan},
        {"step": math.inf},
        {"step": 0.0},
        {"step": -1.0},
        {"step": 1e38},
        {"low": 5, "high": 4},
        {"low": -(2**31)},
        {"high": 2**31 - 1},
    ],
)
def test_32_tree_with_impossible_fields(stream: bytes, fields: dict[str, object]) -> None:
    refused_cheaply(rebuilt(stream, TREE=tree_with(stream, **fields)))


def test_33_tree_cut_short(stream: bytes) -> None:
    tree = section(stream, "TREE")
    for length in range(28):
        refused_cheaply(rebuilt(stream, TREE=tree[:length]))


def test_34_missing_sections(stream: bytes, dense_stream: bytes) -> None:
    refused_cheaply(rebuilt(stream, TREE=None))
    refused_cheaply(rebuilt(stream, STAT=None))
    refused_cheaply(rebuilt(dense_stream, NETW=None))


@pytest.mark.parametrize("shape", [(2**20, 2**20, 1), (2**11, 2**11, 2**11), (2**34, 1, 1)])
def test_35_shape_of_a_giant(stream: bytes, shape: tuple[int, ...]) -> None:
    refused_cheaply(rebuilt(stream, shape=shape))
    refused_cheaply(rebuilt(stream, shape=shape, TREE=tree_with(stream, finest=(1, 1, 1), top=20)))


def test_36_a_chunk_of_too_many_blocks(stream: bytes) -> None:
    """A tree that splits everything, and one chunk that claims all the blocks: as many as voxels for no bytes."""
    tree = tree_with(stream, finest=(1, 1, 1), top=7)
    assert section(stream, "TREE")[27] == 0
    for edge in (64, 100, 128):
        refused_cheaply(rebuilt(stream, shape=(edge,) * 3, TREE=tree[:28] + b"\xff", chunks=[(edge**3, b"")]))


def test_37_chunks_and_tree_disagree(stream: bytes) -> None:
    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        blocks, data = container.chunks.blocks, container.read_chunk(0)
    for count in (1, blocks - 1, blocks + 1, 990):
        if count != blocks and count > 0:
            refused_cheaply(rebuilt(stream, chunks=[(count, data)]))
    refused_cheaply(rebuilt(stream, chunks=[]))


def test_38_statistics_with_impossible_values(stream: bytes) -> None:
    stat = decompress_bounded(section(stream, "STAT"), 1 << 20)
    for wrong in (b"", stat[:-1], stat + b"\0", bytes(len(stat)), stat[:-2] + b"\0\0"):
        refused_cheaply(rebuilt(stream, STAT=compress(wrong)))
    refused_cheaply(rebuilt(stream, STAT=stat))
    refused_cheaply(rebuilt(stream, STAT=b""))


def test_39_statistics_that_claim_7e18_bytes(stream: bytes) -> None:
    claim = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 7 * 10**18)
    refused_cheaply(rebuilt(stream, STAT=claim))
    refused_cheaply(rebuilt(stream, STAT=compress(bytes(1 << 21))))


def test_40_network_of_nothing(dense_stream: bytes) -> None:
    refused_cheaply(rebuilt(dense_stream, NETW=b""))
    refused_cheaply(rebuilt(dense_stream, NETW=bytes(400)))


def test_41_network_of_2_27_parameters(dense_stream: bytes) -> None:
    tree = section(dense_stream, "TREE")
    layers, rest = tree[10], tree[28 + 2 * tree[10] - 1 :]
    assert layers > 0
    wide = tree[:10] + b"\x08" + tree[11:27] + struct.pack("<8H", *[4096] * 8) + rest
    refused_cheaply(rebuilt(dense_stream, TREE=wide))
    refused_cheaply(rebuilt(dense_stream, TREE=wide, NETW=bytes(1 << 19)))


@settings(max_examples=60, deadline=2000)
@given(data=st.binary(max_size=400))
def test_42_chunks_of_anything(stream: bytes, data: bytes) -> None:
    with Container.open(stream, known=KNOWN_SECTIONS) as container:
        blocks = container.chunks.blocks
    refused_or_harmless(rebuilt(stream, chunks=[(blocks, data)]), stream)


@settings(max_examples=60, deadline=2000)
@given(data=st.binary(max_size=200))
def test_43_statistics_of_anything(stream: bytes, data: bytes) -> None:
    stat = decompress_bounded(section(stream, "STAT"), 1 << 20)
    refused_or_harmless(rebuilt(stream, STAT=compress((data + stat)[: len(stat)])), stream)


@settings(max_examples=60, deadline=2000)
@given(data=st.binary(min_size=1, max_size=40), at=st.integers(0, 40))
def test_44_trees_of_anything(stream: bytes, data: bytes, at: int) -> None:
    tree = section(stream, "TREE")
    refused_or_harmless(rebuilt(stream, TREE=tree[:at] + data + tree[at + len(data) :]), stream)


@settings(max_examples=40, deadline=2000)
@given(data=st.binary(max_size=300))
def test_45_networks_of_anything(dense_stream: bytes, data: bytes) -> None:
    refused_or_harmless(rebuilt(dense_stream, NETW=data), dense_stream)


# Still frames of TINC and SCI: attack 68


GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(params=["tinc_clip", "sci_clip"])
def moving(request: pytest.FixtureRequest) -> bytes:
    return (GOLDEN / f"{request.param}.inrc").read_bytes()


def test_68_sections_of_other_still_frames(moving: bytes, stream: bytes) -> None:
    """The tree is that of still frames, not of others; one of a single block would be one of frames too."""
    refused_or_harmless(rebuilt(moving, MOVE=None), moving)
    move = bytearray(section(moving, "MOVE"))
    for at, extent in ((2, 1), (2, 2**20), (6, 2**31), (6, 0)):
        refused_cheaply(rebuilt(moving, MOVE=bytes(move[:at]) + struct.pack("<I", extent) + bytes(move[at + 4 :])))
    refused_cheaply(rebuilt(moving, MOVE=bytes(move[:9])))
    refused_cheaply(rebuilt(stream, MOVE=bytes(move)))


@settings(max_examples=30, deadline=None)
@given(at=st.integers(0, 10**6), value=st.integers(0, 255))
def test_68_random_bytes_in_move(at: int, value: int) -> None:
    for name in ("tinc_clip", "sci_clip"):
        whole = (GOLDEN / f"{name}.inrc").read_bytes()
        move = bytearray(section(whole, "MOVE"))
        move[at % len(move)] = value
        refused_or_harmless(rebuilt(whole, MOVE=bytes(move)), whole)
