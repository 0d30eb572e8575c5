"""How weights start: each variant's own law, and three that any variant can be given.

A law is a standard deviation for the normal weights and a constant for the biases, per layer.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alexnet_io.errors import UserError
from torch_ref.cifar import Cifar11Pct, Cifar13Pct, Cifar18Pct, Cifar80Sec
from torch_ref.network import Network
from torch_ref.single_column import OneWeirdTrick, OneWeirdTrickLRN, SingleColumn
from torch_ref.two_column import CaffeAlexNet, CaffeNet, CudaConvnet2012, TwoColumn

SCHEMES = ("variant", "pytorch", "paper", "caffe")


class Start(NamedTuple):
    """Weights drawn from N(0, std^2), biases constant."""

    std: float
    bias: float


# Paper, section 5: 0.01 everywhere; 1 in the biases that feed ReLUs in conv2, conv4, conv5 and the hidden fully
# connected layers, so that they start in the linear part.
PAPER = {
    "conv1": Start(0.01, 0),
    "conv2": Start(0.01, 1),
    "conv3": Start(0.01, 0),
    "conv4": Start(0.01, 1),
    "conv5": Start(0.01, 1),
    "fc6": Start(0.01, 1),
    "fc7": Start(0.01, 1),
    "fc8": Start(0.01, 0),
}
# Caffe, models/bvlc_alexnet/train_val.prototxt: 0.1 where the paper has 1, which left the loss flat there.
CAFFE = {
    "conv1": Start(0.01, 0),
    "conv2": Start(0.01, 0.1),
    "conv3": Start(0.01, 0),
    "conv4": Start(0.01, 0.1),
    "conv5": Start(0.01, 0.1),
    "fc6": Start(0.005, 0.1),
    "fc7": Start(0.005, 0.1),
    "fc8": Start(0.01, 0),
}
# A layer of another name (the CIFAR nets' local3, local4, fc64, fc10) under the paper's or Caffe's law.
OTHER_LAYERS = Start(0.01, 0)

# Each variant's own law; None is PyTorch's default.
VARIANTS: dict[type[Network], dict[str, Start] | None] = {
    SingleColumn: None,  # the notebook
    TwoColumn: PAPER,
    # layers/layers-145.cfg of the released code: 0.03 in conv3, conv4 and conv5.
    CudaConvnet2012: {
        "conv1": Start(0.01, 0),
        "conv2": Start(0.01, 1),
        "conv3": Start(0.03, 0),
        "conv4": Start(0.03, 1),
        "conv5": Start(0.03, 1),
        "fc6": Start(0.01, 1),
        "fc7": Start(0.01, 1),
        "fc8": Start(0.01, 0),
    },
    CaffeAlexNet: CAFFE,
    # models/bvlc_reference_caffenet/train_val.prototxt: Caffe's deviations, the paper's biases.
    CaffeNet: {
        "conv1": Start(0.01, 0),
        "conv2": Start(0.01, 1),
        "conv3": Start(0.01, 0),
        "conv4": Start(0.01, 1),
        "conv5": Start(0.01, 1),
        "fc6": Start(0.005, 1),
        "fc7": Start(0.005, 1),
        "fc8": Start(0.01, 0),
    },
    OneWeirdTrick: None,  # torchvision sets nothing
    # cuda-convnet2, layers-imagenet-1gpu.cfg: -7 makes every class unlikely at first.
    OneWeirdTrickLRN: {
        "conv1": Start(0.01, 0),
        "conv2": Start(0.01, 1),
        "conv3": Start(0.03, 0),
        "conv4": Start(0.03, 1),
        "conv5": Start(0.03, 1),
        "fc6": Start(0.01, 1),
        "fc7": Start(0.01, 1),
        "fc8": Start(0.01, -7),
    },
    # cuda-convnet, example-layers/layers-18pct.cfg
    Cifar18Pct: {
        "conv1": Start(0.0001, 0),
        "conv2": Start(0.01, 0),
        "conv3": Start(0.01, 0),
        "fc10": Start(0.01, 0),
    },
    # cuda-convnet, example-layers/layers-80sec.cfg
    Cifar80Sec: {
        "conv1": Start(0.0001, 0),
        "conv2": Start(0.01, 0),
        "conv3": Start(0.01, 0),
        "fc64": Start(0.1, 0),
        "fc10": Start(0.1, 0),
    },
    # cuda-convnet, example-layers/layers-conv-local-13pct.cfg
    Cifar13Pct: {
        "conv1": Start(0.0001, 0),
        "conv2": Start(0.01, 0),
        "local3": Start(0.04, 0),
        "local4": Start(0.04, 0),
        "fc10": Start(0.01, 0),
    },
    # cuda-convnet, example-layers/layers-conv-local-11pct.cfg
    Cifar11Pct: {
        "conv1": Start(0.0001, 0),
        "conv2": Start(0.01, 0),
        "local3": Start(0.04, 0),
        "local4": Start(0.04, 0),
        "fc10": Start(0.01, 0),
    },
}


@torch.no_grad()
def initialize(network: Network, scheme: str = "variant", *, seed: int = 0) -> None:
    """Draw all weights and biases anew, in place.

    Draws are float32 on the CPU, so a seed gives the same weights in every dtype and on every device (bar
    rounding to the dtype).

    Args:
        network: From `torch_ref.alexnet.build`.
        scheme: "variant" (the network's own), "pytorch" (uniform in +-1/sqrt(fan_in), weights and biases),
            "paper" or "caffe" (normal weights, constant biases, by layer name).
        seed: Of the generator.

    Raises:
        UserError: An unknown scheme.
    """
    if scheme not in SCHEMES:
        raise UserError(f"unknown initialization {scheme!r}; choose one of: {', '.join(SCHEMES)}")
    generator = torch.Generator().manual_seed(seed)
    law = {"paper": PAPER, "caffe": CAFFE, "pytorch": None, "variant": VARIANTS[type(network)]}[scheme]
    for name, layer in network.named_children():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if not isinstance(weight, nn.Parameter) or not isinstance(bias, nn.Parameter):
            continue
        if law is None:
            bound = 1 / math.sqrt(fan_in(weight))
            weight.copy_(torch.empty(weight.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))
            bias.copy_(torch.empty(bias.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator))
        else:
            start = law.get(name, OTHER_LAYERS)
            weight.copy_(torch.empty(weight.shape, dtype=torch.float32).normal_(0, start.std, generator=generator))
            bias.fill_(start.bias)


def fan_in(weight: Tensor) -> int:
    """Number of inputs of one output unit: of (out, in), (out, in, h, w) or (H, W, out, in, h, w) weights."""
    return math.prod(weight.shape[3:] if weight.ndim == 6 else weight.shape[1:])
