"""The rows that a network's table is made of, and the table. Plain data: `variants.py` has the networks."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conv:
    """A convolution with square kernels. `std` None means PyTorch's default initialisation."""

    name: str
    features: int
    window: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    ceil: bool = False  # output 1+ceil((n-k)/s), as cuda-convnet: zeros are implied at the bottom and right
    std: float | None = None
    bias: float = 0.0


@dataclass(frozen=True)
class LocalConv:
    """A convolution whose kernels are not shared between positions (cuda-convnet's `local`)."""

    name: str
    features: int
    window: int
    padding: int
    std: float
    bias: float = 0.0


@dataclass(frozen=True)
class Dense:
    """A fully connected layer. `features` None is the number of classes."""

    name: str
    features: int | None
    std: float | None = None
    bias: float = 0.0
    sum_over: str | None = None  # the mesh axis whose devices have a part of the inputs each, in tables of `parallel`


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""

    name: str


@dataclass(frozen=True)
class Tanh:
    """tanh(x), in a ReLU's place."""

    name: str


@dataclass(frozen=True)
class LRN:
    """Local response normalisation across channels; `columns` windows never meet."""

    name: str
    size: int
    alpha: float
    beta: float
    k: float
    divide_by_size: bool
    columns: int = 1


@dataclass(frozen=True)
class SpatialNorm:
    """Response normalisation over a square of positions within each channel; alpha is divided by size²."""

    name: str
    size: int
    alpha: float
    beta: float
    k: float = 1.0


@dataclass(frozen=True)
class Pool:
    """Pooling without padding; `ceil` windows may overhang and are then clipped."""

    name: str
    kind: Literal["max", "average"]
    window: int = 3
    stride: int = 2
    ceil: bool = False


@dataclass(frozen=True)
class AdaptivePool:
    """Average pooling to a fixed output size, whatever the input size."""

    name: str
    size: int = 6


@dataclass(frozen=True)
class Dropout:
    """Inverted dropout: kept values are divided by the probability of keeping them."""

    name: str
    rate: float = 0.5
    part_along: str | None = None  # the mesh axis whose devices have a part of the units each


@dataclass(frozen=True)
class Exchange:
    """Devices give each other what they hold; only in the tables that `parallel` makes for one of several devices.

    `channels` of the same images are joined, or all the group's `examples`. `whole` says that from here on the
    devices along `axis` compute the same.
    """

    name: str
    kind: Literal["channels", "examples"]
    axis: str
    whole: bool = False


Layer = Conv | LocalConv | Dense | Relu | Tanh | LRN | SpatialNorm | Pool | AdaptivePool | Dropout | Exchange


@dataclass(frozen=True)
class Variant:
    """One network: its layers, its default input side in pixels and its default number of classes."""

    name: str
    summary: str
    image_size: int
    classes: int
    recipe: str
    layers: tuple[Layer, ...]
    # (layer, weight decay) where the source sets it layer by layer (the CIFAR nets); else the recipe's.
    weight_decay: tuple[tuple[str, float], ...] = ()
