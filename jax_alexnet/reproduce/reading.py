"""What the metrics of runs say: errors by window, where a curve crosses a level, times, means and spreads."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alexnet_io.run.metrics import MetricsRow

Points = list[tuple[float, float]]  # (epoch, value)


@dataclass(frozen=True)
class Spread:
    """A mean over repetitions, their sample standard deviation (None of one), lowest, highest, and number."""

    mean: float
    deviation: float | None
    lowest: float
    highest: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        mean = math.fsum(values) / len(values)
        squares = math.fsum((value - mean) ** 2 for value in values)
        deviation = math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None
        return cls(mean, deviation, min(values), max(values), len(values))

    def text(self, pattern: str = "{:.2f}") -> str:
        """`mean ± deviation`, or the value alone where there is one."""
        mean = pattern.format(self.mean)
        return mean if self.deviation is None else f"{mean} ± {pattern.format(self.deviation)}"


def of_split(rows: Sequence[MetricsRow], split: str) -> list[MetricsRow]:
    """The rows of one split."""
    return [row for row in rows if row.split == split]


def steps_per_epoch(rows: Sequence[MetricsRow]) -> float:
    """Steps that cover the training set, from any row."""
    return rows[-1].step / rows[-1].epoch


def training_errors(rows: Sequence[MetricsRow], windows: int = 5) -> Points:
    """Running top-1 training errors, as cuda-convnet printed them: means over at least 1/`windows` of an epoch.

    A row has the mean since the row before it; rows are joined until they cover a window, and the mean stands at its
    middle.

    Args:
        rows: a run's, in order.
        windows: in an epoch; cuda-convnet's CIFAR-10 came in five batches.
    """
    train = of_split(rows, "train")
    if not train:
        return []
    per_epoch = steps_per_epoch(train)
    points: Points = []
    start, last, summed = 0, 0, 0.0
    for row in train:
        summed += (row.step - last) * (1 - row.accuracy)
        last = row.step
        # A whole step may be missing to a window, where its length is no whole number of them.
        if last - start + 1 > per_epoch / windows:
            points.append(((start + last) / 2 / per_epoch, summed / (last - start)))
            start, summed = last, 0.0
    if last > start and not points:
        points.append(((start + last) / 2 / per_epoch, summed / (last - start)))
    return points


def crossing(points: Points, level: float) -> float | None:
    """The epoch at which a falling curve first reaches `level`, drawn straight between its points; None if never."""
    before: tuple[float, float] | None = None
    for epoch, value in points:
        if value <= level:
            if before is None:
                return epoch
            return before[0] + (epoch - before[0]) * (before[1] - level) / (before[1] - value)
        before = epoch, value
    return None


def seconds_until(rows: Sequence[MetricsRow], epoch: float, batch_size: int) -> float:
    """Seconds of training up to an epoch, by the speed that each row measured; compiling and evaluating left out.

    Args:
        rows: a run's.
        epoch: where to stop counting.
        batch_size: images a step.
    """
    train = of_split(rows, "train")
    known = [row.images_per_second for row in train if row.images_per_second]
    if not known:
        return math.nan
    speed, last, seconds, end = known[0], 0, 0.0, epoch * steps_per_epoch(train)
    for row in train:
        speed = row.images_per_second or speed
        steps = min(row.step, end) - last
        if steps <= 0:
            break
        seconds += steps * batch_size / speed
        last = row.step
    return seconds


def last_errors(rows: Sequence[MetricsRow]) -> tuple[float, float, float | None]:
    """(training error, test error, test top-5 error) at the end of a run; the training error is the last window's."""
    test = of_split(rows, "test")[-1]
    top5 = None if test.top5 is None else 1 - test.top5
    return training_errors(rows, 1)[-1][1], 1 - test.accuracy, top5


def test_errors(rows: Sequence[MetricsRow]) -> Points:
    """Top-1 test errors by epoch."""
    return [(row.epoch, 1 - row.top1) for row in of_split(rows, "test") if row.top1 is not None]
