"""Faces of blocks do not show at high ratios: steps across them hardly stand out from those of the signal itself."""

from __future__ import annotations

import numpy as np
import pytest

import inrcodec
from inrcodec.options import SciOptions
from samples import tissue


def face_steps(samples: np.ndarray, blob: bytes) -> float:
    """Mean step between neighbours across faces of a stream's blocks, over the mean of all other steps."""
    with inrcodec.open(blob) as image:
        tree = image.blocks.tree
    across, inside = [], []
    for axis, extent in enumerate(samples.shape):
        faces = np.zeros(samples.shape, dtype=bool)
        for origin, edges in zip(tree.origin.tolist(), tree.extent.tolist(), strict=True):
            place = [slice(o, o + e) for o, e in zip(origin, edges, strict=True)]
            place[axis] = slice(origin[axis], origin[axis] + 1)
            faces[tuple(place)] = True
        step = np.abs(np.diff(samples.astype(float), axis=axis))
        at_face = np.take(faces, np.arange(1, extent), axis=axis)
        across.append(step[at_face])
        inside.append(step[~at_face])
    return float(np.concatenate(across).mean() / np.concatenate(inside).mean())


def excess(volume: np.ndarray, **choices: object) -> tuple[float, float]:
    """How much steps across faces stand out beyond those of the signal at the same places, and the PSNR."""
    blob = inrcodec.encode(volume, ratio=256, **{"method": "tinc", **choices})  # type: ignore[call-overload]
    decoded = inrcodec.decode(blob).samples
    return face_steps(decoded, blob) / face_steps(volume, blob) - 1, inrcodec.compare(volume, decoded).psnr_db


def test_the_measure_sees_a_grid_and_only_a_grid() -> None:
    volume = tissue((32, 64, 64))
    blob = inrcodec.encode(volume, ratio=64, effort=1, restoration=False, method="tinc")
    with inrcodec.open(blob) as image:
        tree = image.blocks.tree
    raised = volume.copy()
    for number, (origin, edges) in enumerate(zip(tree.origin.tolist(), tree.extent.tolist(), strict=True)):
        raised[tuple(slice(o, o + e) for o, e in zip(origin, edges, strict=True))] += 250 * (number % 2)
    assert face_steps(raised, blob) > 1.5 * face_steps(volume, blob)
    assert face_steps(volume + 7, blob) == face_steps(volume, blob)


def test_restoration_takes_the_grid_off_tinc() -> None:
    volume = tissue()
    plain, plain_psnr = excess(volume, effort=3, restoration=False)
    shown, psnr = excess(volume, effort=3)
    assert plain > 0.5
    assert shown < 0.25 and shown < plain / 3
    assert psnr > plain_psnr + 0.5


def test_blending_takes_the_grid_off_sci() -> None:
    volume = tissue((32, 64, 64))
    sharp, _ = excess(volume, method="sci", effort=3, restoration=False, sci=SciOptions(halo=0, blocks=8))
    shown, _ = excess(volume, method="sci", effort=3, restoration=False, sci=SciOptions(halo=2, blocks=8))
    assert sharp > 0.5
    assert shown < 0.25


@pytest.mark.parametrize("halo", [1, 2])
def test_ramps_of_neighbours_add_up_to_one(halo: int) -> None:
    from inrcodec.partition.blocks import blend_ramp

    positions = np.linspace(0, 23, 93)
    total = sum(blend_ramp(positions, origin, 8, halo) for origin in (-8, 0, 8, 16, 24))
    assert np.allclose(total, 1)


def test_a_target_that_restoration_spoils_is_reached_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network's own bytes must not turn a size that can be reached into an error."""
    from inrcodec import encoder

    volume = tissue((32, 64, 64))
    plain = inrcodec.encode(volume, ratio=100, effort=1, restoration=False, method="tinc")
    reach = encoder.Encoder._reach_target

    def spoilt(self: encoder.Encoder, first: float) -> encoder.Result:
        if self.extra:
            raise inrcodec.TargetError("expected more bytes, found fewer")
        return reach(self, first)

    monkeypatch.setattr(encoder.Encoder, "_fit_restoration", lambda self, result: bool(self.extra.append(None)) or True)
    monkeypatch.setattr(encoder.Encoder, "_reach_target", spoilt)
    assert inrcodec.encode(volume, ratio=100, effort=1, method="tinc") == plain
