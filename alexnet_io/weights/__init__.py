"""Trained weights that come with the project, each a file `NAME.safetensors` with its card, `NAME.md`."""
