"""A second decoder, written from docs/container.md alone: `test_specification.py` holds the package to it."""
