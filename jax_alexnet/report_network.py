"""JAX's part of a run's report: the network read back and measured."""

from functools import partial
from typing import Any

import numpy as np

from alexnet_io.command_line.complete_settings import CompleteSettings
from alexnet_io.command_line.evaluate_settings import data_of
from alexnet_io.command_line.report_settings import ReportSettings
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.report.network import OpenedNetwork
from jax_alexnet.evaluate_command import measured
from jax_alexnet.files.exported import open_network
from jax_alexnet.recipes import choose_variant, resolve
from jax_alexnet.variants import columns_of


class JaxNetworks:
    """See `alexnet_io.report.network.Framework`. It reads best weights of the PyTorch reference's runs, too."""

    def resolve(self, settings: TrainSettings) -> CompleteSettings:
        """Complete settings as `python -m jax_alexnet.train` does."""
        return resolve(settings)

    def open(self, settings: ReportSettings, given: dict[str, Any]) -> OpenedNetwork:
        """The run's network.

        Raises:
            UserError: none of its weights is there and intact.
        """
        network = open_network(
            settings.run,
            None,
            model=None,
            checkpoint=settings.checkpoint,
            devices=settings.devices,
            precision=None,
        )
        wanted = data_of(network.settings, settings.evaluation, given)
        return OpenedNetwork(
            which=network.which,
            step=network.step,
            kernel=np.asarray(network.params["conv1"]["kernel"], np.float32),
            columns=columns_of(choose_variant(network.settings)),
            measure=partial(measured, network, wanted, settings.evaluation),
        )
