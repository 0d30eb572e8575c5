"""The operations that Flax lacks or computes otherwise, each a pure function with its own gradient."""
