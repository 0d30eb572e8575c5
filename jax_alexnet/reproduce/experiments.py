"""What there is to repeat: the claims, the published figures, and what each costs. Imports no framework.

Source keys as in `jax_alexnet/variants.py`.
"""

from dataclasses import dataclass

LIST = "list"
CIFAR_IMAGES, IMAGENET_IMAGES = 50_000, 1_281_167

# Images a second in training on two AVX-512 cores, for the costs that `list` shows: of cifar_18pct and single_column as
# docs/results.md has them, of the other CIFAR networks by their multiply-accumulates.
SPEEDS = {
    "cifar_80sec": 700.0,
    "cifar_18pct": 705.0,
    "cifar_13pct": 470.0,
    "cifar_11pct": 470.0,
    "single_column at 67 pixels": 80.0,
    "single_column": 23.0,
}


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        where: it stands in the sources.
        claim: what is claimed there.
        published: the figure, in words.
        runs: trainings for each seed; 0 for what looks at a run that is there.
        epochs: of each training.
        model: key of `SPEEDS`, for the cost.
        seeds: repetitions unless `--seeds` says otherwise.
        extra: epochs of what comes on top, whatever the seeds.
        imagenet: whether there is another form of it on ImageNet.
    """

    where: str
    claim: str
    published: str
    runs: int = 0
    epochs: int = 0
    model: str = ""
    seeds: int = 1
    extra: int = 0
    imagenet: bool = False

    @property
    def needs_run(self) -> bool:
        """Whether it looks at a run that is there."""
        return self.runs == 0

    def cost(self, seeds: int | None = None, epochs: int | None = None) -> str:
        """Images trained on, and how long that takes on two cores."""
        if self.needs_run:
            return "minutes, of a run that is there"
        passes = self.runs * (seeds or self.seeds) * (epochs or self.epochs) + (0 if epochs else self.extra)
        images = passes * CIFAR_IMAGES
        hours = images / SPEEDS[self.model] / 3600
        words = f"{hours * 60:.0f} min" if hours < 1.5 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
        return f"{images / 1e6:.1f} million images, about {words} on 2 cores"


def _study(where: str, claim: str, published: str, model: str) -> Experiment:
    return Experiment(where, claim, published, runs=2, epochs=40, model=model, seeds=3, imagenet=True)


EXPERIMENTS: dict[str, Experiment] = {
    "relu-vs-tanh": Experiment(
        "[P] figure 1",
        "a four-layer CIFAR-10 network with ReLUs reaches 25% training error six times faster than with tanh",
        "6 times",
        runs=2,
        epochs=24,
        model="cifar_18pct",
        seeds=3,
        extra=4 * 24,
    ),
    "lrn": _study(
        "[P] section 3.3",
        "response normalisation lowers errors",
        "CIFAR-10: 13% without, 11% with; ImageNet: 1.4 and 1.2 points of top-1 and top-5",
        "cifar_11pct",
    ),
    "pooling": _study(
        "[P] section 3.4",
        "overlapping pools lower errors against pools whose windows touch",
        "ImageNet: 0.4 and 0.3 points of top-1 and top-5",
        "cifar_13pct",
    ),
    "dropout": _study(
        "[P] section 4.2",
        "without dropout the network overfits substantially",
        "no figure; dropout roughly doubles the iterations",
        "single_column at 67 pixels",
    ),
    "augmentation": _study(
        "[P] section 4.1",
        "without random crops and mirror images the network overfits substantially",
        "no figure for these; ImageNet: colour noise lowers top-1 by over 1 point",
        "cifar_13pct",
    ),
    "columns": _study(
        "[P] section 3.2",
        "two columns do better than one with half as many kernels in each convolution",
        "ImageNet: 1.7 and 1.2 points of top-1 and top-5",
        "cifar_18pct",
    ),
    "filters": Experiment(
        "[P] figure 3",
        "conv1 learns frequency- and orientation-selective kernels and coloured blobs; one column's are mostly grey",
        "a picture of 96 kernels",
    ),
    "neighbours": Experiment(
        "[P] figure 4",
        "pictures that are near in the last hidden layer show the same thing",
        "a picture of 8 test images with their five likeliest classes, and of 5 with 6 neighbours each",
    ),
    "ten-crop": Experiment(
        "[P] sections 4.1 and 6.1",
        "averaging over ten crops lowers errors",
        "ImageNet 2010: 39.0/18.3% on one crop, 37.5/17.0% on ten; cuda-convnet's CIFAR networks: nine crops",
    ),
    # Its source has the rate and no length. The recipe's ten epochs are Caffe's; twice as many are trained here.
    "cifar-80sec": Experiment(
        "[S] layers-80sec.cfg", "26% test error on CIFAR-10 in 80 seconds", "26%", 1, 20, "cifar_80sec"
    ),
    "cifar-18pct": Experiment("[S] layers-18pct.cfg", "18% test error on CIFAR-10", "18%", 1, 140, "cifar_18pct"),
    "cifar-13pct": Experiment(
        "[S] layers-conv-local-13pct.cfg", "13% test error on CIFAR-10, nine crops", "13%", 1, 470, "cifar_13pct"
    ),
    "cifar-11pct": Experiment(
        "[C1] layers-conv-local-11pct.cfg", "11% test error on CIFAR-10, nine crops", "11%", 1, 470, "cifar_11pct"
    ),
    "notebook": Experiment(
        "[SD] CNN/AlexNet.ipynb",
        "the notebook's validation loss on CIFAR-10 at 227 pixels, and that the paper's recipe beats it",
        "0.972 after epoch 1, 0.700 at best",
        runs=1,
        epochs=50,
        model="single_column",
        extra=90,
    ),
}


def listing(seeds: int | None = None, epochs: int | None = None) -> str:
    """What `list` prints: a paragraph for each experiment; costs are for so many seeds and epochs, or its own."""
    lines = []
    for name, each in EXPERIMENTS.items():
        with_imagenet = "; --data imagenet:PATH repeats the paper's own" if each.imagenet else ""
        lines += [
            name,
            f"  claim      {each.claim} ({each.where})",
            f"  published  {each.published}",
            f"  cost       {each.cost(seeds, epochs)}{with_imagenet}",
            "",
        ]
    return "\n".join([*lines, "Costs are for CIFAR-10, all seeds; --quick looks in a minute or two, on any machine."])
