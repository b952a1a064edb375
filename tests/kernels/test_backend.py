"""The choice of a backend: what is there, what is forced, and what is refused."""

from __future__ import annotations

import os
import queue
import select
import threading

import pytest
import torch

from inrcodec_kernels import backend
from inrcodec_kernels.backend import Backend, choose, compiled_on_host, in_threads

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")


@pytest.fixture(autouse=True)
def unforced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


def lack(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make packages missing."""
    monkeypatch.setattr(backend, "missing", lambda name: f"{name} is not installed" if name in packages else "")


@NO_CUDA
def test_auto_takes_compiled_loops_and_says_why_no_gpu() -> None:
    assert choose("auto") == Backend("numba", "cpu", "no CUDA device")
    assert "asked for" in choose("cpu").reason


@NO_CUDA
def test_without_numba_the_reference_runs_and_the_reason_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lack(monkeypatch, "numba")
    found = choose()
    assert found.name == "reference" and "numba is not installed" in found.reason and "CUDA" in found.reason


@NO_CUDA
def test_a_gpu_asked_for_by_name_must_be_there() -> None:
    with pytest.raises(RuntimeError, match="expected a CUDA device and Triton for device='cuda', found no CUDA device"):
        choose("cuda")


def test_a_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose("auto") == Backend("triton", "cuda")
    assert choose("cuda:1") == Backend("triton", "cuda:1")
    assert choose("cpu").device == "cpu"
    with pytest.raises(RuntimeError, match="found 2 CUDA devices"):
        choose("cuda:2")
    lack(monkeypatch, "triton")
    assert choose("auto") == Backend("numba", "cpu", "triton is not installed")


@pytest.mark.parametrize("name", ["reference", "numba"])
def test_the_variable_forces_a_backend(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(backend.VARIABLE, name)
    assert choose() == Backend(name, "cpu", f"{backend.VARIABLE}={name}")


def test_the_variable_must_name_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "fortran")
    with pytest.raises(RuntimeError, match="expected INRCODEC_BACKEND to be one of reference, numba, triton, found 'fortran'"):
        choose()
    monkeypatch.setenv(backend.VARIABLE, "numba")
    lack(monkeypatch, "numba")
    with pytest.raises(RuntimeError, match="pip install numba"):
        choose()


@NO_CUDA
def test_triton_without_a_gpu_needs_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "triton")
    with pytest.raises(RuntimeError, match="found no CUDA device"):
        choose()
    lack(monkeypatch)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose() == Backend("triton", "cpu", "INRCODEC_BACKEND=triton, interpreted")


def test_what_only_the_cpu_has_is_compiled_unless_torch_is_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled_on_host(Backend("numba")) and compiled_on_host(Backend("triton", "cuda"))
    assert not compiled_on_host(Backend("reference"))
    lack(monkeypatch, "numba")
    assert not compiled_on_host(Backend("triton", "cuda"))


def test_parts_run_in_several_threads_in_order() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = threading.Barrier(2, timeout=20)
        assert in_threads(lambda part: together.wait() * 0 + part**2, range(4)) == [0, 1, 4, 9]
        torch.set_num_threads(1)
        assert in_threads(lambda part: threading.get_ident(), range(3)) == [threading.get_ident()] * 3
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_comes_through() -> None:
    def work(part: int) -> int:
        raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 0"):
        in_threads(work, [0, 1])


def test_after_an_error_in_a_thread_nothing_further_is_begun() -> None:
    begun: list[int] = []

    def work(part: int) -> None:
        begun.append(part)
        raise queue.Empty

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(queue.Empty):
            in_threads(work, range(100))
    finally:
        torch.set_num_threads(before)
    assert len(begun) <= 2


def test_who_shares_out_work_does_not_wait_for_threads_that_are_busy_elsewhere() -> None:
    before, begun, go_on, waited = torch.get_num_threads(), threading.Semaphore(0), threading.Event(), list[bool]()
    torch.set_num_threads(2)

    def work(part: int) -> bool:
        begun.release()
        return go_on.wait(20)

    others = [threading.Thread(target=lambda: waited.extend(in_threads(work, range(2)))) for _ in range(2)]
    try:
        for other in others:
            other.start()
        # Each of them, and one of the pool's two threads for each.
        assert all(begun.acquire(timeout=10) for _ in range(4))
        assert in_threads(lambda part: part + 1, range(5)) == [1, 2, 3, 4, 5]
    finally:
        go_on.set()
        for other in others:
            other.join()
        torch.set_num_threads(before)
    assert waited == [True] * 4


def test_shared_out_work_may_share_out_work() -> None:
    """More nested calls than threads: none waits for another."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = in_threads(lambda part: sum(in_threads(lambda inner: part * inner, range(5))), range(8))
    finally:
        torch.set_num_threads(before)
    assert found == [10 * part for part in range(8)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_makes_its_own_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        in_threads(lambda part: part, range(4))
        read, write = os.pipe()
        child = os.fork()
        if not child:  # pragma: no cover - in the child
            os.write(write, bytes(in_threads(lambda part: part + 1, range(4))))
            os._exit(0)
        os.close(write)
        ready, _, _ = select.select([read], [], [], 20)
        assert ready and os.read(read, 9) == bytes([1, 2, 3, 4])
        os.waitpid(child, 0)
    finally:
        torch.set_num_threads(before)
        os.close(read)
