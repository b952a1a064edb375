"""Which system suits a signal: by its shape alone, by what two make of all of it, or by a short trial of each on a part."""

from __future__ import annotations

import numpy as np

from ..region import Region, box_around, sample_inside

LEAST_SAMPLES, LEAST_EFFORT, MOST_AXES = 1 << 13, 3, 3
"""Of what becomes a pyramid by itself: networks are too much of a stream of a kilobyte, and learn too little in few steps; series gain nothing."""
RIVAL_SAMPLES, RIVAL_BITS = 1 << 16, 0.2
"""Samples, and bits for each, from which on what made a pyramid is measured against the next method: TINC takes a twentieth of the
time there, and is ahead on some textures."""
TRIAL_SAMPLES = 1 << 20
"""Most samples of the part that systems are tried on."""


def usual(volume: np.ndarray, effort: int) -> tuple[str, ...]:
    """Methods to try one after the other where none is asked for: each where the one before cannot reach the target.

    Parameters
    ----------
    volume : ndarray
    effort : int
    """
    suits = volume.size >= LEAST_SAMPLES and effort >= LEAST_EFFORT and volume.ndim <= MOST_AXES
    return ("pyramid", "tinc") if suits else ("tinc",)


def has_rival(samples: int, stream_bytes: int) -> bool:
    """Whether the next method of `usual` may be better than the one that has made such a stream."""
    return samples >= RIVAL_SAMPLES and 8 * stream_bytes >= RIVAL_BITS * samples


def trial_part(volume: np.ndarray, region: Region | None = None) -> tuple[np.ndarray, Region | None]:
    """The middle of a signal: a box of up to `TRIAL_SAMPLES`, of its proportions where it is thick enough.

    With a region it lies around the middle of that, and has its share of it.
    """
    edges = np.array(volume.shape)
    while edges.prod() > TRIAL_SAMPLES:
        longest = int(np.argmax(edges))
        edges[longest] = -(-edges[longest] // 2)
    if region is None:
        start = (np.array(volume.shape) - edges) // 2
        return np.ascontiguousarray(volume[tuple(slice(a, a + e) for a, e in zip(start, edges, strict=True))]), None
    box = box_around(sample_inside(region.mask(volume.shape)), edges.tolist(), volume.shape)
    return np.ascontiguousarray(volume[box]), region.cropped(volume.shape, box)


def verdict(outcomes: dict[str, tuple[float, int]], fixed_size: bool, shape: tuple[int, ...] = ()) -> tuple[str, str]:
    """The better system, and why in one line.

    Parameters
    ----------
    outcomes : dict of str to (float, int)
        PSNR in dB and bytes that each system reached on the same part.
    fixed_size : bool
        Whether the bytes were given (the higher PSNR wins) or the PSNR (the fewer bytes win).
    shape : tuple of int
        Of the part, where it was not the whole signal.
    """
    best = min(outcomes, key=lambda name: -outcomes[name][0] if fixed_size else outcomes[name][1])
    told = ", ".join(
        f"{name} {psnr:.2f} dB" if fixed_size else f"{name} {size} bytes" for name, (psnr, size) in outcomes.items()
    )
    return best, f"{told} on a part of {'x'.join(map(str, shape))}" if shape else told
