"""The command line: `python -m dropsearch [KEY=VALUE ...]`."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import hydra
from omegaconf import DictConfig

from dropsearch.config.compose import register_schemas, typed
from dropsearch.config.messages import ConfigurationErrors, conf_folder, one_line
from dropsearch.config.options import check_options, option_errors
from dropsearch.config.params import with_params
from dropsearch.config.user_targets import with_user_targets
from dropsearch.core.errors import BAD_INPUT, FAILED, STOPPED, InputError, RunError
from dropsearch.core.printable import one_line as printable_line


def _run(raw: DictConfig) -> int:
    try:
        config = typed(raw)
        # torch, lightning and mlflow take seconds to import: not for --help, nor for a misspelt key.
        from dropsearch.experiment.tasks import run

        return run(config)
    # Told here and not in `main`: Hydra adds lines of its own to an exception that leaves a job.
    except InputError as error:
        return _say(str(error), BAD_INPUT)
    except RunError as error:
        return _say(str(error), FAILED)


def main() -> None:
    """Run the program and exit: 0 done, 1 training failed, 2 bad input, 130 interrupted."""
    # So that Hydra raises its errors instead of printing them; they are told in one line below.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    register_schemas()
    statuses: list[int] = []
    working = False

    @hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
    def job(raw: DictConfig) -> int:
        nonlocal working
        working = True
        reading.close()
        sys.argv = given  # what the user typed is what is shown
        # Of several jobs (-m) none begins after the user has stopped one.
        if STOPPED not in statuses:
            statuses.append(_run(raw))
        return statuses[-1]

    given, reading = sys.argv, ExitStack()
    try:
        check_options(given[1:])
        sys.argv = with_params(with_user_targets(given))
        with reading:
            reading.enter_context(option_errors())
            job()
    except InputError as error:
        sys.exit(_say(str(error), BAD_INPUT))
    except ConfigurationErrors as error:
        if working:  # what escapes from a job is a defect: its traceback is wanted
            raise
        sys.exit(_say(one_line(error), BAD_INPUT))
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    sys.exit(max(statuses, default=0))


def _say(message: str, status: int) -> int:
    print(f"dropsearch: {printable_line(message)}", file=sys.stderr)
    return status
