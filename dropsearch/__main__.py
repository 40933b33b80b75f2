"""Entry point of `python -m dropsearch` and of the command `dropsearch`."""

from __future__ import annotations

import gc
import signal
import sys

from dropsearch import __version__
from dropsearch.core.environment import TolerantStream, prepare_environment
from dropsearch.core.errors import BAD_INPUT, FAILED, STOPPED, MissingExtraError, require
from dropsearch.core.printable import tell


def main() -> None:
    """Print the version, or run the command line."""
    prepare_environment()
    status: str | int | None
    try:
        _run()
    except KeyboardInterrupt:
        status = STOPPED
    except SystemExit as ended:
        status = ended.code
    else:
        status = 0
    if status == STOPPED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the shutdown
    status = _with_output_failure(status)
    gc.freeze()  # Python would otherwise search all objects of torch and MLflow for cycles, which takes seconds
    sys.exit(status)


def _run() -> None:
    if "--version" in sys.argv[1:]:
        print(f"dropsearch {__version__}")
        return
    try:
        require("the command line", "search", "report", "data")
    except MissingExtraError as error:
        tell(f"dropsearch: {error}")
        sys.exit(BAD_INPUT)
    from dropsearch import cli  # imports Hydra

    cli.main()


def _with_output_failure(status: str | int | None) -> str | int | None:
    """Return the exit status, or 1 with a message on stderr if the answer could not be written to stdout."""
    sys.stdout.flush()
    out = sys.stdout
    if not isinstance(out, TolerantStream) or out.failure is None or out.reader_ended or status:
        return status
    tell(
        f"dropsearch: standard output could not be written ({out.failure.strerror}): the run is complete, its report "
        "is in output_dir"
    )
    return FAILED


if __name__ == "__main__":
    main()
