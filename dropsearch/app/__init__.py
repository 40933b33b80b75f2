"""The composition root: the one room that knows all the others."""

from __future__ import annotations

from dropsearch.config.schema import Config


# No module of this package may bear its name: once imported, it would stand in the function's place.
def run(config: Config) -> int:
    """Do what `task` says and return the exit status.

    Raises:
        InputError: Something that the user gave cannot be used; nothing was written then.
        RunError: The training failed.
    """
    from dropsearch.app.surroundings import check_surroundings
    from dropsearch.app.warned import each_warning_once

    check_surroundings(config)
    with each_warning_once():
        return _task(config)


def _task(config: Config) -> int:
    if config.task == "retrain":
        from dropsearch.app.retrain import retrain

        return retrain(config)
    if config.task == "plan":
        from dropsearch.app.planning import show_plan

        return show_plan(config)
    if config.task == "evidence":
        from dropsearch.app.earlier import measure_earlier

        return measure_earlier(config)
    if config.task == "sites":
        from dropsearch.app.inventory import show_sites

        return show_sites(config)
    from dropsearch.app.invocation import search

    return search(config)
