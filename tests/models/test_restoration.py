"""The restoration network on boxes of signals: layout, units, tiles, and reading with a ring."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inrcodec.models.restoration import LARGEST_PARAMETER, Restoration, RestorationLayout, padded_box

SHAPES = [(40,), (1,), (13, 17), (1, 9), (9, 10, 11), (1, 1, 7), (1, 1, 1), (3, 7, 8, 6), (1, 1, 5, 1)]


def model(ndim: int, width: int = 5, seed: int = 0) -> Restoration:
    """A network whose last layer is not zero."""
    layout = RestorationLayout(width, ndim)
    random = torch.Generator().manual_seed(seed)
    return Restoration(layout, {n: torch.randn(s, generator=random) / 4 for n, s in layout.shapes.items()})


def padded(samples: np.ndarray, radius: tuple[int, ...]) -> np.ndarray:
    return np.pad(samples, [(r, r) for r in radius], mode="edge")


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) * 40


@pytest.mark.parametrize(
    ("ndim", "kernel", "radius"),
    [(1, (1, 1, 3), (2,)), (2, (1, 3, 3), (2, 2)), (3, (3, 3, 3), (2, 2, 2)), (4, (3, 3, 3), (0, 2, 2, 2))],
)
def test_layout(ndim: int, kernel: tuple[int, ...], radius: tuple[int, ...]) -> None:
    layout = RestorationLayout(8, ndim)
    assert (layout.kernel, layout.radius) == (kernel, radius)
    assert layout.count == sum(p.numel() for p in Restoration.initial(layout, 0).parameters.values())


def test_known_counts() -> None:
    assert [RestorationLayout(w, 3).count for w in (8, 16)] == [512, 1152]


@pytest.mark.parametrize("shape", SHAPES)
def test_fresh_networks_change_nothing(shape: tuple[int, ...]) -> None:
    samples, fresh = noise(shape), Restoration.initial(RestorationLayout(4, len(shape)), seed=3)
    assert np.array_equal(fresh.correct(padded(samples, fresh.radius), 2.0), samples)


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_equal_the_whole(shape: tuple[int, ...]) -> None:
    samples, network = noise(shape), model(len(shape))
    whole = network.correct(padded(samples, network.radius), 8.0)
    assert whole.shape == shape and whole.dtype == np.float32

    def read(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        assert (start >= 0).all() and (stop <= shape).all() and (start < stop).all()
        return samples[tuple(map(slice, start, stop))]

    middle = [n // 2 for n in shape]
    for start, stop in (
        ([0] * len(shape), [m + 1 for m in middle]),
        (middle, list(shape)),
        ([n // 3 for n in shape], [min(n, n // 3 + 2) for n in shape]),
    ):
        box = padded_box(read, start, stop, shape, network.radius)
        inner = whole[tuple(map(slice, start, stop))]
        np.testing.assert_allclose(network.correct(box, 8.0), inner, rtol=0, atol=1e-4)


def test_ring_outside_the_signal_repeats_its_edge() -> None:
    samples = noise((4, 5))
    box = padded_box(lambda a, b: samples[a[0] : b[0], a[1] : b[1]], (0, 3), (2, 5), (4, 5), (2, 2))
    assert np.array_equal(box, padded(samples, (2, 2))[0:6, 3:9])


def test_each_time_is_corrected_by_itself() -> None:
    samples, network = noise((3, 7, 8, 6)), model(4)
    whole = network.correct(padded(samples, network.radius), 8.0)
    alone = Restoration(RestorationLayout(5, 3), network.parameters)
    for t in range(3):
        np.testing.assert_allclose(alone.correct(padded(samples[t], (2, 2, 2)), 8.0), whole[t], rtol=0, atol=1e-4)


def test_absolute_level_is_not_seen() -> None:
    box, network = noise((9, 10, 11)), model(3)
    moved = network.correct(box + 1000, 8.0) - 1000
    np.testing.assert_allclose(moved, network.correct(box, 8.0), rtol=0, atol=0.02)


@pytest.mark.parametrize("factor", [0.25, 16.0])
def test_units_follow_the_step(factor: float) -> None:
    box, network = noise((9, 10, 11)), model(3)
    np.testing.assert_allclose(
        network.correct(box * np.float32(factor), 8.0 * factor),
        network.correct(box, 8.0) * factor,
        rtol=1e-4,
        atol=1e-3,
    )


@pytest.mark.parametrize("step", [1e-300, 2.0**-149, 1.0, 2.0**30])
def test_results_are_finite_whatever_the_stream_says(step: float) -> None:
    layout = RestorationLayout(64, 3)
    extreme = {n: torch.full(s, LARGEST_PARAMETER) for n, s in layout.shapes.items()}
    extreme["first"][:, 0] *= -1
    box = np.where(np.arange(216).reshape(6, 6, 6) % 2, 2.0**32, -(2.0**32)).astype(np.float32)
    box[:2] = -(2.0**32)
    assert np.isfinite(Restoration(layout, extreme).correct(box, step)).all()


def test_read_only_boxes_are_not_written_to() -> None:
    box, network = noise((6, 6, 6)), model(3)
    kept = box.copy()
    box.setflags(write=False)
    network.correct(box, 1.0)
    assert np.array_equal(box, kept)


def test_boxes_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="read a larger box"):
        model(3).correct(noise((4, 9, 9)), 1.0)
