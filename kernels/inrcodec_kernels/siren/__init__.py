"""Sine networks: batched chains of sine layers, and separable sine features. See README.md for the mathematics."""

from .reference import sine_chain, sine_product

__all__ = ["sine_chain", "sine_product"]
