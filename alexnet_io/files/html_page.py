"""One HTML page that opens from disk: nothing is loaded, pictures are embedded, and phones can read it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence

from alexnet_io.command_line.printing import printable

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#57606a;--line:#e3e6ea;--head:#f4f6f8;--bar:#0072b2}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:68rem;padding:0 1rem;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.15rem;margin-top:2.5rem}h3{font-size:1rem}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{background:var(--head)}td.n,th.n{text-align:right;white-space:nowrap}
.note,dt,figcaption{color:var(--soft)}.look{padding:.6rem .9rem;border-left:5px solid #b58105;background:#fff8e5}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.1rem 1rem}dd{margin:0;min-width:0}
img{max-width:100%;background:#fff}code{font-size:13px}
pre{padding:.6rem .9rem;background:var(--head);white-space:pre-wrap}
summary{cursor:pointer;padding:.3rem 0}details{margin:.6rem 0}
.grid{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}
.grid.small{grid-template-columns:repeat(auto-fill,minmax(min(100%,9.5rem),1fr))}.grid img{display:block;width:100%}
figure{margin:0}figcaption{font-size:13px;padding-top:.2rem}.pixels{image-rendering:pixelated}
.wide{max-width:none}.bar{display:inline-block;height:.4em;vertical-align:.2em;background:var(--bar)}
@media(max-width:30rem){body{margin:1rem auto}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.4rem}
.grid.small{grid-template-columns:repeat(2,1fr)}th,td{padding:.3rem .45rem}}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--paper:#14171a;--soft:#9aa4ae;--line:#30363d;--head:#20252a;
--bar:#56b4e9}.look{background:#332a10}a{color:#79b8ff}img{border-radius:4px}}
"""


class Markup(str):
    """Text that is HTML already."""


def text(value: object) -> Markup:
    """Anything as HTML: escaped, on one line, unless it is markup."""
    return value if isinstance(value, Markup) else Markup(html.escape(printable(str(value))))


def whole(title: str, body: Iterable[str]) -> str:
    """A page of these parts, all HTML."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def heading(words: str, anchor: str = "") -> str:
    """The beginning of a part of the page."""
    return f"<h2{f' id={anchor!r}' if anchor else ''}>{text(words)}</h2>"


def note(words: object) -> str:
    """What is to be said in small print."""
    return f'<p class="note">{text(words)}</p>'


def remark(words: object) -> str:
    """What must not be overlooked."""
    return f'<p class="look">{text(words)}</p>'


def facts(named: Mapping[str, object]) -> str:
    """Facts with their names, one below the other."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in named.items()) + "</dl>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()) -> str:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        columns: their names.
        rows: their cells.
        numbers: places of the columns that are flush right.
    """
    kinds = [' class="n"' if place in numbers else "" for place in range(len(columns))]
    head = "".join(f"<th{kind}>{text(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    lines = "".join(
        "<tr>" + "".join(f"<td{kind}>{text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{lines}</table></div>'


def folded(summary: str, inside: str) -> str:
    """What is only shown when it is asked for."""
    return f"<details><summary>{text(summary)}</summary>{inside}</details>"


def image(content: bytes, alternative: str, kind: str = "") -> str:
    """A PNG or JPEG, embedded.

    Args:
        content: of the file.
        alternative: what it shows, in words.
        kind: classes of the style.
    """
    data = base64.b64encode(content).decode("ascii")
    media = "png" if content.startswith(b"\x89PNG") else "jpeg"
    classes = f' class="{kind}"' if kind else ""
    return f'<img{classes} alt="{text(alternative)}" src="data:image/{media};base64,{data}">'


def figure(picture: str, caption: object) -> str:
    """A picture with words below it."""
    return f"<figure>{picture}<figcaption>{text(caption)}</figcaption></figure>"


def grid(parts: Iterable[str], small: bool = False) -> str:
    """Parts side by side, as many as there is room for."""
    return f'<div class="grid{" small" if small else ""}">{"".join(parts)}</div>'
