"""How the networks were trained: five recipes as plain values, each with its source."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from alexnet_io.errors import UserError

IMAGENET_IMAGES = 1_281_167  # of ILSVRC-2012's training set, by which iterations become epochs


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run, under the names and in the words of the command line.

    Attributes:
        optimizer: "paper" (rate inside the velocity), "sgd" (PyTorch's convention) or "adam".
        learning_rate: First rate of the weights.
        bias_learning_rate_factor: Rate of the biases in units of the weights'.
        weight_decay: Of all layers that `layer_weight_decay` does not name.
        layer_weight_decay: By layer name; no setting of the command line.
        decay_biases: Whether biases decay as the weights of their layer do.
        weight_init: A scheme of `torch_ref.initialization`.
        normalize: See `torch_ref.augment.normalized`.
        crop: Whether training images are cut at random out of larger ones: of 256 pixels for the ImageNet networks.
        flip: Mirror every other image, left to right.
        color_noise: The paper's noise along the principal components of the colours.
    """

    name: str
    optimizer: str
    batch_size: int
    epochs: int
    learning_rate: float
    weight_init: str
    normalize: str
    bias_learning_rate_factor: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    layer_weight_decay: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    decay_biases: bool = True
    schedule: str = "constant"
    drop_every: int | None = None
    drop_epochs: tuple[int, ...] | None = None
    drop_factor: float = 0.1
    plateau_patience: int = 10  # PyTorch's ReduceLROnPlateau's own; the paper's authors judged by eye (section 5)
    plateau_cooldown: int = 0
    crop: bool = False
    flip: bool = False
    color_noise: bool = False


# The notebook: Adam, batches of 4, CIFAR-10 resized to 227, scaled to [-1, 1].
BLOG = Recipe(
    name="blog",
    optimizer="adam",
    batch_size=4,
    epochs=50,
    learning_rate=1e-4,
    weight_init="pytorch",
    normalize="half",
)

# Krizhevsky, Sutskever and Hinton 2012, sections 4.1 and 5. The rate was lowered three times in about 90 epochs.
PAPER = Recipe(
    name="paper",
    optimizer="paper",
    batch_size=128,
    epochs=90,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="plateau",
    weight_init="paper",
    normalize="mean_image",
    crop=True,
    flip=True,
    color_noise=True,
)

# BVLC Caffe, models/bvlc_alexnet and models/bvlc_reference_caffenet: solver.prototxt and train_val.prototxt. Its
# runs are 450,000 iterations long.
CAFFE = Recipe(
    name="caffe",
    optimizer="paper",
    batch_size=256,
    epochs=math.ceil(450_000 * 256 / IMAGENET_IMAGES),
    learning_rate=0.01,
    bias_learning_rate_factor=2.0,
    momentum=0.9,
    weight_decay=5e-4,
    decay_biases=False,
    schedule="every_steps",
    drop_every=100_000,
    weight_init="caffe",
    normalize="mean_image",
    crop=True,
    flip=True,
)

# torchvision's documentation of its alexnet weights: 8 GPUs with 32 images each. Its own script takes crops of
# random area and shape; here they are plain ones from images of 256.
TORCHVISION = Recipe(
    name="torchvision",
    optimizer="sgd",
    batch_size=256,
    epochs=90,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="every_epochs",
    drop_every=30,
    weight_init="pytorch",
    normalize="imagenet",
    crop=True,
    flip=True,
)

# cuda-convnet, example-layers/layer-params-18pct.cfg; each network's own initialisation.
CIFAR = Recipe(
    name="cifar",
    optimizer="paper",
    batch_size=128,
    epochs=140,
    learning_rate=0.001,
    bias_learning_rate_factor=2.0,
    momentum=0.9,
    weight_decay=0.004,
    layer_weight_decay=MappingProxyType({"fc10": 1.0}),
    decay_biases=False,
    schedule="at_epochs",
    drop_epochs=(120, 130),
    weight_init="variant",
    normalize="mean_image",
)

# cuda-convnet, example-layers/layer-params-conv-local-11pct.cfg and -13pct.cfg. There, about 300 epochs on four
# fifths of the training images, about 150 on all of them, then 10 at each lower rate (which only the weights'
# rates follow there); here the 450 all see every training image.
CIFAR_LOCAL = replace(
    CIFAR,
    epochs=470,
    layer_weight_decay=MappingProxyType({"conv1": 0.0, "conv2": 0.0}),
    drop_epochs=(450, 460),
    crop=True,
    flip=True,
)

# cuda-convnet, example-layers/layer-params-80sec.cfg, which has no schedule. Caffe's of the same network: 4,000
# iterations of 100 images, and 1,000 at a tenth (examples/cifar10/cifar10_quick_solver*.prototxt).
CIFAR_QUICK = replace(
    CIFAR, epochs=10, layer_weight_decay=MappingProxyType({"fc64": 0.03, "fc10": 0.03}), drop_epochs=(8,)
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (BLOG, PAPER, CAFFE, TORCHVISION, CIFAR)}

# Networks whose source sets their weights differently from the paper or from bvlc_alexnet keep their own start.
OWN_START = {"paper": ("cuda_convnet_2012", "one_weird_trick_lrn"), "caffe": ("caffenet",)}


def recipe_for(name: str, model: str) -> Recipe:
    """A recipe as its source applies it to a variant.

    Args:
        name: A key of `RECIPES`.
        model: A key of `torch_ref.alexnet.VARIANTS`. The CIFAR nets with local layers decay and crop otherwise
            than the one without; nets with a published start of their own keep it within their family.

    Raises:
        UserError: An unknown recipe.
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; choose one of: {', '.join(RECIPES)}")
    if name == "cifar" and model in ("cifar_13pct", "cifar_11pct"):
        return CIFAR_LOCAL
    if name == "cifar" and model == "cifar_80sec":
        return CIFAR_QUICK
    recipe = RECIPES[name]
    return replace(recipe, weight_init="variant") if model in OWN_START.get(name, ()) else recipe
