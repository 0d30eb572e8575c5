"""PyTorch modules and their ports, a file each."""
