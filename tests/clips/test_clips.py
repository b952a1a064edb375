"""Clips through the codec: what comes back, which parts can be read, which targets are met."""

import io
import itertools
import weakref
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import inrcodec
from clips.cases import (
    FAST,
    add_sound,
    clip_file,
    clip_header,
    clip_signal,
    moving,
    psnr_of,
    signal_of,
    squares,
    two_scenes,
)
from inrcodec import block_bits
from inrcodec.clips import encode as clip_encode
from inrcodec.clips.sources import SignalFrames
from inrcodec.clips.view import Clip
from inrcodec.image import Image
from inrcodec.options import EncodeOptions, PyramidOptions, one_target
from inrcodec_formats.errors import ContainerError, OptionError, SignalError, TargetError
from inrcodec_formats.video.read import ClipReader
from samples import panned, psnr_db


def raw_bytes(signal):
    return sum(plane.nbytes for plane in signal.planes)


@pytest.fixture(scope="module")
def cut_signal():
    return two_scenes(9, 11)


@pytest.fixture(scope="module")
def encoded(cut_signal, tmp_path_factory):
    """The stream, its report and what was told on the way."""
    told, path = [], tmp_path_factory.mktemp("cut") / "c.inrc"
    report = inrcodec.encode(cut_signal, path, psnr_db=30, progress=lambda *words: told.append(words), **FAST)
    return path.read_bytes(), report, told


@pytest.fixture(scope="module")
def cut_blob(encoded):
    return encoded[0]


@pytest.fixture(scope="module")
def decoded(cut_blob):
    return inrcodec.decode(cut_blob)


@pytest.mark.parametrize(
    "of_header",
    [
        {"height": 23, "width": 35},
        {"pixel_format": "gray"},
        {"pixel_format": "yuv444p10le"},
        {"pixel_format": "gbrp"},
        {"frames": 1, "height": 16, "width": 16},
        {"pixel_format": "yuv422p", "frames": 3, "times": [-5, 7, 1000], "sample_aspect": Fraction(4, 3)},
    ],
    ids=lambda of_header: ",".join(map(str, of_header.values())),
)
def test_every_kind_of_clip_comes_back(of_header, tmp_path):
    header = clip_header(**of_header)
    planes = clip_file(tmp_path / "in.mkv", header)
    with ClipReader(tmp_path / "in.mkv") as reader:
        header = reader.header
    report = inrcodec.encode(tmp_path / "in.mkv", tmp_path / "c.inrc", psnr_db=25, **FAST)
    signal = inrcodec.decode(tmp_path / "c.inrc")
    assert [plane.shape for plane in signal.planes] == [plane.shape for plane in planes]
    assert signal.planes[0].dtype == header.dtype
    assert 25 <= report.psnr_db == pytest.approx(psnr_of(planes, signal.planes), abs=1e-9)
    inrcodec.decode(tmp_path / "c.inrc", tmp_path / "out.mkv", codec="ffv1")
    with ClipReader(tmp_path / "out.mkv") as reader:
        assert list(reader.header.times) == list(header.times)
        assert reader.header.colour == header.colour and reader.header.sample_aspect == header.sample_aspect
        assert reader.header.pixel_format == header.pixel_format
        written = tuple(map(np.stack, zip(*reader.frames(), strict=True)))
    assert all(np.array_equal(a, b) for a, b in zip(written, signal.planes, strict=True))


@pytest.mark.parametrize(("method", "bits", "psnr_db"), [("sci", 16, 18), ("pyramid", 28, 18)])
def test_other_methods_code_clips_too(method, bits, psnr_db):
    signal = clip_signal(frames=2, height=16, width=16, pixel_format="gray")
    small = PyramidOptions(levels=3, context=8, synthesis=(4, 8), tile_edge=8, warm_start=False)
    options = replace(clip_options(bits=bits), method=method, pyramid=small)
    clip_encode.ClipEncoder(SignalFrames(signal), options, True, quiet).write(out := io.BytesIO())
    blob = out.getvalue()
    assert inrcodec.info(blob).method == method
    assert len(blob) <= bits * raw_bytes(signal) / 8
    assert psnr_of(signal.planes, inrcodec.decode(blob).planes) >= psnr_db


def test_auto_chooses_once_for_all_groups(cut_signal, monkeypatch):
    """The trial itself is tested with volumes; here it is on luma of the middle group, and all streams follow it."""
    asked = []

    def chosen(encoder):
        asked.append((encoder.signal.header.shape, encoder.options.target.kind))
        encoder.choices["method_reason"] = "told so"
        return "tinc"

    monkeypatch.setattr(clip_encode.Encoder, "chosen_method", chosen)
    encoder = clip_encode.ClipEncoder(SignalFrames(cut_signal), replace(clip_options(psnr=20), method="auto"), True, quiet)
    report = encoder.write(io.BytesIO())
    assert asked == [((11, 24, 32), "psnr_db")]
    assert report.method == "tinc" and report.choices["method_reason"] == "told so"
    assert {made.report.method for made in encoder.made} == {"tinc"}


@pytest.mark.parametrize("target", [{"ratio": 9}, {"bits_per_voxel": 1.5}])
def test_sizes_are_met_by_the_whole_file(cut_signal, target):
    blob = inrcodec.encode(cut_signal, **target, **FAST)
    wanted = raw_bytes(cut_signal) / target["ratio"] if "ratio" in target else raw_bytes(cut_signal) * 1.5 / 8
    assert 0.98 * wanted <= len(blob) <= wanted


def test_psnr_over_all_planes_is_reached_and_hardly_exceeded(cut_signal, encoded, decoded):
    report = encoded[1]
    assert 30 <= psnr_of(cut_signal.planes, decoded.planes) <= 30.1
    assert report.psnr_db == pytest.approx(psnr_of(cut_signal.planes, decoded.planes), abs=1e-9)
    assert (report.frames, report.groups, report.carried_bytes) == (20, 2, 0)
    luma = psnr_of(cut_signal.planes[:1], decoded.planes[:1])
    own = [int(p.max()) - int(p.min()) for p in (cut_signal.planes[0], np.concatenate([p.ravel() for p in cut_signal.planes]))]
    assert report.psnr_parts_db["Y"] == pytest.approx(luma + 20 * np.log10(own[1] / own[0]), abs=1e-9)


def test_a_cut_begins_a_group_and_the_first_group_needs_no_other(cut_signal, cut_blob, decoded):
    with inrcodec.open(cut_blob) as clip:
        assert clip.groups == (range(0, 9), range(9, 20))
        before = clip.bytes_read
        first = clip.read(0, 9)
        assert clip.bytes_read - before == clip.container.chunks.length[0]
    assert all(np.array_equal(a, b[:9]) for a, b in zip(first, decoded.planes, strict=True))


def test_ranges_and_single_frames_are_those_of_the_whole(cut_blob, decoded):
    with inrcodec.open(cut_blob) as clip:
        assert len(clip) == 20 and len(list(clip)) == 20
        for start, stop in ((0, 1), (7, 12), (19, 20)):
            part = clip.read(start, stop)
            assert all(np.array_equal(a, b[start:stop]) for a, b in zip(part, decoded.planes, strict=True))
            frames = list(clip.frames(start, stop))
            assert all(np.array_equal(a, b) for a, b in zip(map(np.stack, zip(*frames, strict=True)), part, strict=True))
        with pytest.raises(OptionError, match="frames within 0 to 20"):
            clip.read(3, 21)


def test_frames_are_found_by_their_time(cut_blob, decoded):
    with inrcodec.open(cut_blob) as clip:
        # Frame n is shown from (100 + 3 n) / 25 s on, for 0.12 s.
        for seconds, frame in ((4.0, 0), (4.11, 0), (Fraction(103, 25), 1), (6.39, 19)):
            assert clip.frame_at(seconds) == frame
        assert np.array_equal(clip.at(5.0)[1], decoded.planes[1][8])
        for seconds in (3.99, Fraction(160, 25), float("nan")):
            with pytest.raises(OptionError, match=r"expected a time from 4 to below 6\.4 s"):
                clip.at(seconds)


@pytest.mark.parametrize("size", [(24, 32), (53, 47)])
def test_half_size_keeps_frames_and_subsampling(size, tmp_path):
    signal = clip_signal(frames=3, height=size[0], width=size[1])
    blob = inrcodec.encode(signal, psnr_db=30, **FAST)
    with inrcodec.open(blob) as clip:
        half, header = clip.read(scale=0.5), clip.part(scale=0.5)
        assert [plane.shape for plane in half] == [(3, *shape) for shape in header.plane_shapes]
        means = clip.read()[0][:, : size[0] // 2 * 2, : size[1] // 2 * 2].reshape(3, size[0] // 2, 2, size[1] // 2, 2)
    # Away from the border's edge a sample of the smaller picture is about the mean of the four in its place.
    inner = (slice(None), slice(2, size[0] // 2 - 2), slice(6, size[1] // 2 - 2))
    difference = half[0][:, : size[0] // 2, : size[1] // 2].astype(float) - means.mean((2, 4))
    assert np.abs(difference[inner]).mean() < 4


def test_a_border_that_stays_costs_nearly_nothing():
    header = clip_header(frames=8, height=32, width=32, pixel_format="gray")
    inner = moving(header)[0]
    wide = clip_header(frames=8, height=96, width=96, pixel_format="gray")
    framed = np.full((8, 96, 96), 16, np.uint8)
    framed[:, 32:64, 32:64] = inner
    sizes = []
    for head, planes in ((header, inner), (wide, framed)):
        source = SignalFrames(signal_of(head, (planes,)))
        out = io.BytesIO()
        options = clip_options(bits=None, psnr=30 + 10 * np.log10(planes.size / inner.size))
        clip_encode.ClipEncoder(source, options, True, quiet).write(out)
        sizes.append(len(out.getvalue()))
    assert sizes[1] < 1.6 * sizes[0]


def test_frames_held_while_encoding_are_those_of_two_groups_at_most():
    header = clip_header(frames=32, height=16, width=16, pixel_format="gray")
    source = Counted(signal_of(header, tuple(np.concatenate([(255 - p if n % 2 else p) for n, p in enumerate(np.split(plane, 4))]) for plane in moving(header))))
    encoder = clip_encode.ClipEncoder(source, clip_options(psnr=20), True, quiet)
    written = Growing(source)
    encoder.write(written)
    assert len(encoder.plan.starts) == 4
    assert source.most <= 16
    # Groups leave as they are done: when the last one is read, the first ones are written.
    assert written.chunks_after_frames == sorted(written.chunks_after_frames) and len(set(written.chunks_after_frames)) == 4


def test_frames_held_while_decoding_are_those_of_a_group(cut_blob):
    with inrcodec.open(cut_blob) as clip:
        next(frames := clip.frames())
        assert clip.bytes_read <= len(cut_blob) - clip.container.chunks.length[1]
        assert len(list(frames)) == 19


def test_sound_is_carried_and_counted(tmp_path):
    header = clip_header(frames=6)
    clip_file(tmp_path / "silent.mkv", header)
    add_sound(tmp_path / "silent.mkv", tmp_path / "in.mkv")
    report = inrcodec.encode(tmp_path / "in.mkv", tmp_path / "c.inrc", bits_per_voxel=14, **FAST)
    assert report.bytes == (tmp_path / "c.inrc").stat().st_size <= 6 * header.width * header.height * 1.5 * 14 / 8
    assert report.carried_bytes == inrcodec.info(tmp_path / "c.inrc").parts["OTHR"] > 1600
    inrcodec.decode(tmp_path / "c.inrc", tmp_path / "out.mkv")
    with ClipReader(tmp_path / "in.mkv") as source, ClipReader(tmp_path / "out.mkv") as copy:
        before, after = (b"".join(p.data for p in reader.others()[0].packets) for reader in (source, copy))
    assert before == after
    part = inrcodec.decode(tmp_path / "c.inrc", tmp_path / "out.mkv")
    assert part.notes == ()
    with pytest.raises(TargetError, match="audio=False leaves out"):
        inrcodec.encode(tmp_path / "in.mkv", tmp_path / "c.inrc", bits_per_voxel=1, **FAST)
    silent = inrcodec.encode(tmp_path / "in.mkv", tmp_path / "c.inrc", bits_per_voxel=3, audio=False, **FAST)
    assert silent.carried_bytes == 0 and any("dropped: 1 audio" in note for note in silent.notes)


def test_the_same_clip_gives_the_same_bytes(cut_signal, cut_blob):
    assert inrcodec.encode(cut_signal, psnr_db=30, **FAST) == cut_blob


def test_views_of_volumes_refuse_a_clip_and_the_other_way_round(cut_blob):
    with pytest.raises(ContainerError, match="found a clip"):
        Image(cut_blob)
    with pytest.raises(ContainerError, match="expected the stream of a clip"):
        Clip(inrcodec.encode(np.zeros((3, 4, 5), np.uint8), psnr_db=30, **FAST))


def test_files_pipes_and_bytes_are_all_opened(cut_blob, decoded):
    assert np.array_equal(inrcodec.decode(io.BytesIO(cut_blob)).planes[2], decoded.planes[2])
    assert np.array_equal(inrcodec.decode(Pipe(cut_blob)).planes[2], decoded.planes[2])


def test_progress_tells_frames_and_the_time_that_is_left(encoded):
    fractions, notes = zip(*((fraction, note) for stage, fraction, note in encoded[2] if stage == "encode"), strict=True)
    fractions = list(fractions)
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert any(note.startswith("frames 1 to 9 of 20, Y") for note in notes)
    assert any("frames 10 to 20" in note and "s to go" in note for note in notes)


def test_a_picture_shows_the_group_in_the_middle(encoded, tmp_path, monkeypatch):
    shown = []
    blob = encoded[0]
    monkeypatch.setattr(block_bits, "save_partition", lambda path, blocks, read, **told: shown.append((blocks, read, told)))
    inrcodec.info(blob, picture=tmp_path / "p.png")
    monkeypatch.undo()
    (blocks, read, told), = shown
    assert told["title"].startswith("TINC ") and told["title"].endswith("Y of frames 10 to 20") and told["axes"] == "tyx"
    with inrcodec.open(blob) as clip:
        frames = clip.read(9, 20)[0]
    assert told["shape"] == frames.shape and blocks.extent.prod(axis=1).sum() == frames.size
    assert np.array_equal(read(np.zeros(3, int), np.array(frames.shape)), frames)
    report = inrcodec.info(blob, picture=tmp_path / "p.png")
    assert report == inrcodec.info(blob) and (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_is_one_line(cut_signal, tmp_path):
    with pytest.raises(TargetError, match="at least"):
        inrcodec.encode(cut_signal, ratio=1000, **FAST)
    with pytest.raises(OptionError, match="quantise_step"):
        inrcodec.encode(cut_signal, ratio=4, quantise_step=0.5, **FAST)
    with pytest.raises(OptionError, match="for clips only"):
        inrcodec.decode(inrcodec.encode(np.zeros((3, 4, 5), np.uint8), psnr_db=30, **FAST), tmp_path / "a.npy", codec="h264")
    with pytest.raises(SignalError, match="expected planes"):
        inrcodec.encode(signal_of(clip_header(frames=3), cut_signal.planes), ratio=4)


def clip_options(bits=None, psnr=None):
    target = one_target(bits_per_voxel=bits, psnr_db=psnr)
    return EncodeOptions(target, "tinc", 1, "auto", 0, False, tinc=FAST["tinc"])


def quiet(stage, fraction, note):
    """Report nothing."""


class Counted(SignalFrames):
    """Counts frames that someone still holds."""

    def __init__(self, signal):
        super().__init__(signal)
        self.held, self.most, self.given = 0, 0, 0

    def frames(self, start=0, stop=None):
        for planes in super().frames(start, stop):
            copies = tuple(plane.copy() for plane in planes)
            self.held, self.given = self.held + 1, self.given + 1
            self.most = max(self.most, self.held)
            weakref.finalize(copies[0], self._let_go)
            yield copies

    def _let_go(self):
        self.held -= 1


class Growing(io.BytesIO):
    """Remembers how many frames had been read whenever something large was written."""

    def __init__(self, source):
        super().__init__()
        self.source, self.chunks_after_frames = source, []

    def write(self, data):
        if len(data) > 200:
            self.chunks_after_frames.append(self.source.given)
        return super().write(data)


class Pipe:
    """A stream that cannot seek."""

    def __init__(self, data):
        self._pieces = itertools.batched(data, 1000) if hasattr(itertools, "batched") else iter([data])

    def seekable(self):
        return False

    def read(self, count):
        return bytes(next(self._pieces, b""))


def test_errors_are_moved_out_of_a_region_of_frames() -> None:
    signal = clip_signal(height=48, width=64)
    region = (slice(12, 36), slice(20, 52))
    inside = [(slice(None), slice(12 // n, 36 // n), slice(20 // n, 52 // n)) for n in (1, 2, 2)]
    found = []
    for chosen in (None, region):
        planes = inrcodec.decode(inrcodec.encode(signal, ratio=10, region=chosen, emphasis=chosen and 16, **FAST)).planes
        pairs = zip(signal.planes, planes, inside, strict=True)
        found.append(squares(*zip(*((a[part], b[part]) for a, b, part in pairs), strict=True)))
    assert found[1] < 0.9 * found[0]


def test_a_psnr_is_that_of_the_region_of_all_planes(tmp_path) -> None:
    signal, path = clip_signal(height=48, width=64), tmp_path / "c.inrc"
    region = (slice(12, 36), slice(20, 52))
    parts = [(slice(None), slice(12 // n, 36 // n), slice(20 // n, 52 // n)) for n in (1, 2, 2)]
    report = inrcodec.encode(signal, path, psnr_db=38, region=region, emphasis=32, **FAST)
    planes = inrcodec.decode(path).planes
    peak = max(int(plane.max()) for plane in signal.planes) - min(int(plane.min()) for plane in signal.planes)
    inside = [(a[part], b[part]) for a, b, part in zip(signal.planes, planes, parts, strict=True)]
    expected = 10 * np.log10(peak**2 * sum(a.size for a, _ in inside) / squares(*zip(*inside, strict=True)))
    assert report.psnr_inside_db == pytest.approx(expected) and 38 <= expected <= 38.1
    assert report.psnr_db == pytest.approx(psnr_of(signal.planes, planes))
    assert report.psnr_outside_db < report.psnr_db < report.psnr_inside_db - 2


def test_everything_may_be_inside(tmp_path) -> None:
    report = inrcodec.encode(clip_signal(), tmp_path / "c.inrc", ratio=6, region=(slice(None), slice(None)), **FAST)
    assert report.psnr_inside_db == pytest.approx(report.psnr_db) and report.psnr_outside_db is None


@pytest.mark.parametrize("wish", ["auto", True, False])
def test_luma_of_a_moving_camera_is_displaced(wish) -> None:
    header = clip_header(frames=6, height=48, width=64)
    luma = panned((6, 48, 64), 3.4)
    planes = (luma, *(plane[:, ::2, ::2] // 4 + 96 for plane in (luma, 255 - luma)))
    blob = inrcodec.encode(signal_of(header, planes), bits_per_voxel=1, motion=wish, **FAST)
    with inrcodec.open(blob) as clip:
        moved = []
        for part in (0, 1):
            with clip.image(0, part) as image:
                moved.append("still_frames" in image.blocks.details())
        assert moved == [wish is not False, False], "both planes of chroma are channels of one stream"
        whole = clip.read(0, 6)
        for plane, part in zip(whole, clip.read(2, 4), strict=True):
            np.testing.assert_array_equal(plane[2:4], part)
    assert (psnr_db(luma, whole[0]) > 34) is (wish is not False), "what it gains shows that it was used"


def test_a_mask_is_of_a_frame() -> None:
    with pytest.raises(OptionError, match="expected a mask of shape"):
        inrcodec.encode(clip_signal(), ratio=5, region=np.ones((7, 7)), **FAST)
