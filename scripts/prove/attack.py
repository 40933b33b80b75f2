"""Prove that faults lose nothing: 200 of them in running studies, over journal, SQLite and PostgreSQL.

    python scripts/prove/attack.py [--faults 200] [--overrides 1000] [--seed 0] [--notes FILE]

The faults: kill -9 by the clock and by counting writes, lines of a journal torn by a crash or a full disk, killed
training processes, dropped connections, a locked database, a database server that crashes and recovers. Each study is
continued by the same command until it has come to its end; then Optuna's and MLflow's own means must find each trial
exactly once, and unchanged since it first ended. No run that was not killed may print a traceback. After that the
configuration is given generated overrides: each must be accepted, or refused in one line. Those that it accepts are
given to the program: each run must come to its end, or be refused in one line that leaves nothing. All servers listen
on 127.0.0.1. With a file of notes, the same command goes on behind the studies that came to their end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.config.generated_overrides import Answers
from tests.experiment.fault_campaign import FaultCampaign
from tests.experiment.forked_runs import RunForker
from tests.experiment.postgres_server import PostgresServer, missing


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--faults", type=int, default=200)
    given.add_argument("--overrides", type=int, default=1000)
    given.add_argument("--seed", type=int, default=0)
    given.add_argument("--notes", type=Path)
    wanted = given.parse_args()
    warnings.simplefilter("ignore")  # MLflow's and Optuna's own, about themselves
    with RunForker() as run_forker, tempfile.TemporaryDirectory(prefix="dropsearch-attack-") as folder:
        if wanted.faults:
            attack_studies(run_forker, Path(folder), wanted)
        if wanted.overrides:
            attack_configuration(run_forker, Path(folder), wanted.overrides, wanted.seed)


def attack_configuration(run_forker: RunForker, folder: Path, overrides: int, seed: int) -> None:
    """Give generated overrides to the configuration, and those that it accepts to the program."""
    answers = Answers(seed)
    answers.collect(overrides)
    refused = answers.run_accepted(run_forker, folder)
    ran, refused = len(answers.accepted) - refused, answers.refused + refused
    print(f"{overrides} overrides: {refused} refused in one line each, {ran} ran to their end")


def attack_studies(run_forker: RunForker, folder: Path, wanted: argparse.Namespace) -> None:
    """Let faults happen in studies, an equal share over each kind of storage, and print what held."""
    storages = ["journal", "sqlite", "postgresql"]
    if absent := missing():
        print(f"PostgreSQL is left out: {absent}")
        storages.remove("postgresql")
    started, happened, endings = time.monotonic(), 0, 0
    with ExitStack() as stack:
        for number, storage in enumerate(storages):
            server = stack.enter_context(PostgresServer()) if storage == "postgresql" else None
            campaign = FaultCampaign(
                *(run_forker, folder, storage, server, wanted.seed),
                say=lambda line: print(line, flush=True),
                notes=wanted.notes,
            )
            campaign.run((wanted.faults - happened) // (len(storages) - number))
            happened, endings = happened + campaign.faults.total(), endings + campaign.endings
            print(f"{storage}: {dict(campaign.faults)}", flush=True)
    print(
        f"{happened} faults (seed {wanted.seed}), {endings} studies came to their end: every trial that had ended is "
        f"there once, unchanged, in Optuna and in MLflow ({time.monotonic() - started:.0f} s)"
    )


if __name__ == "__main__":
    main()
