"""What is timed, in plain data that travels to the processes that time it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from alexnet_io.errors import UserError
from jax_alexnet.shapes import trace
from jax_alexnet.variants import VARIANTS

FRAMEWORKS = ("jax", "torch")
STYLES = ("plain", "tuned")
MODES = ("train", "infer")
PRECISIONS = ("float32", "tf32", "bfloat16")

# Forms of PyTorch, see `torch_forms`. Users' own come first as they are ready at once; the fastest speaks for it.
PLAIN_FORMS = ("nchw-eager", "channels_last-eager", "channels_last-compiled", "nchw-compiled")
# What is taken for PyTorch's best where nothing has been tried.
TUNED_FORM = "shifted-channels_last-compiled"

# By style, the form that needs no compilation: what is timed first where time is short.
SOON = {"plain": PLAIN_FORMS[0], "tuned": "shifted-channels_last-eager"}

# The same update in every process: PyTorch's momentum with coupled weight decay.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 5e-4


@dataclass(frozen=True)
class Workload:
    """One thing to time.

    Attributes:
        framework: `jax` or `torch`.
        style: `plain`, as users write it, or `tuned`, with every trick.
        model: id of the network.
        image_size: side in pixels.
        batch_size: images a step, over all devices.
        precision: `float32`, `tf32` or `bfloat16` (float32 weights and optimizer).
        mode: `train` (a whole step with optimizer) or `infer`.
        devices: how many.
        threads: CPU threads of all devices together.
        form: of PyTorch, such as `nchw-eager`; see `torch_forms`.
    """

    framework: str
    style: str
    model: str
    image_size: int
    batch_size: int
    precision: str = "float32"
    mode: str = "train"
    devices: int = 1
    threads: int = 1
    form: str = ""

    def __post_init__(self) -> None:
        if self.batch_size % self.devices:
            raise UserError(
                f"--batch-size {self.batch_size} can't be shared evenly by {self.devices} devices: use a multiple"
            )

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.framework} {self.style}" + (f" ({self.form})" if self.form else "")

    def as_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def best_forms(plain: str, mode: str, *, autotuned: bool = False) -> list[str]:
    """Forms that PyTorch's best is sought among, besides users' slower ones.

    Args:
        plain: the fastest of users' forms, which takes part with a fused optimizer.
        mode: `train` or `infer`.
        autotuned: whether those that are tuned take part, too. On an H100 one of them took more than 3 minutes.
    """
    forms = [TUNED_FORM, *(f"shifted-{form}" for form in PLAIN_FORMS if f"shifted-{form}" != TUNED_FORM), plain]
    if mode == "infer":
        forms += [form.removesuffix("compiled") + "frozen" for form in forms if form.endswith("compiled")]
    return forms + autotuned * [f"{norm}channels_last-autotuned" for norm in ("shifted-", "")]


def arithmetic(model: str, image_size: int, mode: str) -> float:
    """Floating-point operations an image: two a multiply-accumulate; training adds both gradients.

    The gradient of the images themselves isn't needed, so conv1 counts twice, not three times.
    """
    rows = [row for row in trace(VARIANTS[model], image_size) if row.macs]
    total = sum(row.macs for row in rows)
    return 2.0 * total if mode == "infer" else 2.0 * (3 * total - rows[0].macs)
