"""Faults at random moments of running studies, over every kind of storage, and what must hold after each."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.experiment import study_audit
from tests.experiment.forked_runs import TINY, Job, RunForker
from tests.experiment.kill_campaign import ARMS, KILLED, SEEDS, TOP_K
from tests.experiment.one_figure import ONE_FIGURE
from tests.experiment.postgres_server import PostgresServer

SHARES = {
    "journal": {"killed": 5, "killed at a write": 5, "torn": 4, "full": 5, "worker": 3},
    "sqlite": {"killed": 4, "killed at a write": 4, "dropped": 6, "locked": 4, "worker": 3},
    "postgresql": {"killed": 4, "dropped": 5, "connections ended": 5, "restarted": 2, "worker": 3},
}
"""How often each fault is drawn, by storage."""
INSIDE = ("dropped", "full", "worker")
"""The faults that happen inside a run."""
SPAN = 4.0
"""About as many seconds as a run takes."""


@dataclass
class FaultCampaign:
    """Runs studies, lets faults happen in them, continues them, and audits each when it has come to its end.

    A study has few trials and grows by two more each time that it has come to its end.
    """

    run_forker: RunForker
    folder: Path
    storage: str
    """journal, sqlite or postgresql."""
    server: PostgresServer | None = None
    seed: int = 0
    faults_per_study: int = 12
    say: Callable[[str], None] = lambda _: None
    notes: Path | None = None
    """Where studies are noted that came to their end: another campaign with these notes goes on behind them."""
    faults: Counter[str] = field(default_factory=Counter)
    """How many faults of each kind happened."""
    endings: int = 0

    def run(self, faults: int) -> None:
        """Let that many faults happen, less those of the studies that are noted."""
        number = 0
        while self.faults.total() < faults:
            number += 1
            name = f"{self.storage}-{self.seed}-{number}"
            known = self._noted().get(name)
            if known:
                self.faults.update(known["faults"])
                self.endings += known["endings"]
                continue
            before, endings = self.faults.copy(), self.endings
            self._study(number, random.Random(name), min(faults, self.faults.total() + self.faults_per_study))
            self._note(name, {"faults": self.faults - before, "endings": self.endings - endings})

    def _noted(self) -> dict[str, Any]:
        """Return the studies that came to their end, by name."""
        return json.loads(self.notes.read_text()) if self.notes and self.notes.exists() else {}

    def _note(self, name: str, found: dict[str, Any]) -> None:
        if self.notes:
            self.notes.write_text(json.dumps({**self._noted(), name: found}, indent=1))

    def _study(self, number: int, draw: random.Random, until: int) -> None:
        folder = self.folder / f"{self.storage}{number}"
        folder.mkdir(parents=True)
        address, n_trials = self._address(folder, number), 3
        while self.faults.total() < until:
            kind = draw.choices([*SHARES[self.storage]], [*SHARES[self.storage].values()])[0]
            status = self._attacked(folder, address, n_trials, kind, draw)
            if status == 0:
                self._audit(folder, address, n_trials)
                n_trials += 2
        status = self._run(self._job(folder, address, n_trials, setup=ONE_FIGURE), address)
        assert status == 0, (folder / "log").read_text()
        self._audit(folder, address, n_trials)

    def _address(self, folder: Path, number: int) -> str:
        if self.storage == "journal":
            return str(folder / "study.journal")
        if self.storage == "sqlite":
            return f"sqlite:///{folder}/study.db"
        assert self.server
        return self.server.database(f"attack{number}")

    def _attacked(self, folder: Path, address: str, n_trials: int, kind: str, draw: random.Random) -> int:
        note = folder / "faults"
        note.write_bytes(b"")
        more: dict[str, Any] = {}
        if kind in ("killed", "torn"):
            more["kill_after"] = draw.uniform(0.3, 1.3 * SPAN)
        elif kind == "killed at a write":
            more["kill_at_write"] = int(10 ** draw.uniform(0, 2.8))
        elif kind in INSIDE:
            at = draw.randint(1, {"dropped": 400, "full": 12, "worker": 6}[kind])
            times = 4 if kind == "dropped" else 1
            call = f"inject({kind!r}, {str(note)!r}, {at}, every={draw.randint(1, 60)}, times={times})"
            more["setup"] = f"from tests.experiment.injected_faults import inject; {call}"
        more["setup"] = ONE_FIGURE + more.get("setup", "")
        processes = ("engine.processes=2",) if kind == "worker" else ()
        job = self._job(folder, address, n_trials, *processes, **more)
        outside = threading.Thread(target=self._from_outside, args=(kind, address, draw.uniform(0.5, SPAN)))
        status = self._run(job, address, outside)
        if status == KILLED and kind == "torn":
            _tear(Path(address), draw)
        self.faults[kind] += len(note.read_bytes()) + (status == KILLED)
        expected = {0, 1} if kind == "full" else {0} if kind in INSIDE else {0, KILLED}
        self.say(f"{folder.name}: {n_trials} trials, {kind}: status {status}, {self.faults.total()} faults")
        assert status in expected, f"{kind}: exit status {status}\n{Path(job.log).read_text()}"
        return status

    def _from_outside(self, kind: str, address: str, moment: float) -> None:
        """Let a fault happen that comes from outside of the run."""
        if kind not in ("locked", "connections ended", "restarted"):
            return
        time.sleep(moment)
        if kind == "locked":
            self.faults[kind] += _lock(Path(address.removeprefix("sqlite:///")), seconds=1.5)
            return
        assert self.server
        if kind == "restarted":
            self.server.crash()
            time.sleep(2.0)
            self.server.start()
            self.faults[kind] += 1
            return
        for _ in range(4):
            self.faults[kind] += bool(self.server.drop_connections(address.rpartition("/")[2]))
            time.sleep(0.3)

    def _run(self, job: Job, address: str, outside: threading.Thread | None = None) -> int:
        """Run a job while a fault happens; audit the study before and after, when no fault can hit the audit itself."""
        before = study_audit.ended(address)
        if outside:
            outside.start()
        (status,) = self.run_forker.run(job)
        if outside:
            outside.join()
        study_audit.check_nothing_changed(before, study_audit.ended(address))
        log = Path(job.log).read_text()
        assert status == KILLED or "Traceback" not in log, log
        return status

    def _job(self, folder: Path, address: str, n_trials: int, *overrides: str, **more: Any) -> Job:
        words = (
            f"output_dir={folder}",
            f"study.storage={address}",
            f"arms=[{','.join(ARMS)}]",
            f"study.n_trials={n_trials}",
            f"confirm.top_k={TOP_K}",
            f"confirm.seeds={SEEDS}",
            *TINY,
            "engine=sequential",
            "evidence=off",
            *(overrides or ("engine.processes=1",)),
        )
        return Job(words, str(folder / "log"), where=str(folder), **more)

    def _audit(self, folder: Path, address: str, n_trials: int) -> None:
        study_audit.check_everything(folder, address, ARMS, n_trials, TOP_K, SEEDS)
        self.endings += 1


def _lock(database: Path, seconds: float) -> bool:
    """Hold the write lock of an SQLite file, as another writer would."""
    if not database.exists():
        return False
    with suppress(sqlite3.OperationalError):  # the run is writing all the time
        other = sqlite3.connect(database, timeout=1.0, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            other.execute("ROLLBACK")
            return True
        finally:
            other.close()
    return False


def _tear(journal: Path, draw: random.Random) -> None:
    """Leave half a line, or a block of NULs, at the end of a journal, as a crash of the machine does."""
    if journal.exists():
        with journal.open("ab") as file:
            file.write(draw.choice([b'{"op_code": 8, "trial_id"', b"\0" * 512]))
