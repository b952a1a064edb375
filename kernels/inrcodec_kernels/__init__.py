"""Compute only: one folder per operation, each with a plain reference that defines it."""
