"""Metrics against scikit-image, exact arithmetic, and the awkward cases."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from inrcodec import comparison, metrics
from inrcodec_formats.errors import SignalError
from inrcodec_formats.signal import Signal

ARRAYS = st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]).flatmap(
    lambda dtype: hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6).flatmap(
        lambda shape: st.tuples(hnp.arrays(dtype, shape), hnp.arrays(dtype, shape))
    )
)


def noisy_pair(shape, dtype=np.int16, seed=0):
    generator = np.random.default_rng(seed)
    reference = generator.integers(0, 1000, shape)
    decoded = reference + generator.integers(-40, 40, shape)
    return reference.astype(dtype), decoded.astype(dtype)


@settings(max_examples=60, deadline=None)
@given(ARRAYS)
def test_psnr_equals_scikit_image(pair):
    reference, decoded = pair
    wide = [array.astype(np.float64) for array in pair]
    expected = math.inf
    if not np.array_equal(reference, decoded):
        expected = peak_signal_noise_ratio(*wide, data_range=float(np.ptp(wide[0])) or 1.0)
    assert metrics.psnr(reference, decoded) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(ARRAYS)
def test_absolute_errors_equal_exact_arithmetic(pair):
    difference = [abs(int(a) - int(b)) for a, b in zip(pair[0].flat, pair[1].flat, strict=True)]
    largest, mean = metrics.absolute_errors(*pair)
    assert largest == max(difference)
    assert mean == sum(difference) / len(difference)


@settings(max_examples=30, deadline=None)
@given(ARRAYS, st.integers(1, 40))
def test_tiles_cover_every_voxel_once(pair, tile):
    seen = np.zeros(pair[0].shape, int)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "TILE_VOXELS", tile)
        for index in metrics._tiles(seen.shape):
            seen[index] += 1
        tiled = metrics.error_statistics(*pair)
    assert np.all(seen == 1)
    assert tiled == metrics.error_statistics(*pair)


def test_differences_do_not_wrap():
    reference = np.array([0, 65535, 0], np.uint16)
    statistics = metrics.error_statistics(reference, reference[[1, 0, 2]])
    assert statistics.max_abs == 65535
    assert statistics.sum_squares == 2 * 65535**2
    assert metrics.absolute_errors(np.array([-128], np.int8), np.array([127], np.int8)) == (255, 255)


def test_own_range_not_dtype_range():
    reference = np.array([100, 200], np.uint16)
    assert metrics.psnr(reference, reference + np.uint16(10)) == pytest.approx(20.0)
    assert metrics.psnr(reference, reference + np.uint16(10), data_range=1000) == pytest.approx(40.0)


def test_constant_reference_counts_in_stored_units():
    reference = np.full((4, 4, 4), 7, np.uint8)
    assert metrics.psnr(reference, reference) == math.inf
    assert metrics.psnr(reference, reference + np.uint8(10)) == pytest.approx(-20.0)
    assert metrics.ssim3d(reference, reference) == 1.0


@pytest.mark.parametrize("shape", [(200,), (20, 31), (9, 10, 11), (7, 7, 7), (16, 40, 5)])
@pytest.mark.parametrize("tile", [1, 300, 1 << 20])
def test_tiled_ssim_equals_the_whole_volume(shape, tile, monkeypatch):
    reference, decoded = noisy_pair(shape)
    window = min(7, (min(shape) - 1) // 2 * 2 + 1)
    expected = structural_similarity(
        reference.astype(float), decoded.astype(float), win_size=window, data_range=float(np.ptp(reference))
    )
    monkeypatch.setattr(metrics, "TILE_VOXELS", tile)
    assert metrics.ssim3d(reference, decoded) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_a_series_is_the_mean_over_time():
    reference, decoded = noisy_pair((3, 8, 9, 10))
    data_range = float(np.ptp(reference))
    expected = np.mean([metrics.ssim3d(a, b, data_range) for a, b in zip(reference, decoded, strict=True)])
    assert metrics.ssim3d(reference, decoded) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_a_one_slice_stack_is_that_of_the_slice():
    reference, decoded = noisy_pair((1, 20, 20))
    assert metrics.ssim3d(reference, decoded) == metrics.ssim3d(reference[0], decoded[0])


@pytest.mark.parametrize("shape", [(1,), (2,), (1, 1, 1), (2, 30, 30), (30, 30, 2), (4, 2, 30, 30)])
def test_ssim_without_room_for_a_window(shape):
    assert metrics.ssim3d(*noisy_pair(shape)) is None


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim3d, metrics.absolute_errors, comparison.compare])
def test_shapes_must_agree(measure):
    with pytest.raises(SignalError, match="same shape"):
        measure(np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8))


def test_refusals():
    with pytest.raises(SignalError, match="at least one sample"):
        metrics.psnr(np.zeros((0, 3), np.uint8), np.zeros((0, 3), np.uint8))
    with pytest.raises(SignalError, match="positive data_range"):
        metrics.psnr(*noisy_pair((4,)), data_range=0)


def test_compare_arrays():
    reference, decoded = noisy_pair((12, 13, 14))
    report = comparison.compare(reference, decoded, compressed_bytes=100)
    assert report.psnr_db == metrics.psnr(reference, decoded)
    assert report.psnr_range == np.ptp(reference)
    assert report.psnr_dtype_db == metrics.psnr(reference, decoded, data_range=65535)
    assert report.ssim == metrics.ssim3d(reference, decoded)
    assert (report.max_abs_error, report.mean_abs_error) == metrics.absolute_errors(reference, decoded)
    assert report.ratio == reference.nbytes / 100
    assert report.bits_per_voxel == 800 / reference.size
    assert not report.identical


def test_compare_identical_is_strict_json():
    report = comparison.compare(*[noisy_pair((5, 6))[0]] * 2)
    assert report.identical
    assert report.psnr_db == math.inf
    assert (report.bytes, report.ratio, report.bits_per_voxel) == (None, None, None)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["psnr_db"] is None


def test_compare_fractions_in_their_own_unit():
    original = Signal.from_array(np.linspace(0, 1, 50, dtype=np.float32), quantise_step=0.01)
    decoded = original.with_header()
    decoded.planes[0].flags.writeable = False
    shifted = Signal(planes=(original.samples + original.samples.dtype.type(1),), header=original.header)
    report = comparison.compare(original, shifted)
    assert report.max_abs_error == pytest.approx(0.01, rel=1e-5)
    assert report.psnr_range == pytest.approx(1.0)
    assert comparison.compare(original, decoded).identical


def test_statistics_of_parts_add_up_to_those_of_the_whole():
    reference, decoded = noisy_pair((9, 10, 11))
    parts = [metrics.error_statistics(reference[s], decoded[s]) for s in (slice(0, 4), slice(4, 9))]
    assert parts[0] + parts[1] == metrics.error_statistics(reference, decoded)
