"""PyTorch's code between layers as a graph of operations, which is run again in NumPy."""
