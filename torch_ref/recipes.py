"""How the networks were trained: five recipes, each with its source."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from alexnet_io.errors import UserError
from torch_ref.schedules import Constant, EveryEpochs, EverySteps, Milestones, Plateau, Schedule


@dataclass(frozen=True)
class PerChannel:
    """(x / 255 - mean) / std per channel in RGB, x in 0..255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class MeanImage:
    """x - mean image of the training set, both in 0..255; of a crop, the same part of the mean image."""


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images before they are normalised.

    Attributes:
        source_size: Side of the images that crops are taken from; None when they are resized to the network's
            size at once. At other network sizes keep the ratio to the variant's default size.
        flip: Mirror every other image, left to right.
        pca_noise: Standard deviation of the factors on the principal components of the colours; 0 for none.
    """

    source_size: int | None = None
    flip: bool = False
    pca_noise: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        optimizer: "momentum_inside" (rate inside the velocity), "sgd" (PyTorch's convention) or "adam".
        learning_rate: First rate of the weights.
        bias_lr_multiplier: Rate of the biases in units of the weights'.
        weight_decay: Of all layers that `layer_weight_decay` does not name.
        layer_weight_decay: By layer name.
        decay_biases: Whether biases decay as the weights of their layer do.
        epochs: Length of the run; None where `iterations` gives it.
        iterations: Length of the run in optimizer steps; None where `epochs` gives it.
        initialization: A scheme of `torch_ref.initialization`.
    """

    name: str
    optimizer: str
    batch_size: int
    learning_rate: float
    schedule: Schedule
    normalization: PerChannel | MeanImage
    initialization: str
    augmentation: Augmentation = Augmentation()
    momentum: float = 0.0
    weight_decay: float = 0.0
    layer_weight_decay: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    bias_lr_multiplier: float = 1.0
    decay_biases: bool = True
    epochs: int | None = None
    iterations: int | None = None


# The notebook: Adam, batches of 4, CIFAR-10 resized to 227, scaled to [-1, 1].
BLOG = Recipe(
    name="blog",
    optimizer="adam",
    batch_size=4,
    learning_rate=1e-4,
    schedule=Constant(),
    epochs=50,
    normalization=PerChannel(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    initialization="pytorch",
)

# Krizhevsky, Sutskever and Hinton 2012, sections 4.1 and 5. The rate was lowered three times in about 90 epochs.
PAPER = Recipe(
    name="paper",
    optimizer="momentum_inside",
    batch_size=128,
    learning_rate=0.01,
    schedule=Plateau(),
    epochs=90,
    momentum=0.9,
    weight_decay=5e-4,
    normalization=MeanImage(),
    augmentation=Augmentation(source_size=256, flip=True, pca_noise=0.1),
    initialization="paper",
)

# BVLC Caffe, models/bvlc_alexnet and models/bvlc_reference_caffenet: solver.prototxt and train_val.prototxt.
CAFFE = Recipe(
    name="caffe",
    optimizer="momentum_inside",
    batch_size=256,
    learning_rate=0.01,
    schedule=EverySteps(100_000),
    iterations=450_000,
    momentum=0.9,
    weight_decay=5e-4,
    bias_lr_multiplier=2.0,
    decay_biases=False,
    normalization=MeanImage(),
    augmentation=Augmentation(source_size=256, flip=True),
    initialization="caffe",
)

# torchvision's documentation of its alexnet weights: 8 GPUs with 32 images each. Its own script takes crops of
# random area and shape; here they are plain ones from images of 256.
TORCHVISION = Recipe(
    name="torchvision",
    optimizer="sgd",
    batch_size=256,
    learning_rate=0.01,
    schedule=EveryEpochs(30),
    epochs=90,
    momentum=0.9,
    weight_decay=1e-4,
    normalization=PerChannel(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    augmentation=Augmentation(source_size=256, flip=True),
    initialization="pytorch",
)

# cuda-convnet, example-layers/layer-params-18pct.cfg; each network's own initialisation.
CIFAR = Recipe(
    name="cifar",
    optimizer="momentum_inside",
    batch_size=128,
    learning_rate=0.001,
    schedule=Milestones((120, 130)),
    epochs=140,
    momentum=0.9,
    weight_decay=0.004,
    layer_weight_decay=MappingProxyType({"fc10": 1.0}),
    bias_lr_multiplier=2.0,
    decay_biases=False,
    normalization=MeanImage(),
    initialization="variant",
)

# cuda-convnet, example-layers/layer-params-conv-local-11pct.cfg and -13pct.cfg. There, about 300 epochs on four
# fifths of the training images, about 150 on all of them, then 10 at each lower rate (which only the weights'
# rates follow there); here the 450 all see every training image.
CIFAR_LOCAL = replace(
    CIFAR,
    schedule=Milestones((450, 460)),
    epochs=470,
    layer_weight_decay=MappingProxyType({"conv1": 0.0, "conv2": 0.0}),
    augmentation=Augmentation(source_size=32, flip=True),
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
    recipe = RECIPES[name]
    return replace(recipe, initialization="variant") if model in OWN_START.get(name, ()) else recipe
