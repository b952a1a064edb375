"""Measurements of the codec on real files; not installed."""
