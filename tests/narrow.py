"""The project's networks with few hidden units, both sides, for tests that ask for nothing of those layers' size.

Nearly all weights of an AlexNet are those of two fully connected layers, and so is the time of a test with 71 pixels.
"""

import torch
from parallel_cases import narrow
from torch import nn

from jax_alexnet.layer_specs import Dense
from jax_alexnet.model import AlexNet
from jax_alexnet.variants import VARIANTS
from parity.alexnet import pairs
from parity.candidate.jax_arrays import DTYPES
from torch_ref import alexnet


def pair(name: str, *, image_size: int | tuple[int, int], classes: int) -> pairs.Pair:
    """`pairs.build` of such a network, in float64."""
    table = narrow(VARIANTS[name], channels=1)
    units = [row.features or classes for row in table.layers if isinstance(row, Dense)]
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    with torch.device("meta"):
        reference = alexnet.build(name, classes=classes, image_size=size).eval()
    dense = [(path, layer) for path, layer in reference.named_children() if isinstance(layer, nn.Linear)]
    inputs = dense[0][1].in_features
    for (path, _), outputs in zip(dense, units, strict=True):
        reference.add_module(path, nn.Linear(inputs, outputs))
        inputs = outputs
    reference = reference.to_empty(device="cpu").double()
    state = pairs.draw_weights(reference, seed=0, dtype="float64")
    reference.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    network = AlexNet(table, classes, dtype=DTYPES["float64"], param_dtype=DTYPES["float64"])
    return pairs.Pair(name, network, pairs.to_flax(reference, state, size, "float64"), reference, "float64", size)
