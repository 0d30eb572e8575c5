"""Bugs to plant into the ports of `examples.zoo.models`, a table for each of its files."""
