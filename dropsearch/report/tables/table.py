"""A table of strings, rendered as plain text or Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dropsearch.core.printable import printable
from dropsearch.core.records import Comparison, Interval
from dropsearch.report.findings import shown
from dropsearch.report.numbers import EMPTY, probability, shorten
from dropsearch.report.text.escaping import escaped

WIDTH = 80
"""Maximum width of a table in the terminal, in characters."""
SHORTEST, LONGEST_CELL = 8, 20
"""Number of characters to which a first cell is shortened at most, and that other cells may have in any case."""
LONG = 12
"""Maximum number of rows that a report shows expanded."""


@dataclass(frozen=True)
class Table:
    """A title, column names (with optional line breaks for the terminal) and rows of strings.

    Columns in `left` are left-aligned, all others right-aligned.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[str, ...] = ()

    @property
    def is_long(self) -> bool:
        """Whether a report collapses the table."""
        return len(self.rows) > LONG

    def first(self, rows: int) -> Table:
        """Return the table with its first rows, and a last row with the number of omitted ones."""
        left_out = len(self.rows) - rows
        if left_out <= 1:
            return self
        more = (f"({left_out} more in the report)", *([""] * (len(self.columns) - 1)))
        return Table(self.title, self.columns, (*self.rows[:rows], more), self.left)

    def trimmed(self) -> Table:
        """Return the table without rows and columns that contain only names."""
        rows = [row for row in self.rows if any(cell != EMPTY for cell in self._numbers(row))]
        kept = [
            index
            for index, column in enumerate(self.columns)
            if column in self.left or not rows or any(row[index] != EMPTY for row in rows)
        ]
        return Table(
            self.title,
            tuple(self.columns[index] for index in kept),
            tuple(tuple(row[index] for index in kept) for row in rows),
            self.left,
        )

    def _numbers(self, row: tuple[str, ...]) -> list[str]:
        return [cell for cell, column in zip(row, self.columns, strict=True) if column not in self.left] or list(row)

    def as_text(self, width: int = WIDTH) -> str:
        """Return aligned plain text; names are shortened if the table is wider than `width`."""
        columns = [printable(column, keep="\n").split("\n") for column in self.columns]
        rows = [tuple(printable(cell) for cell in row) for row in self.rows]
        depth = max(map(len, columns))
        padded = [[""] * (depth - len(head)) + head for head in columns]
        head_rows = [tuple(head[line] for head in padded) for line in range(depth)]
        sizes = [max(map(len, column)) for column in zip(*head_rows, *rows, strict=True)]
        spare = width - sum(sizes[1:]) - 2 * (len(sizes) - 1)
        sizes[0] = min(sizes[0], max(spare, SHORTEST))
        self._shrink(sizes, rows, width)
        lines = [self._line(row, sizes) for row in head_rows]
        lines += ["  ".join("-" * size for size in sizes)]
        lines += [self._line(row, sizes) for row in rows]
        title = textwrap.wrap(printable(self.title), width, break_on_hyphens=False)
        return "\n".join([*title, *lines])

    def _shrink(self, sizes: list[int], rows: Sequence[tuple[str, ...]], width: int) -> None:
        """Take the excess of a table over a width from its widest columns of names, and from heads over numbers."""
        cells = [max(map(len, column), default=0) for column in zip(*rows, strict=True)] or [0] * len(sizes)
        least = [
            LONGEST_CELL if name in self.left else max(size, LONGEST_CELL)
            for name, size in zip(self.columns, cells, strict=True)
        ]
        while sum(sizes) + 2 * (len(sizes) - 1) > width:
            spare = [size - low for size, low in zip(sizes, least, strict=True)]
            if max(spare) <= 0:
                return
            sizes[spare.index(max(spare))] -= 1

    def as_markdown(self) -> str:
        """Return a GitHub Markdown table under its bold title."""
        marks = [":--" if column in self.left else "--:" for column in self.columns]
        rows = [tuple(heading(column) for column in self.columns), *self.rows]
        lines = ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in rows]
        lines.insert(1, "| " + " | ".join(marks) + " |")
        return "\n".join([f"**{escaped(self.title)}**", "", *lines])

    def _line(self, row: tuple[str, ...], sizes: list[int]) -> str:
        cells = [
            shorten(cell, size).ljust(size) if column in self.left else shorten(cell, size).rjust(size)
            for cell, size, column in zip(row, sizes, self.columns, strict=True)
        ]
        return "  ".join(cells).rstrip()


CONTRAST = ("difference", "95 % interval", "p Holm", "seeds", "shown")
"""Columns of a contrast, after those that name it."""


def contrast_cells(found: Comparison, write: Callable[[Interval], Sequence[str]]) -> tuple[str, ...]:
    """Return the cells of the columns `CONTRAST`; `write` formats a difference and the ends of its interval."""
    mean, low, high = write(found.difference)
    return (
        mean,
        EMPTY if EMPTY in (low, high) else f"{low} to {high}",
        probability(found.p_holm) if found.differences else EMPTY,
        str(len(found.differences)),
        "not measured" if not found.differences else "yes" if shown(found) else "no",
    )


def heading(column: str) -> str:
    """Return the name of a column on one line."""
    return column.replace("/\n", "/").replace("\n", " ")
