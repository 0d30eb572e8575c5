"""What `docs_commands.py` puts in the place of the documents' placeholders, and what it can't run, and why."""

import re
from typing import NamedTuple


class Skipped(NamedTuple):
    """Commands that aren't run.

    Attributes:
        pattern: that finds them, from their beginning.
        reason: why.
        read: whether their words are parsed nevertheless, so that a flag that there isn't is found.
    """

    pattern: str
    reason: str
    read: bool = True


# How a command is written where it matters only which one it is.
SPELLINGS = {
    r"^\.venv/bin/python ": "python ",
    r"^torchrun ": "python -m torch.distributed.run ",
    r"^(jax|torch)-alexnet (?=\w)": r"python -m \1_alexnet.",
    r"^python -m torch_alexnet\.": "python -m torch_ref.",
    r"^alexnet-parity (?=\w)": "python -m parity ",
}
# Of commands, and below of commands and Python.
CHOICES = {
    r"^\.venv/bin/python ": "python ",
    r"^torchrun ": "python -m torch.distributed.run ",
    r" \[[^]]*\]": "",  # what may be left out
    r"\b(\w+)(\|\w+)+": r"\1",  # the first of several words
}
PLACEHOLDERS = {
    r"imagenet:PATH": "imagenet:ilsvrc",
    r"PATH/val/": "ilsvrc/val/",
    r"folder:PATH(?= --holdout)": "folder:flat",
    r"folder:PATH|folder:CIFAR10": "folder:pictures",
    r"--data CIFAR10": "--data pictures",
    r"(?<= )FOLDER\b": "pictures/test",
    r"(?<=torch_ref\.train --resume --output )RUN": "runs/reference",
    r"(?<=export --run )DIR(?= --to net\.onnx)": "runs/cifar",  # of 32 pixels, as the page's Python has them
    r"(?<= )(DIR|RUN)\b": "runs/two_column",
}

# A network is as large as its layers, whatever its input: at this size the large ones have 27 million weights.
_SMALL = "--image-size 67 --stored-size 71 --batch-size 4 --steps 1 --devices 1"
_FEW = "--steps 2 --batch-size 4"
# What is added so that a command takes seconds. A later flag counts.
ADDED = {
    r"python -m jax_alexnet\.train\b(?!.*--(resume|help|model (?!cifar)|config))": f"--model cifar_18pct {_FEW}",
    r"python -m jax_alexnet\.train --model cifar_13pct": "--model cifar_13pct",  # of which nine crops are taken
    r"python -m (jax_alexnet|torch_ref)\.train --config imagenet": f"{_SMALL} --output runs/NEW",
    # The large networks: everything is checked and a step is built, but not taken.
    r"python -m jax_alexnet\.train .*--model (?!cifar)": f"{_SMALL} --dry-run",
    r"python -m jax_alexnet\.train .*--accumulate": "--accumulate 2 --validation 0.5 --steps 20",
    r"python -m torch_ref\.train --model one_weird_trick": "--steps 1 --batch-size 2",
    r"python -m torch_ref\.train .*--init-from": _FEW,
    r"python -m torch\.distributed\.run": "--steps 1 --batch-size 4",
    r"python -m jax_alexnet\.train --resume .*--epochs": "--steps 2",
    r"python -m jax_alexnet\.launch": "--steps 1 --batch-size 4",
    r"python -m jax_alexnet\.evaluate": "--batch-size 4",
    r"python -m parity (layers|grads)": "--model cifar_80sec --batch 1",
    r"python -m parity data": "--pictures 2",
    r"python -m parity compare": "--save-mapping net.json",
    r"python -m parity clean": "--runs 1",
    r"python -m parity profile --model": "--model cifar_80sec --batch-size 2 --frameworks jax",
}
IN_PYTHON = {r"ema=0\.999\)": "ema=0.999, epochs=1, batch_size=4)", r"zeros\(\(8, 224": "zeros((1, 224"}

_MINUTES = "measures for minutes; parity throughput itself is run by the tests"
_GPU_COMPILER = "needs XLA's GPU compiler, which make gpu-compiler downloads"
SKIPPED = (
    Skipped(r"make (\S+ ?)+$", "runs in a checkout; that there is such a target is checked", read=False),
    Skipped(r"python3 -m venv|pip install|git clone", "installs or downloads", read=False),
    Skipped(r"python -m pytest", "tests are no part of the wheel", read=False),
    Skipped(r"python -m examples\.", "examples are no part of the wheel", read=False),
    Skipped(r"python -m jax_alexnet\.train .*--download", "downloads"),
    Skipped(
        r"python -m jax_alexnet\.train --coordinator", "needs several machines, whose addresses stand there", read=False
    ),
    Skipped(r"python -m jax_alexnet\.(plan|gpu_program)|python -m parity profile --gpu", _GPU_COMPILER),
    Skipped(r"python -m parity\.speed\.gpu_comparison", _GPU_COMPILER),
    Skipped(r"python -m parity (throughput|gpu)", _MINUTES),
    Skipped(
        r"python -m jax_alexnet\.reproduce (?!list)", "trains for minutes to days; run by the tests on made-up images"
    ),
    Skipped(r"python -m parity (train|runs|mutants)", "minutes to an hour; run by the tests with fewer steps"),
)


def substituted(text: str, table: dict[str, str]) -> str:
    """`text` with every pattern of the table replaced."""
    for pattern, words in table.items():
        text = re.sub(pattern, words, text)
    return text
