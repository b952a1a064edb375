"""Bytes only: the ``.inrc`` container, `Signal`, and one reader/writer per file format."""
