"""Mistakes in functions, norms, losses and whole operations."""
