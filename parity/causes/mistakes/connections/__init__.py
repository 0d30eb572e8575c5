"""Mistakes in what is connected to what: branches, inputs, parameters, choices."""
