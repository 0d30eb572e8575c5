"""The settings of a training run as a user gives them, the same for both frameworks; what isn't given is None.

Completed by a recipe they are `complete_settings.CompleteSettings`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from alexnet_io.command_line.ablations import ABLATIONS
from alexnet_io.command_line.settings import setting

MODELS = (
    "single_column", "two_column", "cuda_convnet_2012", "caffe_alexnet", "caffenet",
    "one_weird_trick", "one_weird_trick_lrn", "cifar_18pct", "cifar_13pct", "cifar_11pct",
    "cifar_80sec",
)  # fmt: skip
RECIPES = ("blog", "paper", "caffe", "torchvision", "cifar")
OPTIMIZERS = ("adam", "sgd", "paper")
SCHEDULES = ("constant", "every_epochs", "every_steps", "at_epochs", "plateau", "cosine")
WEIGHT_INITS = ("variant", "pytorch", "paper", "caffe")
NORMALIZATIONS = ("half", "imagenet", "mean_image", "channel_mean", "channel", "unit")
PRECISIONS = ("float32", "tf32", "bfloat16", "float64")
CPU_CONVOLUTIONS = ("auto", "onednn", "winograd", "xla")
SCHEMES = ("data", "columns", "hybrid", "zero")


# Settings by the part of --help that they stand in; those that a recipe decides are None until it does.
_data = partial(setting, group="data")
_network = partial(setting, group="network")
_fine_tuning = partial(setting, group="fine-tuning")
_recipe = partial(setting, None, group="recipe and optimizer", unset="from the recipe")
_always = partial(setting, group="recipe and optimizer")  # of no recipe's
_schedule = partial(setting, None, group="learning rate schedule", unset="from the recipe")
_input = partial(setting, None, group="input and augmentation", unset="from the recipe")
_devices = partial(setting, group="arithmetic and devices")
_processes = partial(setting, None, group="several processes", unset="as SLURM or Open MPI say", only="jax_alexnet")
_directory = partial(setting, group="the run's directory")
_reporting = partial(setting, group="reporting")
_OR_DATA = "from the recipe or the data set"
_OR_BOTH = "from the recipe, the network or the data set"


@dataclass(frozen=True)
class DataSettings:
    """Where images come from; shared by training, evaluation and prediction."""

    data: str = _data(
        "digits", "digits, folder:PATH, cifar10, cifar100, imagenet:PATH, tfds:NAME or synthetic", metavar="SOURCE"
    )
    data_dir: Path = _data(Path("data"), "where data sets lie that were fetched or prepared earlier", metavar="DIR")
    cache_dir: Path | None = _data(
        None,
        "where decoded images are kept; python -m jax_alexnet.cache lists and clears it",
        metavar="DIR",
        unset="~/.cache/jax_alexnet",
    )
    holdout: float | None = _data(
        None, "share of a folder without test/ or val/ that is kept for testing", metavar="SHARE", above=0, below=1
    )
    download: bool = _data(False, "fetch cifar10 or cifar100 into the data directory if it isn't there")


@dataclass(frozen=True)
class TrainSettings(DataSettings):
    """Train AlexNet or a relative; without any flag, the blog's network on scikit-learn's handwritten digits."""

    EXAMPLES: ClassVar = (
        (
            "--data folder:pictures --holdout 0.2 --epochs 20",
            "on pictures/CLASS/*.jpg, a fifth of them kept for testing",
        ),
        ("--data cifar10 --download --model cifar_18pct --output runs/cifar", "on CIFAR-10, fetched once"),
        ("--resume --output runs/cifar --epochs 160", "go on with that run, to a later end"),
        (
            "--config imagenet-paper --data imagenet:/data/imagenet",
            "the paper's training, with every number of it",
        ),
        (
            "--model cifar_18pct --data folder:pictures --init-from runs/cifar --freeze conv1..conv3",
            "a new last layer on what that run learnt",
        ),
    )

    validation: float | None = _data(
        None,
        "share of the training images kept for validation: schedules and the choice of the best weights follow these, "
        "and the test images are evaluated once, at the end",
        metavar="SHARE",
        unset="none; the test images do it",
        above=0,
        below=1,
    )
    model: str = _network("single_column", ", ".join(MODELS), choices=MODELS)
    recipe: str | None = _recipe(
        "how to train: " + ", ".join(RECIPES) + "; --print-config shows what it sets",
        unset="the network's own",
        choices=RECIPES,
    )
    image_size: int | None = _network(
        None,
        "side of the images the network sees, in pixels",
        unset="the network's own; 67 for the digits",
        minimum=1,
        maximum=4096,
    )
    stored_size: int | None = _input(
        "side of the images in the cache, from which crops are taken, in pixels",
        unset="what suits --image-size and --crop",
        minimum=1,
        maximum=4096,
    )
    epochs: int | None = _recipe("passes over the training set", unset=_OR_BOTH, minimum=1)
    steps: int | None = _recipe("stop after this many steps, if the epochs don't end sooner", unset="", minimum=1)
    batch_size: int | None = _recipe("images a step, over all devices", unset=_OR_DATA, minimum=1)
    optimizer: str | None = _recipe(
        "adam; sgd (learning rate outside the velocity, as PyTorch); paper (inside the velocity)", choices=OPTIMIZERS
    )
    learning_rate: float | None = _recipe(
        "initial learning rate of the weights", metavar="RATE", unset=_OR_DATA, above=0
    )
    bias_learning_rate_factor: float | None = _recipe("the biases' learning rate over the weights'", minimum=0)
    momentum: float | None = _recipe(
        "share of the velocity kept from step to step", metavar="SHARE", minimum=0, below=1
    )
    weight_decay: float | None = _recipe("L2 penalty on weights, coupled with the gradient", minimum=0)
    decay_biases: bool | None = _recipe("whether weight decay touches biases")
    label_smoothing: float = _always(
        0.0, "share of each label that is spread evenly over all classes", metavar="SHARE", minimum=0, below=1
    )
    clip_norm: float | None = _always(
        None, "scale gradients down whose norm over all weights is larger", metavar="NORM", unset="off", above=0
    )
    accumulate: int = _always(
        1, "parts of a batch that are worked on one after the other: the same step in less memory", minimum=1
    )
    ema: float | None = _always(
        None,
        "evaluate, choose and export an exponential moving average of the weights, such as 0.999",
        metavar="DECAY",
        unset="off",
        above=0,
        below=1,
    )
    patience: int | None = _always(
        None,
        "stop once so many epochs have passed since the best accuracy on the images that steer the run",
        metavar="EPOCHS",
        unset="off",
        minimum=1,
    )
    schedule: str | None = _schedule(
        "how the learning rate falls: " + ", ".join(SCHEDULES), unset=_OR_DATA, choices=SCHEDULES
    )
    warmup_epochs: float | None = setting(
        None,
        "epochs in which the learning rate rises evenly to its first value, under any schedule",
        group="learning rate schedule",
        unset="none",
        above=0,
    )
    warmup_steps: int | None = setting(
        None, "the same in steps", group="learning rate schedule", unset="none", minimum=1
    )
    drop_every: int | None = _schedule("epochs or steps between drops (every_epochs, every_steps)", minimum=1)
    drop_epochs: list[int] | None = _schedule("epochs at which it drops (at_epochs)", unset=_OR_BOTH, minimum=0)
    drop_factor: float | None = _schedule("what a drop multiplies the learning rate by", unset="0.1", above=0, below=1)
    plateau_patience: int | None = _schedule(
        "epochs without progress that are tolerated (plateau)", unset="10", minimum=0
    )
    plateau_cooldown: int | None = _schedule(
        "epochs after a drop in which none are counted (plateau)", unset="0", minimum=0
    )
    weight_init: str | None = _network(
        None,
        "initial weights: " + ", ".join(WEIGHT_INITS),
        unset="from the recipe or the network",
        choices=WEIGHT_INITS,
    )
    normalize: str | None = _input(
        "half ((x/255-0.5)/0.5), imagenet (torchvision's mean and std), mean_image or channel_mean (subtracted on "
        "the 0..255 scale), channel (mean and std of the training set), unit (x/255)",
        choices=NORMALIZATIONS,
    )
    crop: bool | None = _input("random crops from the stored images in training", unset=_OR_BOTH)
    flip: bool | None = _input("random horizontal flips in training", unset="from the recipe or the network")
    color_noise: bool | None = _input("the paper's PCA colour noise in training")
    dropout: float | None = _network(
        None, "share of units dropped after fc6 and fc7", metavar="SHARE", unset="the network's own", minimum=0, below=1
    )
    span_columns: bool = _network(False, "let the LRN windows of two_column span both columns")
    ablate: str | None = _network(
        None,
        "what the network is trained without, to see what it does: "
        + "; ".join(f"{word} ({meaning})" for word, meaning in ABLATIONS.items())
        + "; several as in tanh,no-lrn",
        metavar="WORDS",
        unset="nothing",
    )
    init_from: str | None = _fine_tuning(
        None,
        "begin with these weights: a run's directory, a .safetensors, .npz or PyTorch file, or a name that python -m "
        "jax_alexnet.weights lists; the last layer is new where the classes are others",
        metavar="RUN|FILE|NAME",
        unset="fresh weights",
    )
    freeze: str | None = _fine_tuning(
        None,
        "layers whose weights stay as they begin: names, or the first and the last of several, as in conv1..conv5,fc6",
        metavar="LAYERS",
        unset="none",
    )
    new_layer_learning_rate_factor: float = _fine_tuning(
        1.0, "the new last layer's learning rate over the other layers'", above=0
    )
    precision: str = _devices("float32", ", ".join(PRECISIONS), choices=PRECISIONS)
    cpu_convolution: str = _devices(
        "auto",
        "who computes convolutions on CPUs in float32 and bfloat16: auto (the fastest that fits), onednn, winograd "
        "(fewer products), xla; the last two leave oneDNN out of everything",
        only="jax_alexnet",
        choices=CPU_CONVOLUTIONS,
    )
    devices: str = _devices(
        "all", "all, a count, or ids such as 0,2; of each process, if there are several", metavar="WHICH"
    )
    parallel: str = _devices(
        "data",
        "how devices share the work: data; columns (the paper's two GPUs); hybrid (convolutions by images, fully "
        "connected layers by units); zero (data, with the optimizer's state divided)",
        only="jax_alexnet",
        choices=SCHEMES,
    )
    group_size: int | None = _devices(
        None,
        "devices that share the fully connected layers (hybrid) or the optimizer's state (zero)",
        unset="all",
        only="jax_alexnet",
        minimum=1,
    )
    coordinator: str | None = _processes("where the first of several processes is met", metavar="HOST:PORT")
    num_processes: int | None = _processes("how many processes train together", minimum=1)
    process_id: int | None = _processes("which of them this is, from 0", minimum=0)
    seed: int = setting(
        0, "of weights, order, dropout and augmentation", minimum=0, maximum=2**31 - 1, group="recipe and optimizer"
    )
    output: Path | None = _directory(None, "the run's directory", metavar="DIR", unset="runs/TIME-MODEL-DATA")
    resume: bool = _directory(False, "go on with the run in --output", action=True)
    strict_resume: bool = _directory(False, "refuse a damaged checkpoint instead of using the one before", action=True)
    changed_data: bool = _directory(
        False, "with --resume, go on although the data are not those that the run was trained on", action=True
    )
    checkpoint_seconds: float = _directory(
        300.0, "save at least this often; the best epoch and the end are always saved", metavar="SECONDS", minimum=0
    )
    log_every: int = _reporting(20, "steps between rows of training metrics", minimum=1)
    evaluate_every: int = _reporting(1, "epochs between evaluations on the test set", minimum=1)
    max_bad_images: int = _data(100, "undecodable images that are skipped before the run is refused", minimum=0)
    tensorboard: bool = _reporting(False, "write TensorBoard event files too")
    profile: Path | None = _reporting(
        None,
        "write a trace of five steps there, for https://ui.perfetto.dev and chrome://tracing; see docs/train.md",
        metavar="DIR",
        unset="off",
    )
    dry_run: bool = _reporting(False, "check everything, build one step, and stop", action=True)
    print_config: bool = _reporting(False, "print the settings that would run, as YAML, and stop", action=True)
