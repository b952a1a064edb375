"""The laws every file format keeps; a format's test file subclasses `FormatConformance` and names its suffix."""

from __future__ import annotations

import itertools
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from inrcodec_formats import registry
from inrcodec_formats.errors import FormatError, InrcodecError, OutputError, SignalError
from inrcodec_formats.signal import Signal

SPACING = {"c": (1.0, ""), "t": (2.5, "s"), "z": (3.0, "mm"), "y": (0.75, "mm"), "x": (0.5, "mm")}
FOREIGN = {
    "nifti": b"\x93NUMPY\x01\x00v\x00" + bytes(400),
    "nrrd": b"\x93NUMPY\x01\x00v\x00" + bytes(400),
    "tiff": b"\x93NUMPY\x01\x00v\x00" + bytes(400),
    "npy": b"NRRD0004\ntype: uint8\n" + bytes(400),
}


def make_array(dtype: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random integers that every dtype holds, negative ones where it can."""
    low = 0 if np.dtype(dtype).kind == "u" else -100
    return np.random.default_rng(seed).integers(low, 120, shape).astype(dtype)


def make_signal(array: np.ndarray, quantise_step: float | None = None, axes: str | None = None) -> Signal:
    """Wrap an array with a spacing and unit of its own for each axis."""
    signal = Signal.from_array(array, quantise_step=quantise_step, axes=axes)
    pairs = [SPACING[axis] for axis in signal.header.axes]
    return signal.with_header(spacing=tuple(s for s, _ in pairs), units=tuple(u for _, u in pairs))


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the message after checking that it is one line of reasonable length."""
    message = str(error.value)
    assert message and "\n" not in message and len(message) < 400, message
    return message


class FormatConformance:
    """Subclass as ``class TestX(FormatConformance)`` and set the attributes.

    Attributes
    ----------
    suffix : str
        Suffix of the files to write.
    name : str
        Registry name of the format.
    dtypes : tuple of str
        Stored dtypes the format must keep, byte order included.
    shapes : tuple of tuple of int
        Shapes the format must keep.
    channels : tuple of (str, str, int)
        Axes with channels that the format must keep, the dtype, and the number of channels.
    keeps_geometry : bool
        Whether spacing and units survive.
    unused_tail : int
        Bytes at the end of a written file that nothing refers to, so that cutting them loses nothing.
    """

    suffix: ClassVar[str]
    name: ClassVar[str]
    dtypes: ClassVar[tuple[str, ...]] = (
        "|u1", "|i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">u4", "<i4", ">i4", "<i8", ">i8", "<f4", ">f4", "<f8", ">f8",
    )  # fmt: skip
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((5, 7), (4, 5, 7), (3, 4, 5, 7))
    channels: ClassVar[tuple[tuple[str, str, int], ...]] = ()
    keeps_geometry: ClassVar[bool] = True
    unused_tail: ClassVar[int] = 0

    def path(self, folder: Path, stem: str = "a") -> Path:
        return folder / f"{stem}{self.suffix}"

    def written(self, folder: Path, array: np.ndarray, stem: str = "a") -> Path:
        path = self.path(folder, stem)
        registry.write_signal(path, make_signal(array))
        return path

    def test_round_trip_of_every_dtype_and_shape(self, tmp_path: Path) -> None:
        for dtype in self.dtypes:
            for shape in self.shapes:
                array = make_array(dtype, shape)
                found = registry.read(self.written(tmp_path, array))
                assert found.header.file_dtype == dtype, (dtype, shape)
                assert found.values.dtype == np.dtype(dtype), (dtype, shape)
                assert np.array_equal(found.values, array), (dtype, shape)
                assert found.samples.dtype.kind in "iu" and found.samples.dtype.name == found.header.dtype
                assert found.header.source_format == self.name

    def test_geometry_survives(self, tmp_path: Path) -> None:
        for shape in self.shapes:
            signal = make_signal(make_array("<i2", shape))
            found = registry.read(self.written(tmp_path, signal.values)).header
            assert found.axes == signal.header.axes
            if self.keeps_geometry:
                assert found.spacing == pytest.approx(signal.header.spacing)
                assert found.units == signal.header.units

    def test_second_writing_is_byte_identical(self, tmp_path: Path) -> None:
        for dtype in ("|u1", "<i2", ">i2", "<f4"):
            for shape in self.shapes:
                first = self.written(tmp_path, make_array(dtype, shape))
                found = registry.read(first)
                second = self.path(tmp_path, "b")
                registry.write_signal(second, found)
                assert second.read_bytes() == first.read_bytes(), (dtype, shape)
                assert registry.read(second).header == found.header, (dtype, shape)

    def test_a_cut_region_can_be_written(self, tmp_path: Path) -> None:
        array = make_array("<i2", (4, 5, 7))
        found = registry.read(self.written(tmp_path, array))
        region = Signal((np.ascontiguousarray(found.samples[1:3, :, ::2]),), replace(found.header, shape=(2, 5, 4)))
        registry.write_signal(self.path(tmp_path, "b"), region)
        again = registry.read(self.path(tmp_path, "b"))
        assert np.array_equal(again.values, array[1:3, :, ::2])
        if self.keeps_geometry:
            assert again.header.spacing == pytest.approx(found.header.spacing)

    def test_a_changed_spacing_is_written(self, tmp_path: Path) -> None:
        if not self.keeps_geometry:
            pytest.skip("the format has no spacing")
        found = registry.read(self.written(tmp_path, make_array("<i2", (4, 5, 7))))
        registry.write_signal(self.path(tmp_path, "b"), found.with_header(spacing=(6.0, 0.75, 1.0)))
        assert registry.read(self.path(tmp_path, "b")).header.spacing == pytest.approx((6.0, 0.75, 1.0))

    def test_a_changed_byte_order_is_written(self, tmp_path: Path) -> None:
        for order, other in ("<>", "><"):
            array = make_array(f"{order}i2", (4, 5, 7))
            found = registry.read(self.written(tmp_path, array))
            registry.write_signal(self.path(tmp_path, "b"), found.with_header(file_dtype=f"{other}i2"))
            again = registry.read(self.path(tmp_path, "b"))
            assert again.header.file_dtype == f"{other}i2" and np.array_equal(again.values, array)

    def test_fractions_need_a_step(self, tmp_path: Path) -> None:
        array = make_array("<i2", (4, 5, 7)).astype("<f4") / 4
        path = self.path(tmp_path)
        registry.write_signal(path, make_signal(array, quantise_step=0.25))
        with pytest.raises(SignalError, match="quantise_step") as error:
            registry.read(path)
        one_line(error)
        found = registry.read(path, quantise_step=0.25)
        assert found.values.dtype == np.float32 and np.array_equal(found.values, array)
        registry.write_signal(self.path(tmp_path, "b"), found)
        assert self.path(tmp_path, "b").read_bytes() == path.read_bytes()

    def test_nan_is_refused(self, tmp_path: Path) -> None:
        path = self.written(tmp_path, np.full((3, 4, 5), 77, "<f4"))
        raw = self.uncompressed(path)
        pattern = np.float32(77).tobytes()
        assert pattern in raw
        self.replace_content(path, raw.replace(pattern, np.float32("nan").tobytes(), 1))
        with pytest.raises(SignalError, match="NaN") as error:
            registry.read(path)
        one_line(error)

    def uncompressed(self, path: Path) -> bytes:
        """Return the file with its samples unpacked; formats that compress override both of these."""
        return path.read_bytes()

    def replace_content(self, path: Path, raw: bytes) -> None:
        path.write_bytes(raw)

    def test_truncated_files_are_refused(self, tmp_path: Path) -> None:
        whole = self.written(tmp_path, make_array("<i2", (4, 9, 11))).read_bytes()
        path = self.path(tmp_path, "cut")
        for length in {0, 1, 3, 100, *(len(whole) * k // 16 for k in range(16)), len(whole) - self.unused_tail - 1}:
            path.write_bytes(whole[:length])
            with pytest.raises(FormatError) as error:
                registry.read(path)
            assert "cut" in one_line(error)

    def test_changed_bytes_never_escape_as_other_errors(self, tmp_path: Path) -> None:
        whole = self.written(tmp_path, make_array("<i2", (3, 6, 7))).read_bytes()
        path = self.path(tmp_path, "changed")
        rng = random.Random(1)
        for _ in range(60):
            changed = bytearray(whole)
            for _ in range(rng.choice((1, 1, 2, 8))):
                changed[rng.randrange(min(len(whole), 700))] = rng.randrange(256)
            path.write_bytes(changed)
            try:
                found = registry.read(path)
            except InrcodecError as error:
                assert "\n" not in str(error)
            else:
                assert found.samples.shape == found.header.shape

    def test_other_content_under_this_suffix_is_refused(self, tmp_path: Path) -> None:
        path = self.path(tmp_path)
        path.write_bytes(b"just some text, long enough to be read as a header\n" * 20)
        with pytest.raises(FormatError, match=f"expected {self.name} content.*unrecognised") as error:
            registry.read(path)
        one_line(error)
        path.write_bytes(FOREIGN[self.name])
        other = "nrrd" if self.name == "npy" else "npy"
        with pytest.raises(FormatError, match=f"expected {self.name} content.*found {other} content"):
            registry.read(path)

    def test_unknown_suffix_is_read_by_content(self, tmp_path: Path) -> None:
        array = make_array("<i2", (4, 5, 7))
        path = self.written(tmp_path, array).rename(tmp_path / "a.image")
        assert np.array_equal(registry.read(str(path)).values, array)

    def test_odd_slabs_write_the_same_bytes(self, tmp_path: Path) -> None:
        for shape in ((11, 4, 5), (9, 7)):
            signal = make_signal(make_array("<i2", shape))
            whole = self.written(tmp_path, signal.values)
            samples, edges = signal.samples, (0, 1, 4, 4, shape[0])
            slabs = (samples[a:b] for a, b in itertools.pairwise(edges))
            registry.write(str(self.path(tmp_path, "b")), signal.header, slabs)
            assert self.path(tmp_path, "b").read_bytes() == whole.read_bytes()

    def test_transposed_samples_are_written_in_index_order(self, tmp_path: Path) -> None:
        array = make_array("<i2", (4, 5, 7))
        turned = np.asfortranarray(array)
        registry.write_signal(self.path(tmp_path), make_signal(turned))
        assert np.array_equal(registry.read(self.path(tmp_path)).values, array)

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
    def test_failing_slabs_leave_the_old_file(self, tmp_path: Path, failure: type[BaseException]) -> None:
        signal = make_signal(make_array("<i2", (6, 4, 5)))

        def slabs() -> Iterator[np.ndarray]:
            yield signal.samples[:2]
            raise failure("decoder stopped")

        with pytest.raises(failure, match="decoder stopped"):
            registry.write(self.path(tmp_path, "new"), signal.header, slabs())
        assert list(tmp_path.iterdir()) == []
        old = self.path(tmp_path, "old")
        old.write_bytes(b"old content")
        with pytest.raises(failure):
            registry.write(old, signal.header, slabs())
        assert old.read_bytes() == b"old content" and list(tmp_path.iterdir()) == [old]

    def test_slabs_that_do_not_add_up_are_refused(self, tmp_path: Path) -> None:
        signal = make_signal(make_array("<i2", (6, 4, 5)))
        samples = signal.samples
        for slabs in ([samples[:5]], [samples, samples[:1]], [samples[:, :3]], [samples.astype("<i4")], []):
            with pytest.raises(SignalError, match="expected slabs") as error:
                registry.write(self.path(tmp_path), signal.header, iter(slabs))
            one_line(error)
            assert list(tmp_path.iterdir()) == []

    def test_unwritable_targets(self, tmp_path: Path) -> None:
        signal = make_signal(make_array("<i2", (3, 4, 5)))
        folder = self.path(tmp_path, "folder")
        folder.mkdir()
        for target in (self.path(tmp_path / "missing"), folder):
            asked = iter([signal.samples])
            with pytest.raises(OutputError) as error:
                registry.write(target, signal.header, asked)
            one_line(error)
            assert next(asked) is signal.samples, "the target must be tried before any slab is produced"

    def test_channels_come_back_where_they_were(self, tmp_path: Path) -> None:
        assert self.channels
        for axes, dtype, count in self.channels:
            extents = {"t": 2, "z": 3, "y": 5, "x": 7, "c": count}
            array = make_array(dtype, tuple(extents[axis] for axis in axes))
            registry.write_signal(self.path(tmp_path), make_signal(array, axes=axes))
            found = registry.read(self.path(tmp_path))
            assert np.array_equal(found.values, array) and found.values.dtype == array.dtype, (axes, dtype, count)
            registry.write_signal(self.path(tmp_path, "b"), found)
            assert self.path(tmp_path, "b").read_bytes() == self.path(tmp_path).read_bytes(), (axes, dtype, count)
            if self.keeps_geometry:
                assert found.header.axes == axes
                assert found.header.spacing == pytest.approx(make_signal(array, axes=axes).header.spacing), axes

    def test_axes_without_a_place_are_refused_before_any_slab(self, tmp_path: Path) -> None:
        if self.name == "npy":
            pytest.skip("npy holds any axes")
        signal = Signal.from_array(make_array("|u1", (4, 5, 3)), axes="xcy")
        with pytest.raises(FormatError, match="axes") as error:
            registry.writer_for(self.path(tmp_path), signal.header)
        one_line(error)

    def test_writing_needs_memory_of_a_slab_not_of_the_volume(self, tmp_path: Path) -> None:
        shape = (128, 256, 256)
        header = replace(make_signal(make_array("<i2", (1, 1, 1))).header, shape=shape, dtype="int16")
        slab = np.zeros((4, *shape[1:]), np.int16)
        tracemalloc.start()
        try:
            registry.write(self.path(tmp_path), header, (slab for _ in range(shape[0] // 4)))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < header.raw_bytes // 3

    def test_any_array_comes_back(self, tmp_path: Path) -> None:
        # Axes of length one may be dropped by a format; the formats' own tests say which.
        shapes = st.sampled_from(self.shapes).flatmap(lambda shape: st.tuples(*[st.integers(2, 6)] * len(shape)))
        dtypes = st.sampled_from([d for d in self.dtypes if d[1:] in ("u1", "i1", "u2", "i2")])

        @settings(max_examples=25, deadline=None)
        @given(array=npst.arrays(dtypes, shapes))
        def comes_back(array: np.ndarray) -> None:
            found = registry.read(self.written(tmp_path, array))
            assert found.header.shape == array.shape and np.array_equal(found.values, array)

        comes_back()
