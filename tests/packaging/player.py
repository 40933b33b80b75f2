"""A program that plays the pages: it runs their steps in one process and tells what they printed.

It is handed to another Python as text, and knows nothing of this checkout. Standard input is JSON: a list of steps,
each with a folder, a kind (python, command or script), its text or words, and the filters of warnings that it runs
with (action and message). Standard output is JSON: what each step printed, and what went wrong, empty where all was
well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import runpy
import sys
import traceback
import warnings
from typing import Any

NAMES: dict[str, dict[str, Any]] = {}
"""What the code of each folder has defined so far."""


def run(step: dict[str, Any]) -> None:
    """Run a step in its folder."""
    for action, message in step["filters"]:
        warnings.filterwarnings(action, message)
    os.chdir(step["folder"])
    if step["kind"] == "script":
        runpy.run_path(step["text"], run_name="__main__")
    elif step["kind"] == "python":
        exec(step["text"], NAMES.setdefault(step["folder"], {"__name__": "notebook"}))
    else:
        command(step["words"])


def command(words: list[str]) -> None:
    """Run ``python -m dropsearch`` with these words, without a process of its own."""
    from hydra.core.global_hydra import GlobalHydra

    from dropsearch.cli import main

    GlobalHydra.instance().clear()
    sys.argv = ["dropsearch", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"status {ended.code}") from None


def play(step: dict[str, Any]) -> dict[str, str]:
    """Run a step; return what it printed, and what went wrong."""
    problem = ""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            with warnings.catch_warnings():
                run(step)
        except Exception:
            problem = traceback.format_exc()
    return {"out": out.getvalue(), "problem": problem and f"{err.getvalue()}\n{problem}"}


def draw_one_figure() -> None:
    """Let each run write one figure, drawn once for all: to draw all twelve takes as long as to train."""
    from dropsearch.experiment import artifacts
    from dropsearch.report.figures import registry

    write_figures, drawings, drawn = artifacts.write_figures, registry.drawings, []

    def write_one(summary: Any, folder: Any, *more: Any) -> list[Any]:
        if drawn:
            ((figure, image),) = drawn
            path = folder / figure.path.name
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
            return [dataclasses.replace(figure, path=path)]
        registry.drawings = lambda: itertools.islice(drawings(), 1)
        try:
            written = write_figures(summary, folder, *more)
        finally:
            registry.drawings = drawings
        drawn.extend((figure, figure.path.read_bytes()) for figure in written)
        return written

    artifacts.write_figures = write_one


def play_all() -> None:
    """Play what standard input says."""
    draw_one_figure()
    told = [play(step) for step in json.load(sys.stdin)]
    import dropsearch

    print(json.dumps({"told": told, "package": dropsearch.__file__}))


play_all()
