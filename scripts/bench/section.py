"""A section of the report: a Markdown table with rows for each workload, each measured in a process of its own."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from workloads import WORKLOADS

Cells = Sequence[str]


@dataclass(frozen=True)
class Section:
    """One table."""

    title: str
    note: str
    """What the numbers mean, printed under the title."""
    columns: tuple[str, ...]
    rows: Callable[[str, bool], Iterable[Cells]]
    """Given a workload and whether to be quick, measures and returns the workload's rows."""
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    """Those that are measured where none are named."""
    in_own_process: bool = True
    """Whether `rows` is run in a fresh process; not needed where it starts processes itself."""

    def print(self, names: Sequence[str] = (), *, quick: bool = False) -> None:
        """Measure and print the table, row by row."""
        print(f"## {self.title}\n\n{self.note}\n")
        print(f"| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}", flush=True)
        for name in names or self.workloads:
            rows = fresh(self.rows, name, quick) if self.in_own_process else self.rows(name, quick)
            for cells in rows:
                print(f"| {' | '.join(cells)} |", flush=True)
        print(flush=True)

    def main(self) -> None:
        """Print the table for the workloads that the command line names."""
        parser = argparse.ArgumentParser(description=self.note)
        parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}")
        parser.add_argument(
            "--quick", action="store_true", help="few repetitions, small widths: to check that it works"
        )
        chosen = parser.parse_args()
        self.print(chosen.workloads, quick=chosen.quick)


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns in a new process: nothing of earlier measurements is left there."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def median_and_range(values: Sequence[float], form: str = ".2f") -> str:
    """Return a median, with the least and the greatest value behind it."""
    return f"**{statistics.median(values):{form}}** ({min(values):{form}} to {max(values):{form}})"
