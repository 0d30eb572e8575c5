"""The project's networks with few hidden units, for tests that ask for nothing of fully connected layers' size.

Nearly all weights of an AlexNet are those of two fully connected layers, and so is the time of a test with 71 pixels.
"""

from dataclasses import replace

import torch
from torch import nn

from jax_alexnet.layer_specs import Dense, Variant
from jax_alexnet.model import AlexNet
from jax_alexnet.variants import VARIANTS
from parity.alexnet import pairs
from parity.candidate.jax_arrays import DTYPES
from torch_ref import alexnet

UNITS = 96


def table(name: str) -> Variant:
    """The network's table, its hidden fully connected layers with `UNITS` units each."""
    rows = VARIANTS[name].layers
    layers = tuple(replace(row, features=UNITS) if isinstance(row, Dense) and row.features else row for row in rows)
    return replace(VARIANTS[name], layers=layers)


def pair(name: str, *, image_size: int, classes: int) -> pairs.Pair:
    """`pairs.build` of such a network, in float64."""
    size = (image_size, image_size)
    with torch.device("meta"):
        reference = alexnet.build(name, classes=classes, image_size=size).eval()
    dense = [(path, layer) for path, layer in reference.named_children() if isinstance(layer, nn.Linear)]
    inputs = dense[0][1].in_features
    for path, _ in dense:
        units = classes if path == dense[-1][0] else UNITS
        reference.add_module(path, nn.Linear(inputs, units))
        inputs = units
    reference = reference.to_empty(device="cpu").double()
    state = pairs.draw_weights(reference, seed=0, dtype="float64")
    reference.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    network = AlexNet(table(name), classes, dtype=DTYPES["float64"], param_dtype=DTYPES["float64"])
    return pairs.Pair(name, network, pairs.to_flax(reference, state, size, "float64"), reference, "float64", size)
