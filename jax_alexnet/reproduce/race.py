"""One training of Figure 1's race to a level of accuracy."""

from dataclasses import dataclass

from jax_alexnet.reproduce.reading import Points


@dataclass(frozen=True)
class Race:
    """One training: when it reached the level, in epochs and in seconds; None if it didn't."""

    neurons: str
    rate: float
    seed: int
    points: Points
    epochs: float | None
    seconds: float | None

    @property
    def waited(self) -> float:
        """Epochs until the level, or those after which it was given up."""
        return self.epochs if self.epochs is not None else self.points[-1][0] if self.points else 0.0
