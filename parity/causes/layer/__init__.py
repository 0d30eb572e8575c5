"""A layer's own mistakes: its parameters, constants, precision and gradients."""
