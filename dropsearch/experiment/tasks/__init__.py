"""The tasks: what `task=` names, one file each."""

from __future__ import annotations

from dropsearch.config.schema import Config


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
        return _task(config)


def _task(config: Config) -> int:
    if config.task == "retrain":
        from dropsearch.experiment.tasks.retrain import retrain

        return retrain(config)
    if config.task == "plan":
        from dropsearch.experiment.tasks.plan import show_plan

        return show_plan(config)
    if config.task == "evidence":
        from dropsearch.experiment.tasks.evidence import measure_finished_run

        return measure_finished_run(config)
    if config.task == "sites":
        from dropsearch.experiment.tasks.sites import show_sites

        return show_sites(config)
    if config.task == "work":
        from dropsearch.experiment.tasks.work import work

        return work(config)
    from dropsearch.experiment.runner import search

    return search(config)
