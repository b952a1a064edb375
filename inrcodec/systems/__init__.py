"""The systems that turn samples into sections and chunks, one file each."""

from .base import Draft, System
from .pyramid import PyramidSystem
from .sci import SciSystem
from .tinc import TincSystem

__all__ = ["Draft", "PyramidSystem", "SciSystem", "System", "TincSystem"]
