"""Runs of the program in this process: as a user types them, or as a composed configuration."""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from dropsearch.config.compose import register_schemas, typed
from dropsearch.config.messages import conf_folder
from dropsearch.config.schema import Config
from dropsearch.core.records import Summary, TrialResult
from dropsearch.study.search_space import Space
from dropsearch.study.store import StudyStore
from tests.experiment.one_figure import PLACE, write_first_figure
from tests.little_example import little_example

LIGHT = (
    "model.hidden=[16]",
    "data.train_size=90",
    "data.batch_size=30",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "study.n_trials=3",
    "confirm.top_k=2",
    "confirm.seeds=2",
    "engine=sequential",
    "tracking=none",
    "evidence=off",
)
"""A study of all four arms in a few seconds."""
ONE_TRIAL = (
    "arms=[none]",
    "study.n_trials=1",
    "trainer.max_epochs=1",
    "confirm.top_k=1",
    "confirm.seeds=1",
    "engine=sequential",
    "evidence=off",
    "tracking=none",
)
"""One arm, one trial and one retraining of one epoch."""
MEASURED = (*LIGHT, "evidence=on", "evidence.severities=2", "evidence.monte_carlo=[1,2]")
"""The same study, with what dropout did in its winners."""


@pytest.fixture(autouse=True, scope="session")
def _tables(mlflow_tables: None) -> None: ...


@pytest.fixture(autouse=True, scope="package")
def one_figure() -> Iterator[None]:
    """Write one figure in each run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PLACE, write_first_figure)
        yield


def composed(*overrides: str) -> Config:
    register_schemas()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return typed(compose("config", list(overrides)))


@contextmanager
def trials_told() -> Iterator[list[TrialResult]]:
    """Yield the trials that are told to studies while the context lasts, in the order in which they end."""
    trained: list[TrialResult] = []
    tell = StudyStore.tell

    def told(self: StudyStore, results: Sequence[TrialResult]) -> None:
        trained.extend(results)
        tell(self, results)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudyStore, "tell", told)
        yield trained


@dataclass(frozen=True)
class Done:
    """A run that came to its end, and the trials that it trained; a module of tests adds what it looks at."""

    config: Config
    summary: Summary
    trained: tuple[TrialResult, ...]

    @classmethod
    def of(cls, config: Config) -> Self:
        from dropsearch.experiment.tasks.search import searched

        with trials_told() as trained:
            summary = searched(config)
        return cls(config, summary, tuple(trained))

    @property
    def out(self) -> Path:
        return Path(self.config.output_dir)


@contextmanager
def every_first_point_drops() -> Iterator[None]:
    """Begin each search with rates above 0 at all sites, so that whoever wins drops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dropsearch.study.search_space.Space.first_points", property(_dropping))
        yield


def _dropping(space: Space) -> tuple[dict[str, float], ...]:
    rates = {name: 0.2 + 0.1 * i for i, name in enumerate(space.distributions) if name.startswith("rate.")}
    return tuple({"lr": 1e-2, "weight_decay": 1e-4, **rates} for _ in range(3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the example of a module of one's own in it."""
    (tmp_path / "user_module.py").write_text(little_example())
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Ended:
    """How a run ended, what it said, and what it left in its working folder."""

    status: int
    out: str
    err: str
    left: list[str]


Cli = Callable[..., Ended]


def in_this_process(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the command line in a folder; return the status and what it printed."""
    from dropsearch.cli import main

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(sys, "argv", ["dropsearch", *arguments])
        GlobalHydra.instance().clear()
        with pytest.raises(SystemExit) as ended:
            main()
    GlobalHydra.instance().clear()
    return int(ended.value.code or 0), printed.getvalue()


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs the command line in this process, in a folder of its own."""
    from dropsearch.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # On a busy machine the preparation would say after ten seconds that it goes on.
    monkeypatch.setattr("dropsearch.core.preparation.LOG_TICK", 1e9)

    def run(*arguments: str) -> Ended:
        before = set(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["dropsearch", *arguments])
        GlobalHydra.instance().clear()
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            GlobalHydra.instance().clear()
        captured = capfd.readouterr()
        new = [path.relative_to(tmp_path) for path in set(tmp_path.rglob("*")) - before]
        # Python keeps what it compiled of a module in the folder; that is none of ours.
        left = sorted(str(path) for path in new if "__pycache__" not in path.parts)
        return Ended(int(ended.value.code or 0), captured.out, captured.err, left)

    return run


@pytest.fixture
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an MLflow database without runs, in a folder that a server may fill."""
    from dropsearch.tracking.mlflow.address import make_database, resolve

    folder = tmp_path_factory.mktemp("server")
    make_database(resolve(None, None, folder))
    return folder / "mlflow.db"


def shell_lines(text: str) -> list[str]:
    """Return the commands of a shell in a text, each on one line."""
    lines = text.replace("\\\n", "").splitlines()
    return [shlex.join(shlex.split(line)) for line in lines if re.match(r"\s*(\S*python\S*) -[cm] ", line)]
