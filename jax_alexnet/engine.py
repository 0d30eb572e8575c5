"""The JAX part of a training run; what is counted and decided around it is `alexnet_io.run.loop`'s."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_io.data.batches import Batch, batches
from alexnet_io.errors import FailedRun
from alexnet_io.run.directory import CHECKPOINTS, RunDirectory
from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.pictures import FirstKernel
from jax_alexnet import steps
from jax_alexnet.evaluation import evaluate_split
from jax_alexnet.files import checkpoint
from jax_alexnet.files.starting_weights import StartingWeights
from jax_alexnet.files.starting_weights import read as read_starting_weights
from jax_alexnet.parallel.agreement import Agreement
from jax_alexnet.run_setup import BEST, Setup
from jax_alexnet.schedules import learning_rate, plateau_for, shares


class JaxEngine:
    """See `alexnet_io.run.engine.Engine`.

    Args:
        setup: the run's.
        directory: where the first process writes; None in the others.
    """

    runs_ahead = True
    preparing = "compiling"

    def __init__(self, setup: Setup, directory: RunDirectory | None) -> None:
        self.setup = setup
        self.directory = directory
        self.plateau = plateau_for(setup.settings)
        self._shares: tuple[int, np.ndarray] = (-1, np.empty(0))  # an epoch, and what a schedule leaves in its steps
        self._agreement = Agreement(setup.mesh, setup.processes.count)
        self._saver: checkpoint.BackgroundSaver | None = None
        self._best_saver: checkpoint.BackgroundSaver | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover the training set."""
        return self.setup.steps_per_epoch

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        self.setup.processes.say(text)

    def fail(self, text: str) -> NoReturn:
        """End the run over something that all processes found alike."""
        raise FailedRun(text)

    # --- training ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with fresh weights, or with those that `--init-from` names."""
        self.setup.start = self.setup.start or starting_weights(self.setup)
        self.state = self.setup.new_state()

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's share of what is left of the epoch in which `step` lies."""
        setup = self.setup
        epoch, done = divmod(step, setup.steps_per_epoch)
        return batches(
            setup.data.train,
            batch_size=setup.batch_size,
            seed=setup.settings.seed,
            epoch=epoch,
            shuffle=True,
            start_step=done,
            process_index=setup.share[0],
            process_count=setup.share[1],
        )

    def learning_rate(self, step: int) -> float:
        """Of the weights, in the step after `step` steps."""
        settings, per_epoch = self.setup.settings, self.setup.steps_per_epoch
        epoch, place = divmod(step, per_epoch)
        if self._shares[0] != epoch:  # once an epoch: asked for at each step, a GPU would have to be waited for
            self._shares = epoch, shares(settings, per_epoch, epoch * per_epoch + np.arange(per_epoch))
        return learning_rate(settings, epoch, step, self.plateau) * float(self._shares[1][place])

    def train(self, batch: Batch, step: int, rate: float) -> steps.Metrics:
        """Hand out one step; its metrics are still on the devices. The state counts its steps by itself."""
        setup = self.setup
        with jax.profiler.StepTraceAnnotation("train", step_num=step + 1):
            self.state, metrics = setup.train_step(
                self.state, setup.on_devices(batch), jnp.asarray(rate), setup.key, setup.statistics
            )
        return metrics

    def fetch(self, handle: steps.Metrics) -> Sums:
        """Wait for a step's sums over all devices."""
        return Sums(*map(float, jax.device_get(handle)))

    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        """What all processes wanted one step ago; alone, what this one wants."""
        return self._agreement.exchange(stop, save)

    # --- evaluation --------------------------------------------------------------------------------------

    def evaluate(self) -> EvaluationReport:
        """Over every image once that steers the run."""
        return evaluate_split(self.setup.evaluable(self._evaluated), self.setup.data.steering)

    def evaluate_test(self) -> EvaluationReport:
        """Over every test image once."""
        return evaluate_split(self.setup.evaluable(self._evaluated), self.setup.data.test)

    @property
    def _evaluated(self) -> Any:
        """The weights, or their average where the run has one: what is evaluated and kept as the best."""
        return self.state.params if self.setup.settings.ema is None else self.state.average

    def count_error(self, error: float) -> None:
        """Let a plateau schedule see an epoch's error."""
        if self.plateau is not None:
            self.plateau.update(error)

    def weights_are_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return bool(_all_finite((self.state.params, self.state.average)))

    def first_kernel(self) -> FirstKernel:
        """The weights of conv1, whole in every process."""
        return np.asarray(self.setup.layout.gathered(self._evaluated)["conv1"]["kernel"], np.float32)

    def trace(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """JAX's own trace: for TensorBoard, and one file for Perfetto."""
        return jax.profiler.trace(path, create_perfetto_trace=True)

    # --- checkpoints -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def saving(self, directory: RunDirectory | None) -> Iterator[None]:
        """Save in the background from here on; leaving waits for the last save."""
        if directory is None:
            yield
            return
        with (
            checkpoint.BackgroundSaver(directory.checkpoints) as self._saver,
            checkpoint.BackgroundSaver(directory.path / BEST, keep=1) as self._best_saver,
        ):
            yield

    def save(self, step: int, facts: dict[str, Any]) -> None:
        """Save weights and optimizer state, gathered by all processes and written by the first."""
        whole = self.setup.layout.gathered(self.state)._asdict()
        if self._saver is not None:
            self._saver.save(step, whole, self._metadata(facts))

    def save_best(self, step: int, facts: dict[str, Any], top1: float) -> None:
        """Save the weights alone, a third of the state."""
        whole = {"params": self.setup.layout.gathered(self._evaluated)}
        if self._best_saver is not None:
            self._best_saver.save(step, whole, self._metadata(facts), metric=top1)

    def _metadata(self, facts: dict[str, Any]) -> dict[str, Any]:
        plateau = self.plateau.state() if self.plateau else None
        return {**_settings_that_must_agree(self.setup), **facts, "plateau": plateau}

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Go on from the newest intact checkpoint: the first process finds it, the others read the same."""
        setup, found = self.setup, None
        template, expected = setup.state_shapes()._asdict(), _settings_that_must_agree(setup)
        if self.directory is not None:
            found = checkpoint.restore_newest(
                self.directory.checkpoints, template, expected=expected, strict=setup.settings.strict_resume
            )
        step = setup.processes.from_first(-1 if found is None else found.step)
        if self.directory is None and step >= 0 and setup.settings.output is not None:
            path = setup.settings.output / CHECKPOINTS / f"step_{step:08d}"
            found = checkpoint.restore(path, template, expected=expected)
        if found is None:
            return None
        if self.plateau is not None:
            self.plateau.restore(found.metadata["plateau"])
        self.state = setup.layout.place(steps.TrainState(**found.state))
        self.say(f"resumed after step {found.step} from {found.path}")
        return found.step, found.metadata


def starting_weights(setup: Setup) -> StartingWeights | None:
    """What `--init-from` names, read for this run; None where it names nothing.

    Raises:
        UserError: there are no such weights, or they don't fit.
    """
    if setup.settings.init_from is None:
        return None
    return read_starting_weights(setup.settings, setup.data.class_names, setup.state_shapes().params)


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]))


def _settings_that_must_agree(setup: Setup) -> dict[str, Any]:
    """What a checkpoint must share with the run that restores it."""
    settings = setup.settings
    return {
        "model": settings.model,
        "classes": len(setup.data.class_names),
        "class_names": list(setup.data.class_names),
        "optimizer": settings.optimizer,
        "image_size": settings.image_size,
        "batch_size": settings.batch_size,
        "seed": settings.seed,
        "precision": settings.precision,
        "span_columns": settings.span_columns,
    }
