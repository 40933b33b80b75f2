"""The tasks of `task=`, one file each."""

from __future__ import annotations

from importlib import import_module

from dropsearch.config.schema import Config

TASKS = {
    "search": ("dropsearch.experiment.tasks.search", "search"),
    "sites": ("dropsearch.experiment.tasks.sites", "show_sites"),
    "plan": ("dropsearch.experiment.tasks.plan", "show_plan"),
    "work": ("dropsearch.experiment.tasks.work", "work"),
    "retrain": ("dropsearch.experiment.tasks.retrain", "retrain"),
    "evidence": ("dropsearch.experiment.tasks.evidence", "measure_finished_run"),
}
"""Module and function of each task by name; a function maps the configuration to the exit status."""


# No module of this package may have the function's name, since an imported module would replace it.
def run(config: Config) -> int:
    """Run the task and return the exit status.

    Raises:
        InputError: Invalid input; nothing is written then.
        RunError: The training failed.
    """
    from dropsearch.core.environment import each_warning_once
    from dropsearch.experiment.preflight import check_prerequisites

    check_prerequisites(config)
    with each_warning_once():
        module, function = TASKS[config.task]
        status: int = getattr(import_module(module), function)(config)
        return status
