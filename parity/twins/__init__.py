"""Twin runs: both shipped training programs, from the same weights, on the same data, with the same draws.

JAX's program runs as it is and is only watched; PyTorch's is given JAX's first weights, crops, flips, colour noise and
dropout masks. Everything either of them does is recorded and compared, step by step, with the other and with what the
settings ask for (`ledger`); then both are killed and stopped at every step, and what they make of it is compared with
the run that nothing disturbed.
"""
