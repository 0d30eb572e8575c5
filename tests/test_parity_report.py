"""What a report shows: each bug once and first, what is equal folded, and in the picture what the verdict speaks of."""

import json
import re

import numpy as np
import pytest

from parity.alexnet import layerwise
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


def nested(*more: Row) -> list[Row]:
    layers = ("stem", "block/conv1", "block/norm1", "block/conv2", "head")
    forward = [row(name, stage, 1e-15) for name in layers for stage in ("input", "forward")]
    return [*forward, *more]


def test_what_is_equal_is_folded_into_its_modules() -> None:
    report = Report(nested())
    assert str(report).splitlines() == [
        "module  comparisons  used",
        "stem              2  0.11",
        "block             6  0.11",
        "head              2  0.11",
        "",
        "equal: 10 comparisons, at most 0.11 of a bound used",
    ]
    assert report.table() in report.text(all_rows=True)
    assert report.text(all_rows=True).endswith(str(report).splitlines()[-1])


def repeated(count: int, cause: str = "JAX: the output of blocks/{}/norm isn't added") -> list[Row]:
    rows = [row(f"blocks/{i}/attn", "input", 1e-3) for i in range(count)]
    for i, each in enumerate(rows):
        each.causes = [f"{cause.format(i)} (undone, the difference falls from {i + 1}.0e-01 to 1.0e-16)"]
        each.cause_keys = ["term_missing"]
    return rows


def test_one_cause_at_many_places_is_told_once() -> None:
    report = Report([*nested(), *repeated(20)])
    words = str(report)
    assert words.count("cause: JAX: the output of blocks/0/norm isn't added") == words.count("cause:") == 1
    assert "  and the same at 19 more places: blocks/1/attn to blocks/19/attn (--all shows each)\n" in words
    assert report.text(all_rows=True).count("cause:") == len(report.as_json()["divergences"]) == 20
    two = str(Report(repeated(2)))
    assert "  and the same at blocks/1/attn\n" in two and "also diverges" not in two


def test_causes_that_differ_in_a_number_are_told_one_by_one() -> None:
    words = str(Report(repeated(3, "JAX: epsilon is 1e-0{}, not 1e-05")))
    assert words.count("cause:") == 3 and "the same" not in words
    assert str(Report(repeated(2, "JAX: values are rounded to float3{}"))).count("cause:") == 2
    plain = repeated(3)
    for each in plain:
        each.causes, each.cause_keys = [], []
    assert str(Report(plain)).count("diverges") == 2  # nothing says that they are one mistake


def test_what_differs_comes_first_with_its_cause_then_the_way_to_it() -> None:
    wrong = row("block/conv2", "forward", 1e-3)
    wrong.causes = ["JAX: it is scaled by 1.001"]
    rows = nested(wrong, row("block/conv2", "backward", 1e-3), row("end to end", "outputs", 1e-3))
    words = str(Report(rows))
    found, modules, last = words.split("\n\n")
    assert found.startswith("first divergence: net: block/conv2, forward, model: mismatch\n")
    assert "  cause: JAX: it is scaled by 1.001" in found
    assert found.endswith("what follows from it: block/conv2 (backward); end to end (outputs)")
    assert [line.split()[0] for line in modules.splitlines()] == (
        ["module", "stem", "block", "conv2", "forward", "head", "end"]
    )
    assert "1 DIFFERENT, 1 follow from others" in modules
    assert (
        last == "different: 3 of 13 comparisons, 2 of which follow from others; the first is net: block/conv2, forward"
    )
    assert words.count("first divergence") == 1


def test_several_models_have_a_line_each() -> None:
    rows = [*nested(), *(row("conv1", stage, 1e-15, model="other") for stage in ("input", "forward"))]
    words = str(Report(rows)).splitlines()
    assert [line.split()[:2] for line in words[1:3]] == [["net", "10"], ["other", "2"]]


# Rows that differ in a network of conv1, relu1, conv2 and conv3, and those of them that tell of a bug.
ECHOES = [
    (["conv1 forward", "conv1 backward", "conv1 backward:kernel", "conv1 forward at ties"], ["conv1 forward"]),
    (["relu1 backward", "relu1 backward at ties", "end to end gradients"], ["relu1 backward"]),
    (["relu1 backward", "end to end outputs"], ["relu1 backward", "end to end outputs"]),  # backward tells on no output
    (["relu1 backward at ties", "end to end gradients"], ["relu1 backward at ties", "end to end gradients"]),
    (["conv2 input", "relu1 cotangent", "relu1 cotangent at ties", "end to end outputs"], ["conv2 input"]),
    (["conv2 input", "conv2 forward"], ["conv2 input", "conv2 forward"]),  # the code before a layer, and the layer
    (["conv1 forward", "conv2 forward", "conv3 input"], ["conv1 forward", "conv2 forward", "conv3 input"]),
    (["conv2 backward", "conv1 backward"], ["conv2 backward", "conv1 backward"]),  # each gets the reference's cotangent
    (["conv3 input", "conv2 cotangent", "conv1 cotangent"], ["conv3 input"]),  # conv1 through a residual connection
    (["conv2 cotangent", "conv1 cotangent"], ["conv2 cotangent"]),
    (["conv1 input", "conv2 cotangent"], ["conv1 input", "conv2 cotangent"]),  # the code after conv2 is no part of that
    (["conv1 weights:kernel", "conv1 weights:weight exported"], ["conv1 weights:kernel"]),
    (["conv1 forward", "conv1 weights:weight exported"], ["conv1 forward", "conv1 weights:weight exported"]),
    (["output input", "conv3 cotangent"], ["output input"]),
    (["conv1 input", "input cotangent"], ["conv1 input"]),
]


@pytest.mark.parametrize(("wrong", "bugs"), ECHOES)
def test_one_bug_is_one_divergence(wrong: list[str], bugs: list[str]) -> None:
    def differing(words: str, error: float = 1e-3) -> Row:
        for name in ("end to end", *words.split()[:1]):
            if words.startswith(name):
                return row(name, words.removeprefix(name).strip(), error)
        raise AssertionError(words)

    clean = [f"{name} {stage}" for name in ("conv1", "relu1", "conv2", "conv3") for stage in ("input", "forward")]
    forward = [differing(words, 1e-3 if words in wrong else 1e-15) for words in [*clean, "output input"]]
    report = Report(forward + [differing(words) for words in wrong if words not in [*clean, "output input"]])
    assert [f"{each.name} {each.stage}" for each in report.divergences] == bugs
    assert report.divergences[0] is report.first_divergence
    plain = json.loads(json.dumps(report.as_json()))
    assert len(plain["layers"]) == len(report.rows)
    assert sum(each["consequence_of"] is not None for each in plain["layers"]) == len(wrong) - len(bugs)
    assert [each["layer"] for each in plain["divergences"]] == [each.name for each in report.divergences]
    assert str(Report.from_json(plain)) == str(report)
    for each in plain["layers"]:
        del each["consequence_of"]  # a report that was written before there was any
    assert str(Report.from_json(plain)) == str(report)


def test_what_has_a_cause_of_its_own_is_no_consequence_of_what_is_far() -> None:
    far, near = row("conv2", "cotangent", 1e-3), row("conv1", "cotangent", 1e-3)
    near.cause_keys = ["gradient_kink"]
    assert Report(network(far, near)).divergences == [far, near]


def test_layers_in_another_order_are_one_bug() -> None:
    rows = network()
    for each in rows:
        if each.stage == "input" and each.name != "conv1":
            each.verdict, each.cause_keys = "mismatch", ["order"]
    assert [each.name for each in Report(rows).divergences] == ["relu1"]


def test_optimizers_and_functions_tell_each_bug_once() -> None:
    def step(name: str, stage: str) -> Row:
        found = row(name, stage, 1e-3)
        found.kind = "optimizer"
        return found

    first = [step(name, "blog step 1") for name in ("loss", "gradients", "momentum_buffer", "parameters")]
    later = [step("parameters", stage) for stage in ("blog step 2", "blog free step 1", "cifar step 1")]
    assert Report([*first, *later]).divergences == [first[0], first[2], later[-1]]
    function = [row("matrix", "weights", 1e-3), row("output 0", "outputs", 1e-3), row("matrix", "gradient", 1e-3)]
    assert Report(function).divergences == function[:1]
    assert Report(function[1:]).divergences == function[1:2]


def test_the_page_tells_bugs_from_what_follows() -> None:
    page = html.render(Report(network(row("conv2", "backward", 1e-3), row("end to end", "gradients", 1e-3))))
    chart, table = page.split("All comparisons")
    assert chart.count('stroke="#c4301c" stroke-width') == chart.count('stroke="#c98a3c" stroke-width') == 1
    assert "mismatch, follows from conv2 backward" in table


def test_a_page_that_is_too_long_keeps_what_the_verdict_speaks_of(monkeypatch: pytest.MonkeyPatch) -> None:
    first = row("conv1", "forward", 2e-14)
    rows = [first, *(row("conv2", f"backward:{i}", 1.0) for i in range(200))]
    monkeypatch.setattr(html, "LIMIT_BYTES", 60_000)
    page = html.render(Report(rows))
    assert "comparisons are shown" in page
    assert "first divergence: net: conv1, forward" in page
    assert page.count('class="first"') == 1


def test_the_heat_map_says_whether_it_shows_the_first_divergence() -> None:
    wrong, equal = row("end to end", "outputs", 1e-3), network()
    report = Report([*equal, wrong], arrays={"difference": np.ones((2, 2))}, arrays_of=equal[1])
    page = html.render(report)
    assert "Where it differs" not in page
    assert "Where most of a bound is used: net, conv1, forward (it is equal; the values of the first div" in page
    report.arrays_of = wrong
    assert "Where it differs: net, end to end, outputs<" in html.render(report)


def test_of_several_models_the_arrays_are_those_of_the_first_divergence() -> None:
    unknown, wrong = row("conv1", "forward", 1e-3), row("conv1", "forward", 1e-3, model="second")
    unknown.verdict = "no bound"
    merged = Report([])
    for each in (unknown, wrong, row("conv1", "forward", 1.0, model="third")):
        layerwise._merge(merged, Report([each], arrays={"difference": np.ones(1)}, arrays_of=each))
    assert merged.first_divergence is wrong is merged.arrays_of


def test_a_bound_that_is_not_finite_judges_nothing() -> None:
    """Where nothing limits a difference only bit-for-bit equality is equal; elsewhere all is judged as ever."""
    for without in (np.inf, np.nan):
        allowed = np.array([1e-14, without])
        apart = compare_arrays(
            Row("net", "a", "a", "forward", "float64"), np.array([1.0, 2.5]), np.array([1.0, 2.0]), Bound(9, allowed)
        )
        assert (apart.verdict, apart.open, apart.diverges) == ("no bound", True, False)
        assert (apart.index, apart.jax, apart.torch, apart.bound) == ((1,), 2.5, 2.0, np.inf)
        assert "where 1 of 2 values differ, the error bound derived is infinite" in apart.detail
        assert Report([apart]).exit_code == 3
        assert "no bound: net: a, forward" in str(Report([apart]))
        same = compare_arrays(Row("net", "a", "a", "forward", "float64"), np.ones(2), np.ones(2), Bound(9, allowed))
        assert same.equal
        wrong = compare_arrays(
            Row("net", "a", "a", "forward", "float64"), np.array([1.1, 2.0]), np.ones(2), Bound(9, allowed)
        )
        assert wrong.verdict == "mismatch"
        assert wrong.index == (0,)
