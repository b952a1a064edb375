"""The systems that turn samples into sections and chunks, one file each."""

from .base import Draft, System
from .tinc import TincSystem

__all__ = ["Draft", "System", "TincSystem"]
