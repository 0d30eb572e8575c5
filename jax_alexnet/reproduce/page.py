"""Everything found so far as one HTML page that opens from disk: nothing is loaded, pictures are embedded."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.files import atomic_file
from jax_alexnet.reproduce.experiments import EXPERIMENTS
from jax_alexnet.reproduce.results import SUMMARY, Result

PAGE = "index.html"
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:68rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.5rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid #e3e6ea;text-align:left;vertical-align:top}th{background:#f4f6f8}
.note{color:#57606a}.look{padding:.6rem .9rem;border-left:5px solid #b58105;background:#fff8e5}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1rem}dt{color:#57606a}dd{margin:0}
img{max-width:100%;background:#fff}code{font-size:13px;overflow-wrap:anywhere}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#e6e8ea}th{background:#20252a}
th,td{border-color:#30363d}.note,dt{color:#9aa4ae}.look{background:#332a10}}
"""
_LOOK = "A look (--quick): few steps of one seed. These figures say that everything runs, and nothing else."


def write(folder: Path, results: Sequence[Result], quick: bool) -> Path:
    """Write the page; returns where.

    Raises:
        UserError: it can't be written.
    """
    path = folder / PAGE
    atomic_file.write_text(path, render(folder, results, quick))
    return path


def render(folder: Path, results: Sequence[Result], quick: bool) -> str:
    """The page as text.

    Args:
        folder: where the pictures lie.
        results: in their order.
        quick: whether they are of a look only.
    """
    title = "AlexNet, reproduced" + (": a look" if quick else "")
    summary = [
        [_link(each), each.subject, experiment.claim, experiment.published, each.measured, str(each.n)]
        for each in results
        for experiment in (EXPERIMENTS[each.experiment],)
    ]
    body = [
        f"<h1>{title}</h1>",
        f'<p class="look">{_LOOK}</p>' if quick else "",
        _table(SUMMARY, summary),
        *(_section(folder, each) for each in results),
    ]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


class _Markup(str):
    """Text that is HTML already."""


def _link(result: Result) -> _Markup:
    return _Markup(f'<a href="#{_anchor(result)}">{html.escape(result.experiment)}</a>')


def _anchor(result: Result) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in result.key)


def _section(folder: Path, result: Result) -> str:
    experiment = EXPERIMENTS[result.experiment]
    facts = {
        "claim": f"{experiment.claim} ({experiment.where})",
        "published": experiment.published,
        "measured": f"{result.measured} (n = {result.n})",
    }
    parts = [
        f'<h2 id="{_anchor(result)}">{_text(result.key)}</h2>',
        "<dl>" + "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in facts.items()) + "</dl>",
        *(_picture(folder / name, result.experiment) for name in result.pictures),
        _table(result.columns, result.rows),
        "<ul>" + "".join(f"<li>{_text(note)}</li>" for note in result.notes) + "</ul>" if result.notes else "",
        f'<p class="note">{_text("; ".join(f"{k}: {v}" for k, v in result.about.items()))}</p>',
    ]
    return "".join(parts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in columns)
    lines = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def _text(value: str) -> str:
    return value if isinstance(value, _Markup) else html.escape(printable(value))


def _picture(path: Path, what: str) -> str:
    if not path.exists():
        return f'<p class="note">{html.escape(printable(path.name))} is gone: run the experiment again.</p>'
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<p><img alt="{html.escape(what)}" src="data:image/png;base64,{data}"></p>'
