"""What quantisation costs: ``python -m bench.weights_to_bits PATH... --ratio 64 --out DIR``.

For each volume, one TINC network per allocation of the readout weights, then the same weights stored in three ways:
as the codec codes them, as float32, and as 8-bit integers rounded after the fit (one scale per level and plain
weight tensor). All PSNR by the readouts' own errors, before rounding to integers, over the volume's own range.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inrcodec.encoder import Encoder
from inrcodec.fitting.tinc import QuantisedReadouts
from inrcodec.metrics import own_range
from inrcodec.models.readout import SeparableReadout, cell_axis, sine_waves, whitening
from inrcodec.options import EncodeOptions, TincOptions, one_target
from inrcodec.sources import read_signal
from inrcodec.systems.tinc import Network

COLUMNS = ("volume", "allocation", "stored as", "weights", "bits/weight", "bytes", "PSNR dB", "less float32 dB")


def kept_coefficients(network: Network, quantised: QuantisedReadouts) -> dict[int, np.ndarray]:
    """Unquantised readouts of the bands that the stream keeps."""
    bands = network.geometry.bands
    kept = {}
    for level, exact in network.leaves.coefficients.items():
        band = np.empty(exact.shape[0], dtype=np.int64)
        for number, members in enumerate(bands[level].members):
            band[members] = number
        kept[level] = np.where(band[:, None] <= quantised.widths[level][None, :], exact, 0)
    return kept


def rounded_to_8_bits(network: Network, kept: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Readouts after their plain weights were rounded to 255 equal steps per level."""
    result = {}
    for level, coefficients in kept.items():
        norm = feature_norms(network.layout.cells[level], network.layout.lattice(level))[:, None]
        plain = coefficients / norm
        step = max(2 * float(np.abs(plain).max()) / 255, 1e-12)
        result[level] = np.rint(plain / step) * step * norm
    return result


def feature_norms(cell: tuple[int, ...], lattice: np.ndarray) -> np.ndarray:
    """Norm of each separable feature over a cell; half-integer waves are orthogonal, so whitening only scales."""
    norms = np.ones(len(lattice))
    for axis, count in enumerate(SeparableReadout(cell, lattice).counts):
        factor = whitening(sine_waves(cell_axis(cell[axis]), count)[None])[0]
        norms *= torch.diagonal(factor).numpy()[lattice[:, axis]]
    return norms


def psnr_of(network: Network, readouts: dict[int, np.ndarray], data_range: float, voxels: int) -> float:
    """PSNR of readouts in whitened coordinates, against the volume."""
    error = network.leaves.distortion(readouts, 1.0) / voxels
    return 10 * math.log10(data_range**2 / max(error, 1e-12))


def rows_for(path: Path, ratio: float, effort: int, tinc: TincOptions) -> list[tuple[Any, ...]]:
    """Encode one volume and store its weights in three ways."""
    signal = read_signal(path, None)
    encoder = Encoder(signal, EncodeOptions(one_target(ratio=ratio), effort=effort, method="tinc", tinc=tinc), lambda s, f, n="": None)
    blob, report = encoder.run()
    network, quantised = encoder.system.network, encoder.result.draft.detail
    spread, voxels = own_range(signal.samples), signal.header.voxels
    kept = kept_coefficients(network, quantised)
    coded = {level: v.astype(np.float64) * quantised.step for level, v in quantised.values.items()}
    weights = report.weights
    exact = psnr_of(network, kept, spread, voxels)
    stored = (
        ("coded", len(blob), psnr_of(network, coded, spread, voxels)),
        ("float32", 4 * weights, exact),
        ("8 bit, rounded after the fit", weights, psnr_of(network, rounded_to_8_bits(network, kept), spread, voxels)),
    )
    name = path.name.removesuffix(".gz").removesuffix(".nii")
    return [
        (name, tinc.allocation, how, weights, f"{8 * size / weights:.2f}", size, f"{psnr:.2f}", f"{exact - psnr:.2f}")
        for how, size, psnr in stored
    ]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--ratio", type=float, default=64)
    parser.add_argument("--effort", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for path in arguments.paths:
        for allocation in ("rate", "equal", "variance"):
            tinc = TincOptions(allocation=allocation)  # type: ignore[arg-type]
            for row in rows_for(path, arguments.ratio, arguments.effort, tinc):
                lines.append("| " + " | ".join(map(str, row)) + " |")
                print(lines[-1], flush=True)
    (arguments.out / "weights_to_bits.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
