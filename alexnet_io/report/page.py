"""The page of a run's report.

matplotlib is imported by whoever writes one, through the pictures.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_io.command_line.complete_settings import plain
from alexnet_io.command_line.flags import flags_of
from alexnet_io.command_line.printing import amount, printable
from alexnet_io.command_line.repeating import kept
from alexnet_io.command_line.train_settings import TrainSettings
from alexnet_io.data.sources.synset_names import readable
from alexnet_io.files.html_page import (
    Markup,
    facts,
    figure,
    folded,
    grid,
    heading,
    image,
    note,
    remark,
    table,
    text,
    whole,
)
from alexnet_io.report.collect import Collected
from alexnet_io.run import curves, plots
from alexnet_io.run.directory import CHECKPOINTS
from alexnet_io.run.evaluation_report import EvaluationReport
from alexnet_io.run.mistakes import Mistake

SHOWN_CLASSES = 20  # in the open; where there are more, the others are folded
_BEST = "best"


def render(found: Collected) -> str:
    """The page as text."""
    title = f"{found.settings.model} on {printable(found.settings.data)}"
    parts = [
        f"<h1>{text(title)}</h1>",
        f"<p>{text(found.status.headline)}</p>",
        note(found.run),
        *(remark(f"Missing: {each}") for each in found.missing),
        *_settings(found),
        *_environment(found),
        *_curves(found),
        *_evaluation(found),
        *_filters(found),
        *_time(found),
        *_checkpoints(found),
        *_command(found),
    ]
    return whole(title, parts)


# --- what the run was -----------------------------------------------------------------------------------------


def _settings(found: Collected) -> list[str]:
    meanings = {flag.name: flag.about["help"] for flag in flags_of(TrainSettings)}
    values = plain(found.settings)
    chosen = [(name, _value(own), _value(usual)) for name, (own, usual) in found.differing.items()]
    every = [(name, _value(values[name]), meanings[name]) for name in kept(values)]
    return [
        heading("Settings"),
        table(("chosen", "this run", "otherwise"), chosen)
        if chosen
        else note("None was chosen: all are the defaults."),
        note("Otherwise: what this network has on these data by itself; for data and model, what training has."),
        folded(f"all {len(every)} settings", table(("setting", "value", "what it is"), every)),
    ]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return "-" if value is None else str(value)


def _environment(found: Collected) -> list[str]:
    machine, versions = found.description.get("machine"), dict(found.description["versions"])
    unknown = "not recorded by the version that began this run"
    known: dict[str, object] = {"devices": unknown, "processor": unknown}
    if isinstance(machine, Mapping):
        memory = f", {machine['memory_gib']} GiB of memory" if machine.get("memory_gib") else ""
        known["devices"] = ", ".join(map(str, machine.get("devices", ()))) or unknown
        known["processor"] = f"{machine.get('processor') or 'unknown'}, {machine.get('cores')} cores{memory}"
        if machine.get("processes"):
            known["processor"] = f"{known['processor']}; of the first of {machine['processes']} processes"
    known["system"] = f"Python {versions.pop('python', '?')} on {versions.pop('platform', '?')}"
    known["packages"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    again = found.description.get("resumed")
    if again:
        devices = ", ".join(again[-1].get("machine", {}).get("devices", ())) or unknown
        known["resumed"] = f"{len(again)} time{'s' * (len(again) > 1)}, last at {again[-1]['started']} on {devices}"
    for name, called in (
        ("convolutions", "convolutions"),
        ("evaluated_weights", "evaluated weights"),
        ("begun_with", "begun with"),
    ):
        if found.description.get(name):
            known[called] = _in_words(found.description[name])
    return [heading("Environment"), facts(known)]


def _in_words(fact: Any) -> str:
    """A fact of run.json for people."""
    if isinstance(fact, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {_in_words(value)}" for name, value in fact.items())
    return ", ".join(map(str, fact)) or "none" if isinstance(fact, list) else _value(fact)


# --- what it learnt -------------------------------------------------------------------------------------------


def _curves(found: Collected) -> list[str]:
    if not found.rows:
        return [heading("Curves"), note("The run has written no metrics yet.")]
    charts = [image(curves.chart(found.rows, name), f"{name} over epochs") for name in curves.CHARTS]
    return [heading("Curves"), grid(charts), note("The star marks the evaluation whose weights are the best.")]


def _evaluation(found: Collected) -> list[str]:
    report, network = found.report, found.network
    if report is None or network is None:
        why = "No weights could be read" if network is None else "No picture was looked at"
        return [heading("Evaluation"), note(f"{why}: there are no classes, confusions and mistakes to show.")]
    names = [readable(name) for name in report.per_class]
    errors = {
        "weights": f"{network.which}, step {network.step:,}",
        "images": f"{report.examples:,} {found.split} images, central crop",
        "top-1": f"{report.top1:.2%}",
        f"top-{min(5, len(names))}": f"{report.top5:.2%}",
        "loss": f"{report.loss:.4f} nats",
    }
    confusion = _drawn(lambda path: plots.draw_confusion(report.confusion, names, path))
    return [
        heading("Evaluation"),
        facts(errors),
        "<h3>Which class is taken for which</h3>",
        f'<div class="scroll">{image(confusion, "confusion matrix", "wide")}</div>',
        "<h3>Each class</h3>",
        *_classes(report, names),
        "<h3>Worst mistakes</h3>",
        *_mistakes(found.mistakes, names, report),
    ]


def _classes(report: EvaluationReport, names: list[str]) -> list[str]:
    """A table of all classes, the worst first, of many the rest folded."""
    rows = []
    for place, count in enumerate(report.per_class.values()):
        wrong = np.array(report.confusion[place])
        wrong[place] = 0
        taken = f"{names[wrong.argmax()]} ({wrong.max() / count.total:.0%})" if wrong.any() else "-"
        share = count.accuracy
        bar = "" if share is None else f'<br><span class="bar" style="width:{4 * share:.2f}rem"></span>'
        shown = Markup("-" if share is None else f"{share:.2%}{bar}")
        rows.append((2.0 if share is None else share, (names[place], shown, f"{count.total:,}", taken)))
    ordered = [row for _, row in sorted(rows, key=lambda each: each[0])]
    columns = ("class", "accuracy", "images", "most taken for")
    parts = [table(columns, ordered[:SHOWN_CLASSES], numbers=(2,))]
    if len(ordered) > SHOWN_CLASSES:
        rest = ordered[SHOWN_CLASSES:]
        parts.append(folded(f"{len(rest)} more classes", table(columns, rest, numbers=(2,))))
    return parts


def _mistakes(mistakes: list[Mistake], names: list[str], report: EvaluationReport) -> list[str]:
    if not mistakes:
        right = report.top1 == 1.0
        return [note("Every image was told right." if right else "None were asked for: see --mistakes.")]
    shown = []
    for each in mistakes:
        words = (
            f"<b>{text(names[each.guess])}</b> {each.probability:.1%}<br>is {text(names[each.truth])}, "
            f'{_share(each.of_truth)}<br><span class="note">{text(each.name)}</span>'
        )
        kind = "pixels" if max(each.picture.shape[:2]) < 100 else ""
        shown.append(figure(image(each.encoded(), f"taken for {names[each.guess]}", kind), Markup(words)))
    return [
        note("The wrong guesses of which the network is surest: guess and its probability, then truth and its own."),
        grid(shown, small=True),
    ]


def _share(probability: float) -> str:
    return f"{probability:.1%}" if probability >= 0.001 else "below 0.1%"


def _filters(found: Collected) -> list[str]:
    network = found.network
    if network is None:
        return []
    parts = [heading("First layer's filters")]
    try:
        picture = _drawn(lambda path: plots.draw_filters(network.kernel, path, columns=network.columns))
    except ValueError as error:
        return [*parts, note(f"They can't be drawn: {error}.")]
    return [*parts, image(picture, "filters of the first layer", "pixels")]


def _drawn(draw: Callable[[Path], object]) -> bytes:
    """The PNG that a function leaves in the file that it is called with."""
    with tempfile.TemporaryDirectory(prefix="drawing-") as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return path.read_bytes()


# --- what it took, and what remains ---------------------------------------------------------------------------


def _time(found: Collected) -> list[str]:
    status = found.status
    known = {
        "began": status.began,
        "last row": status.written or "none",
        "training": _duration(status.training_seconds),
        "evaluations": _duration(status.evaluating_seconds),
        "images a second": f"{status.speed:,.0f} in training, median of its rows" if status.speed else "not known",
    }
    words = "Durations are those of the steps and evaluations that rows of metrics tell of, by their speeds."
    return [heading("Time"), facts(known), note(words)]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _checkpoints(found: Collected) -> list[str]:
    """The files of weights, their steps by their names, and what to do with them."""
    places = [
        path
        for folder in (_BEST, CHECKPOINTS)
        for path in sorted((found.run / folder).glob("*"))
        if not path.name.startswith(".")
    ]
    rows = [(path.relative_to(found.run), amount(_size(path))) for path in places]
    run = shlex.quote(str(found.run))
    uses = [f"python -m {found.trainer}.evaluate --run {run}"]
    if any(path.parent.name == _BEST for path in places):
        uses += [f"python -m jax_alexnet.predict --run {run} picture.jpg"]
        uses += [f"python -m jax_alexnet.export --run {run} --to net.safetensors"]
    if found.status.state == "interrupted":
        uses = [f"python -m {found.trainer}.train --resume --output {run}", *uses]
    return [
        heading("Checkpoints"),
        table(("file", "size"), rows, numbers=(1,)) if rows else note("None was finished yet."),
        *(_code(line) for line in uses if rows),
    ]


def _size(path: Path) -> int:
    """Bytes of a file or of a folder's files; what goes away meanwhile, as in a run that goes on, counts as nothing."""
    total = 0
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        try:
            total += each.stat().st_size if each.is_file() else 0
        except OSError:
            continue
    return total


def _command(found: Collected) -> list[str]:
    words = found.description.get("command")
    called = shlex.join(map(str, words)) if isinstance(words, list) else "not recorded"
    return [
        heading("The same again"),
        _code(f"python -m {shlex.join(found.command)}"),
        folded("as it was called", _code(called)),
    ]


def _code(line: str) -> str:
    return f"<pre><code>{text(line)}</code></pre>"
