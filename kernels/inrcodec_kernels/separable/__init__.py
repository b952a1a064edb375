"""Separable sine networks: waves of one axis, and products along all axes. See README.md for the mathematics."""

from .reference import along_axes, sine_waves

__all__ = ["along_axes", "sine_waves"]
