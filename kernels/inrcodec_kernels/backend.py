"""Which implementation of the operations runs, and why not a faster one.

Every operation has a definition in plain torch or Python (`reference.py`), compiled loops for the CPU (`cpu.py`,
Numba) and kernels for CUDA devices (`triton.py`). Nothing is looked for on import: `choose` does that when it is asked.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

VARIABLE = "INRCODEC_BACKEND"
"""Environment variable that forces one of `NAMES`."""
NAMES = ("reference", "numba", "triton")

T = TypeVar("T")


@dataclass(frozen=True)
class Backend:
    """An implementation and where it runs.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    device : str
        ``"cpu"`` or a CUDA device, as torch names them.
    reason : str
        Why not a faster one; empty if there is none.
    """

    name: str
    device: str = "cpu"
    reason: str = ""

    @property
    def title(self) -> str:
        """What a report calls it."""
        where = "the CPU" if self.device == "cpu" else torch.cuda.get_device_name(self.device)
        return {"reference": "torch", "numba": "Numba", "triton": "Triton"}[self.name] + f" on {where}"


REFERENCE = Backend("reference")
"""The definitions, on the CPU."""


def choose(device: str = "auto") -> Backend:
    """Find the fastest backend there is on a device.

    Parameters
    ----------
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. ``"auto"`` takes the CPU where CUDA or Triton is missing.

    Raises
    ------
    RuntimeError
        If CUDA was asked for by name and cannot be used, or if `VARIABLE` names what is not there.
    """
    forced = os.environ.get(VARIABLE, "")
    if forced not in ("", *NAMES):
        raise RuntimeError(f"expected {VARIABLE} to be one of {', '.join(NAMES)}, found {forced!r}; correct or unset it")
    if forced:
        return _forced(forced, device)
    lacks_gpu = _gpu_missing(device) if device != "cpu" else "device='cpu' was asked for"
    if not lacks_gpu:
        return Backend("triton", _device(device))
    if device not in ("auto", "cpu"):
        raise RuntimeError(f"expected a CUDA device and Triton for device={device!r}, found {lacks_gpu}; use device='auto'")
    return best_on_cpu(lacks_gpu)


def best_on_cpu(reason: str = "") -> Backend:
    """The fastest backend of the CPU; `reason` says why it is the CPU."""
    if lacks := missing("numba"):
        return Backend("reference", "cpu", "; ".join(filter(None, [reason, lacks])))
    return Backend("numba", "cpu", reason)


def _forced(name: str, device: str) -> Backend:
    reason = f"{VARIABLE}={name}"
    if name == "triton":
        if interpreted():
            return Backend("triton", "cpu", f"{reason}, interpreted")
        if lacks := _gpu_missing(device):
            raise RuntimeError(f"expected a CUDA device and Triton for {reason}, found {lacks}; unset {VARIABLE}")
        return Backend("triton", _device(device), reason)
    if name == "numba" and (lacks := missing("numba")):
        raise RuntimeError(f"expected Numba for {reason}, found {lacks}; pip install numba, or unset {VARIABLE}")
    return Backend(name, "cpu", reason)


def compiled_on_host(backend: Backend) -> bool:
    """Whether an operation that has no kernel for devices runs compiled: on the CPU, whatever the device."""
    return backend.name != "reference" and not missing("numba")


def on_device(backend: Backend) -> bool:
    """Whether kernels run on a device, or are interpreted in its place."""
    return backend.name == "triton" and (backend.device != "cpu" or interpreted())


def interpreted() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on the CPU, as tests have them."""
    return os.environ.get("TRITON_INTERPRET") == "1" and not missing("triton")


def _device(device: str) -> str:
    return "cuda" if device == "auto" else device


def _gpu_missing(device: str) -> str:
    if not torch.cuda.is_available():
        return "no CUDA device"
    if device.startswith("cuda:") and int(device[5:]) >= torch.cuda.device_count():
        return f"{torch.cuda.device_count()} CUDA devices"
    return missing("triton")


@cache
def missing(package: str) -> str:
    """Why a package cannot be used; empty if it can."""
    if importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    try:
        importlib.import_module(package)
    except Exception as error:  # a broken installation is a missing one
        return f"{package} cannot be imported ({' '.join(str(error).split())[:80]})"
    return ""


def in_halves(work: Callable[[int, int], None], begin: int, end: int) -> None:
    """Call ``work(begin, end)``, or where the device's memory does not do, for one half after the other.

    Raises
    ------
    torch.OutOfMemoryError
        If it does not even do for one.
    """
    try:
        work(begin, end)
        return
    except torch.OutOfMemoryError:
        if end - begin < 2:
            raise
    # Only here has the failed call given back what it held.
    torch.cuda.empty_cache()
    middle = (begin + end) // 2
    in_halves(work, begin, middle)
    in_halves(work, middle, end)


def in_threads(work: Callable[[int], T], parts: Iterable[int]) -> list[T]:
    """Call ``work(part)`` for every part, in as many threads as torch uses; `work` should release the GIL.

    Compiled loops are shared out so instead of by Numba's own threads, whose default layer ends the process when two
    threads of a program call it at once.
    """
    parts, threads = list(parts), torch.get_num_threads()
    if min(threads, len(parts)) < 2 or getattr(_worker, "busy", False):
        return [work(part) for part in parts]

    found: dict[int, T] = {}
    errors: dict[int, Exception] = {}
    tasks: SimpleQueue[tuple[int, int]] = SimpleQueue()
    for task in enumerate(parts):
        tasks.put(task)

    def take() -> None:
        # Work that itself shares out work would wait for threads that wait for it.
        _worker.busy = True
        try:
            for number, part in _taken(tasks):
                try:
                    found[number] = work(part)
                except Exception as error:
                    errors[number] = error
                    # What nobody has begun yet is not done any more.
                    list(_taken(tasks))
        finally:
            _worker.busy = False

    # A thread takes one part after the other: a task of the pool for each of some thousand parts of a step took a twentieth of it. This thread is one of
    # them, and need not wait for others that have not begun when all is done: of some hundred small calls in a step most are done before those wake.
    helpers = [_pool(os.getpid(), threads).submit(take) for _ in range(min(threads, len(parts)) - 1)]
    try:
        take()
    finally:
        # After an interruption too nobody goes on.
        list(_taken(tasks))
        for helper in helpers:
            if not helper.cancel():
                helper.result()
    if errors:
        raise errors[min(errors)]
    return [found[number] for number in range(len(parts))]


def _taken(tasks: SimpleQueue[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What a thread gets of tasks, until there are no more."""
    while True:
        try:
            task = tasks.get_nowait()
        except Empty:
            return
        yield task


_worker = threading.local()


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads of this process: a forked one has none of its parent's, and makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="inrcodec")
