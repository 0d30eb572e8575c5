"""What a comparison found, as a converter of weights: which tensor of PyTorch's becomes which leaf of JAX's, and how.

Only NumPy is needed, but where a torch file is read, or a tree of JAX's is filled or given.
"""
