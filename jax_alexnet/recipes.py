"""The five ways of training, with their numbers from the sources, and how they complete a run's settings.

Source keys as in `variants.py`.
"""

from dataclasses import asdict, dataclass

from alexnet_io.command_line.complete_settings import CompleteSettings, complete, data_defaults
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources import parse_spec
from alexnet_io.errors import UserError
from alexnet_io.run.fine_tuning import frozen_layers, refuse_what_needs_weights
from jax_alexnet.ablation import ablated
from jax_alexnet.layer_specs import Conv, Dropout, Variant
from jax_alexnet.variants import VARIANTS, layers_with_weights, spanning_columns


@dataclass(frozen=True)
class Recipe:
    """Values for the settings of the same names."""

    batch_size: int
    epochs: int
    optimizer: str
    learning_rate: float
    bias_learning_rate_factor: float = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_biases: bool = True
    schedule: str = "constant"
    drop_every: int | None = None
    drop_epochs: tuple[int, ...] | None = None
    drop_factor: float = 0.1
    plateau_patience: int = 10
    plateau_cooldown: int = 0
    weight_init: str = "variant"
    normalize: str = "half"
    crop: bool = False
    flip: bool = False
    color_noise: bool = False


RECIPES: dict[str, Recipe] = {
    # The notebook: Adam at 1e-4, batches of 4, 50 epochs, PyTorch's initialisation, no augmentation [SD].
    "blog": Recipe(batch_size=4, epochs=50, optimizer="adam", learning_rate=1e-4, weight_init="pytorch"),
    # Sections 4.1 and 5 [P]: the learning rate sits inside the velocity and falls tenfold when the validation
    # error stops improving. How long to wait was a matter of judgement there; the counting is PyTorch's.
    "paper": Recipe(
        batch_size=128, epochs=90, optimizer="paper", learning_rate=0.01, momentum=0.9, weight_decay=5e-4,
        schedule="plateau", weight_init="paper", normalize="mean_image", crop=True, flip=True, color_noise=True,
    ),
    # models/bvlc_alexnet/solver.prototxt [K]: 450,000 iterations of 256 images are 90 epochs of ImageNet.
    "caffe": Recipe(
        batch_size=256, epochs=90, optimizer="paper", learning_rate=0.01, bias_learning_rate_factor=2.0,
        momentum=0.9, weight_decay=5e-4, decay_biases=False, schedule="every_steps", drop_every=100_000,
        weight_init="caffe", normalize="mean_image", crop=True, flip=True,
    ),
    # 8 GPUs with 32 images each [TV].
    "torchvision": Recipe(
        batch_size=256, epochs=90, optimizer="sgd", learning_rate=0.01, momentum=0.9, weight_decay=1e-4,
        schedule="every_epochs", drop_every=30, weight_init="pytorch", normalize="imagenet", crop=True, flip=True,
    ),
    # layers-cifar/layer-params-18pct.cfg [S]: weights decay by layer (see the variants), biases don't.
    "cifar": Recipe(
        batch_size=128, epochs=140, optimizer="paper", learning_rate=1e-3, bias_learning_rate_factor=2.0,
        momentum=0.9, weight_decay=0.004, decay_biases=False, schedule="at_epochs", drop_epochs=(120, 130),
        normalize="mean_image",
    ),
}  # fmt: skip


def choose_variant(settings: TrainSettings) -> Variant:
    """The network's table.

    Raises:
        UserError: columns are to be spanned in a network that isn't `two_column`, or an ablation that the network can't
            have.
    """
    variant = ablated(VARIANTS[settings.model], settings.ablate)
    if not settings.span_columns:
        return variant
    if settings.model != "two_column":
        raise UserError(f"--span-columns is for two_column; {settings.model} has no such choice: leave the flag out")
    return spanning_columns(variant)


def resolve(settings: TrainSettings) -> CompleteSettings:
    """The settings completed.

    The command line and the YAML file win, then what suits the data set, then the recipe, then the network.

    Raises:
        UserError: settings that don't go together, or a data source that doesn't exist.
    """
    parse_spec(settings.data)
    variant = choose_variant(settings)
    if settings.dropout and not any(isinstance(row, Dropout) for row in variant.layers):
        raise UserError(f"--dropout is for networks with dropout, which {settings.model} has not: leave the flag out")
    frozen_layers(settings, layers_with_weights(variant))
    refuse_what_needs_weights(settings)
    settings = data_defaults(settings)
    name = settings.recipe or variant.recipe
    values = asdict(RECIPES[name])
    if values["drop_epochs"] is not None:
        values["drop_epochs"] = list(values["drop_epochs"])
    if name == "cifar" and variant.image_size == 24:
        # The 13% and 11% nets train on 24x24 crops and their mirror images, and for longer: about 300 epochs on four
        # fifths of the images and 150 on all, then ten at a tenth of the learning rate and ten at a hundredth [C1].
        values.update(crop=True, flip=True, epochs=470, drop_epochs=[450, 460])
    if name == "cifar" and variant.name == "cifar_80sec":
        # Its source has the rate alone; eight epochs and two at a tenth are Caffe's for the same network, in
        # examples/cifar10/cifar10_quick_solver.prototxt and cifar10_quick_solver_lr1.prototxt [K].
        values.update(epochs=10, drop_epochs=[8])
    if name == variant.recipe and isinstance(variant.layers[0], Conv) and variant.layers[0].std is not None:
        values["weight_init"] = "variant"  # the network's own source says how its weights start
    return complete(settings, recipe=name, image_size=variant.image_size, **values)
