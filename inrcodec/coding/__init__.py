"""Weights to bits and back: quantisation, integer statistics, entropy coding."""
