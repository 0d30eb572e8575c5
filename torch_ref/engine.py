"""The reference's part of a training run; what is counted and decided around it is `alexnet_io.run.loop`'s."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from alexnet_io.data.batches import Batch
from alexnet_io.errors import UserError
from alexnet_io.files.atomic_file import naming_the_path
from alexnet_io.run import network_facts
from alexnet_io.run.directory import RunDirectory
from alexnet_io.run.engine import Sums
from alexnet_io.run.evaluation import EvaluationReport
from alexnet_io.run.pictures import FirstKernel
from torch_ref import checkpoint
from torch_ref.optim import learning_rate_of
from torch_ref.run_setup import Setup
from torch_ref.schedules import learning_rate, warmup_share
from torch_ref.starting_weights import BEST_WEIGHTS
from torch_ref.starting_weights import read as read_starting_weights
from torch_ref.steps import StepSums, Votes, evaluate, train_step

WEIGHTS = BEST_WEIGHTS


class TorchEngine:
    """See `alexnet_io.run.engine.Engine`.

    Args:
        setup: the run's.
        directory: where process 0 writes; None in the others.
    """

    runs_ahead = True
    preparing = "first step"

    def __init__(self, setup: Setup, directory: RunDirectory | None) -> None:
        self.setup = setup
        self.directory = directory
        self._wishes = Votes()
        self._agreed = Votes()

    @property
    def steps_per_epoch(self) -> int:
        """Steps that cover the training set."""
        return self.setup.steps_per_epoch

    def say(self, text: str) -> None:
        """Print a line, once for all processes."""
        self.setup.group.say(text)

    def fail(self, text: str) -> NoReturn:
        """End the run over something that all processes found alike."""
        self.setup.group.fail(text)

    # --- training ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with the weights that the network was built with; in a run that goes on, those of `--init-from` too."""
        setup = self.setup
        if setup.settings.init_from is not None and setup.start is None:
            setup.start = read_starting_weights(setup.settings, setup.data.class_names, setup.network)
            setup.start.put_into(setup.network)

    def batches(self, step: int) -> Iterator[Batch]:
        """This process's share of what is left of the epoch in which `step` lies."""
        return self.setup.order(step)

    def learning_rate(self, step: int) -> float:
        """Of the weights that have no multiplier, in the step after `step` steps."""
        setup = self.setup
        if setup.plateau is not None:
            rate = learning_rate_of(setup.optimizer)
        else:
            epoch = step // setup.steps_per_epoch
            rate = learning_rate(setup.schedule, setup.settings.learning_rate, epoch=epoch, step=step)
        return rate * warmup_share(step, setup.warmup)

    def train(self, batch: Batch, step: int, rate: float) -> Tensor:
        """Hand out one step; on a GPU it isn't done when this returns."""
        average, network = self.setup.average, self.setup.network
        if average is not None and step == 0:
            average.update_parameters(network)  # its first call copies: the average begins with the first weights
        with torch.profiler.record_function(f"step {step + 1}"):
            done = train_step(self.setup, batch, step, rate, self._wishes)
        if average is not None:
            average.update_parameters(network)
        if self.setup.group.count > 1:
            self._agreed = StepSums.of(done).votes
        return done

    def fetch(self, handle: Tensor) -> Sums:
        """Wait for a step's sums over all processes."""
        return StepSums.of(handle).sums

    def agree(self, stop: int, save: bool) -> tuple[int, bool]:
        """What all processes wanted one step ago; alone, what this one wants."""
        if self.setup.group.count == 1:
            return stop, save
        self._wishes = Votes.of(stop, save)  # travels with the next step's sums
        return self._agreed.stop, self._agreed.save > 0

    # --- evaluation --------------------------------------------------------------------------------------

    def evaluate(self) -> EvaluationReport:
        """Over every image once that steers the run."""
        return evaluate(self.setup.evaluated, self.setup.data.steering)

    def evaluate_test(self) -> EvaluationReport:
        """Over every test image once."""
        return evaluate(self.setup.evaluated, self.setup.data.test)

    def count_error(self, error: float) -> None:
        """Let a plateau schedule see an epoch's error."""
        if self.setup.plateau is not None:
            self.setup.plateau.step(error)

    def weights_are_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(
            bool(torch.isfinite(value).all())
            for network in {self.setup.network, self.setup.evaluated.network}
            for value in network.state_dict().values()
        )

    def first_kernel(self) -> FirstKernel:
        """The weights of conv1, in the order of pictures."""
        kernel = self.setup.evaluated.network.get_parameter("conv1.weight").detach().float().cpu().numpy()
        return kernel.transpose(2, 3, 1, 0)

    @contextlib.contextmanager
    def trace(self, path: Path) -> Iterator[None]:
        """PyTorch's own trace, of this process, as `trace.json` for Perfetto or Chrome."""
        with naming_the_path("create", path):
            path.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it calls a GPU that isn't there an error
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.setup.group.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as found:
            yield
        with naming_the_path("write the trace into", path):
            found.export_chrome_trace(str(path / "trace.json"))

    # --- checkpoints -------------------------------------------------------------------------------------

    def saving(self, directory: RunDirectory | None) -> contextlib.AbstractContextManager[None]:
        """Nothing to open: each save is written before it returns."""
        return contextlib.nullcontext()

    def save(self, step: int, facts: dict[str, Any]) -> None:
        """Save weights and optimizer state."""
        if self.directory is None:
            return
        setup = self.setup
        content = {
            "model": setup.settings.model,
            "class_names": list(setup.data.class_names),
            "state_dict": setup.network.state_dict(),
            "optimizer": setup.optimizer.state_dict(),
            "plateau": setup.plateau.state_dict() if setup.plateau else None,
            "average": setup.average.state_dict() if setup.average else None,
            "progress": facts,
        }
        checkpoint.save(self.directory.checkpoints, step, content)

    def save_best(self, step: int, facts: dict[str, Any], top1: float) -> None:
        """Save the weights, with all else that predicting needs."""
        if self.directory is None:
            return
        setup, settings = self.setup, self.setup.settings
        known = network_facts.NetworkFacts.of(settings, list(setup.data.class_names), setup.arrays, step)
        checkpoint.save_weights(
            self.directory.path / WEIGHTS,
            setup.evaluated.network,
            model=settings.model,
            image_size=settings.image_size,
            step=step,
            top1=top1,
            **{network_facts.KEY: known.to_text()},
        )

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Go on from the newest intact checkpoint, which process 0 reads for all.

        Raises:
            UserError: in all processes alike: damaged checkpoints, or other classes.
        """
        setup, content, wrong = self.setup, None, None
        try:
            if self.directory is not None:
                strict = setup.settings.strict_resume
                content = checkpoint.load_newest(self.directory.checkpoints, strict=strict)
        except UserError as error:
            wrong = str(error)
        content, wrong = setup.group.from_first((content, wrong))
        if content is not None and content["class_names"] != list(setup.data.class_names):
            wrong = "the data has other classes than the run's checkpoint: pass the run's own --data"
        if wrong:
            raise UserError(wrong)
        if content is None:
            return None
        setup.network.load_state_dict(content["state_dict"])
        setup.optimizer.load_state_dict(content["optimizer"])
        if setup.plateau is not None:
            setup.plateau.load_state_dict(content["plateau"])
        if setup.average is not None:
            setup.average.load_state_dict(content["average"])
        if self.directory is not None:
            self.say(f"resumed after step {content['step']} from {self.directory.checkpoints}")
        return content["step"], content["progress"]
