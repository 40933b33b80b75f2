"""MLflow's SQLite file is made whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropsearch.tracking.mlflow.address import make_database, resolve
from tests.experiment.forked_runs import Job, RunForker


def in_other_processes(run_forker: RunForker, folder: Path, program: str, count: int = 1) -> list[int]:
    logs = [folder.with_name(f"{folder.name}.{number}.log") for number in range(count)]
    return run_forker.run(*(Job((), str(log), python=("-c", program, str(folder))) for log in logs))


def test_a_process_that_is_killed_between_two_tables_leaves_no_half_made_database(
    run_forker: RunForker, tmp_path: Path
):
    program = (
        "import os, sys; from pathlib import Path; from dropsearch.tracking.mlflow import address; "
        "address._make_tables = lambda temporary, _: (temporary.write_bytes(b'half'), os._exit(9)); "
        "address.make_database(address.resolve(None, None, Path(sys.argv[1])))"
    )
    assert in_other_processes(run_forker, tmp_path, program) == [9]
    (temporary,) = tmp_path.iterdir()
    assert temporary.name.startswith(".mlflow.db.")
    make_database(resolve(None, None, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.mark.slow
def test_processes_that_make_it_at_the_same_time_all_find_it_whole(run_forker: RunForker, tmp_path: Path):
    program = (
        "import sys; from pathlib import Path; from dropsearch.tracking import make_tracker; "
        "from tests.mlflow_tables import make_tables; make_tables(); "
        "tracker = make_tracker('mlflow', uri=None, output_dir=Path(sys.argv[1])); "
        "tracker.connect('e'); tracker.close(); assert not tracker.problems"
    )
    assert in_other_processes(run_forker, tmp_path, program, count=2) == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_an_existing_database_is_unchanged(output_dir: Path):
    before = (output_dir / "mlflow.db").stat()
    make_database(resolve(None, None, output_dir))
    assert (output_dir / "mlflow.db").stat() == before
