"""Clips of moving cameras: their still frames take the place of what a system works on."""

from __future__ import annotations

from dataclasses import replace

from inrcodec_formats.errors import OptionError
from inrcodec_kernels.backend import Backend, best_on_cpu, on_device

from ..fitting import motion
from ..fitting.displacements import Found, economical, price_at, worthwhile
from ..fitting.goal import Goal
from ..payload.motion import pack
from ..region import Region
from .base import Moving, Task

_MOST_SAMPLES = 1 << 26
"""Of all frames: they and their still frames are held as a whole, several times over."""


def with_still_frames(task: Task) -> Task:
    """A task on still frames where displacements are worth their bits, or are asked for; else the same one.

    Raises
    ------
    OptionError
        If motion is asked for that cannot be.
    """
    if not _wanted(task):
        return task
    found: Task = task.timed("motion", lambda: _stilled(task))
    return found


def _wanted(task: Task) -> bool:
    wish, volume = task.options.motion, task.volume
    if wish is True and (task.channels or volume.ndim != 3):
        raise OptionError(f"expected a signal of 3 axes without channels for motion=True, found {volume.shape}; leave it out")
    if volume.size > _MOST_SAMPLES:
        if wish is True:
            raise OptionError(f"expected at most {_MOST_SAMPLES} samples for motion=True, found {volume.size}; leave it out")
        return False
    return wish is True or (wish == "auto" and task.clip)


def _goal(task: Task) -> Goal:
    """What is asked for, of frames, or of still ones."""
    target, samples = task.options.target, task.volume.size
    if target.kind == "psnr_db":
        return Goal(error=max(task.high - task.low, 1) ** 2 / 10 ** (target.value / 10))
    bits = {"ratio": 8 * task.volume.nbytes / target.value, "bits_per_voxel": samples * target.value}
    return Goal(bits=bits[target.kind])


def _backend(task: Task) -> Backend:
    """Frames are displaced on the CPU."""
    return best_on_cpu() if on_device(task.backend) else task.backend


def _stilled(task: Task) -> Task:
    frames, region, wish, backend = task.volume, task.options.region, task.options.motion, _backend(task)
    found = Found.of(frames, wish, backend) if task.found is None else task.found
    if found is None:
        return task
    step = found.step_for(_goal(task))
    field = economical(found.field, frames, price_at(step), None if region is None else region.weights(frames.shape))
    if field is None:
        return task
    if wish == "auto" and not worthwhile(frames, motion.stilled(frames, field, backend, sweeps=0).samples, 8 * len(pack(field)), step):
        return task
    still = motion.stilled(frames, field, backend)
    moving = Moving(field, frames, still.known, region)
    if region is not None:
        inside = motion.inside_of_still(region.mask(frames.shape), field, backend)
        region = Region(inside, region.emphasis)
    return replace(task, volume=still.samples, options=replace(task.options, region=region), moving=moving)
