"""The program: `python -m dropsearch`, and the command `dropsearch`."""

from __future__ import annotations

import sys

from dropsearch import __version__
from dropsearch.core.errors import BAD_INPUT
from dropsearch.core.extras import MissingExtraError, require


def main() -> None:
    """Print the version, or run the command line."""
    if "--version" in sys.argv[1:]:
        print(f"dropsearch {__version__}")
        return
    try:
        require("the command line", "search", "report", "data")
    except MissingExtraError as error:
        print(f"dropsearch: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    from dropsearch import cli  # imports Hydra

    cli.main()


if __name__ == "__main__":
    main()
