"""Golden streams decode to what they always have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import inrcodec
from golden.make import CASES, decoded_samples, stored_integers

FOLDER = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.inrc")))
def test_golden_streams_decode(name: str) -> None:
    expected = np.load(FOLDER / f"{name}.npz")
    with inrcodec.open(FOLDER / f"{name}.inrc") as image:
        assert (stored_integers(image) == expected["integers"]).all()
        samples = decoded_samples(image)
    assert samples.dtype == expected["samples"].dtype
    difference = np.abs(samples.astype(np.int64) - expected["samples"])
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 1 + difference.size // 1000


def test_every_case_has_its_files() -> None:
    assert set(CASES) <= {path.stem for path in FOLDER.glob("*.inrc")}
