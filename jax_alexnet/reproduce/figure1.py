"""The paper's figure 1: how much sooner a network of ReLUs reaches 25% training error than one of tanh.

There each of two four-layer networks on CIFAR-10 has the learning rate that makes its training fastest, and nothing
regularises them. Here the network is `cifar_18pct` without its norms, which has four layers with weights; no decay, no
augmentation, a constant learning rate.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from alexnet_io.errors import UserError
from jax_alexnet.reproduce import pictures
from jax_alexnet.reproduce.race import Race
from jax_alexnet.reproduce.reading import Spread, crossing, seconds_until, training_errors
from jax_alexnet.reproduce.results import Result
from jax_alexnet.reproduce.running import Runner, Trained

LEVEL = 0.25
PUBLISHED = 6.0
RATES = (0.002, 0.004)  # both networks' best lie here or above; tanh takes over 100 epochs with half the lower one
LONGEST = 100  # epochs after which a run is given up
PIECE = 5  # epochs between looks at whether it is there yet
NEURONS = {"relu": "no-lrn", "tanh": "tanh,no-lrn"}
# A look can't wait for 25%.
QUICK_LEVEL, QUICK_STEPS = 0.75, 250
_MOST_RATES = 7
_BATCH = 128


def perform(runner: Runner, folder: Path) -> Result:
    """Find each network's best learning rate with seed 0, repeat with the other seeds, and compare.

    Raises:
        UserError: data that the four-layer network isn't for.
    """
    if runner.on_imagenet:
        raise UserError("relu-vs-tanh is of CIFAR-10: pass --data cifar10, or --data folder:PATH of such a copy")
    quick = runner.settings.quick
    level = QUICK_LEVEL if quick else LEVEL
    tried = {neurons: _search(runner, neurons, level) for neurons in NEURONS}
    best = {neurons: quickest(races) for neurons, races in tried.items()}
    seeds = runner.seeds(3)
    races = {
        neurons: [first, *(_race(runner, neurons, first.rate, seed, level, math.inf) for seed in seeds if seed)]
        for neurons, first in best.items()
    }
    pictures.draw_race(folder / runner.picture("figure1"), races, level)
    return _result(runner, races, tried, level)


def _search(runner: Runner, neurons: str, level: float) -> list[Race]:
    """Races of seed 0 over learning rates, and over others while the best is the lowest or the highest."""
    rates = sorted(set(runner.settings.learning_rates or RATES))
    if runner.settings.quick:
        rates = [rates[len(rates) // 2]]
    races: list[Race] = []
    for rate in rates:
        races.append(_race(runner, neurons, rate, 0, level, _soonest(races)))
    while not runner.settings.quick and (rate := next_rate(races)) is not None:
        races.append(_race(runner, neurons, rate, 0, level, _soonest(races)))
    return races


def quickest(races: Sequence[Race]) -> Race:
    """The one that reached the level first, or of those that never did, the one of the lowest last error."""

    def rank(race: Race) -> tuple[float, float]:
        last = race.points[-1][1] if race.points else math.inf
        return (math.inf if race.epochs is None else race.epochs, last)

    return min(races, key=rank)


def next_rate(races: Sequence[Race]) -> float | None:
    """Half the lowest or twice the highest learning rate, whichever the best is; None if it lies between others."""
    rates, best = sorted({race.rate for race in races}), quickest(races).rate
    if len(rates) >= _MOST_RATES:
        return None
    return best / 2 if best == rates[0] else best * 2 if best == rates[-1] else None


def _soonest(races: Sequence[Race]) -> float:
    return min((race.epochs for race in races if race.epochs is not None), default=math.inf)


def _race(runner: Runner, neurons: str, rate: float, seed: int, level: float, enough: float) -> Race:
    """Train until the level is reached, or another learning rate has been sooner already."""
    longest = runner.settings.epochs or LONGEST
    epochs = 0
    while True:
        epochs = min(epochs + PIECE, longest)
        done = _train(runner, neurons, rate, seed, epochs)
        race = _read(done, neurons, rate, seed, level)
        if race.epochs is not None or done.diverged or epochs >= min(longest, enough) or runner.settings.quick:
            return race


def _train(runner: Runner, neurons: str, rate: float, seed: int, epochs: int) -> Trained:
    words = {
        "model": "cifar_18pct",
        "ablate": NEURONS[neurons],
        "recipe": "paper",
        "weight_init": "variant",
        "optimizer": "paper",
        "batch_size": _BATCH,
        "learning_rate": rate,
        "bias_learning_rate_factor": 2.0,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "normalize": "mean_image",
        "crop": False,
        "flip": False,
        "color_noise": False,
        "seed": seed,
        "epochs": epochs,
        "steps": QUICK_STEPS if runner.settings.quick else None,
        "evaluate_every": 1000,  # the test images have no part in it
    }
    return runner.train(f"relu-vs-tanh/{neurons}-{rate:g}-seed{seed}", words, may_diverge=True)


def _read(done: Trained, neurons: str, rate: float, seed: int, level: float) -> Race:
    points = training_errors(done.rows)
    epochs = None if done.diverged else crossing(points, level)
    seconds = None if epochs is None else seconds_until(done.rows, epochs, _BATCH)
    return Race(neurons, rate, seed, points, epochs, seconds)


def ratios(relu: Sequence[Race], tanh: Sequence[Race], of: str = "epochs") -> list[float]:
    """How many times as long the tanh took as the ReLU of the same seed, where both arrived; `of` epochs or seconds."""
    theirs = {race.seed: getattr(race, of) for race in tanh}
    pairs = [(getattr(race, of), theirs.get(race.seed)) for race in relu]
    return [slow / fast for fast, slow in pairs if fast and slow is not None]


def _result(runner: Runner, races: dict[str, list[Race]], tried: dict[str, list[Race]], level: float) -> Result:
    found = ratios(races["relu"], races["tanh"])
    in_time = ratios(races["relu"], races["tanh"], "seconds")
    rows = [
        [
            race.neurons,
            f"{race.rate:g}",
            str(race.seed),
            f"not within {race.waited:.1f}" if race.epochs is None else f"{race.epochs:.2f}",
            "" if race.seconds is None else f"{race.seconds:.0f}",
        ]
        for each in races.values()
        for race in each
    ]
    notes = [
        f"learning rates tried with seed 0, {neurons}: "
        + ", ".join(
            f"{race.rate:g} ({'never' if race.epochs is None else f'{race.epochs:.1f}'})"
            for race in sorted(each, key=lambda race: race.rate)
        )
        for neurons, each in tried.items()
    ]
    notes += [
        f"{neurons}: the best learning rate is the lowest or the highest of those tried; a better one may lie beyond"
        for neurons, each in tried.items()
        if not runner.settings.quick and best_is_at_the_edge(each)
    ]
    notes.append("epochs and seconds are of training alone; errors are means over fifths of an epoch, as it trains")
    return Result(
        "relu-vs-tanh",
        runner.subject,
        measured(races, found, in_time, level),
        len(found),
        ["neurons", "learning rate", "seed", f"epochs to {level:.0%}", "seconds"],
        rows,
        notes,
        [runner.picture("figure1")],
        {"level": level, "ratios": found, "ratios_in_seconds": in_time, "published": PUBLISHED},
        runner.about(),
    )


def best_is_at_the_edge(races: Sequence[Race]) -> bool:
    """Whether the best learning rate is the lowest or the highest of those tried."""
    rates, best = sorted({race.rate for race in races}), quickest(races).rate
    return best in (rates[0], rates[-1])


def measured(races: dict[str, list[Race]], found: list[float], in_time: list[float], level: float) -> str:
    """The ratio in words, or what kept it from being known."""
    if found:
        times = Spread.of(in_time).text("{:.1f}") if in_time else "?"
        return f"{Spread.of(found).text('{:.1f}')} times the epochs, {times} times the seconds, to {level:.0%}"
    relu, tanh = (quickest(races[neurons]) for neurons in ("relu", "tanh"))
    if relu.epochs is None:
        return f"ReLUs did not reach {level:.0%} within {relu.waited:.1f} epochs"
    bound = tanh.waited / relu.epochs
    return f"more than {bound:.1f} times: tanh did not reach {level:.0%} within {tanh.waited:.1f} epochs"
