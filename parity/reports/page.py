"""The frame of every page of the harness: a file that opens from disk and loads nothing."""

from __future__ import annotations

import html
from collections.abc import Iterable

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.2rem .55rem;border-bottom:1px solid #e3e6ea;text-align:right;white-space:nowrap}
th{position:sticky;top:0;background:#f4f6f8}td.l,th.l{text-align:left}tr.bad{background:#fde8e6}
.verdict{padding:.6rem .9rem;border-left:5px solid #1a7f37;background:#e9f7ee}
.verdict.bad{border-color:#c4301c;background:#fdeeec}.verdict.open{border-color:#7a8590;background:#f1f3f5}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.4rem 0}svg{max-width:100%;height:auto}.scroll{overflow-x:auto}
.note{color:#57606a}
img{image-rendering:pixelated;width:28rem;max-width:100%;border:1px solid #d0d7de}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#e6e8ea}th{background:#20252a}
th,td{border-color:#30363d}tr.bad{background:#4a1d18}.verdict{background:#12301d}.verdict.bad{background:#3d1712}
.verdict.open{background:#262b31}.note{color:#9aa4ae}}
"""


def whole(title: str, body: Iterable[str]) -> str:
    """A page of these parts, all HTML."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'
