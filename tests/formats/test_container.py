"""The container holds what it was given, refuses what was changed, and reads no more than asked."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks import make_attacks
from inrcodec_formats.container import (
    MAX_SECTIONS,
    Container,
    Section,
    metadata_section,
    write_container,
)
from inrcodec_formats.container.header import Quality, StreamHeader
from inrcodec_formats.errors import ContainerError
from inrcodec_formats.signal import CODED_DTYPES, SignalHeader
from inrcodec_formats.zstd import compress, decompress_bounded

HEADER = StreamHeader(
    shape=(4, 5, 6),
    dtype="int16",
    axes="zyx",
    spacing=(1.0, 0.7, 0.7),
    units=("mm", "mm", "mm"),
    file_dtype="<i2",
    method="tinc",
    quality=Quality("ratio", 64.0),
    memory_bytes=123456,
    source_format="nifti",
)
KNOWN = {"TREE"}

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=32)
units = st.sampled_from(["mm", "um", "µm", "s", ""])


@st.composite
def headers(draw: st.DrawFn) -> StreamHeader:
    dims = draw(st.integers(1, 4))

    def per_axis(values: st.SearchStrategy) -> tuple:
        return tuple(draw(st.lists(values, min_size=dims, max_size=dims)))

    return StreamHeader(
        shape=per_axis(st.integers(1, 2 ** (40 // dims))),
        dtype=draw(st.sampled_from(CODED_DTYPES)),
        axes="".join(draw(st.permutations("tzyxc"))[:dims]),
        spacing=per_axis(st.one_of(finite, st.floats(width=32, allow_nan=False, allow_infinity=False))),
        units=per_axis(units),
        file_dtype=draw(st.sampled_from(["<i2", ">i2", "|u1", "<f4", ">f8", "<u8", "|b1"])),
        method=draw(names),
        quality=Quality(draw(st.sampled_from(["ratio", "bits_per_voxel", "psnr_db"])), draw(positive)),
        memory_bytes=draw(st.integers(0, 2**64 - 1)),
        quantise_step=draw(st.none() | positive),
        source_format=draw(names),
    )


def written(header: StreamHeader = HEADER, sections=(), chunks=()) -> bytes:
    target = io.BytesIO()
    size = write_container(target, header, sections, chunks)
    assert size == len(target.getvalue())
    return target.getvalue()


def small() -> bytes:
    """A small file with every kind of part."""
    sections = [Section("TREE", b"tree"), Section("META", compress(b"source"), critical=False)]
    return written(sections=sections, chunks=[(2, b"chunk"), (1, b"")])


def read_all(blob: bytes) -> None:
    with Container.open(blob, known=KNOWN) as container:
        container.verify()
        container.signal_header()


@given(headers())
def test_header_round_trip(header: StreamHeader) -> None:
    assert StreamHeader.from_bytes(header.to_bytes()) == header


@given(st.binary(max_size=120))
def test_header_of_random_bytes_is_refused_or_sound(data: bytes) -> None:
    try:
        header = StreamHeader.from_bytes(data)
    except ContainerError:
        return
    assert StreamHeader.from_bytes(header.to_bytes()) == header


def test_header_of_changed_bytes_is_refused_or_sound() -> None:
    """The record defends itself even where an attacker has made the CRC fit."""
    sound = HEADER.to_bytes()
    for at in range(len(sound)):
        for value in range(256):
            data = sound[:at] + bytes([value]) + sound[at + 1 :]
            try:
                header = StreamHeader.from_bytes(data)
            except ContainerError as error:
                assert "\n" not in str(error)
            else:
                assert StreamHeader.from_bytes(header.to_bytes()) == header


def test_signal_header_survives() -> None:
    signal = SignalHeader(
        (4, 5, 6), "uint8", "zyx", (1.5, 1.0, 0.1), ("mm", "mm", "s"), "<f4", 0.25, "nifti", b"\x00" * 348
    )
    section = metadata_section(signal)
    assert section is not None and len(section.data) < 40
    header = StreamHeader.from_signal(signal, method="sci", quality=Quality("psnr_db", 40.0), memory_bytes=1)
    with Container.open(written(header, [section])) as container:
        assert container.signal_header() == signal


def test_nothing_is_stored_for_an_absent_source_header() -> None:
    assert metadata_section(HEADER.to_signal()) is None
    assert Container.open(written()).signal_header() == HEADER.to_signal()


tags = st.from_regex(r"[A-Z][A-Z0-9]{3}", fullmatch=True).filter(lambda tag: tag != "META")
some_sections = st.lists(
    st.builds(Section, tags, st.binary(max_size=80), st.booleans()), max_size=6, unique_by=lambda s: s.tag
)
some_chunks = st.lists(st.tuples(st.integers(1, 2**33), st.binary(max_size=300)), max_size=8)


@settings(max_examples=60)
@given(headers(), some_sections, some_chunks)
def test_round_trip(header: StreamHeader, sections: list[Section], chunks: list[tuple[int, bytes]]) -> None:
    chunks = [(1 + count % 300, data) for count, data in chunks]
    if sum(count for count, _ in chunks) > header.voxels:
        with pytest.raises(ContainerError, match="one block per voxel"):
            written(header, sections, chunks)
        return
    blob = written(header, sections, iter(chunks))
    with Container.open(blob, known={section.tag for section in sections}) as container:
        assert container.header == header
        assert [(s.tag, container.sections.read(s.tag), container.sections[s.tag].critical) for s in sections] == [
            (s.tag, s.data, s.critical) for s in sections
        ]
        assert [(int(n), container.read_chunk(i)) for i, n in enumerate(container.chunks.count)] == chunks
        assert [container.chunks.chunk_of(b) for b in range(container.chunks.blocks)] == list(
            np.repeat(np.arange(len(chunks)), container.chunks.count)
        )
        assert sum(container.parts().values()) == container.size == len(blob)
        assert container.bytes_read == len(blob)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65535, 65536, 2**24])
def test_index_widths(length: int) -> None:
    header = StreamHeader.from_bytes(HEADER.to_bytes().replace(b"\x04\x05\x06", b"\x7f\x7f\x7f"))
    with Container.open(written(header, chunks=[(300, b"a" * length), (1, b"b")])) as container:
        assert container.read_chunk(1) == b"b"
        assert container.chunks.length.tolist() == [length, 1]
        assert container.chunks.first.tolist() == [0, 300]


def test_same_input_same_bytes() -> None:
    assert small() == small()


def test_independent_writer_agrees() -> None:
    """A writer made from the specification alone gives the same bytes."""
    header = StreamHeader((4, 5, 6), "int16", "zyx", (1.0,) * 3, ("mm",) * 3, "<i2", "tinc", Quality("ratio", 64.0), 0)
    assert written(header, {"TREE": b"tree"}, [(2, b"chunk")]) == make_attacks.stream()


def test_overhead_is_small() -> None:
    blob = written(sections={"TREE": b""}, chunks=[(12, b"c" * 2500)] * 10)
    assert len(blob) - 25_000 < 200


def test_every_bit_flip_is_refused() -> None:
    sound = small()
    for at in range(len(sound)):
        for bit in range(8):
            damaged = bytearray(sound)
            damaged[at] ^= 1 << bit
            with pytest.raises(ContainerError) as caught:
                read_all(bytes(damaged))
            assert "\n" not in str(caught.value)


def test_every_truncation_is_refused() -> None:
    sound = small()
    for length in range(len(sound)):
        for damaged in (sound[:length], sound[length:] if length else b""):
            with pytest.raises(ContainerError):
                read_all(damaged)


@given(st.binary(min_size=1, max_size=64))
def test_appended_bytes_are_refused(tail: bytes) -> None:
    with pytest.raises(ContainerError):
        read_all(small() + tail)


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused(data: bytes, with_magic: bool) -> None:
    with pytest.raises(ContainerError):
        read_all(make_attacks.MAGIC * with_magic + data)


def test_unknown_sections() -> None:
    blob = written(sections=[Section("TREE", b"t"), Section("NOTE", b"n", critical=False)])
    with Container.open(blob, known=KNOWN) as container:
        assert container.sections.read("TREE") == b"t"
    with pytest.raises(ContainerError, match="TREE"):
        Container.open(blob)
    with Container.open(blob, known=None) as container, pytest.raises(ContainerError, match="TREE"):
        container.require_known(())


def test_missing_section_and_chunk_are_named() -> None:
    with Container.open(small(), known=KNOWN) as container:
        with pytest.raises(ContainerError, match="NETW"):
            container.sections.read("NETW")
        for number in (-1, 2):
            with pytest.raises(ContainerError, match="chunk"):
                container.read_chunk(number)
        for block in (-1, 3):
            with pytest.raises(ContainerError, match="block"):
                container.chunks.chunk_of(block)


def test_may_ignore_flags_are_ignored() -> None:
    sound = make_attacks.stream()
    front = bytearray(make_attacks.front()[:-4])
    front[11] = 0x81
    blob = bytes(front) + make_attacks.crc(bytes(front)) + sound[len(front) + 4 :]
    with Container.open(blob, known=KNOWN) as container:
        container.verify()
        assert container.may_ignore == 0x81


def with_must_flags(blob: bytes, flags: int) -> bytes:
    """The same stream under other must-understand flags."""
    end = 14 + int.from_bytes(blob[12:14], "little")
    front = blob[:10] + bytes([flags]) + blob[11:end]
    return front + make_attacks.crc(front) + blob[end + 4 :]


def test_moved_axes_are_flagged_for_readers_that_do_not_know() -> None:
    for axes, flags in (("zyx", 0), ("yxc", 1), ("cyx", 0), ("ycx", 1)):
        blob = written(replace(HEADER, axes=axes))
        assert blob[10] == flags, axes
        with Container.open(blob) as container:
            expected = {"yxc": (6, 4, 5), "ycx": (5, 4, 6)}.get(axes, (4, 5, 6))
            assert container.header.shape == (4, 5, 6) and container.header.coded_shape == expected
        with pytest.raises(ContainerError, match=f"flags 0x0{flags} for axes '{axes}', found 0x0{1 - flags}"):
            Container.open(with_must_flags(blob, 1 - flags))


def test_region_read_touches_little(tmp_path: Path) -> None:
    path = tmp_path / "big.inrc"
    chunk = bytes(range(256)) * 10
    with path.open("wb") as target:
        header = StreamHeader.from_bytes(HEADER.to_bytes().replace(b"\x04\x05\x06", b"\x7f\x7f\x7f"))
        write_container(target, header, {"TREE": b"t" * 5000}, ((8, chunk) for _ in range(200)))
    with Container.open(path, known=KNOWN) as container:
        assert container.bytes_read < 2000
        before = container.bytes_read
        assert container.read_chunk(container.chunks.chunk_of(800)) == chunk
        assert container.bytes_read - before == len(chunk)
    assert container.size == path.stat().st_size > 500_000


def test_path_bytes_and_files_agree(tmp_path: Path) -> None:
    blob = small()
    path = tmp_path / "a.inrc"
    path.write_bytes(blob)
    embedded = io.BytesIO(b"before" + blob)
    embedded.seek(6)
    with path.open("rb", buffering=0) as raw:
        for source in (
            path,
            str(path),
            blob,
            bytearray(blob),
            memoryview(blob),
            io.BytesIO(blob),
            embedded,
            raw,
            Pipe(blob),
        ):
            with Container.open(source, known=KNOWN) as container:  # type: ignore[arg-type]
                container.verify()
                assert container.read_chunk(0) == b"chunk"
        assert not raw.closed and not embedded.closed


def test_files_are_closed_after_failure(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = tmp_path / "bad.inrc"
    path.write_bytes(b"no")
    with pytest.raises(ContainerError):
        Container.open(path)
    assert not [w for w in recwarn if w.category is ResourceWarning]
    with pytest.raises(FileNotFoundError):
        Container.open(tmp_path / "absent.inrc")


def test_text_files_are_refused() -> None:
    with pytest.raises(ContainerError, match="'rb'"):
        Container.open(io.StringIO("text of some length"))  # type: ignore[arg-type]


class Pipe(io.RawIOBase):
    """Gives three bytes at a time and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def readinto(self, buffer) -> int:
        return self._data.readinto(memoryview(buffer)[:3])


def test_pipes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inrcodec_formats.container.source.MAX_UNSEEKABLE_BYTES", 50)
    with pytest.raises(ContainerError, match="from a pipe"):
        Container.open(Pipe(small()))  # type: ignore[arg-type]


def test_writer_holds_no_chunks() -> None:
    class Null(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            return len(data)

    def chunks() -> Iterator[tuple[int, bytes]]:
        for i in range(64):
            yield 1, bytes([i]) * 2**20

    tracemalloc.start()
    try:
        write_container(Null(), HEADER, {}, chunks())  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tag", ["", "TRE", "TREES", "tree", "1REE", "TR E", "ÄREE", "TREE\n"])
def test_bad_tags_are_refused(tag: str) -> None:
    with pytest.raises(ContainerError, match="tag"):
        Section(tag, b"")


def test_writer_refuses_what_the_reader_would() -> None:
    with pytest.raises(ContainerError, match="once"):
        written(sections=[Section("TREE", b"a"), Section("TREE", b"b")])
    with pytest.raises(ContainerError, match="sections"):
        written(sections=[Section(f"A{i:03}", b"") for i in range(MAX_SECTIONS + 1)])
    with pytest.raises(ContainerError, match="chunk"):
        written(chunks=[(0, b"")])
    with pytest.raises(ContainerError, match="quality kind"):
        Quality("level", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("number, name", list(enumerate(make_attacks.files())))
def test_attacks_are_refused(number: int, name: str) -> None:
    data = (make_attacks.HERE / name).read_bytes()
    assert data == make_attacks.files()[name], "run tests/attacks/make_attacks.py and commit what it writes"
    tracemalloc.start()
    try:
        with pytest.raises(ContainerError, match=make_attacks.ATTACKS[number].rejected_with) as caught:
            read_all(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_attacks_are_documented() -> None:
    readme = (make_attacks.HERE / "README.md").read_text(encoding="utf-8")
    on_disk = {path.name for path in make_attacks.HERE.glob("*.inrc")}
    assert on_disk == set(make_attacks.files()) == {name for name in on_disk if f"`{name}`" in readme}


@given(st.binary(max_size=2000))
def test_zstd_round_trip(data: bytes) -> None:
    assert decompress_bounded(compress(data), len(data)) == data
    if data:
        with pytest.raises(ContainerError, match="at most"):
            decompress_bounded(compress(data), len(data) - 1)


def test_zstd_damage_is_refused() -> None:
    sound = compress(b"abc" * 100)
    undeclared = zstandard.ZstdCompressor(write_content_size=False).compress(b"abc" * 100)
    for blob in (
        b"",
        b"no",
        sound[:-1],
        sound + b"x",
        sound + sound,
        undeclared,
        make_attacks.ZSTD_CLAIM,
        compress(b"") + sound,
    ):
        with pytest.raises(ContainerError):
            decompress_bounded(blob, 2**20)
