"""HTML of what the report says in Markdown: tables, lists, paragraphs. Everything is escaped."""

import html
import itertools
from collections.abc import Iterable, Sequence

LONGEST_LABEL = 24  # letters; what is longer before a colon is a sentence


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text; its lines stay lines."""
    return f"<p{_class(kind)}>{_lines(text)}</p>"


def listed(lines: Iterable[str], kind: str = "") -> str:
    """A list of plain texts, each with its label set off; empty without lines."""
    items = "".join(f"<li>{labelled(line)}</li>" for line in lines)
    return f"<ul{_class(kind)}>{items}</ul>" if items else ""


def labelled(line: str) -> str:
    """A line, its label in bold: "Data: house-numbers"."""
    label, colon, rest = line.partition(": ")
    return (
        f"<b>{html.escape(label)}</b> {html.escape(rest)}"
        if colon and len(label) <= LONGEST_LABEL
        else html.escape(line)
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts, which scrolls by itself where the page is narrow."""
    cells = "".join(f"<th>{_lines(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{_lines(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


def from_markdown(text: str) -> str:
    """The tables, lists and paragraphs of a text; no other marks are known."""
    blocks = itertools.groupby((line for line in text.splitlines()), key=_kind)
    return "\n".join(_block(kind, list(lines)) for kind, lines in blocks if kind)


def _kind(line: str) -> str:
    if not line.strip():
        return ""
    return {"|": "table", "-": "list"}.get(line[0], "text")


def _block(kind: str, lines: list[str]) -> str:
    if kind == "list":
        return listed(line.removeprefix("- ") for line in lines)
    if kind == "text":
        return paragraph("\n".join(lines))
    head, _, *rows = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines)
    return table(head, rows)


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
