"""What the GPU kernels take of a device, as the compiler counts it: ``python -m bench.compile_report``. Needs no GPU.

Every `triton.py` of the kernels offers ``compile_cases()``: name, kernel, types of its arguments, constants, warps, and
further options of the compiler where there are any. Each case is compiled for each target by Triton, and its PTX once more by
the assembler that Triton brings, which prints registers and spills.
Triton must not be set to interpret (``TRITON_INTERPRET``) in the process that does this.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import pkgutil
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TARGETS = (80, 90)
"""Compute capabilities times 10: A100, H100."""

Case = tuple[Any, ...]


@dataclass(frozen=True)
class Compiled:
    """One kernel for one target.

    Attributes
    ----------
    kernel : str
    target : int
        Compute capability times 10.
    warps : int
        Of a program.
    registers : int
        Of a thread; at most 255.
    spilled_bytes : int
        What a thread keeps in memory for want of registers: bytes stored and loaded.
    shared_bytes : int
        Of a program.
    shuffles : int
        Exchanges between threads of a warp, as they are written: sums over what one thread was meant to have show here.
    """

    kernel: str
    target: int
    warps: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    shuffles: int


def cases(folder: str = "") -> Iterator[Case]:
    """All cases of all folders of kernels, or of one."""
    import inrcodec_kernels

    for module in pkgutil.iter_modules(inrcodec_kernels.__path__):
        name = f"inrcodec_kernels.{module.name}.triton"
        if not module.ispkg or folder not in ("", module.name) or importlib.util.find_spec(name) is None:
            continue
        for case, *rest in importlib.import_module(name).compile_cases():
            yield (f"{module.name}: {case}", *rest)


def compiled(case: Case, target: int) -> Compiled:
    """Compile one case for one target.

    Raises
    ------
    RuntimeError
        If the assembler refuses what Triton made.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    name, kernel, types, constants, warps, *more = case
    options = {"num_warps": warps} | (more[0] if more else {})
    signature = {argument: types.get(argument, "constexpr") for argument in kernel.arg_names}
    # Tensors are aligned to 16 bytes, and Triton makes use of it.
    aligned = {(i,): [["tt.divisibility", 16]] for i, of in enumerate(signature.values()) if str(of).startswith("*")}
    source = ASTSource(kernel, signature, constants, aligned)
    result = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    ptx = result.asm["ptx"]
    said = _assemble(ptx)
    registers = re.findall(r"Used (\d+) registers", said)
    spilled = re.findall(r"(\d+) bytes spill", said)
    if len(registers) != 1:
        raise RuntimeError(f"expected one kernel in {name}, found {said.strip()[-200:]!r}; see what the assembler says")
    shuffles = ptx.count("shfl.sync")
    return Compiled(name, target, warps, int(registers[0]), sum(map(int, spilled)), result.metadata.shared, shuffles)


def _assemble(ptx: str) -> str:
    import triton

    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    architecture = re.findall(r"^\.target (\w+)", ptx, re.MULTILINE)[0]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        command = [str(program), "-v", f"-arch={architecture}", str(source), "-o", str(source.with_suffix(".cubin"))]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def markdown(rows: Iterable[Compiled]) -> str:
    """A table, one line for each kernel and target."""
    lines = ["| kernel | target | warps | registers | spilled bytes | shared bytes | shuffles |", "|---|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        numbers = f"{row.warps} | {row.registers} | {row.spilled_bytes} | {row.shared_bytes} | {row.shuffles}"
        lines.append(f"| {row.kernel} | sm_{row.target} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", default="", help="only the kernels of this operation")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args()
    rows = [compiled(case, target) for case in cases(options.folder) for target in TARGETS]
    print(json.dumps([asdict(row) for row in rows]) if options.json else markdown(rows))


if __name__ == "__main__":
    main()
