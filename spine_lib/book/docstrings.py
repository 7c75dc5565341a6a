"""Turn the little Markdown that our docstrings use into what Sphinx reads."""

from __future__ import annotations

import re

FENCE = "```"
LONE_STAR = re.compile(r"(?<![\w*`])\*(?=\w)(?![^*\n]*\*)")


def to_rst(lines: list[str]) -> list[str]:
    """Turn fenced blocks and tables of a docstring into reStructuredText.

    Args:
        lines: of the docstring.

    Returns:
        Its lines anew; all other lines are kept but for lone asterisks (`*shape`), which are
        escaped.
    """
    new: list[str] = []
    rest = list(lines)
    while rest:
        line = rest.pop(0)
        if line.strip().startswith(FENCE):
            new += _block("code-block:: text", _indent(line), _until_fence(rest))
        elif _is_row(line) and rest and _is_row(rest[0]):
            rows = [line]
            while rest and _is_row(rest[0]):
                rows.append(rest.pop(0))
            new += _table(rows)
        elif line.lstrip().startswith(">>>") or "`" in line:
            new.append(line)
        else:
            new.append(LONE_STAR.sub(r"\\*", line))
    return new


def _until_fence(rest: list[str]) -> list[str]:
    inside = []
    while rest and not rest[0].strip().startswith(FENCE):
        inside.append(rest.pop(0))
    if rest:
        rest.pop(0)
    return inside


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _is_row(line: str) -> bool:
    return line.strip().startswith("|") and line.strip().endswith("|")


def _block(directive: str, indent: str, inside: list[str]) -> list[str]:
    body = [f"{indent}   {line.removeprefix(indent)}".rstrip() for line in inside]
    return ["", f"{indent}.. {directive}", "", *body, ""]


def _table(rows: list[str]) -> list[str]:
    """Return a Markdown table, its second row the line under the head, as a list-table."""
    indent = _indent(rows[0])
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]
    body = []
    for number, row in enumerate(cells):
        if number != 1:
            body += [f"{'  ' if place else '* '}- {cell}" for place, cell in enumerate(row)]
    options = [f"{indent}   :header-rows: 1"]
    head, *block = _block("list-table::", indent, [f"{indent}{line}" for line in body])
    return [head, block[0], *options, *block[1:]]
