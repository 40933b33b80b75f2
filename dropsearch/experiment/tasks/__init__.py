"""The tasks of `task=`, one file each."""

from __future__ import annotations

from importlib import import_module

from dropsearch.config.schema import Config
from dropsearch.core.preparation import preparing
from dropsearch.core.processes import Stopwatch

TASKS = {
    "search": ("dropsearch.experiment.tasks.search", "search"),
    "sites": ("dropsearch.experiment.tasks.sites", "show_sites"),
    "plan": ("dropsearch.experiment.tasks.plan", "show_plan"),
    "work": ("dropsearch.experiment.tasks.work", "work"),
    "retrain": ("dropsearch.experiment.tasks.retrain", "retrain"),
    "evidence": ("dropsearch.experiment.tasks.evidence", "measure_finished_run"),
}
"""Module and function of each task by name; a function maps the configuration to the exit status, and
that of a search also takes a stopwatch of the program."""


# No module of this package may have the function's name, since an imported module would replace it.
def run(config: Config, watch: Stopwatch | None = None) -> int:
    """Run the task and return the exit status; `watch` counts the seconds since the program began, if that was earlier.

    Raises:
        InputError: Invalid input; nothing is written then.
        RunError: The training failed.
    """
    watch = watch or Stopwatch()
    from dropsearch.core.environment import each_warning_once
    from dropsearch.experiment.preflight import check_prerequisites

    check_prerequisites(config)
    with each_warning_once():
        with preparing("loading PyTorch and Lightning"):
            module, function = TASKS[config.task]
            task = getattr(import_module(module), function)
        # Imports count in the duration of a search, and in its budget.
        status: int = task(config, watch) if config.task == "search" else task(config)
        return status
