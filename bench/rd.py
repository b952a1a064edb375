"""Rate–distortion of every signal with every codec, resumable: a row is on the disk as soon as it is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import ROOT, commit_of, today
from .peers import BASELINES, METHODS, Peer, make_peer
from .signals import BenchSignal, load_signal
from .store import Row, Store

COLUMNS = (
    "signal", "kind", "shape", "fingerprint", "peer", "settings", "mapping", "target", "status", "reason", "quality", "bytes",
    "bits_per_voxel", "ratio", "psnr_db", "ssim", "max_abs_error", "encode_s", "decode_s", "version", "commit", "date",
)  # fmt: skip
KEY = ("signal", "fingerprint", "peer", "settings", "target", "commit")
RATES = (0.01, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""Target rates of the peers, in bits/voxel."""
CLIP_RATES = (0.0025, 0.005, *RATES)
"""Clips are coded at lower rates than volumes are."""
RATIOS = (512, 256, 128, 64, 32, 16)
"""Target ratios of our own methods."""


@dataclass
class Curve:
    """One curve to measure.

    Attributes
    ----------
    spec : str
        What to load, see `load_signal`.
    peer : Peer
    base : dict
        Cells that all its rows share.
    targets : list of float
        Bits/voxel, those not measured yet.
    known : list of (float, float)
        Quality and rate of rows measured before.
    """

    spec: str
    peer: Peer
    base: Row
    targets: list[float]
    known: list[tuple[float, float]]

    @property
    def title(self) -> str:
        """For progress."""
        order = f" {self.peer.order}" if self.peer.order else ""
        return f"{self.base['signal']} {self.base['peer']}{order}"


def shared_cells(signal: BenchSignal, peer: Peer) -> Row:
    """Cells that all rows of one signal and one codec share."""
    return {
        "signal": signal.name,
        "kind": signal.kind,
        "shape": signal.shape_text,
        "fingerprint": signal.fingerprint,
        "peer": peer.spec,
        "settings": peer.settings,
        "mapping": peer.mapping(signal),
        "version": peer.version(),
        "commit": commit_of(peer.sources),
        "date": today(),
    }


def targets_for(peer: Peer, signal: BenchSignal, rates: Sequence[float], ratios: Sequence[float]) -> list[float]:
    """Target rates in bits/voxel: `rates` for peers, `ratios` of the stored array for our own methods; empty means default."""
    if peer.name in METHODS | BASELINES:
        return sorted(float(f"{8 * signal.main.itemsize / ratio:.6g}") for ratio in ratios or RATIOS)
    wanted = rates or (CLIP_RATES if signal.kind == "clip" else RATES)
    return sorted(float(f"{rate:.6g}") for rate in wanted)


def plan(
    specs: Sequence[str], peers: Sequence[str], rates: Sequence[float], ratios: Sequence[float], store: Store, say: Callable[[str], None]
) -> list[Curve]:
    """Curves that are not complete in the store; what cannot be measured is said, and stored as unsupported."""
    curves: list[Curve] = []
    usable = []
    for name in peers:
        if missing := make_peer(name).missing():
            say(f"skipped {missing}")
        else:
            usable.append(name)
    for spec in specs:
        signal = load_signal(spec)
        for name in usable:
            if make_peer(name).scale is None:
                say(f"{signal.name}: {name} is lossless only; see `lossless`")
                continue
            for order in make_peer(name).orders(signal):
                curve = _curve(spec, signal, make_peer(name, order), rates, ratios, store)
                if curve is not None:
                    curves.append(curve)
    return curves


def _curve(
    spec: str, signal: BenchSignal, peer: Peer, rates: Sequence[float], ratios: Sequence[float], store: Store
) -> Curve | None:
    refusal = peer.refuses(signal)
    if refusal:
        row = {"signal": signal.name, "kind": signal.kind, "shape": signal.shape_text, "fingerprint": signal.fingerprint}
        row |= {"peer": peer.spec, "settings": peer.settings, "commit": commit_of(peer.sources), "date": today()}
        row |= {"status": "unsupported", "reason": refusal}
        if not store.has(row):
            store.append(row)
        return None
    base = shared_cells(signal, peer)
    targets = [t for t in targets_for(peer, signal, rates, ratios) if not store.has({**base, "target": t})]
    same = ("signal", "fingerprint", "peer", "settings", "commit")
    known = [
        (float(row["quality"].split("=")[1]), float(row["bits_per_voxel"]))
        for row in store.rows
        if row["status"] == "ok" and all(row[name] == base[name] for name in same)
    ]
    return Curve(spec, peer, base, targets, known) if targets else None


class Runner:
    """Measures curves in child processes, several at a time, and stores their rows.

    Parameters
    ----------
    store : Store
    jobs : int
        Curves measured side by side, each codec on one thread.
    on_row : callable
        Told of every row.
    """

    def __init__(self, store: Store, jobs: int, on_row: Callable[[Row], None]) -> None:
        self.store, self.jobs, self.on_row = store, jobs, on_row
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[str]] = set()
        self._stopped = False

    def run(self, curves: Sequence[Curve]) -> None:
        """Measure all curves; a KeyboardInterrupt ends the children and is raised again."""
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                for done in [pool.submit(self._measure, curve) for curve in curves]:
                    done.result()
            except BaseException:
                self._stop()
                pool.shutdown(cancel_futures=True)
                raise

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.kill()

    def _measure(self, curve: Curve) -> None:
        if self._stopped:
            return
        child = start_child("bench.curve", curve_task(curve), curve.peer.threads)
        errors: deque[str] = deque(maxlen=5)
        with self._lock:
            self._children.add(child)
        reader = threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True)
        reader.start()
        left = set(curve.targets)
        for line in child.stdout or ():
            if line.startswith("{"):
                row = json.loads(line)
                left.discard(row["target"])
                self._keep({**curve.base, **row})
        code = child.wait()
        reader.join()
        with self._lock:
            self._children.discard(child)
        if left and not self._stopped:
            self._lost(curve, sorted(left), code, list(errors))

    def _lost(self, curve: Curve, targets: list[float], code: int, errors: list[str]) -> None:
        """The process died: the target in work failed, and those behind it were not reached."""
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = " ".join(errors[-1].split()) if errors else "no message"
        for target in targets:
            self._keep({**curve.base, "target": target, "status": "failed", "reason": f"process ended: {how}; {last}"})

    def _keep(self, row: Row) -> None:
        with self._lock:
            self.store.append(row)
            self.on_row(row)


def curve_task(curve: Curve) -> dict[str, Any]:
    """What the child needs."""
    peer = curve.peer
    return {
        "signal": curve.spec,
        "peer": peer.spec,
        "order": peer.order,
        "threads": peer.threads,
        "targets": curve.targets,
        "known": curve.known,
    }


def start_child(module: str, task: dict[str, Any], threads: int, pipes: bool = True) -> subprocess.Popen[str]:
    """Start ``python -m module TASK`` from the source tree with a fixed number of threads."""
    pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
    paths = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "formats"), os.environ.get("PYTHONPATH", "")]
    count = str(threads)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    return subprocess.Popen(
        [sys.executable, "-m", module, json.dumps(task)],
        stdout=pipe, stderr=pipe, text=True, env=environment, cwd=Path.cwd(),
    )  # fmt: skip
