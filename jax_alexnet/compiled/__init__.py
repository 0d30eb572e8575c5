"""The step compiled for GPUs that needn't be there, and read."""
