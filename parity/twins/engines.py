"""The engines of both training programs, watched; JAX's is otherwise untouched, PyTorch's is given JAX's draws."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from flax import linen
from numpy.typing import NDArray
from torch import Tensor

from alexnet_io.data.batches import Batch
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation import EvaluationReport
from jax_alexnet.engine import JaxEngine
from jax_alexnet.model import AlexNet
from jax_alexnet.run_setup import Setup as JaxSetup
from jax_alexnet.steps import Metrics
from parity.alexnet.parameter_names import ParameterNames, slots
from parity.reference.torch_tensors import to_numpy
from parity.twins.jax_draws import JaxDraws
from parity.twins.records import Arrays, Record, StepRecord, part_of
from torch_ref import alexnet
from torch_ref.engine import TorchEngine
from torch_ref.optim import learning_rate_of
from torch_ref.run_setup import Setup as TorchSetup

# Settings on which a compiled step depends.
_COMPILED = ("model", "recipe", "image_size", "stored_size", "batch_size", "optimizer", "momentum", "weight_decay")
_COMPILED += ("decay_biases", "bias_learning_rate_factor", "normalize", "crop", "flip", "color_noise", "dropout")
_COMPILED += ("ablate", "span_columns", "precision", "weight_init", "freeze", "new_layer_learning_rate_factor")
_COMPILED += ("label_smoothing", "clip_norm", "accumulate", "ema")


class Killed(BaseException):
    """The run ends here, as by SIGKILL: nothing is saved any more."""


@dataclasses.dataclass(frozen=True)
class Fate:
    """When a run is disturbed: before the step after so many others; 0 is never."""

    kill_after: int = 0
    signal_after: int = 0


class JaxPrograms:
    """JAX's compiled steps, kept for runs that would compile the same ones, and the input that the network sees."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[Any, Any]] = {}
        self._seen: list[NDArray[Any]] = []

    def reuse(self, setup: JaxSetup) -> None:
        """Give `setup` the steps of an earlier run whose settings compile to the same."""
        key = str([len(setup.data.class_names), *(getattr(setup.settings, name) for name in _COMPILED)])
        setup.train_step, setup.eval_step = self._steps.setdefault(key, (setup.train_step, setup.eval_step))

    def watching(self) -> Any:
        """While a step is traced in here, it will show what its network is given."""

        def look(call: Callable[..., Any], args: Any, kwargs: Any, context: linen.module.InterceptorContext) -> Any:
            if isinstance(context.module, AlexNet) and context.method_name == "__call__" and kwargs.get("train"):
                jax.debug.callback(lambda x: self._seen.append(np.asarray(x)), args[0])
            return call(*args, **kwargs)

        return linen.intercept_methods(look)

    def input(self) -> NDArray[np.float64]:
        """What the network of the latest step was given: (batch, 3, height, width)."""
        jax.effects_barrier()
        seen = np.concatenate(self._seen)  # of all parts of the batch
        self._seen.clear()
        return seen.transpose(0, 3, 1, 2)


class _Watched:
    """What is the same for both engines: it stands before the engine among its bases."""

    record: Record
    fate: Fate

    def _end_if_fated(self, step: int) -> None:
        if step and self.fate.kill_after == step:
            raise Killed

    @property
    def _number(self) -> int:
        """The step after which the run is; 0 where it has just been resumed."""
        return self.record.steps[-1].number if self.record.steps else 0

    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        """As if a signal had come."""
        if self.fate.signal_after == self._number:
            stop = int(signal.SIGTERM)
        return super().agree(stop, save)  # type: ignore[misc]

    def fetch(self, handle: Any) -> Sums:
        """A step's sums, the next after those that were fetched."""
        sums: Sums = super().fetch(handle)  # type: ignore[misc]
        next(step for step in self.record.steps if step.sums is None).sums = sums
        return sums

    def evaluate(self) -> EvaluationReport:
        """Over every image once that steers the run."""
        report: EvaluationReport = super().evaluate()  # type: ignore[misc]
        self.record.evaluations[self._number] = report
        return report

    def evaluate_test(self) -> EvaluationReport:
        """Over every test image once."""
        report: EvaluationReport = super().evaluate_test()  # type: ignore[misc]
        self.record.tests[self._number] = report
        return report

    def save_best(self, step: int, facts: dict[str, Any], top1: float) -> None:
        """Save the weights alone."""
        self.record.best.append((step, top1))
        super().save_best(step, facts, top1)  # type: ignore[misc]


class WatchedJaxEngine(_Watched, JaxEngine):
    """JAX's engine. `record`, `programs` and `fate` are set by `watched_jax`."""

    programs: JaxPrograms

    def __init__(self, setup: JaxSetup, directory: RunDirectory | None) -> None:
        self.programs.reuse(setup)
        super().__init__(setup, directory)
        settings = setup.settings
        size = settings.image_size
        reference = alexnet.build(settings.model, len(setup.data.class_names), image_size=size)
        self._names = ParameterNames(reference, (size, size))
        self.record.per_epoch = setup.steps_per_epoch
        self.record.template = setup.state_shapes().params

    def train(self, batch: Batch, step: int, rate: float) -> Metrics:
        """Hand out one step and look at what it leaves."""
        self._end_if_fated(step)
        record = self.record
        if not record.first_parameters:
            record.first_parameters = self._parameters()
        with self.programs.watching():
            metrics = super().train(batch, step, rate)
        done = StepRecord(step + 1, batch.ids, batch.labels, batch.weights, batch.images, rate)
        done.input = self.programs.input()
        done.parameters = part_of(self._parameters())
        done.averages = part_of(self._torch(self.state.average) if self.state.average else {})
        done.slots = part_of(
            {f"{key} {n}": x for key, tree in slots(self.state.opt_state).items() for n, x in self._torch(tree).items()}
        )
        record.steps.append(done)
        return metrics

    def count_error(self, error: float) -> None:
        """Let a plateau see an epoch's test error."""
        super().count_error(error)
        if self.plateau is not None:
            state = self.plateau
            self.record.plateaus[self._number] = {
                "learning rate": state.learning_rate,
                "best": state.best,
                "bad epochs": state.bad_epochs,
                "cooldown left": state.cooldown_left,
            }

    def _parameters(self) -> Arrays:
        return self._torch(self.state.params)

    def _torch(self, tree: Any) -> Arrays:
        # Copies: the buffers of a state are given to the next step.
        return self._names.as_torch(jax.tree.map(np.array, tree))


class WatchedTorchEngine(_Watched, TorchEngine):
    """PyTorch's engine with JAX's draws and first weights. `record`, `first_parameters` and `fate`: `watched_torch`."""

    first_parameters: Arrays

    def __init__(self, setup: TorchSetup, directory: RunDirectory | None) -> None:
        super().__init__(setup, directory)
        size = setup.settings.image_size
        draws = JaxDraws(setup.settings, setup.network, (size, size))
        setup.draw, setup.masks.draw = draws.augmentation, draws.mask
        setup.network.register_forward_pre_hook(self._look)
        self._seen: list[NDArray[np.float64]] = []
        self.record.per_epoch = setup.steps_per_epoch

    def _look(self, network: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if network.training:
            self._seen.append(to_numpy(inputs[0]).copy())

    def start(self) -> None:
        """Begin with JAX's fresh weights; those from elsewhere it has read by itself."""
        super().start()
        read = self.setup.start.state if self.setup.start else {}
        with torch.no_grad():
            for name, parameter in self.setup.network.named_parameters():
                if name not in read:
                    parameter.copy_(torch.from_numpy(self.first_parameters[name]))

    def train(self, batch: Batch, step: int, rate: float) -> Tensor:
        """Hand out one step and look at what it leaves."""
        self._end_if_fated(step)
        record = self.record
        if not record.first_parameters:
            record.first_parameters = self._parameters()
        sums = super().train(batch, step, rate)
        done = StepRecord(step + 1, batch.ids, batch.labels, batch.weights, batch.images, rate)
        done.input = np.concatenate(self._seen)
        self._seen.clear()
        done.parameters = part_of(self._parameters())
        done.averages = part_of(_values(self.setup.average.module) if self.setup.average else {})
        done.slots = part_of(self._memories())
        record.steps.append(done)
        return sums

    def count_error(self, error: float) -> None:
        """Let a plateau see an epoch's test error."""
        super().count_error(error)
        counter = self.setup.plateau
        if counter is not None:
            self.record.plateaus[self._number] = {
                "learning rate": learning_rate_of(self.setup.optimizer),
                "best": float(counter.best),
                "bad epochs": counter.num_bad_epochs,
                "cooldown left": counter.cooldown_counter,
            }

    def _parameters(self) -> Arrays:
        return _values(self.setup.network)

    def _memories(self) -> Arrays:
        """The optimizer's, by its own key and the parameter's name."""
        return {
            f"{key} {name}": to_numpy(value)
            for name, parameter in self.setup.network.named_parameters()
            for key, value in self.setup.optimizer.state.get(parameter, {}).items()
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape
        }


def _values(network: torch.nn.Module) -> Arrays:
    return {name: to_numpy(value).copy() for name, value in network.named_parameters()}


def watched_jax(record: Record, programs: JaxPrograms, fate: Fate) -> type[JaxEngine]:
    """The engine for one run of JAX's program."""
    return type("Watched", (WatchedJaxEngine,), {"record": record, "programs": programs, "fate": fate})


def watched_torch(record: Record, first_parameters: Arrays, fate: Fate) -> type[TorchEngine]:
    """The engine for one run of PyTorch's program, which begins with JAX's weights."""
    values = {"record": record, "first_parameters": first_parameters, "fate": fate}
    return type("Watched", (WatchedTorchEngine,), values)
