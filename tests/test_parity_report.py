"""What a report shows: the table's columns say what they are, and the picture what the verdict speaks of."""

import json
import re

import numpy as np
import pytest

from parity.bounds.judging import missing
from parity.bounds.magnitudes import Bound
from parity.reports import error_chart, html
from parity.reports.report import Report
from parity.reports.rows import Row, compare_arrays, fill


def row(name: str, stage: str, error: float, bound: float = 1e-14, model: str = "net") -> Row:
    found = Row(model, name, name, stage, "float64")
    return compare_arrays(found, np.array([[1.0 + error, 2.0]]), np.array([[1.0, 2.0]]), Bound(9, np.full(2, bound)))


def network(*more: Row) -> list[Row]:
    layers = ("conv1", "relu1", "conv2")
    return [row(name, stage, 1e-15) for name in layers for stage in ("input", "forward")] + list(more)


def names(svg: str) -> list[str]:
    """What is written under the points."""
    return re.findall(r"<text transform[^>]*>([^<]*)</text>", svg)


def test_the_largest_error_and_the_one_at_the_worst_fraction_are_told_apart() -> None:
    apart, allowed = np.array([4e-14, 3e-15, 0.0]), np.array([1e-12, 4e-15, 1.0])
    found = Row("net", "conv1", "conv1", "forward", "float64")
    compare_arrays(found, 1.0 + apart, np.ones(3), Bound(9, allowed))
    report = Report([found])
    head, line = report.table().splitlines()
    for column, number in (("largest error", "4.0e-14"), ("error at worst", "3.1e-15"), ("bound there", "4.0e-15")):
        end = head.index(column) + len(column)
        assert line[:end].endswith(number), column
    page = html.render(report)
    titles = re.findall(r"<th[^>]*>([^<]*)</th>", page)
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page)
    shown = dict(zip(titles, cells, strict=True))
    assert (shown["largest error"], shown["error at worst"], shown["bound there"]) == ("4.0e-14", "3.1e-15", "4.0e-15")
    assert shown["used"] == "0.78"
    assert "max error" not in page + report.table()


@pytest.mark.parametrize("wrong", [
    row("relu1", "input", 1e-3), row("conv1", "cotangent", 1e-3), row("conv1", "weights:kernel", 1e-3),
    row("end to end", "gradients", 1e-3), row("output", "input", 1e-3), row("conv3", "forward", 1e-3),
    fill(Row("net", "drop", "drop", "forward", "float64"), missing("PyTorch runs it, Flax doesn't")),
])  # fmt: skip
def test_what_the_verdict_speaks_of_is_in_the_picture(wrong: Row) -> None:
    report = Report(network(wrong))
    assert report.first_divergence is wrong
    page = html.render(report)
    chart = page[: page.index("All comparisons")]
    assert chart.count('class="first"') == 1
    assert wrong.name in " ".join(names(chart))
    assert chart.count('stroke="#c4301c" stroke-width') == 1  # one red mark
    assert ("no number" in chart) is (wrong.verdict == "missing")
    quiet = html.render(Report(network()))
    assert "#c4301c" not in quiet.split("</style>")[1]
    assert names(quiet) == ["conv1", "relu1", "conv2"]  # inputs that agree would only double the chart


def test_what_has_no_layers_is_drawn_too_in_lines_that_fit_a_page() -> None:
    rows = [row("parameters", f"cifar step {i}", 1e-15) for i in range(95)]
    rows[70] = row("parameters", "cifar step 70", 1e-3)
    page = html.render(Report(rows))
    assert page.count("<svg") == 3
    assert len(names(page)) == 95
    assert [int(width) for width in re.findall(r'viewBox="0 0 (\d+)', page)] == [
        error_chart.LEFT + error_chart.STEP * count + 90 for count in (40, 40, 15)
    ]
    assert page.count('class="first"') == 1


def test_differences_without_a_number_stand_above_all_others() -> None:
    nan = compare_arrays(
        Row("net", "conv2", "conv2", "forward", "float64"), np.array([[np.nan, 2.0]]), np.array([[1.0, 2.0]]), None
    )
    chart = error_chart.draw([*network(), nan], nan)
    heights = [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', chart)]
    assert heights[-1] == error_chart.UNTOLD < min(heights[:-1])


def test_a_heat_map_belongs_to_its_row() -> None:
    rows = network(row("conv2", "weights:kernel", 1e-3), row("conv2", "backward", 1e-3))
    report = Report(rows)
    report.arrays = {"difference": np.array([[0.0, 1.0], [np.inf, 3.0]])}
    report.arrays_of = rows[-1]
    page = html.render(report)
    assert "Where it differs: net, conv2, backward" in page
    assert "to 3 (bright); white: 1 of 4 values" in page
    again = Report.from_json(json.loads(json.dumps(report.as_json())))
    assert again.arrays_of is again.rows[-1]
    assert Report.from_json(Report(rows).as_json()).arrays_of is None
