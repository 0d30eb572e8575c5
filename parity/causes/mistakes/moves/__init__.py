"""Mistakes in how values are moved, joined and chosen by place."""
