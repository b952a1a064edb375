"""Golden streams decode to what they always have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inrcodec
from golden.make import CASES, decoded_samples, stored_integers
from inrcodec_kernels.vectors import LANES

FOLDER = Path(__file__).parent / "golden"
SHORT = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
DIGESTS = """
import hashlib, sys, inrcodec
from golden.make import decoded_samples
for file in sys.argv[1:]:
    print(hashlib.sha256(decoded_samples(inrcodec.open(file)).tobytes()).hexdigest())
"""


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


@pytest.mark.slow
@pytest.mark.skipif(LANES == 8, reason="this processor has no AVX-512: there is one length of vectors")
def test_samples_of_a_pyramid_do_not_depend_on_the_length_of_vectors() -> None:
    command = [sys.executable, "-c", DIGESTS, *map(str, sorted(FOLDER.glob("pyramid*.inrc")))]
    long, short = (
        subprocess.run(command, env=os.environ | extra, cwd=FOLDER.parent, capture_output=True, text=True, check=True).stdout.split()
        for extra in ({}, SHORT)
    )
    assert len(long) > 1
    assert long == short
