"""The composition root: the one room that knows all the others."""

from __future__ import annotations

from dropsearch.config.schema import Config


def run(config: Config) -> int:
    """Do what `task` says and return the exit status."""
    if config.task == "retrain":
        from dropsearch.app.retrain import retrain

        return retrain(config)
    from dropsearch.app.run import search

    return search(config)
