"""Clips: groups of frames, each plane of each a stream of its own, in one file that can be read from any time."""
