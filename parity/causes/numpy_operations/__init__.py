"""PyTorch's operations in NumPy and float64, a file for each sort."""
