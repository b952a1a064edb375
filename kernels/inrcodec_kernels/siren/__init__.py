"""Sine networks: batched chains of sine layers. See README.md for the mathematics."""

from .reference import sine_chain

__all__ = ["sine_chain"]
