"""Every codec behind the one interface: shapes, dtypes, quality where quality was paid for, exact where it says so."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench.peers import METHODS, PEERS, Peer, PeerError, make_peer
from bench.peers.base import fold, unfold
from bench.peers.framing import Layout, pack, unpack
from bench.peers.svtav1 import scheduling_kept
from bench.quality import check_decoded, measure_psnr, measure_quality
from bench.signals import BenchSignal
from small_signals import small_signals

SIGNALS = small_signals()
SPECS = [*(name for name in PEERS), "jpeg2000:volume", "htj2k:volume", "x265:fast", "tinc:1"]
HIGH = {"qp": 8, "psnr": 70, "step": 0.002, "distance": 0.3, "near": 1, "bpp": 6.0, "bound": 2.0, "tolerance": 16, "bits_per_voxel": 3.0}


def usable(spec: str, order: str = "") -> Peer:
    peer = make_peer(spec, order)
    if missing := peer.missing():
        pytest.skip(missing)
    return peer


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("spec", SPECS)
def test_a_high_quality_comes_back_close(spec: str, name: str) -> None:
    signal = SIGNALS[name]
    if usable(spec).scale is None:
        pytest.skip("lossless only")
    for order in make_peer(spec).orders(signal):
        peer = make_peer(spec, order)
        if peer.refuses(signal):
            assert peer.refuses(signal) in {"no clips", "no yuv444p"}
            continue
        stream = peer.encode(signal, HIGH[peer.scale.name])
        assert isinstance(stream, bytes) and len(stream) < signal.raw_bytes
        decoded = peer.decode(stream)
        check_decoded(signal, decoded)
        # Ten times better than the limited-range stretch or a shuffled frame order would allow.
        assert measure_psnr(signal, decoded) > 40


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies here")
def test_av1_leaves_the_scheduling_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    peer = usable("svtav1:8")
    peer.encode(next(s for s in SIGNALS.values() if not peer.refuses(s)), 40)
    assert os.sched_getscheduler(0) == before
    with scheduling_kept():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("spec", [s for s in SPECS if s.partition(":")[0] in PEERS and make_peer(s).lossless])
def test_lossless_is_exact(spec: str, name: str) -> None:
    signal = SIGNALS[name]
    peer = usable(spec, make_peer(spec).orders(signal)[-1])
    if spec.startswith("x265"):
        pytest.skip("x265's lossless mode changes samples now and then: `bench lossless` checks and reports it")
    if refusal := peer.refuses(signal, lossless=True):
        assert "at most" in refusal
        return
    decoded = peer.decode(peer.encode(signal, None))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(signal.planes, decoded, strict=True))


@pytest.mark.parametrize("spec", ["x265:fast", "jpeg2000", "sperr", "sz3", "tinc:1"])
def test_more_rate_is_more_quality(spec: str) -> None:
    peer, signal = usable(spec), SIGNALS["twelve"]
    points = []
    for position in (0.55, 0.7, 0.85):
        quality = 2.0 ** (8 * position - 5) if peer.scale.exact else peer.scale.from_position(position)
        stream = peer.encode(signal, quality)
        points.append((len(stream), measure_psnr(signal, peer.decode(stream))))
    assert points == sorted(points) and points[0][1] < points[2][1]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["uint8", "int8", "uint16", "int16"]).flatmap(
        lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=2, max_dims=4, min_side=1, max_side=5))
    ),
    st.lists(st.binary(max_size=300), max_size=4),
    st.booleans(),
)
def test_framing_comes_back(volume: np.ndarray, parts: list[bytes], lossless: bool) -> None:
    signal = BenchSignal("x", "volume", (volume,))
    layout = Layout.of(signal, lossless)
    assert unpack(pack(layout, parts)) == (layout, parts)
    assert np.array_equal(layout.stored(layout.shifted(volume)), volume)
    restored = layout.from_levels(layout.to_levels(volume, 4095), 4095)
    bound = 0 if lossless or layout.high - layout.low <= 4095 else (layout.high - layout.low) / 4095 / 2 + 1
    assert np.abs(restored.astype(int) - volume.astype(int)).max() <= bound


@given(hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), st.sampled_from(["tz", "zt"]))
def test_folding_a_series_comes_back(shape: tuple[int, ...], order: str) -> None:
    volume = np.arange(np.prod(shape)).reshape(shape)
    assert np.array_equal(unfold(fold(volume, order), shape, order), volume)


def test_slice_first_order_puts_times_side_by_side() -> None:
    series = np.arange(2 * 3)[:, None].reshape(2, 3, 1, 1)
    assert fold(series, "tz").ravel().tolist() == [0, 1, 2, 3, 4, 5]
    assert fold(series, "zt").ravel().tolist() == [0, 3, 1, 4, 2, 5]


def test_what_does_not_come_back_whole_is_seen() -> None:
    signal = SIGNALS["twelve"]
    with pytest.raises(PeerError, match="expected"):
        check_decoded(signal, (signal.main[:-1],))
    with pytest.raises(PeerError, match="expected"):
        check_decoded(signal, (signal.main.astype(np.int32),))
    with pytest.raises(PeerError, match="constant"):
        check_decoded(signal, (np.full_like(signal.main, 7),))


def test_a_lost_frame_is_seen() -> None:
    peer, signal = usable("x265:fast"), SIGNALS["odd"]
    layout, parts = unpack(peer.encode(signal, 30))
    more = Layout(layout.dtype, ((layout.shapes[0][0] + 1, *layout.shapes[0][1:]),), layout.low, layout.high)
    with pytest.raises(PeerError, match="expected 10 frames back, found 9"):
        peer.decode(pack(more, parts))


def test_quality_of_a_clip_counts_all_planes() -> None:
    signal = SIGNALS["clip420"]
    spoiled = (signal.planes[0], signal.planes[1], signal.planes[2].copy())
    spoiled[2][0, 0, 0] ^= 4
    error = 16 / signal.samples
    found = measure_quality(signal, spoiled)
    assert found["psnr_db"] == pytest.approx(10 * np.log10((signal.high - signal.low) ** 2 / error))
    assert found["ssim"] == pytest.approx(1.0) and found["max_abs_error"] == 4


@pytest.mark.parametrize("spec", ["nope", "x265:warp", "tinc:10", "sperr:fast"])
def test_unknown_names_are_one_line(spec: str) -> None:
    with pytest.raises(PeerError) as caught:
        make_peer(spec)
    assert "expected" in str(caught.value) and "found" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", [*PEERS, *METHODS])
def test_a_missing_package_is_named_with_its_install_command(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert make_peer(spec).missing().startswith(f"{spec}: needs ") and "pip install" in make_peer(spec).missing()


@pytest.mark.parametrize("spec", [*PEERS, *METHODS])
def test_every_codec_says_what_it_is(spec: str) -> None:
    peer = usable(spec)
    assert peer.fixed_settings() and peer.version() and peer.mapping(SIGNALS["twelve"])
    assert all(not source.startswith("/") for source in peer.sources) and peer.sources
