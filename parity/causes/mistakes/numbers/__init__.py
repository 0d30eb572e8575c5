"""Mistakes in sums, factors and constants."""
