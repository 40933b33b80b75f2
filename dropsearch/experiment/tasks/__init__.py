"""The tasks: what `task=` names, one file each."""

from __future__ import annotations

from importlib import import_module

from dropsearch.config.schema import Config

TASKS = {
    "search": ("dropsearch.experiment.runner", "search"),
    "sites": ("dropsearch.experiment.tasks.sites", "show_sites"),
    "plan": ("dropsearch.experiment.tasks.plan", "show_plan"),
    "work": ("dropsearch.experiment.tasks.work", "work"),
    "retrain": ("dropsearch.experiment.tasks.retrain", "retrain"),
    "evidence": ("dropsearch.experiment.tasks.evidence", "measure_finished_run"),
}
"""By name, the module and the function of each task: it takes the configuration and returns the exit status."""


# No module of this package may bear its name: once imported, it would stand in the function's place.
def run(config: Config) -> int:
    """Do what `task` says and return the exit status.

    Raises:
        InputError: Something that the user gave cannot be used; nothing was written then.
        RunError: The training failed.
    """
    from dropsearch.experiment.preflight import check_prerequisites
    from dropsearch.experiment.warn_once import each_warning_once

    check_prerequisites(config)
    with each_warning_once():
        module, function = TASKS[config.task]
        status: int = getattr(import_module(module), function)(config)
        return status
