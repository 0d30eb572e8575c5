"""What a training step costs on GPUs that needn't be there: `python -m jax_alexnet.plan`."""
