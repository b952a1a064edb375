"""What figures were measured with: processor, versions, commit, date."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import cache, lru_cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "torch", "triton", "constriction", "imagecodecs", "av", "inrcodec")


def machine_lines() -> list[str]:
    """Lines for a results file."""
    lines = [
        f"Measured {today()} at commit {commit_of(('.',))}, Python {platform.python_version()}, {versions()}.",
        f"CPU: {cpu_name()}, {os.cpu_count()} logical cores.",
    ]
    return [*lines, f"GPU: {gpu_name()}."] if gpu_name() else lines


def today() -> str:
    """ISO date, UTC."""
    return datetime.now(timezone.utc).date().isoformat()  # noqa: UP017


def versions() -> str:
    """Installed packages, and what is inside them."""
    found = [f"{name} {version}" for name in PACKAGES if (version := _version(name))]
    return ", ".join(found + codec_versions())


@lru_cache(maxsize=1)
def codec_versions() -> list[str]:
    """Versions of the codecs that packages carry."""
    found = []
    try:
        import imagecodecs

        names = ("jpeg2k", "htj2k", "jpegxl", "jpegls", "sperr", "sz3", "zfp")
        found += [str(getattr(imagecodecs, f"{name}_version")()) for name in names]
    except (ImportError, AttributeError):
        pass
    try:
        import av

        found.append("libavcodec " + ".".join(map(str, av.library_versions["libavcodec"])))
    except (ImportError, KeyError):
        pass
    return found


@cache
def commit_of(sources: Sequence[str]) -> str:
    """The last commit that changed any of `sources`; marked when the working tree differs from it."""
    commit = _git("log", "-1", "--format=%h", "--abbrev=10", "--", *sources)
    if not commit:
        return "unknown"
    return commit + ("-dirty" if _git("status", "--porcelain", "--", *sources) else "")


def cpu_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def gpu_name() -> str:
    """Name of the first CUDA device, empty without one."""
    try:
        import torch

        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    except ImportError:
        return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
