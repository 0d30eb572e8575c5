"""Worked examples; run from the repository's root."""
