"""The reference's part of a run's report: the network read back and measured."""

from typing import Any

from torch import nn

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.report_settings import ReportSettings
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.report.network import OpenedNetwork
from alexnet_io.run.evaluation_report import EvaluationReport
from alexnet_io.run.mistakes import Observer
from torch_ref.evaluation import measured, of_run
from torch_ref.resolved_settings import resolve


class TorchNetworks:
    """See `alexnet_io.report.network.Framework`."""

    def resolve(self, settings: TrainSettings) -> CompleteSettings:
        """Complete settings as `python -m torch_ref.train` does."""
        return resolve(settings)

    def open(self, settings: ReportSettings, given: dict[str, Any]) -> OpenedNetwork:
        """The run's network.

        Raises:
            UserError: none of its weights is there and intact.
        """
        trained = of_run(settings.run, settings.evaluation)
        network = trained.network
        convolutions = [layer for layer in network.children() if isinstance(layer, nn.Conv2d)]

        def measure(observe: Observer) -> EvaluationReport:
            return measured(trained, settings.evaluation, given, observe)[0].report

        return OpenedNetwork(
            which=trained.which,
            step=trained.step,
            kernel=network.get_parameter("conv1.weight").detach().float().cpu().numpy().transpose(2, 3, 1, 0),
            columns=convolutions[1].groups if len(convolutions) > 1 else 1,
            measure=measure,
        )
