"""The settings of a training run, the same for both frameworks. What a recipe decides is None until it does."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from alexnet_io.errors import UserError
from alexnet_io.settings import setting

MODELS = (
    "single_column", "two_column", "cuda_convnet_2012", "caffe_alexnet", "caffenet",
    "one_weird_trick", "one_weird_trick_lrn", "cifar_18pct", "cifar_13pct", "cifar_11pct",
)  # fmt: skip
RECIPES = ("blog", "paper", "caffe", "torchvision", "cifar")
OPTIMIZERS = ("adam", "sgd", "paper")
SCHEDULES = ("constant", "every_epochs", "every_steps", "at_epochs", "plateau")
WEIGHT_INITS = ("variant", "pytorch", "paper", "caffe")
NORMALIZATIONS = ("half", "imagenet", "mean_image", "channel_mean", "channel", "unit")
PRECISIONS = ("float32", "tf32", "bfloat16", "float64")
CPU_CONVOLUTIONS = ("auto", "onednn", "winograd", "xla")
SCHEMES = ("data", "columns", "hybrid", "zero")


@dataclass(frozen=True)
class DataSettings:
    """Where images come from; shared by training, evaluation and prediction."""

    data: str = setting("digits", "digits, folder:PATH, cifar10, cifar100, imagenet:PATH, tfds:NAME or synthetic")
    data_dir: Path = setting(Path("data"), "where data sets lie that were fetched or prepared earlier")
    cache_dir: Path | None = setting(
        None,
        "where decoded images are kept; ~/.cache/jax_alexnet by default; python -m jax_alexnet.cache lists and clears",
    )
    holdout: float | None = setting(
        None, "share of a folder without test/ or val/ that is kept for testing", above=0, below=1
    )
    download: bool = setting(False, "fetch cifar10 or cifar100 into the data directory if it isn't there")


@dataclass(frozen=True)
class TrainSettings(DataSettings):
    """Train AlexNet or a relative; without any flag, the blog's network on scikit-learn's handwritten digits."""

    model: str = setting("single_column", "the network: " + ", ".join(MODELS), choices=MODELS)
    recipe: str | None = setting(
        None, "how to train: " + ", ".join(RECIPES) + "; the network's own by default", choices=RECIPES
    )
    image_size: int | None = setting(None, "side of the images the network sees, in pixels", minimum=1, maximum=4096)
    stored_size: int | None = setting(
        None, "side of the images in the cache, from which crops are taken, in pixels", minimum=1, maximum=4096
    )
    epochs: int | None = setting(None, "passes over the training set", minimum=1)
    steps: int | None = setting(None, "stop after this many steps, if the epochs don't end sooner", minimum=1)
    batch_size: int | None = setting(None, "images a step, over all devices", minimum=1)
    optimizer: str | None = setting(
        None,
        "adam; sgd (learning rate outside the velocity, as PyTorch); paper (inside the velocity)",
        choices=OPTIMIZERS,
    )
    learning_rate: float | None = setting(None, "initial learning rate of the weights", above=0)
    bias_learning_rate_factor: float | None = setting(None, "the biases' learning rate over the weights'", minimum=0)
    momentum: float | None = setting(None, "share of the velocity kept from step to step", minimum=0, below=1)
    weight_decay: float | None = setting(None, "L2 penalty on weights, coupled with the gradient", minimum=0)
    decay_biases: bool | None = setting(None, "whether weight decay touches biases")
    schedule: str | None = setting(None, "how the learning rate falls: " + ", ".join(SCHEDULES), choices=SCHEDULES)
    drop_every: int | None = setting(None, "epochs or steps between drops (every_epochs, every_steps)", minimum=1)
    drop_epochs: list[int] | None = setting(None, "epochs at which it drops (at_epochs)", minimum=0)
    drop_factor: float | None = setting(None, "what a drop multiplies the learning rate by", above=0, below=1)
    plateau_patience: int | None = setting(None, "epochs without progress that are tolerated (plateau)", minimum=0)
    plateau_cooldown: int | None = setting(None, "epochs after a drop in which none are counted (plateau)", minimum=0)
    weight_init: str | None = setting(None, "initial weights: " + ", ".join(WEIGHT_INITS), choices=WEIGHT_INITS)
    normalize: str | None = setting(
        None,
        "half ((x/255-0.5)/0.5), imagenet (torchvision's mean and std), mean_image or channel_mean (subtracted on "
        "the 0..255 scale), channel (mean and std of the training set), unit (x/255)",
        choices=NORMALIZATIONS,
    )
    crop: bool | None = setting(None, "random crops from the stored images in training")
    flip: bool | None = setting(None, "random horizontal flips in training")
    color_noise: bool | None = setting(None, "the paper's PCA colour noise in training")
    dropout: float | None = setting(None, "share of units dropped after fc6 and fc7", minimum=0, below=1)
    span_columns: bool = setting(False, "let the LRN windows of two_column span both columns")
    precision: str = setting("float32", "arithmetic: " + ", ".join(PRECISIONS), choices=PRECISIONS)
    cpu_convolution: str = setting(
        "auto",
        "who computes convolutions on CPUs in float32 and bfloat16 (jax_alexnet): auto (the fastest that fits), "
        "onednn, winograd (fewer products), xla",
        choices=CPU_CONVOLUTIONS,
    )
    devices: str = setting("all", "all, a count, or ids such as 0,2; of each process, if there are several")
    parallel: str = setting(
        "data",
        "how devices share the work (jax_alexnet): data; columns (the paper's two GPUs); hybrid (convolutions by "
        "images, fully connected layers by units); zero (data, with the optimizer's state divided)",
        choices=SCHEMES,
    )
    group_size: int | None = setting(
        None,
        "devices that share the fully connected layers (hybrid) or the optimizer's state (zero); all by default",
        minimum=1,
    )
    coordinator: str | None = setting(
        None, "HOST:PORT of the first of several processes (jax_alexnet); found by itself under SLURM and Open MPI"
    )
    num_processes: int | None = setting(None, "how many processes train together", minimum=1)
    process_id: int | None = setting(None, "which of them this is, from 0", minimum=0)
    seed: int = setting(0, "of weights, order, dropout and augmentation", minimum=0, maximum=2**31 - 1)
    output: Path | None = setting(None, "the run's directory; runs/TIME-MODEL-DATA by default")
    resume: bool = setting(False, "go on with the run in --output", action=True)
    strict_resume: bool = setting(False, "refuse a damaged checkpoint instead of using the one before", action=True)
    changed_data: bool = setting(
        False,
        "with --resume, go on although the data are not those that the run was trained on",
        action=True,
    )
    checkpoint_seconds: float = setting(
        300.0, "save at least this often; the best epoch and the end are always saved", minimum=0
    )
    log_every: int = setting(20, "steps between rows of training metrics", minimum=1)
    evaluate_every: int = setting(1, "epochs between evaluations on the test set", minimum=1)
    max_bad_images: int = setting(100, "undecodable images that are skipped before the run is refused", minimum=0)
    tensorboard: bool = setting(False, "write TensorBoard event files too")
    dry_run: bool = setting(False, "check everything, build one step, and stop", action=True)
    print_config: bool = setting(False, "print the settings that would run, as YAML, and stop", action=True)


def fill(settings: TrainSettings, **values: Any) -> TrainSettings:
    """The settings with `values` in place of what is still None."""
    return replace(settings, **{name: value for name, value in values.items() if getattr(settings, name) is None})


# What a resumed run may change; everything else decides its numbers and stays as it was. The data may lie elsewhere:
# whether they are the same is seen by their fingerprint.
CHANGEABLE_ON_RESUME = frozenset(
    [
        "epochs",
        "steps",
        "devices",
        "parallel",
        "group_size",
        "coordinator",
        "num_processes",
        "process_id",
        "output",
        "resume",
        "strict_resume",
        "changed_data",
        "checkpoint_seconds",
        "evaluate_every",
        "tensorboard",
        "data",
        "data_dir",
        "cache_dir",
        "download",
        "dry_run",
        "print_config",
    ]
)


def resumed(saved: dict[str, Any], given: dict[str, Any]) -> TrainSettings:
    """The settings of a saved run with those from the command line that may change.

    Args:
        saved: the run's completed settings, as `plain` wrote them.
        given: what the command line says, with parsed values.

    Raises:
        UserError: the command line contradicts the run; all differing settings are listed.
    """
    kept = {item.name: item for item in fields(TrainSettings)}
    values = {name: value for name, value in saved.items() if name in kept}
    # Where the run went on before says nothing about where it goes on now.
    values.update(dict.fromkeys(("coordinator", "num_processes", "process_id")))
    for name in ("data_dir", "cache_dir", "output"):
        values[name] = Path(values[name]) if values.get(name) else None
    differing = [
        f"--{name.replace('_', '-')} {value} (the run has {values.get(name)})"
        for name, value in given.items()
        if name not in CHANGEABLE_ON_RESUME and value != values.get(name)
    ]
    if differing:
        raise UserError(
            f"--resume can't change {'; '.join(differing)}. Leave these flags out, or start a new run with another "
            "--output."
        )
    values.update({name: value for name, value in given.items() if name in CHANGEABLE_ON_RESUME})
    return TrainSettings(**values)


def of_resumed_run(settings: TrainSettings, given: dict[str, Any], framework: str) -> TrainSettings:
    """The settings with which the run in `--output` goes on.

    Args:
        settings: from the command line, with `--resume`.
        given: see `resumed`.
        framework: the package that resumes; only runs that it trained itself are its own.

    Raises:
        UserError: no `--output`, no run there, another framework's, or flags that contradict it.
    """
    from alexnet_io.run_directory import read_description

    if settings.output is None:
        raise UserError("--resume needs --output DIR, the directory of the run to go on with")
    description = read_description(settings.output)
    trained_by = description.get("framework", "jax_alexnet")
    if trained_by != framework:
        trainer = f"python -m {trained_by}.train"
        raise UserError(f"the run in {settings.output} was trained by {trainer}: go on with that command")
    return resumed(description["settings"], given)


def plain(settings: TrainSettings) -> dict[str, Any]:
    """The settings as JSON can hold them."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


# What the default data set runs with, where neither the command line nor a file says otherwise: the blog's recipe
# at a size that two CPU cores train in two minutes. 67 pixels is the smallest image that single_column takes;
# crops from 73 shift a digit by a pixel of the 8x8 original at most; 24 images can be shared by 2, 3, 4, 6 or 8
# devices.
DIGITS: dict[str, Any] = {
    "image_size": 67,
    "stored_size": 73,
    "crop": True,
    "batch_size": 24,
    "epochs": 6,
    "learning_rate": 2e-4,
    "schedule": "at_epochs",
    "drop_epochs": [5],
}


def data_defaults(settings: TrainSettings) -> TrainSettings:
    """The settings with what suits the data set in place of None, before the recipe has its say."""
    if settings.data == "digits" and settings.model == "single_column" and settings.recipe in (None, "blog"):
        return fill(settings, **DIGITS)
    return settings


def stored_size(settings: TrainSettings, image_size: int) -> int:
    """Side of the stored images: 256 for crops of 224 or 227, 32 for crops of 24, 8/7 of other crops.

    Raises:
        UserError: the stored images are smaller than what is cut from them.
    """
    usual = {224: 256, 227: 256, 24: 32}
    side = settings.stored_size or (usual.get(image_size, round(image_size * 8 / 7)) if settings.crop else image_size)
    if side < image_size:
        raise UserError(
            f"--stored-size {side} is smaller than --image-size {image_size}, which is cut from it: "
            f"make it at least {image_size}"
        )
    return side
