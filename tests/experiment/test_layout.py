"""Processes and threads: as configured, or the faster of two measured ways."""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from dropsearch.config.compose import compose_overrides
from dropsearch.core.records import TrialSpec
from dropsearch.experiment import engines, layout
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.layout import Way, described_layout, with_layout
from dropsearch.training.planning.plan import Plan

SEQUENTIAL, VECTORIZED = Plan("sequential", 1, "asked"), Plan("vectorized", 4, "asked")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ExperimentContext:
    folder = tmp_path_factory.mktemp("layout")
    words = ["model.hidden=[8,8]", "data.train_size=256", "tracking=none", "study.n_trials=500", "arms=[dropout]"]
    return dataclasses.replace(build_context(compose_overrides([*words, f"output_dir={folder}"])), processes=4)


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(layout, "cores", lambda: 4)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def asking(context: ExperimentContext, **engine: str) -> ExperimentContext:
    """Return a context whose configuration has other keys of `engine`."""
    config = dataclasses.replace(context.config, engine=dataclasses.replace(context.config.engine, **engine))
    return dataclasses.replace(context, config=config)


def measuring(monkeypatch: pytest.MonkeyPatch, rates: dict[Way, float]) -> list[Way]:
    """Let ways have given rates; return the list of those that are measured."""
    measured: list[Way] = []

    def rate(make: Any, specs: Any, way: Way) -> float:
        measured.append(way)
        return rates[way]

    monkeypatch.setattr(layout, "_rate", rate)
    return measured


@pytest.mark.parametrize(
    ("together", "chosen"), [(90.0, Way(4, 1)), (105.0, Way(4, 1)), (120.0, Way(1, 4)), (0.0, Way(4, 1))]
)
def test_the_faster_way_is_chosen(
    built: ExperimentContext, monkeypatch: pytest.MonkeyPatch, together: float, chosen: Way
) -> None:
    measuring(monkeypatch, {Way(4, 1): 100.0, Way(1, 4): together})
    context, plan = with_layout(built, SEQUENTIAL)
    assert (context.processes, context.threads_each) == (chosen.processes, chosen.each)
    assert torch.get_num_threads() == chosen.each
    assert plan.speed == (together if chosen == Way(1, 4) else 25.0), "of one process"
    others = [] if chosen == Way(1, 4) else [f"{Way(1, 4)}: {together:.0f}"] * bool(together)
    others += [f"{Way(4, 1)}: 100"] * (chosen == Way(1, 4))
    speed = together if chosen == Way(1, 4) else 100
    assert (
        described_layout(context, plan) == f"{chosen} ({'; '.join([f'{speed:.0f} trial steps per second', *others])})"
    )


def test_one_process_compares_its_threads(built: ExperimentContext, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(4)
    measured = measuring(monkeypatch, {Way(1, 4): 50.0, Way(1, 1): 80.0})
    context, _ = with_layout(dataclasses.replace(built, processes=1), SEQUENTIAL)
    assert measured == [Way(1, 4), Way(1, 1)]
    assert (context.processes, context.threads_each) == (1, 1)


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ({"threads": "2"}, (2, 2)),
        ({"threads": "3"}, (1, 3)),
        ({"threads": "1"}, (4, 1)),
        ({"threads": "2", "processes": "4"}, (4, 2)),
        ({"processes": "4"}, (4, 1)),
    ],
    ids=str,
)
def test_what_is_asked_for_is_not_measured(
    built: ExperimentContext, monkeypatch: pytest.MonkeyPatch, engine: dict[str, str], expected: tuple[int, int]
) -> None:
    assert measuring(monkeypatch, {}) == []
    context, plan = with_layout(asking(built, **engine), SEQUENTIAL)
    assert (context.processes, context.threads_each) == expected
    assert plan.layouts == {}


def test_nothing_is_measured_where_the_answer_cannot_matter(
    built: ExperimentContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(built.config, study=dataclasses.replace(built.config.study, n_trials=2))
    cases = {
        "few steps": (dataclasses.replace(built, config=few), SEQUENTIAL, 4),
        "a known, short run": (built, dataclasses.replace(VECTORIZED, speed=1e6), 4),
        "one core": (dataclasses.replace(built, processes=1), SEQUENTIAL, 1),
        "a GPU": (dataclasses.replace(built, device=torch.device("cuda")), SEQUENTIAL, 4),
        "spawned processes": (dataclasses.replace(built, threads=("a thread",)), SEQUENTIAL, 4),
    }
    for name, (context, plan, count) in cases.items():
        monkeypatch.setattr(layout, "cores", lambda count=count: count)
        assert measuring(monkeypatch, {}) == []
        assert with_layout(context, plan)[0].processes == context.processes, name
    monkeypatch.setattr(layout, "cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert with_layout(dataclasses.replace(built, processes=1), SEQUENTIAL)[1].layouts == {}, "OMP_NUM_THREADS"


def test_a_run_of_seconds_is_measured_once(built: ExperimentContext, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measuring(monkeypatch, {Way(4, 1): 1e9})
    assert with_layout(built, SEQUENTIAL)[0].processes == 4
    assert measured == [Way(4, 1)]


@pytest.mark.parametrize("plan", [SEQUENTIAL, VECTORIZED], ids=lambda plan: plan.engine)
def test_steps_are_timed_in_processes_and_in_this_one(
    built: ExperimentContext, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    monkeypatch.setattr(layout, "SECONDS", 0.02)
    monkeypatch.setattr(layout, "SHORT_RUN", 0.0)
    monkeypatch.setattr(layout, "cores", lambda: 2)
    context, found = with_layout(dataclasses.replace(built, processes=2), plan)
    assert set(found.layouts) == {"2 processes x 1 thread", "1 process x 2 threads"}
    assert all(rate > 0 for rate in found.layouts.values())
    assert multiprocessing.active_children() == []
    assert torch.get_num_threads() == context.threads_each


def test_a_process_that_dies_is_not_chosen(built: ExperimentContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies() -> Any:
        raise SystemExit(3)

    monkeypatch.setattr(layout, "MOST_SECONDS", 0.5)
    assert layout._rate(dies, [], Way(2, 1)) == 0.0


def test_several_processes_with_several_threads_are_spawned(
    built: ExperimentContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(engines, "SpawnedCrew", lambda *args, **kwargs: given.append((args[1], kwargs)))
    monkeypatch.setattr(engines, "CrewEngine", lambda crew, describe: None)
    context, plan = with_layout(asking(built, threads="2"), SEQUENTIAL)
    engines.run_engine(context, plan)
    assert given == [([{}, {}], {"threads": 2})]


def test_callbacks_of_the_user_see_no_measurement(built: ExperimentContext, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measuring(monkeypatch, {Way(4, 1): 100.0, Way(1, 4): 200.0})
    settings = dataclasses.replace(built.settings, trainer=lambda: {"callbacks": [Callback()]})
    with_layout(dataclasses.replace(built, settings=settings), SEQUENTIAL)
    assert measured == []


class Stopped:
    """An engine that takes an interruption for the end of a trial."""

    def run(self, feed: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        assert feed.cancelled()


def test_ctrl_c_stops_a_measurement_and_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.experiment.interruption.STOPPING", b"")
    with pytest.raises(KeyboardInterrupt):
        layout._rate(Stopped, [], Way(1, 1))  # type: ignore[arg-type]


def test_settings_of_torch_are_put_back() -> None:
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    with engines.torch_settings_kept():
        torch.set_num_threads(before[0] + 1)
        engines.use_precision("medium" if before[1] == "highest" else "highest")
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


class Slow:
    """An engine whose step takes half of the time of a measurement, and which asks again when it ends."""

    def run(self, feed: Any) -> None:
        feed.ask(1)
        while not feed.cancelled():
            time.sleep(layout.MOST_SECONDS / 2)
        assert all(feed.cancelled() for _ in range(9))


def test_a_way_with_too_few_steps_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MOST_SECONDS", 0.1)
    spec = TrialSpec("dropout", 0, 3, {}, lr=1e-3, weight_decay=0.0)
    assert layout._rate(Slow, [spec], Way(1, 1)) == 0.0  # type: ignore[arg-type]
