"""What `python -m jax_alexnet.report` and `python -m torch_ref.report` do."""

from __future__ import annotations

import sys
from typing import Any

from alexnet_io.command_line import output_file
from alexnet_io.command_line.flags import flags_of
from alexnet_io.command_line.printing import warn
from alexnet_io.command_line.report_settings import ReportSettings
from alexnet_io.errors import on_the_way
from alexnet_io.report import collect, page
from alexnet_io.report.network import Framework
from alexnet_io.run.run_description import read_description


def check(settings: ReportSettings) -> dict[str, Any]:
    """Refuse what can't become a page before anything heavy is imported; returns the run's description.

    Raises:
        UserError: there is no run, or the page can't be written where it is to go.
    """
    description = read_description(settings.run)
    output_file.check({flag: settings.page for flag in flags_of(ReportSettings) if flag.name == "output"})
    return description


def write(settings: ReportSettings, given: dict[str, Any], framework: Framework) -> int:
    """Write the page, say what it lacks on standard error, and return the exit code.

    Raises:
        UserError: the run's description is damaged.
        FailedRun: the page can't be written any more.
    """
    with output_file.others_on_standard_error(settings.page):
        found = collect.collect(settings, given, framework)
        for each in found.missing:
            warn(each)
        print(found.status.headline, file=sys.stderr if output_file.is_standard_output(settings.page) else sys.stdout)
        with on_the_way():
            output_file.write("--output", settings.page, page.render(found))
    return 0
