"""Signals that tests encode: smooth structure with edges and noise, cheap and repeatable."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates


def scan(shape: tuple[int, ...], dtype: str = "int16", seed: int = 0) -> np.ndarray:
    """Blobs on a slope with noise, over a good part of the dtype's range."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    waves = sum(np.sin((2.0 + i) * x + i) for i, x in enumerate(axes))
    ball = sum(x**2 for x in axes) < 0.4
    volume = waves + 1.5 * ball + 0.1 * random.standard_normal(shape)
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -1000), min(limits.max, 1500)
    span = max(float(np.ptp(volume)), 1e-9)
    return np.round(low + (volume - volume.min()) / span * (high - low)).astype(dtype)


def colours(shape: tuple[int, ...], channels: int = 3) -> np.ndarray:
    """Structures that all channels share, brighter, darker or turned round in each, and noise of their own; channels last."""
    shared, random = scan(shape, "uint8").astype(float), np.random.default_rng(1)
    gains, levels = np.array([0.8, -0.6, 0.3, 0.5, -0.9]), np.array([20, 230, 90, 60, 240])
    values = shared[..., None] * gains[:channels] + levels[:channels] + random.normal(0, 2, (*shape, channels))
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def tissue(shape: tuple[int, ...] = (64, 96, 96)) -> np.ndarray:
    """Smooth structures of several sizes with soft edges, like organs in CT; no noise."""
    random = np.random.default_rng(0)
    fields = [gaussian_filter(random.standard_normal(shape), sigma) for sigma in (4, 8, 14)]
    parts = [np.tanh(4 * field / field.std()) for field in fields]
    return np.rint(400 * gaussian_filter(sum(parts), 0.7)).astype(np.int16)


def panned(shape: tuple[int, int, int], speed: float, seed: int = 0) -> np.ndarray:
    """Frames of a camera that moves over a texture, `speed` samples a frame along x and half of it back along y."""
    count, h, w = shape
    random = np.random.default_rng(seed)
    span = math.ceil(speed * count) + 4
    texture = sum(gaussian_filter(random.standard_normal((h + span, w + span)), sigma) * sigma for sigma in (0.8, 3))
    moves = [(span / 2 + speed * (count / 2 - t) / 2, speed * t) for t in range(count)]
    frames = [map_coordinates(texture, np.indices((h, w)) + np.reshape(m, (2, 1, 1)), order=3) for m in moves]
    return np.rint(np.clip(128 + 60 * np.stack(frames), 0, 255)).astype(np.uint8)


def psnr_db(original: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR over the original's own range, by the definition."""
    error = np.mean((original.astype(np.float64) - decoded.astype(np.float64)) ** 2)
    span = float(original.max()) - float(original.min())
    return float("inf") if error == 0 else float(10 * np.log10(span**2 / error))
