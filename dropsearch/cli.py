"""The command line: `python -m dropsearch [KEY=VALUE ...]`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import hydra
from omegaconf import DictConfig

from dropsearch.config.command_line import check_options, option_errors, with_user_targets
from dropsearch.config.compose import register_schemas, typed
from dropsearch.config.messages import ConfigurationErrors, conf_folder, one_line
from dropsearch.config.params import with_params
from dropsearch.core.environment import one_run
from dropsearch.core.errors import BAD_INPUT, FAILED, STOPPED, InputError, RunError
from dropsearch.core.preparation import preparing
from dropsearch.core.printable import one_line as printable_line
from dropsearch.core.printable import tell
from dropsearch.core.processes import Stopwatch


def _run(raw: DictConfig, watch: Stopwatch) -> int:
    try:
        with one_run():
            with preparing("reading the configuration"):  # imports the classes that it names
                config = typed(raw)
            # Imported here, so that --help and misspelt keys do not wait for torch, lightning and mlflow.
            from dropsearch.experiment.tasks import run

            return run(config, watch)
    # Printed here and not in `main`, because Hydra adds lines to an exception that leaves a job.
    except InputError as error:
        return _print_error(str(error), BAD_INPUT)
    except RunError as error:
        return _print_error(str(error), FAILED)


def main() -> None:
    """Run the program and exit: 0 done, 1 training failed, 2 bad input, 130 interrupted."""
    # Makes Hydra raise its errors instead of printing them; they become one line below.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    register_schemas()
    statuses: list[int] = []
    working, watch = False, Stopwatch()

    @hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    def job(raw: DictConfig) -> int:
        nonlocal working
        working = True
        reading.close()
        sys.argv = given  # messages show what the user typed
        # After Ctrl-C, no further job of a sweep (-m) starts.
        if STOPPED not in statuses:
            statuses.append(_run(raw, Stopwatch() if statuses else watch))
        return statuses[-1]

    given, reading = sys.argv, ExitStack()
    try:
        check_options(given[1:])
        sys.argv = with_params(with_user_targets(given))
        with reading:
            reading.enter_context(option_errors())
            job()
    except InputError as error:
        sys.exit(_print_error(str(error), BAD_INPUT))
    except ConfigurationErrors as error:
        if working:  # an exception that leaves a job is a bug, so show its traceback
            raise
        sys.exit(_print_error(one_line(error), BAD_INPUT))
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    sys.exit(max(statuses, default=0))


def _print_error(message: str, status: int) -> int:
    tell(f"dropsearch: {printable_line(message)}")
    return status
