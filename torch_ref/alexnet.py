"""The variants by name, and the one function that builds them."""

import difflib
from collections.abc import Callable
from typing import NamedTuple

from alexnet_io.errors import UserError
from torch_ref import ablation
from torch_ref.cifar import Cifar11Pct, Cifar13Pct, Cifar18Pct, Cifar80Sec
from torch_ref.network import Network
from torch_ref.single_column import OneWeirdTrick, OneWeirdTrickLRN, SingleColumn
from torch_ref.two_column import CaffeAlexNet, CaffeNet, CudaConvnet2012, TwoColumn


class Entry(NamedTuple):
    """A variant: its class, and the side of its images and number of classes in its paper or code."""

    network: Callable[..., Network]
    image_size: int
    classes: int


VARIANTS: dict[str, Entry] = {
    "single_column": Entry(SingleColumn, 227, 10),
    "two_column": Entry(TwoColumn, 224, 1000),
    "cuda_convnet_2012": Entry(CudaConvnet2012, 224, 1000),
    "caffe_alexnet": Entry(CaffeAlexNet, 227, 1000),
    "caffenet": Entry(CaffeNet, 227, 1000),
    "one_weird_trick": Entry(OneWeirdTrick, 224, 1000),
    "one_weird_trick_lrn": Entry(OneWeirdTrickLRN, 224, 1000),
    "cifar_18pct": Entry(Cifar18Pct, 32, 10),
    "cifar_13pct": Entry(Cifar13Pct, 24, 10),
    "cifar_11pct": Entry(Cifar11Pct, 24, 10),
    "cifar_80sec": Entry(Cifar80Sec, 32, 10),
}
HAVE_COLUMNS = ("two_column", "cuda_convnet_2012")
HAVE_DROPOUT = tuple(name for name in VARIANTS if not name.startswith("cifar_"))
PAPER_DROPOUT = 0.5  # section 4.2; the same in every later variant


def build(
    model: str,
    classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    span_columns: bool = False,
    *,
    dropout: float | None = None,
    ablate: str | None = None,
) -> Network:
    """Build a variant with PyTorch's default initialisation (see `torch_ref.initialization` for the others).

    Args:
        model: A key of `VARIANTS`.
        classes: Number of logits; by default the variant's own.
        image_size: Side, or (height, width), of the images it is built for; by default the variant's own.
            Variants that average their last map to 6 x 6 also take other sizes later, the others refuse them.
        span_columns: Let LRN windows cross the two columns; only for the variants in `HAVE_COLUMNS`.
        dropout: Probability of dropping a unit, by default 0.5; only for the variants in `HAVE_DROPOUT`.
        ablate: What it is without, in the words of `--ablate`; see `torch_ref.ablation`.

    Returns:
        A network whose named children are the layers in running order. It takes normalised images
        (N, 3, H, W) and returns logits (N, classes).

    Raises:
        UserError: An unknown variant, or a setting that does not fit it.
    """
    if model not in VARIANTS:
        near = difflib.get_close_matches(model, VARIANTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown model {model!r}{hint} Choose one of: {', '.join(VARIANTS)}")
    entry = VARIANTS[model]
    classes = entry.classes if classes is None else classes
    if classes < 1:
        raise UserError(f"{classes} classes are too few; choose 1 or more")
    settings: dict[str, object] = {}
    if span_columns:
        if model not in HAVE_COLUMNS:
            raise UserError(f"{model} has no column-wise LRN to span; span_columns is for {' and '.join(HAVE_COLUMNS)}")
        settings["span_columns"] = True
    if model in HAVE_DROPOUT:
        settings["dropout"] = PAPER_DROPOUT if dropout is None else dropout
    elif dropout is not None:
        raise UserError(f"{model} has no dropout; leave it out or choose one of: {', '.join(HAVE_DROPOUT)}")
    size = _height_width(entry.image_size if image_size is None else image_size)
    network = entry.network(classes, size, **settings)
    ablation.ablate(network, ablate, model)
    return network


def _height_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2:
        raise UserError(f"image_size={image_size!r} is not a size; give one side or (height, width)")
    return int(sides[0]), int(sides[1])
