"""Small runs of the program for the tests of crashes."""

from __future__ import annotations

from pathlib import Path

from tests.experiment.forked_runs import TINY, Job, RunForker
from tests.experiment.kill_campaign import ARMS, SEEDS, TOP_K
from tests.experiment.one_figure import ONE_FIGURE


def job(folder: Path, *overrides: str, trials: int = 3, setup: str = "", **kill: object) -> Job:
    """Return a small run, with one figure and without evidence; overrides take the place of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    given = [f"output_dir={folder}", f"study.n_trials={trials}", f"arms=[{','.join(ARMS)}]"]
    given += [f"confirm.top_k={TOP_K}", f"confirm.seeds={SEEDS}", "evidence=off", *TINY]
    taken = {override.split("=")[0] for override in overrides}
    kept = [line for line in given if line.split("=")[0] not in taken]
    engine = [] if "engine" in taken else ["engine=sequential"]
    log = folder.with_name(f"{folder.name}.log")
    return Job((*kept, *engine, *overrides), str(log), setup=ONE_FIGURE + setup, **kill)  # type: ignore[arg-type]


def run(run_forker: RunForker, *jobs: Job) -> list[str]:
    """Run jobs side by side; all must end well. Return what they printed."""
    statuses = run_forker.run(*jobs)
    printed = [Path(job.log).read_text() for job in jobs]
    assert statuses == [0] * len(jobs), "\n".join(printed)
    return printed


def refused(run_forker: RunForker, given: Job, status: int) -> str:
    """Run a job that must end with this status and one line that says why; return the line."""
    assert run_forker.run(given) == [status], Path(given.log).read_text()
    printed = Path(given.log).read_text()
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.startswith("dropsearch: ")]
    assert len(lines) == 1, printed
    assert printed.rstrip().endswith(lines[0])
    return lines[0]
