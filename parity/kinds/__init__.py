"""What is known of each kind of layer: a file each, of the type in `kind.py`, listed in `registry.py`.

`layer.py`, `kernels.py`, `windows.py` and `normalization.py` hold what several kinds share; `layouts.py`, `weights.py`,
`torch_leaves.py` and `jax_leaves.py` what is common to all. Only the last two import a framework.
"""
