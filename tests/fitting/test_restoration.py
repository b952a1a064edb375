"""Fitting the restoration network: what it gains, when it pays, and which boxes it sees."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from inrcodec.fitting import restoration as fitting
from inrcodec.fitting.restoration import (
    BoxPlan,
    choose_restoration,
    fit_pairs,
    gain_db,
    read_pairs,
    restored_model,
)
from inrcodec.models.restoration import RestorationLayout, padded_box

SHAPES = [(7,), (1,), (3000,), (19, 33), (1, 50), (17, 24, 30), (1, 1, 9), (1, 1, 1), (2, 11, 12, 13), (3, 1, 1, 1)]


def quiet(fraction: float, text: str) -> None:
    assert 0 <= fraction <= 1 and text


def reader(decoded: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda start, stop: decoded[tuple(map(slice, start, stop))]


def blocky(shape: tuple[int, ...], step: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth volume, and what is left of it when the mean of each block of four is kept in multiples of a step."""
    rough = np.random.default_rng(0).normal(size=shape)
    smooth = ndimage.gaussian_filter(rough, 4, mode="wrap")
    volume = np.rint(smooth / max(float(smooth.std()), 1e-3) * 200).astype(np.int16)
    cells = tuple(slice(None, None, 4) for _ in shape)
    means = ndimage.uniform_filter(volume.astype(np.float64), 4, origin=-2, mode="nearest")[cells]
    decoded = np.rint(means / step) * step
    for axis, n in enumerate(shape):
        decoded = np.repeat(decoded, 4, axis=axis).take(range(n), axis=axis)
    return volume, np.rint(decoded).astype(np.float32)


def test_blocks_are_smoothed_where_it_was_not_trained() -> None:
    volume, decoded = blocky((48, 48, 48))
    layout = RestorationLayout(6, 3)
    parameters = fit_pairs(read_pairs(reader(decoded), volume, layout, 0)[0], 60.0, layout, 60, 0, quiet)
    _, held_out = read_pairs(reader(decoded), volume, layout, 0)
    model = restored_model(layout, parameters)
    gain = gain_db(model, held_out, 60.0, int(volume.min()), int(volume.max()))
    assert gain > 2.0
    corrected = model.correct(np.pad(decoded, 2, mode="edge"), 60.0)
    before, after = (float(np.square(d - volume).mean()) for d in (decoded, corrected))
    assert 10 * math.log10(before / after) == pytest.approx(gain, abs=0.7)


def test_same_seed_same_network_whatever_the_global_state() -> None:
    volume, decoded = blocky((20, 22, 24))
    layout, found = RestorationLayout(3, 3), []
    for seed, state in ((1, 5), (1, 6), (2, 5)):
        np.random.seed(state)
        parameters = fit_pairs(read_pairs(reader(decoded), volume, layout, seed)[0], 60.0, layout, 20, seed, quiet)
        found.append(parameters)
    for name, tensor in found[0].items():
        assert tensor.exponent == found[1][name].exponent and np.array_equal(tensor.values, found[1][name].values)
    assert not np.array_equal(found[0]["first"].values, found[2]["first"].values)


def test_only_boxes_with_some_of_the_region_are_read() -> None:
    volume, decoded = blocky((40, 40, 40))
    inside, seen = np.zeros(volume.shape, bool), np.zeros(volume.shape, bool)
    inside[:, :9, :9] = True

    def read(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        seen[tuple(map(slice, start, stop))] = True
        return reader(decoded)(start, stop)

    training, held_out = read_pairs(read, volume, RestorationLayout(3, 3), 0, inside)
    assert training.decoded and held_out.decoded
    assert seen[inside].all() and not seen[:, 30:].any() and not seen[:, :, 30:].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_is_fitted(shape: tuple[int, ...]) -> None:
    volume, decoded = blocky(shape)
    layout = RestorationLayout(3, len(shape))
    parameters = fit_pairs(read_pairs(reader(decoded), volume, layout, 0)[0], 60.0, layout, 6, 0, quiet)
    assert {n: t.values.shape for n, t in parameters.items()} == layout.shapes
    held_out = read_pairs(reader(decoded), volume, layout, 0)[1]
    assert math.isfinite(gain_db(restored_model(layout, parameters), held_out, 60.0, -1000, 1000))


def choose(
    volume: np.ndarray, decoded: np.ndarray, stream_bytes: int, steps: int = 60
) -> fitting.RestorationChoice | None:
    low, high = int(volume.min()), int(volume.max())
    return choose_restoration(
        reader(decoded), volume, 60.0, low=low, high=high, stream_bytes=stream_bytes, steps=steps, seed=0, note=quiet
    )


def test_networks_that_pay_are_chosen() -> None:
    volume, decoded = blocky((40, 40, 40))
    choice = choose(volume, decoded, 20_000)
    assert choice is not None and choice.gain_db > fitting.price_db(choice.size, 20_000) > 0
    assert choice.layout.width in fitting.widths_to_try(20_000)
    assert choice.model.correct(np.zeros((5, 5, 5), dtype=np.float32), 60.0).shape == (1, 1, 1)


def test_noise_does_not_pay() -> None:
    volume, _ = blocky((32, 32, 32))
    noise = np.random.default_rng(1).integers(-30, 31, volume.shape)
    assert choose(volume, (volume + noise * 0).astype(np.float32), 20_000, 5) is None
    rough = np.random.default_rng(2).integers(-500, 500, volume.shape)
    assert choose(rough, (rough + noise).astype(np.float32), 20_000, 60) is None


def test_bytes_that_the_stream_does_not_have_do_not_pay() -> None:
    volume, decoded = blocky((24, 24, 24))
    assert choose(volume, decoded, 10, 10) is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1,), (2, 2)])
def test_tiny_volumes_are_left_alone(shape: tuple[int, ...]) -> None:
    volume, decoded = blocky(shape)
    assert choose(volume, decoded, 100, 3) is None


def test_fits_that_go_astray_are_refused() -> None:
    volume, decoded = blocky((12, 12, 12))
    wild = np.where(np.arange(12) % 2, np.float32(3e38), np.float32(-3e38)) + decoded
    assert choose(volume, wild.astype(np.float32), 20_000, 5) is None


@pytest.mark.parametrize("shape", [*SHAPES, (300, 200, 250)])
def test_boxes_cover_the_volume_once(shape: tuple[int, ...]) -> None:
    plan = BoxPlan(shape, RestorationLayout(2, len(shape)))
    boxes = list(plan.boxes(seed=3))
    assert len(boxes) == math.prod(plan.grid) == len({tuple(start.tolist()) for start, _ in boxes})
    assert sum(int(np.prod(stop - start)) for start, stop in boxes) == math.prod(shape)
    assert all((stop > start).all() for start, stop in boxes)
    assert max(int(np.prod(stop - start)) for start, stop in boxes) <= 1.3 * fitting.BOX


def test_first_boxes_lie_evenly() -> None:
    shape = (384, 384, 384)
    boxes = list(BoxPlan(shape, RestorationLayout(2, 3)).boxes(seed=0))[:64]
    centres = np.array([(start + stop) / 2 for start, stop in boxes])
    octants = np.bincount(((centres > 192) * [4, 2, 1]).sum(axis=1), minlength=8)
    assert octants.min() >= 5 and octants.max() <= 11


def test_reading_is_bounded_and_held_out_boxes_are_apart() -> None:
    shape = (160, 200, 230)
    volume = np.broadcast_to(np.int16(0), shape)
    seen = np.zeros(shape, dtype=np.int8)

    def read(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        return np.zeros(tuple(stop - start), dtype=np.float32)

    layout = RestorationLayout(2, 3)
    training, held_out = read_pairs(read, volume, layout, 0)
    totals = [sum(b.size for b in part.original) for part in (training, held_out)]
    assert 3_300_000 < totals[0] <= fitting.TRAINING_VOXELS and 900_000 < totals[1] <= fitting.HELD_OUT_VOXELS
    for number, (start, stop) in enumerate(BoxPlan(shape, layout).boxes(0)):
        if number < len(training.original) + len(held_out.original):
            seen[tuple(map(slice, start, stop))] += 1
    assert seen.max() == 1


def test_every_tile_comes_once_an_epoch() -> None:
    batches = fitting._batches(8 * fitting.BATCH, torch.Generator().manual_seed(0))
    for _ in range(3):
        assert sorted(torch.cat([next(batches) for _ in range(8)]).tolist()) == list(range(8 * fitting.BATCH))


def test_tiles_hold_the_decoded_samples_and_what_they_lack() -> None:
    volume, decoded = blocky((30, 31, 29))
    layout = RestorationLayout(2, 3)
    training, _ = read_pairs(reader(decoded), volume, layout, 0)
    samples, residual = fitting._tiles(training, 60.0, layout)
    inner = samples[:, 2:-2, 2:-2, 2:-2]
    assert inner.shape == residual.shape
    whole = ((inner + residual) * 20).numpy()
    np.testing.assert_allclose(whole, np.rint(whole), rtol=0, atol=1e-3)
    box = padded_box(reader(decoded), (0, 0, 0), (3, 3, 3), volume.shape, layout.radius)
    assert box.shape == (7, 7, 7)


@pytest.mark.parametrize(
    ("extent", "edge", "turn", "expected"),
    [(1, 1, 0, [0]), (2, 1, 0, [0, 1]), (24, 23, 0, [0]), (24, 23, 1, [1]), (40, 20, 1, [0, 20]), (30, 20, 0, [0, 10])],
)
def test_windows_on_an_axis(extent: int, edge: int, turn: int, expected: list[int]) -> None:
    assert fitting._evenly(extent, edge, turn) == expected
