"""AlexNet in PyTorch, written out layer by layer from the papers and the released sources.

The reference that the JAX implementation is held to: it shares names with it (variants, layers, recipes)
and no numbers, and imports nothing from it. Importing this package loads nothing; see
``torch_ref.alexnet.build``.
"""
