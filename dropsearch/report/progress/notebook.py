"""Progress as a notebook display that is updated in place."""

from __future__ import annotations

import sys
from typing import Any

from dropsearch.report.progress.page import body
from dropsearch.report.progress.progress import Snapshot

STYLE = (
    "<style>.dropsearch .wide { overflow-x: auto } .dropsearch .left { text-align: left }"
    ".dropsearch .bar { height: .6rem; background: #ccc; margin: .5rem 0 } .dropsearch .bar span"
    " { display: block; height: 100%; background: #005fa3 } .dropsearch svg { max-width: 40rem; width: 100% }"
    ".dropsearch svg text { fill: currentColor; font-size: 11px }"
    ".dropsearch .axis { stroke: currentColor; fill: none }"
    ".dropsearch .swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em;"
    " background: currentColor } .dropsearch .charts { display: grid;"
    " grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)) }</style>"
)


def in_notebook() -> bool:
    """Return whether this is a notebook kernel, which displays HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookDisplay:
    """A display that is updated every two seconds."""

    every = 2.0

    def __init__(self) -> None:
        self._handle: Any = None

    def begin(self, now: Snapshot) -> None:
        """Show the start of a stage."""
        self.draw(now)

    def draw(self, now: Snapshot) -> None:
        """Show the progress."""
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        shown = HTML(f'{STYLE}<div class="dropsearch">{body(now)}</div>')
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def note(self, line: str) -> None:
        """Print a line below the display."""
        print(line)

    def close(self, now: Snapshot) -> None:
        """Show how the run ended."""
        if self._handle is not None:
            self.draw(now)
