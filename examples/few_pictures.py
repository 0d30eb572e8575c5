"""`python -m examples.few_pictures --data PATH`: what another's weights are worth where pictures are few.

PATH is an image folder, `train/CLASS/` and `test/CLASS/`, such as CIFAR-10's. The first half of its classes, by name,
is learnt from in full; of the other half a few pictures a class are drawn by each seed. On these a network begins with
the weights of the first half, with all layers learning or all but the last frozen, and with fresh weights, by its own
law and by PyTorch's. All have the same pictures, order and steps, and the best of the same learning rates, chosen by
the mean error on the test pictures in every way alike; a last layer that is new beside others' weights learns at ten
times that. Neither half has a picture or a class of the other. What was finished earlier is not done again.

A table is printed: the error of each way, its mean and standard deviation over the seeds, and what is gained against
the better of the two that begin with nothing: with the same pictures, so that draws which are hard don't count.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from alexnet_io.command_line.settings import run_command
from alexnet_io.errors import FailedRun, UserError

WAYS = {
    "from the other classes' weights": ["--init-from", "BASE", "--new-layer-learning-rate-factor", "10"],
    "the same, all but the last layer frozen": [
        "--init-from", "BASE", "--freeze", "conv1..conv3", "--new-layer-learning-rate-factor", "10",
    ],
    "from nothing": [],
    "from nothing, by PyTorch's law": ["--weight-init", "pytorch"],
}  # fmt: skip
FROM_NOTHING = [way for way in WAYS if way.startswith("from nothing")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print the table, and return the exit code."""
    chosen = _chosen(arguments)
    data, output = Path(chosen.data).expanduser().resolve(), Path(chosen.output).resolve()
    if not (data / "train").is_dir() or not (data / "test").is_dir():
        raise UserError(f"--data {data} has no train/ and test/: pass an image folder such as CIFAR-10's")
    classes = sorted(path.name for path in (data / "train").iterdir() if path.is_dir())
    new, base, source = _begun_with(chosen, data, output, classes)
    errors: dict[tuple[str, float], list[float]] = {(way, rate): [] for way in WAYS for rate in chosen.rates}
    for seed in range(chosen.seeds):
        few = output / f"few-{chosen.pictures}-{seed}"
        linked(data, few, new, chosen.pictures, seed)
        for way, rate in errors:
            words = [str(base) if word == "BASE" else word for word in WAYS[way]]
            size = min(128, -(-chosen.pictures * len(new) // 4))  # at least four steps an epoch
            common = ["--epochs", str(chosen.epochs), *_drops(chosen.epochs), "--batch-size", str(size)]
            common += ["--seed", str(seed), "--evaluate-every", str(chosen.epochs), "--learning-rate", str(rate)]
            run = output / f"run-{chosen.pictures}-{chosen.epochs}-{seed}-{list(WAYS).index(way)}-{rate:g}"
            errors[way, rate].append(train(run, few, [*common, *words]))
    print(f"\n{len(new)} classes ({', '.join(new)}), {chosen.pictures} pictures each, {chosen.epochs} epochs")
    print(f"{source}\n")
    print(table(errors, chosen.rates))
    return 0


def table(errors: Mapping[tuple[str, float], Sequence[float]], rates: Sequence[float]) -> str:
    """Each way at its best rate, and what it gains, draw by draw, against the better of those that begin with nothing.

    Args:
        errors: by way and learning rate, in per cent, one for each draw of the pictures.
        rates: those that were tried.
    """
    best = {way: min(rates, key=lambda rate: statistics.mean(errors[way, rate])) for way in WAYS}
    found = {way: errors[way, rate] for way, rate in best.items()}
    nothing = min(FROM_NOTHING, key=lambda way: statistics.mean(found[way]))
    draws = len(found[nothing])
    lines = [f"| begun | error, mean of {draws} | sd | rate | gain, draw by draw | draws |", "| --- " * 6 + "|"]
    for way, own in found.items():
        gains = [without - with_it for without, with_it in zip(found[nothing], own, strict=True)]
        won = ["", ""] if way == nothing else [_spread(gains), f"{sum(gain > 0 for gain in gains)} of {draws}"]
        row = [way, f"{statistics.mean(own):.1f}%", _deviation(own), f"{best[way]:g}", *won]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {_deviation(values)}"


def _deviation(values: Sequence[float]) -> str:
    return f"{statistics.stdev(values):.1f}" if len(values) > 1 else "not known"


def _begun_with(
    chosen: argparse.Namespace, data: Path, output: Path, classes: Sequence[str]
) -> tuple[Sequence[str], Path, str]:
    """The classes to draw from, the weights of others, trained where need be, and what these are, in words."""
    if chosen.init_from is not None:
        if len(classes) < 2:
            raise UserError(f"--data {data} has {len(classes)} classes: at least two can be told apart")
        return classes, Path(chosen.init_from), f"weights: {chosen.init_from}"
    if len(classes) < 4:
        raise UserError(f"--data {data} has {len(classes)} classes: at least four can be parted")
    known, new = classes[: len(classes) // 2], classes[len(classes) // 2 :]
    linked(data, output / "known", known, None, 0)
    base = output / "base"
    train(base, output / "known", ["--epochs", str(chosen.base_epochs), *_drops(chosen.base_epochs)])
    return new, base, f"weights from {len(known)} others ({', '.join(known)}), {chosen.base_epochs} epochs"


def _chosen(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.few_pictures", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--data", required=True, metavar="PATH", help="an image folder with train/ and test/")
    parser.add_argument("--output", default="runs/few_pictures", metavar="DIR", help="(default: runs/few_pictures)")
    parser.add_argument(
        "--init-from",
        metavar="NAME|RUN|FILE",
        help="weights of other classes (default: trained on half of the classes)",
    )
    parser.add_argument("--pictures", type=int, default=20, metavar="N", help="for training, a class (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="draws of the pictures (default: 3)")
    parser.add_argument("--base-epochs", type=int, default=20, metavar="N", help="of the first half (default: 20)")
    parser.add_argument("--epochs", type=int, default=200, metavar="N", help="on the few pictures (default: 200)")
    parser.add_argument(
        "--rates",
        type=float,
        nargs="+",
        default=[0.001, 0.003, 0.01],
        metavar="RATE",
        help="(default: 0.001 0.003 0.01)",
    )
    chosen = parser.parse_args(arguments)
    for name in ("pictures", "seeds", "base_epochs", "epochs"):
        if getattr(chosen, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(chosen, name)}: at least 1 is needed")
    return chosen


def _drops(epochs: int) -> list[str]:
    """The rate falls tenfold once, before the last tenth of a run."""
    return ["--schedule", "at_epochs", "--drop-epochs", f"[{max(1, epochs * 9 // 10)}]"]


def linked(data: Path, folder: Path, classes: Sequence[str], count: int | None, seed: int) -> None:
    """A folder of links: all test pictures of the classes, and `count` training pictures of each, drawn by the seed."""
    for split in ("train", "test"):
        for name in classes:
            pictures = sorted((data / split / name).iterdir())
            if split == "train" and count is not None:
                if count > len(pictures):
                    raise UserError(f"--pictures {count}: {name} has {len(pictures)}")
                pictures = random.Random(f"{seed} {name}").sample(pictures, count)
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for picture in pictures:
                if not (link := folder / split / name / picture.name).is_symlink():
                    link.symlink_to(picture)


def train(run: Path, folder: Path, words: Sequence[str]) -> float:
    """Train `cifar_18pct`, unless it was done; the error of the last evaluation in per cent."""
    done = run / "done.json"
    if not done.is_file():
        program = [sys.executable, "-m", "jax_alexnet.train"]
        begun = (run / "run.json").is_file()
        where = ["--resume", "--output", str(run)] if begun else ["--output", str(run)]
        rest = [] if begun else ["--model", "cifar_18pct", "--data", f"folder:{folder}", *words]
        code = subprocess.run([*program, *where, *rest], check=False).returncode
        if code:
            raise FailedRun(
                f"training in {run} ended with exit code {code}: see what it said above, and call this again"
            )
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        last = [row for row in rows if row["split"] == "test"][-1]
        done.write_text(json.dumps({"error": 100 * (1 - last["top1"])}))
    return float(json.loads(done.read_text())["error"])


if __name__ == "__main__":
    run_command(main)
