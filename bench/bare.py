"""Test files that a bare machine can run: those whose imports resolve here. ``python -m bench.bare tests`` prints them."""

from __future__ import annotations

import ast
import importlib.util
import sys
from functools import cache
from pathlib import Path


@cache
def imported(path: Path) -> set[str]:
    """Top-level modules that a file imports anywhere; many files are asked for by every test."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def lacking(path: Path, here: Path) -> set[str]:
    """Modules that `path` needs, itself or through files of the source tree, and that are not installed."""
    missing: set[str] = set()
    seen: set[str] = set()
    queue = [path]
    while queue:
        for module in imported(queue.pop()) - seen:
            seen.add(module)
            folder = next((f for f in (here, here / "kernels", here / "formats") if (f / module).is_dir()), None)
            if folder is not None:
                queue += (folder / module).rglob("*.py")
            elif (here / "tests" / module).is_dir() or (here / "tests" / f"{module}.py").exists():
                continue
            elif importlib.util.find_spec(module) is None:
                missing.add(module)
    return missing


def main() -> None:
    """Print runnable test files; say on the error stream what the others lack."""
    here = Path.cwd()
    for path in sorted(Path(sys.argv[1]).rglob("test_*.py")):
        missing = lacking(path, here)
        if missing:
            print(f"not run: {path} needs {', '.join(sorted(missing))}", file=sys.stderr)
        else:
            print(path)


if __name__ == "__main__":
    main()
