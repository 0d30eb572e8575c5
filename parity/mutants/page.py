"""The score of planted bugs as one HTML page that opens from disk."""

from __future__ import annotations

import html
from pathlib import Path

from parity.mutants.score import Score
from parity.reports.page import whole

_COLUMNS = ("bug", "side", "verdict", "layer", "stage", "cause")
_HEAD = "<tr>" + "".join(f"<th class=l>{name}</th>" for name in _COLUMNS) + "</tr>"


def write(score: Score, path: str | Path) -> None:
    """Write the page to a file."""
    Path(path).write_text(render(score), encoding="utf-8")


def render(score: Score) -> str:
    """The page as text: the summary, every mutant, every pair; survivors and wrong names in red."""
    rows = []
    for o in score.outcomes:
        wrong = o.verdict == "survived" or (o.verdict == "killed" and not (o.layer_right and o.cause_right))
        cells = (f"{o.number}. {o.title}", o.side, o.verdict, o.layer, o.stage, o.cause or o.detail)
        rows.append(_row(cells, wrong))
    pairs = [
        _row((" + ".join(p.ids), ", ".join(p.layers), ", ".join(p.causes)), not (p.layers_right and p.causes_right))
        for p in score.pairs
    ]
    body = [
        "<h1>Planted bugs</h1>",
        f'<div class="verdict{"" if score.passed else " bad"}"><pre>{html.escape(score.summary)}</pre></div>',
        f'<div class="scroll"><table>{_HEAD}{"".join(rows)}</table></div>',
    ]
    if pairs:
        head = "<tr><th class=l>two at once</th><th class=l>layers</th><th class=l>causes</th></tr>"
        body.append(f'<div class="scroll"><table>{head}{"".join(pairs)}</table></div>')
    return whole("Planted bugs", body)


def _row(cells: tuple[str | None, ...], wrong: bool) -> str:
    text = "".join(f"<td class=l>{html.escape(cell or '-')}</td>" for cell in cells)
    return f"<tr{' class=bad' if wrong else ''}>{text}</tr>"
