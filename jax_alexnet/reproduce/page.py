"""Everything found so far as one HTML page that opens from disk: nothing is loaded, pictures are embedded."""

from collections.abc import Sequence
from pathlib import Path

from alexnet_io.command_line.printing import printable
from alexnet_io.files import atomic_file, html_page
from jax_alexnet.reproduce.experiments import EXPERIMENTS
from jax_alexnet.reproduce.results import SUMMARY, Result

PAGE = "index.html"
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
        html_page.remark(_LOOK) if quick else "",
        html_page.table(SUMMARY, summary),
        *(_section(folder, each) for each in results),
    ]
    return html_page.whole(title, body)


def _link(result: Result) -> html_page.Markup:
    return html_page.Markup(f'<a href="#{_anchor(result)}">{html_page.text(result.experiment)}</a>')


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
        html_page.heading(result.key, _anchor(result)),
        html_page.facts(facts),
        *(_picture(folder / name, result.experiment) for name in result.pictures),
        html_page.table(result.columns, result.rows),
        "<ul>" + "".join(f"<li>{html_page.text(note)}</li>" for note in result.notes) + "</ul>" if result.notes else "",
        html_page.note("; ".join(f"{k}: {v}" for k, v in result.about.items())),
    ]
    return "".join(parts)


def _picture(path: Path, what: str) -> str:
    if not path.exists():
        return html_page.note(f"{printable(path.name)} is gone: run the experiment again.")
    return f"<p>{html_page.image(path.read_bytes(), what)}</p>"
