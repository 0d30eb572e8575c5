"""The reference's half of a comparison: a PyTorch model run once and written down. Imports no JAX."""
