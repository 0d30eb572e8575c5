"""`python -m jax_alexnet.summary`: a network's layers with their shapes, parameters and multiply-accumulates."""

import json
from dataclasses import asdict, dataclass
from math import prod
from typing import ClassVar

from alexnet_io.command_line.ablations import ABLATIONS
from alexnet_io.command_line.settings import parse, run_command, setting
from alexnet_io.command_line.train_settings import MODELS
from jax_alexnet import layer_specs as specs
from jax_alexnet import variants as v
from jax_alexnet.ablation import ablated
from jax_alexnet.shapes import LayerShape, trace

PROGRAM = "python -m jax_alexnet.summary"


@dataclass(frozen=True)
class SummarySettings:
    """Print layer, output shape, parameters and multiply-accumulates (MACs) of one network for one image."""

    EXAMPLES: ClassVar = (("--model two_column --classes 10", "the paper's network for ten classes"),)

    model: str = setting("single_column", "the network: " + ", ".join(MODELS), choices=MODELS)
    image_size: int | None = setting(None, "side of the image in pixels", unset="the network's own", minimum=1)
    classes: int | None = setting(None, "number of classes", unset="the network's own", minimum=1)
    ablate: str | None = setting(
        None, "what it is without, as training's --ablate: " + ", ".join(ABLATIONS), metavar="WORDS", unset="nothing"
    )
    json: bool = setting(False, "print one JSON object instead of a table")


def summarize(variant: specs.Variant, image_size: int | None = None, classes: int | None = None) -> dict:
    """The summary as plain data; shapes are (height, width, channels) of one image.

    MACs count multiplications by weights only; units are the outputs of the layers with weights, as the paper
    counts its 650,000 neurons.

    Raises:
        UserError: the image is too small; the smallest size that works is named.
    """
    size, classes = image_size or variant.image_size, classes or variant.classes
    rows = trace(variant, size, classes)
    return {
        "model": variant.name,
        "image_size": size,
        "classes": classes,
        "parameters": sum(row.parameters for row in rows),
        "macs": sum(row.macs for row in rows),
        "units": sum(prod(row.output_shape) for row in rows if row.parameters),
        "layout": "height, width, channels",
        "layers": [{**asdict(row), "output_shape": list(row.output_shape)} for row in rows],
    }


def table(summary: dict) -> str:
    """The summary as aligned text with a last line of totals."""
    rows = [LayerShape(**layer) for layer in summary["layers"]]
    lines = [f"{'layer':<10}{'output':>14}{'parameters':>14}{'MACs':>16}"]
    for row in rows:
        shape = "x".join(str(n) for n in row.output_shape)
        lines.append(f"{row.name:<10}{shape:>14}{row.parameters:>14,}{row.macs:>16,}")
    lines.append(f"{'total':<10}{'':>14}{summary['parameters']:>14,}{summary['macs']:>16,}")
    return "\n".join(lines)


def main() -> int:
    """Print the summary, and return the exit code."""
    settings = parse(SummarySettings, PROGRAM)
    variant = ablated(v.VARIANTS[settings.model], settings.ablate)
    summary = summarize(variant, settings.image_size, settings.classes)
    if settings.json:
        print(json.dumps(summary))
    else:
        changed = f" --ablate {settings.ablate}" if settings.ablate else ""
        print(
            f"{settings.model}{changed}, {summary['image_size']} pixels, "
            f"{summary['classes']} classes; output is height x width x channels"
        )
        print(table(summary))
    return 0


if __name__ == "__main__":
    run_command(main)
