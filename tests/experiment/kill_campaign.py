"""kill -9 at random moments of running studies, and what must hold after each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.experiment import study_audit
from tests.experiment.forked_runs import TINY, Job, RunForker
from tests.experiment.one_figure import ONE_FIGURE

KILLED = -9
ARMS = ["none", "dropout"]
TOP_K, SEEDS = 1, 2


@dataclass
class Campaign:
    """Runs studies, kills them, continues them, and audits each when it has come to its end.

    A study has few trials and grows by two more each time that it has come to its end. The moments of the kills
    are drawn from a seed: some by the clock, some by counting what is written.
    """

    run_forker: RunForker
    folder: Path
    storage: str = ""
    """The storage of a study, with FOLDER in the place of its folder; the default journal where it is empty."""
    seed: int = 0
    overrides: tuple[str, ...] = ("engine=sequential",)
    repeats: int = 1
    """How often each arm's search is done."""
    kills_per_study: int = 10
    span: float = 1.6
    """About as many seconds as a run takes."""
    say: Callable[[str], None] = lambda _: None
    kills: int = 0
    endings: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    """In which phase of a run the kills came."""
    history: list[str] = field(default_factory=list)

    def run(self, kills: int) -> None:
        """Kill that many times."""
        draw = random.Random(self.seed)
        number = 0
        while self.kills < kills:
            number += 1
            self._study(self.folder / f"study{number}", draw, min(kills, self.kills + self.kills_per_study))

    def _study(self, folder: Path, draw: random.Random, until: int) -> None:
        folder.mkdir(parents=True)
        storage = self.storage.replace("FOLDER", str(folder)) or str(folder / "study.journal")
        n_trials, first = 3, True
        while self.kills < until:
            job = self._job(folder, storage, n_trials, **_moment(draw, self.span, first))
            before = study_audit.ended(storage)
            (status,) = self.run_forker.run(job)
            self._note(f"{folder.name}: {n_trials} trials, {job.kill_after=}, {job.kill_at_write=}: {status}")
            if status == KILLED:
                self.kills += 1
                self.phases[_phase(Path(job.log).read_text())] += 1
                first = False
            elif status != 0:
                raise AssertionError(f"exit status {status}\n{Path(job.log).read_text()}")
            study_audit.check_nothing_changed(before, study_audit.ended(storage))
            study_audit.check_results(folder / "results.json")
            if status == 0:
                self._audit(folder, storage, n_trials)
                n_trials += 2
        self._finish(folder, storage, n_trials)

    def _finish(self, folder: Path, storage: str, n_trials: int) -> None:
        before = study_audit.ended(storage)
        job = self._job(folder, storage, n_trials)
        assert self.run_forker.run(job) == [0], Path(job.log).read_text()
        study_audit.check_nothing_changed(before, study_audit.ended(storage))
        self._audit(folder, storage, n_trials)

    def _audit(self, folder: Path, storage: str, n_trials: int) -> None:
        study_audit.check_everything(folder, storage, ARMS, n_trials, TOP_K, SEEDS, self.repeats)
        self.endings += 1

    def _job(
        self,
        folder: Path,
        storage: str,
        n_trials: int,
        kill_after: float | None = None,
        kill_at_write: int | None = None,
    ) -> Job:
        overrides = (
            f"output_dir={folder}",
            f"study.storage={storage}",
            f"arms=[{','.join(ARMS)}]",
            f"study.n_trials={n_trials}",
            f"study.repeats={self.repeats}",
            f"confirm.top_k={TOP_K}",
            f"confirm.seeds={SEEDS}",
            *TINY,
            *self.overrides,
        )
        return Job(overrides, str(folder / "log"), kill_after, kill_at_write, where=str(folder), setup=ONE_FIGURE)

    def _note(self, line: str) -> None:
        self.history.append(line)
        self.say(line)


def _phase(log: str) -> str:
    return (
        "repeat"
        if "[repeat 2]" in log
        else "confirm"
        if "[confirm]" in log
        else "search"
        if "[search]" in log
        else "start"
    )


def _moment(draw: random.Random, span: float, first: bool) -> dict[str, Any]:
    """Draw when to kill: by the clock or by writes; a study's first run takes longer, for it makes a database."""
    if draw.random() < 0.5:
        return {"kill_after": draw.uniform(0.1, span + 2 * first)}
    return {"kill_at_write": int(10 ** draw.uniform(0, 2.8))}
