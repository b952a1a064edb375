"""Write golden files of this folder: ``python tests/golden/make.py NAME ...``.

Old ones stay as they are: run it for new cases only; see README.md.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / part) for part in ("", "kernels", "formats", "tests")]

import inrcodec  # noqa: E402
from clips.cases import FAST, two_scenes  # noqa: E402
from inrcodec.clips.view import Clip  # noqa: E402
from inrcodec.coding.networks import BlockNetworks  # noqa: E402
from inrcodec.image import Image  # noqa: E402
from inrcodec.options import PyramidOptions, SciOptions, TincOptions  # noqa: E402
from inrcodec.reconstruct.base import Chunks  # noqa: E402
from inrcodec.reconstruct.moved import Moved  # noqa: E402
from inrcodec.reconstruct.parted import PartedPyramid  # noqa: E402
from inrcodec.reconstruct.pyramid import PyramidReconstruction  # noqa: E402
from inrcodec_formats.signal import Signal  # noqa: E402
from samples import colours, panned, scan, tissue  # noqa: E402

SEGMENTS = TincOptions(
    root="dense", coordinates="global", layers=(1, 1), level_ratios=(1.0, 0.8), leaf_levels=1, network_share=0.3, starts=1
)  # fmt: skip
SMALL = PyramidOptions(levels=4, context=8, synthesis=(4, 8), tile_edge=8, warm_start=False)
CASES: dict[str, tuple[np.ndarray | Signal, dict[str, object]]] = {
    "separable": (scan((20, 23, 18)), {"ratio": 10}),
    "dense_segments_global": (scan((11, 17, 12), "uint8"), {"ratio": 2, "tinc": SEGMENTS}),
    "series": (scan((3, 6, 11, 10), "uint16"), {"bits_per_voxel": 3}),
    "signal": (scan((400,), "int8"), {"psnr_db": 30}),
    "sci": (scan((17, 26, 21)), {"ratio": 6, "method": "sci", "sci": SciOptions(blocks=12)}),
    "sci_series": (scan((3, 6, 11, 10), "uint8"), {"bits_per_voxel": 2, "method": "sci"}),
    "restored": (tissue((32, 64, 64)), {"ratio": 128, "effort": 3}),
    "pyramid": (scan((20, 23, 18)), {"bits_per_voxel": 3, "method": "pyramid", "pyramid": SMALL}),
    "pyramid_series": (scan((3, 6, 11, 10), "uint8"), {"bits_per_voxel": 6, "method": "pyramid", "pyramid": SMALL}),
    "pyramid_above": (
        tissue((24, 33, 40)), {"bits_per_voxel": 0.4, "method": "pyramid", "pyramid": replace(SMALL, above=1)},
    ),
    "pyramid_fine": (scan((20, 23, 18)), {"bits_per_voxel": 3, "method": "pyramid", "pyramid": SMALL}),
    "pyramid_fine_above": (
        tissue((24, 33, 40)), {"bits_per_voxel": 0.4, "method": "pyramid", "pyramid": replace(SMALL, above=1)},
    ),
    "pyramid_apart": (
        tissue((24, 33, 40)), {"bits_per_voxel": 0.4, "method": "pyramid", "pyramid": replace(SMALL, above=1)},
    ),
    "pyramid_networks": (
        tissue((24, 33, 40)), {"bits_per_voxel": 0.6, "method": "pyramid", "pyramid": replace(SMALL, networks=2)},
    ),
    "pyramid_wide": (
        tissue((24, 33, 40)), {"bits_per_voxel": 0.6, "method": "pyramid", "pyramid": replace(SMALL, networks=2, wide=True)},
    ),
    "pyramid_bands": (
        tissue((24, 33, 40)), {"bits_per_voxel": 0.6, "method": "pyramid", "pyramid": replace(SMALL, networks=2, split=2)},
    ),
    "tinc_channels": (colours((7, 12, 11)), {"bits_per_voxel": 2, "axes": "zyxc"}),
    "sci_channels": (colours((18, 21)), {"bits_per_voxel": 4, "axes": "yxc", "method": "sci"}),
    "pyramid_channels": (colours((9, 13, 14)), {"bits_per_voxel": 4, "axes": "zyxc", "method": "pyramid", "pyramid": SMALL}),
    "pyramid_moved": (panned((6, 33, 40), 3), {"bits_per_voxel": 2, "axes": "tyx", "method": "pyramid", "pyramid": SMALL}),
    "pyramid_parts": (
        colours((8, 20, 13)),
        {"bits_per_voxel": 4, "axes": "zyxc", "method": "pyramid", "pyramid": replace(SMALL, part_samples=2500)},
    ),
    "tinc_moved": (panned((6, 33, 40), 3), {"bits_per_voxel": 2, "axes": "tyx"}),
    "constant": (np.full((5, 6, 7), -1000, "int16"), {"psnr_db": 60}),
    "clip": (two_scenes(8, 9, height=15, width=18), {"bits_per_voxel": 2, **FAST}),
}


def decoded_samples(view: Image | Clip) -> np.ndarray:
    """What a stream decodes to; of a clip all planes, one behind the other."""
    return np.concatenate([plane.ravel() for plane in view.read()]) if isinstance(view, Clip) else view[...]


def stored_integers(image: Image | Clip) -> np.ndarray:
    """All entropy-decoded integers of the readouts, leaf by leaf, or of the latents, tile by tile; of a clip group by group."""
    if isinstance(image, Clip):
        return np.concatenate([_of_part(image, group, part) for group in range(len(image.groups)) for part in (0, 1)])
    blocks = image.blocks.still if isinstance(image.blocks, Moved) else image.blocks
    if isinstance(blocks, PyramidReconstruction):
        return _latents(blocks, image._chunks)
    if isinstance(blocks, PartedPyramid):
        parts = range(blocks.cut.count)
        return np.concatenate([_latents(blocks.part(n), blocks.chunks_of(n, image._chunks)) for n in parts])
    chunks = map(image.decoded_chunk, range(len(image.container.chunks)))
    parts = [part for chunk in chunks for part in _integers(chunk)]
    return np.concatenate(parts).astype(np.int32)


def _latents(blocks: PyramidReconstruction, chunks: Chunks) -> np.ndarray:
    blocks.box(np.zeros(len(blocks.shape), dtype=np.int64), np.array(blocks.shape), chunks)
    return np.concatenate([blocks.latents._decoded[tile].ravel() for tile in range(blocks.tree.count)])


def _of_part(clip: Clip, group: int, part: int) -> np.ndarray:
    with clip.image(group, part) as image:
        return stored_integers(image)


def _integers(chunk: BlockNetworks | dict[int, np.ndarray]) -> list[np.ndarray]:
    if isinstance(chunk, dict):
        return [values.T.ravel() for values in chunk.values()]
    return [chunk.kind, chunk.mean, chunk.scale, chunk.bandwidth.ravel(), chunk.draw, *chunk.weights]


def main() -> None:
    for name in sys.argv[1:]:
        signal, choices = CASES[name]
        blob = inrcodec.encode(signal, **{"effort": 1, "method": "tinc", **choices})
        (HERE / f"{name}.inrc").write_bytes(blob)
        with inrcodec.open(blob) as image:
            np.savez_compressed(HERE / f"{name}.npz", samples=decoded_samples(image), integers=stored_integers(image))


if __name__ == "__main__":
    main()
