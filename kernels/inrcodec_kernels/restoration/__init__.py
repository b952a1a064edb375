"""Correction of decoded samples by a small convolutional network. See README.md for the mathematics."""

from .cpu import correction
from .reference import Parameters

__all__ = ["Parameters", "correction"]
