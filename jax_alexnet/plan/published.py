"""The model of `plan` beside published scaling: what it explains, and what it doesn't.

The speed of one GPU is the published one. What the model adds on several is the time of the same scheme's messages: the
bytes of the program compiled for as many GPUs, at the links' full speed. Conversely, from the published speeds follows
how much longer than on one GPU a step really took; the bytes that a GPU sends, divided by that, are the speed of links
that would explain it if nothing else had been in the way.
"""

import textwrap
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from jax_alexnet.compiled.collectives import Links
from jax_alexnet.compiled.gpu_reading import GpuProgram
from jax_alexnet.plan.costs import cost_of
from jax_alexnet.plan.schemes import Programs

# ILSVRC 2012's training images, and the epochs of cuda-convnet2's schedule [C2].
_IMAGES, _EPOCHS = 1_281_167, 90


@dataclass(frozen=True)
class Published:
    """Published speeds of one network on one kind of machine.

    Attributes:
        title: what and where.
        source: where it was read.
        doubt: what is assumed or not known.
        model: the network of ours that is nearest.
        gpu: the kind of GPU that the program is compiled for.
        same_gpu: whether that is the kind that was measured.
        scheme: how the GPUs shared the work.
        images: a GPU.
        bandwidth: GB/s that a GPU can send, by the data sheet.
        speeds: images/s by number of GPUs.
        unverified: numbers of GPUs whose figure is from memory.
    """

    title: str
    source: str
    doubt: str
    model: str
    gpu: str
    same_gpu: bool
    scheme: str
    images: int
    bandwidth: float
    speeds: dict[int, float]
    unverified: tuple[int, ...] = ()


def _by_hours(one: float, speedups: dict[int, float]) -> dict[int, float]:
    """Images/s from the hours that a whole training took on one GPU, and from the others' speedups."""
    return {n: _IMAGES * _EPOCHS / (one * 3600) * speedup for n, speedup in speedups.items()}


PUBLISHED = (
    Published(
        title="TensorFlow on a DGX-1 with eight P100s: AlexNet, synthetic images, float32, NCCL, May 2017",
        source="tensorflow/docs_src/performance/benchmarks.md of tensorflow/tensorflow at 5984ffe",
        doubt="its network (alexnet_model.py of tensorflow/benchmarks at 2726f3d) is one_weird_trick but for 384 "
        "kernels in conv4 instead of 256 and 1,001 classes: 1.2% more weights",
        model="one_weird_trick",
        gpu="p100",
        same_gpu=True,
        scheme="data",
        images=512,
        bandwidth=80,  # four NVLinks of 20 GB/s [NVIDIA's Tesla P100 white paper, WP-08019-001]
        speeds={1: 2987, 2: 5658, 4: 10509, 8: 17822},
    ),
    Published(
        title="One weird trick: hybrid, the whole batch at once through the fully connected layers, on K20s, 2014",
        source="arXiv:1404.5997, whose text could not be read: 98.05 hours on one GPU and 6.25 times that speed on "
        "eight are confirmed by a secondary note, the rest is from memory",
        doubt="90 epochs of 1,281,167 images are assumed, and PCI Express 2.0 with 16 lanes [NVIDIA's BD-06455-001]; "
        "how its GPUs were wired is not known. Compiled for P100s: today's compiler knows no K20",
        model="one_weird_trick_lrn",
        gpu="p100",
        same_gpu=False,
        scheme="hybrid",
        images=128,
        bandwidth=8,
        speeds=_by_hours(98.05, {1: 1.0, 2: 1.95, 4: 3.74, 8: 6.25}),
        unverified=(2, 4),
    ),
)


@dataclass(frozen=True)
class Row:
    """One number of GPUs.

    Attributes:
        devices: GPUs.
        published: images/s.
        predicted: images/s, nothing overlapped.
        overlapped: images/s, everything overlapped.
        sent: bytes that each GPU sends in a step.
        needed: bytes a second at which the links would explain the published speed; None on one GPU.
        unverified: the published figure is from memory.
    """

    devices: int
    published: float
    predicted: float
    overlapped: float
    sent: float
    needed: float | None
    unverified: bool

    @property
    def ratio(self) -> float:
        """Predicted over published: above 1 the model promises too much."""
        return self.predicted / self.published


@dataclass(frozen=True)
class Comparison:
    """One published table beside the model.

    Attributes:
        known: what was published.
        rows: by number of GPUs.
        modelled_one: images/s of one GPU by the model of its work, or None where its kind can't be described.
    """

    known: Published
    rows: list[Row]
    modelled_one: float | None


Get = Callable[[str, int, int, int | None], GpuProgram]


def compare(bandwidth: float | None = None) -> list[Comparison]:
    """Every published table beside the model.

    Args:
        bandwidth: GB/s that a GPU can send, instead of the data sheets'.
    """
    found = []
    for known in PUBLISHED:
        with Programs(known.model, known.gpu, "float32") as programs:
            for n in known.speeds:
                if n > 1 or known.same_gpu:
                    programs.begin(known.scheme, n, known.images)
            found.append(comparison(known, programs.get, bandwidth or known.bandwidth))
    return found


def comparison(known: Published, get: Get, bandwidth: float) -> Comparison:
    """One published table beside the model.

    Args:
        known: what was published.
        get: a program, as from `Programs.get`.
        bandwidth: GB/s that a GPU can send.
    """
    links = Links(bandwidth * 1e9, bandwidth * 1e9, max(known.speeds))
    work = known.images / known.speeds[1]
    rows = []
    for n, speed in known.speeds.items():
        cost = cost_of(get(known.scheme, n, known.images, None), links) if n > 1 else None
        messages, sent = (cost.communication, cost.sent) if cost else (0.0, 0.0)
        images = n * known.images
        rows.append(
            Row(
                devices=n,
                published=speed,
                predicted=images / (work + messages),
                overlapped=images / max(work, messages),
                sent=sent,
                needed=sent / (images / speed - work) if n > 1 else None,
                unverified=n in known.unverified,
            )
        )
    one = known.images / get("data", 1, known.images, None).seconds if known.same_gpu else None
    return Comparison(known, rows, one)


def table(comparisons: list[Comparison]) -> str:
    """The comparisons, to read."""
    lines: list[str] = []
    for found in comparisons:
        known = found.known
        ours = f"ours: {known.model}, {known.scheme}, {known.images} images a GPU; work as on one GPU, as published"
        lines += [known.title, _wrapped(f"source: {known.source}"), _wrapped(f"note: {known.doubt}"), _wrapped(ours)]
        lines.append(
            f"{'GPUs':>6}{'published':>12}{'predicted':>12}{'overlapped':>12}{'predicted/':>12}"
            f"{'sends':>10}{'links that':>15}"
        )
        lines.append(
            f"{'':6}{'images/s':>12}{'images/s':>12}{'images/s':>12}{'published':>12}{'MB':>10}{'explain, GB/s':>15}"
        )
        for row in found.rows:
            mark = "?" if row.unverified else " "
            needed = f"{row.needed / 1e9:.1f}" if row.needed else "-"
            lines.append(
                f"{row.devices:>6}{row.published:>11,.0f}{mark}{row.predicted:>12,.0f}{row.overlapped:>12,.0f}"
                f"{row.ratio:>12.2f}{row.sent / 1e6:>10.1f}{needed:>15}"
            )
        if found.modelled_one:
            ratio = found.modelled_one / known.speeds[1]
            model = (
                f"the model of a GPU's work gives {found.modelled_one:,.0f} images/s on one, {ratio:.2f} of the "
                "published: it counts each multiplication, and cuDNN has convolutions (Winograd, FFT) that need fewer"
            )
            lines.append(_wrapped(model))
        lines.append("")
    return "\n".join([*lines, "? unverified, from memory. predicted: nothing overlaps; overlapped: everything does."])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 116, initial_indent="  ", subsequent_indent="    ")


def as_json(comparisons: list[Comparison]) -> dict[str, Any]:
    """The comparisons, as JSON can hold them."""
    tables = [{**asdict(found), "ratios": {row.devices: row.ratio for row in found.rows}} for found in comparisons]
    return {"schema": "plan-published/1", "tables": tables}
