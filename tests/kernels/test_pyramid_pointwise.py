"""Soft rounding, noise and Adam against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from inrcodec_kernels import pyramid
from inrcodec_kernels.pyramid import reference

from .pyramid_cases import NUMBA, assert_near, fresh, single


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 30.0])
def test_soft_rounding_is_the_formula(temperature: float) -> None:
    random = fresh()
    latents, key = single(3 * random.normal(size=(3, 5, 40000))), int(random.integers(2**40))
    values, slopes = pyramid.soften(latents.astype(np.float64), temperature, 0.2, key)
    found = pyramid.soften(latents, temperature, 0.2, key, NUMBA)
    # Where the first rounding's slope is steep, float32 latents know no better.
    assert np.abs(found[0] - values).max() < 2e-5
    assert np.abs(found[1] - slopes).max() < 1e-4 * slopes.max()
    step, (up, _), (down, _) = (
        1e-6,
        *(pyramid.soften(latents + np.float64(s), temperature, 0.2, key) for s in (1e-6, -1e-6)),
    )
    smooth = np.abs(values - np.rint(values)) < 0.499
    assert np.abs((up - down) / (2 * step) - slopes)[smooth].max() < 1e-3 * slopes.max()


def test_soft_rounding_without_noise_keeps_whole_and_half_numbers() -> None:
    values, _ = pyramid.soften(single([-1.0, 0.0, 0.5, 2.0]), 0.2, 0.0, 1, NUMBA)
    np.testing.assert_allclose(values, [-1.0, 0.0, 0.5, 2.0], atol=1e-6)
    with pytest.raises(ValueError, match="positive temperature"):
        pyramid.soften(single([0.0]), 0.0, 0.1, 1)


def test_noise_is_nearly_gaussian_and_independent() -> None:
    noise = reference.noise(3, 200000) / reference.NOISE_DEVIATION
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs((noise**4).mean() - 3) < 0.25
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.01
    assert not np.array_equal(noise, reference.noise(4, 200000) / reference.NOISE_DEVIATION)


def test_adam_is_the_definition() -> None:
    random = fresh()
    ys = single(random.normal(size=(3, 70, 501)))
    lattices, moments = (
        [ys.astype(np.float64), ys.copy()],
        [tuple(np.zeros(ys.shape, t) for _ in range(2)) for t in (float, np.float32)],
    )
    for step in (1, 2, 3):
        gradients = single(random.normal(size=ys.shape))
        pyramid.adam(lattices[0], gradients.astype(np.float64), moments[0], step, 0.1)  # type: ignore[arg-type]
        pyramid.adam(lattices[1], gradients, moments[1], step, 0.1, backend=NUMBA)  # type: ignore[arg-type]
    assert_near([lattices[1]], [lattices[0]], 1e-6)
    assert_near(moments[1], moments[0], 3e-6)
    with pytest.raises(ValueError, match="contiguous"):
        pyramid.adam(ys[:, :, ::2], ys[:, :, ::2], (ys[:, :, ::2], ys[:, :, ::2]), 1, 0.1)
