"""Workers anywhere train for one feed: threads stand for machines that come late, die, or are taken away."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.training.crews import SpawnedCrew
from dropsearch.training.multiprocess import CrewEngine
from dropsearch.training.ray_crew import speeds
from dropsearch.training.worker import Worker
from tests.training.conftest import Queue, make_specs
from tests.training.small_engine import Trains, ends_its_process


class _Member:
    def __init__(self, actor: Worker) -> None:
        self.actor, self.has_arrived = actor, False
        self.messages: list[Any] = []
        self.given: Any = None

    def send(self, answer: Any) -> None:
        self.given = (answer,)

    def recv(self) -> Any:
        if not self.messages:
            (answer,), self.given = self.given, None
            self.messages += self.actor.exchange(answer)
        message = self.messages.pop(0)
        if message[0] == "dying":
            raise EOFError
        if message[0] == "files":
            message[1].parent.mkdir(parents=True, exist_ok=True)
            message[1].write_bytes(message[2])
            return self.recv()
        return message


class Machines:
    """A crew of actors in this process, on as many machines as `room` says at a time."""

    def __init__(self, engine: Any, room: list[int], folder: Path, *, forgiven: int = 1, blames: bool = True) -> None:
        self.engine, self.room, self.folder, self.forgiven, self.blames = engine, room, folder, forgiven, blames
        self.started = 0
        self.members: list[_Member] = []

    def wanted(self) -> int:
        return self.room.pop(0) if len(self.room) > 1 else self.room[0]

    def start(self) -> _Member:
        self.started += 1
        self.members.append(_Member(Worker(lambda here: self.engine(here), self.folder)))
        return self.members[-1]

    def ready(self, channels: Sequence[_Member], seconds: float) -> list[_Member]:
        found = [channel for channel in channels if channel.messages or channel.given is not None]
        for channel in found:
            channel.has_arrived = True
        return found

    def has_arrived(self, channel: _Member) -> bool:
        return channel.has_arrived

    def ending(self, channel: _Member) -> tuple[str, bool]:
        return "a death", self.blames

    def pid(self, channel: _Member) -> int | None: ...

    def kill(self, channel: _Member) -> None: ...

    def stop(self, stopped: bool) -> None: ...

    def close(self) -> None:
        for member in self.members:
            member.actor.close()


def dies_at(numbers: dict[int, int]) -> Callable[[TrialSpec], None]:
    """Return what kills the worker of each of these trials so many times."""

    def event(spec: TrialSpec) -> None:
        if numbers.get(spec.number, 0):
            numbers[spec.number] -= 1
            raise KeyboardInterrupt

    return event


@contextmanager
def opened(crew: Any) -> Iterator[CrewEngine]:
    engine = CrewEngine(crew, lambda count: f"{count} workers")
    try:
        yield engine
    finally:
        engine.close()


def run(crew: Machines, trials: int = 8, **options: Any) -> Queue:
    feed = Queue(make_specs("mlp", trials), **options)
    with opened(crew) as engine:
        engine.run(feed)
    return feed


def states(feed: Queue) -> list[str]:
    return [feed.results[number].state for number in sorted(feed.results)]


def test_workers_share_the_trials(tmp_path: Path) -> None:
    assert states(run(Machines(lambda _: Trains(), [3], tmp_path))) == ["COMPLETE"] * 8


def test_dead_workers_trials_are_trained_again(tmp_path: Path) -> None:
    event = dies_at({2: 1, 5: 1})
    crew = Machines(lambda _: Trains(event), [2], tmp_path)
    assert states(run(crew)) == ["COMPLETE"] * 8
    assert crew.started == 4


def test_trial_thatends_its_process_every_worker_fails_alone(tmp_path: Path) -> None:
    event = dies_at({3: 100})
    feed = run(Machines(lambda _: Trains(event), [2], tmp_path))
    assert states(feed) == ["COMPLETE"] * 3 + ["FAIL"] + ["COMPLETE"] * 4
    assert feed.results[3].reason == "its process died: a death"


def test_lost_machine_is_no_trials_fault(tmp_path: Path) -> None:
    event = dies_at({3: 6})
    crew = Machines(lambda _: Trains(event), [2], tmp_path, forgiven=0, blames=False)
    assert states(run(crew)) == ["COMPLETE"] * 8


def test_workers_that_come_later_join(tmp_path: Path) -> None:
    crew = Machines(lambda _: Trains(), [1, 1, 3], tmp_path)
    assert states(run(crew, 20)) == ["COMPLETE"] * 20
    assert crew.started == 3


def test_place_that_is_gone_is_not_filled_again(tmp_path: Path) -> None:
    event = dies_at({0: 1})
    crew = Machines(lambda _: Trains(event), [2, 2, 1], tmp_path)
    assert states(run(crew)) == ["COMPLETE"] * 8
    assert crew.started == 2


def test_weights_come_with_the_results(tmp_path: Path) -> None:
    there = tmp_path / "run"
    feed = run(Machines(lambda here: Trains(keep=here), [2], there), 4)
    for number, result in feed.results.items():
        assert Path(result.checkpoint).is_relative_to(there)
        assert Path(result.checkpoint).read_bytes() == b"weights of %d" % number


def test_speeds_of_workers() -> None:
    assert speeds([30, 12, 31], 60.0) == "3 workers: 73 trials a minute; each 12 to 31, on average 24.3"
    assert speeds([], 60.0) == "0 workers: waiting for the cluster"


@pytest.mark.slow
def test_spawned_processes_have_a_device_each(tmp_path: Path) -> None:
    feed = Queue(make_specs("mlp", 6))
    with opened(SpawnedCrew(partial(ends_its_process, tmp_path), [{"DEVICE": "0"}, {"DEVICE": "1"}])) as engine:
        engine.run(feed)
    assert [feed.results[n].state for n in range(6)] == ["COMPLETE", "FAIL", *["COMPLETE"] * 4]
    assert feed.results[1].reason == "its process died: status 9"
    ran = [path.name.split("-") for path in tmp_path.iterdir()]
    assert {device for _, device, _ in ran} <= {"0", "1"}
    assert len({(device, pid) for _, device, pid in ran}) == len({pid for *_, pid in ran}), "one device a process"
    assert "DEVICE" not in os.environ


def test_what_cannot_be_pickled_is_refused() -> None:
    held = threading.Lock()
    with pytest.raises(InputError, match="several processes need a module and data"):
        SpawnedCrew(lambda: held, [{}])  # type: ignore[arg-type, return-value]
