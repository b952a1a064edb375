"""The systems that turn samples into sections and chunks, one file each."""

from .base import Draft, System, Task
from .parted import PartedPyramidSystem
from .pyramid import PyramidSystem
from .sci import SciSystem
from .stilled import with_still_frames
from .tinc import TincSystem

__all__ = ["SYSTEMS", "Draft", "PyramidSystem", "SciSystem", "System", "Task", "TincSystem", "system_for"]

SYSTEMS: dict[str, type[System]] = {"tinc": TincSystem, "sci": SciSystem, "pyramid": PyramidSystem}


def system_for(name: str, task: Task) -> System:
    """The system of a name for a task: where a pyramid would be too large, that which makes one for each part."""
    large = name == PyramidSystem.name and task.volume.size > task.options.pyramid.part_samples
    return PartedPyramidSystem(task) if large else SYSTEMS[name](with_still_frames(task))
