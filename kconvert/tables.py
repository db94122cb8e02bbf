"""Small tables, as text for a terminal and as HTML for a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL = "padding:2px 10px;text-align:left;white-space:nowrap"


def cell(value: object) -> str:
    """Return a value as a cell's text: nothing for None, whole numbers in groups of three, four digits of others."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def printable(text: str) -> str:
    """Return a text without line breaks, control and direction marks: they break a table or deceive its reader."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def text_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in columns; numbers stand on the right of theirs."""
    given = list(rows)
    texts = [list(titles), *([printable(cell(value)) for value in row] for row in given)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(titles))]
    right = [all(_is_number(row[i]) or row[i] is None for row in given) for i in range(len(titles))]
    lines = [
        "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in texts
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def html_table(titles: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Return a table as HTML, every text escaped."""
    head = "".join(f'<th style="{_CELL}">{html.escape(title)}</th>' for title in titles)
    body = "".join("<tr>" + "".join(_html_cell(value) for value in row) + "</tr>" for row in rows)
    above = f'<caption style="text-align:left;font-weight:600">{html.escape(caption)}</caption>' if caption else ""
    return f'<table style="{_TABLE}">{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _html_cell(value: object) -> str:
    align = ";text-align:right" if _is_number(value) else ""
    return f'<td style="{_CELL}{align}">{html.escape(printable(cell(value)))}</td>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
