"""The rooms import each other along the arrows of ``docs/architecture.md`` and no others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS, FORMATS, ERRORS = "inrcodec_kernels", "inrcodec_formats", "inrcodec_formats.errors"
OPTIONS, REGION = "inrcodec.options", "inrcodec.region"

# What each room may import of this project besides itself. Rooms not named here are on top and may import anything below.
ALLOWED = {
    KERNELS: set(),
    FORMATS: set(),
    "inrcodec.partition": {KERNELS, FORMATS, OPTIONS},
    "inrcodec.models": {KERNELS, ERRORS},
    "inrcodec.coding": {KERNELS, FORMATS, OPTIONS},
    "inrcodec.fitting": {KERNELS, FORMATS, "inrcodec.partition", "inrcodec.models", "inrcodec.coding", OPTIONS, REGION},
    "inrcodec.payload": {KERNELS, FORMATS, "inrcodec.models", "inrcodec.coding", "inrcodec.partition"},
    "inrcodec.reconstruct": {KERNELS, FORMATS, "inrcodec.models", "inrcodec.coding", "inrcodec.partition", "inrcodec.payload"},
    "inrcodec.systems": {
        KERNELS,
        FORMATS,
        "inrcodec.partition",
        "inrcodec.models",
        "inrcodec.fitting",
        "inrcodec.coding",
        "inrcodec.payload",
        OPTIONS,
        REGION,
    },
    "inrcodec.clips": {
        KERNELS,
        FORMATS,
        "inrcodec.encoder",
        "inrcodec.decoder",
        "inrcodec.block_bits",
        "inrcodec.image",
        "inrcodec.backends",
        "inrcodec.fitting",
        "inrcodec.metrics",
        "inrcodec.picture",
        "inrcodec.reports",
        OPTIONS,
        REGION,
    },
    OPTIONS: {FORMATS, REGION},
    REGION: {FORMATS},
    "inrcodec.reports": set(),
    "inrcodec.metrics": {FORMATS},
    "inrcodec.picture": {FORMATS, "inrcodec.reports"},
    "inrcodec.partition_picture": {FORMATS, "inrcodec.reports", "inrcodec.picture"},
    "inrcodec.console": {FORMATS, "inrcodec.reports"},
}


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def ours(module: str) -> bool:
    return any(inside(module, package) for package in ("inrcodec", KERNELS, FORMATS))


def imports(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Every name that `source`, being `module`, imports, as an absolute dotted path."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    room = next((room for room in ALLOWED if inside(module, room)), None)
    if room is None:
        return []
    allowed = {room} | ALLOWED[room]
    targets = [name for name in imports(source, module, is_package) if ours(name)]
    return [f"{module} -> {name}" for name in targets if not any(inside(name, ok) for ok in allowed)]


def modules() -> Iterator[tuple[str, Path]]:
    for folder in (ROOT, ROOT / "kernels", ROOT / "formats"):
        for package in ("inrcodec", KERNELS, FORMATS):
            for path in sorted((folder / package).rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def test_arrows_hold() -> None:
    found = list(modules())
    assert {"inrcodec", KERNELS, FORMATS} <= {name for name, _ in found}
    wrong = [v for name, path in found for v in violations(path.read_text("utf-8"), name, path.stem == "__init__")]
    assert not wrong, "\n".join(wrong)


def test_violations_are_seen() -> None:
    """The test above would notice each of these."""
    for module, line in (
        (KERNELS + ".siren.cpu", "import inrcodec_formats.errors"),
        (KERNELS + ".siren.cpu", "def f():\n    from inrcodec import options"),
        (FORMATS + ".nifti", "from inrcodec_kernels import siren"),
        ("inrcodec.partition.octree", "from ..models import siren"),
        ("inrcodec.partition.octree", "from .. import coding"),
        ("inrcodec.models.tinc", "from inrcodec_formats.signal import Signal"),
        ("inrcodec.models.tinc", "from ..partition.blocks import Block"),
        ("inrcodec.coding.weights", "import inrcodec.fitting"),
        ("inrcodec.fitting.loop", "from ..encoder import encode"),
        ("inrcodec.options", "from .fitting import loop"),
        ("inrcodec.clips.view", "from ..cli import app"),
        ("inrcodec.fitting.loop", "from ..clips import groups"),
    ):
        assert violations(line, module), (module, line)
    for module, line in (
        (KERNELS + ".siren.cpu", "import numpy\nfrom .reference import forward"),
        (
            "inrcodec.models.tinc",
            "from inrcodec_kernels.siren import siren\nfrom inrcodec_formats.errors import OptionError",
        ),
        (
            "inrcodec.fitting.loop",
            "from ..models import tinc\nfrom ..coding import quantise\nfrom ..options import Effort",
        ),
        ("inrcodec.encoder", "from .partition import octree\nfrom .fitting import loop"),
    ):
        assert not violations(line, module), (module, line)
    assert violations("from . import options", "inrcodec.models", is_package=True) == []
    assert violations("from .. import options", "inrcodec.models", is_package=True) == [
        "inrcodec.models -> inrcodec.options"
    ]


def test_nothing_that_is_installed_imports_benchmarks_or_tests() -> None:
    found = [(name, target) for name, path in modules() for target in imports(path.read_text("utf-8"), name)]
    assert not [pair for pair in found if inside(pair[1], "bench") or inside(pair[1], "tests")]
