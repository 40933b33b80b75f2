from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dropsearch.tracking.mlflow import background_writer as writer_module
from dropsearch.tracking.mlflow.background_writer import BackgroundWriter


class Server:
    """Takes what it is given while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.took: list[int] = []

    def take(self, thing: int) -> None:
        if not self.up:
            raise ConnectionError(f"no answer to {thing}\nand more lines")
        self.took.append(thing)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def writer(problems: list[str]) -> Iterator[BackgroundWriter]:
    writer = BackgroundWriter(problems)
    yield writer
    writer.close()


def test_jobs_are_done_in_order(writer: BackgroundWriter, server: Server):
    for thing in range(50):
        writer.put(f"job {thing}", lambda thing=thing: server.take(thing))
    assert writer.wait()
    assert server.took == list(range(50))


def test_putting_does_not_wait_for_the_server(writer: BackgroundWriter, server: Server):
    gate = threading.Event()
    writer.put("slow", gate.wait)
    writer.put("next", lambda: server.take(1))
    assert server.took == []
    gate.set()
    assert writer.wait()
    assert server.took == [1]


def test_many_failures_are_one_line(writer: BackgroundWriter, server: Server, problems: list[str]):
    server.up = False
    for thing in range(3):
        writer.put(f"trial {thing}", lambda thing=thing: server.take(thing))
    writer.wait()
    assert len(problems) == 1
    assert "trial 0: no answer to 0;" in problems[0]


def test_after_a_failure_the_work_goes_on(writer: BackgroundWriter, server: Server):
    server.up = False
    writer.put("lost", lambda: server.take(1))
    writer.wait()
    server.up = True
    writer.put("kept", lambda: server.take(2))
    writer.wait()
    assert server.took == [2]


def test_what_failed_is_done_when_it_is_tried_again(writer: BackgroundWriter, server: Server):
    server.up = False
    for thing in range(3):
        writer.put(f"trial {thing}", lambda thing=thing: server.take(thing), again=thing != 1)
    writer.wait()
    server.up = True
    writer.retry()
    assert writer.close() == []
    assert server.took == [0, 2]


def test_what_fails_again_is_named_at_the_end(writer: BackgroundWriter, server: Server):
    server.up = False
    for thing in range(3):
        writer.put(f"trial {thing}", lambda thing=thing: server.take(thing), again=True)
    writer.retry()
    assert writer.close() == ["trial 0", "trial 1", "trial 2"]


@pytest.mark.parametrize(("hurry", "limit"), [(False, "PATIENCE"), (True, "PATIENCE_WITH_THE_DEAD")])
def test_a_server_that_hangs_is_given_up_and_named(
    monkeypatch: pytest.MonkeyPatch, server: Server, hurry: bool, limit: str
):
    monkeypatch.setattr(writer_module, limit, 0.1)
    problems: list[str] = []
    writer, gate = BackgroundWriter(problems), threading.Event()
    writer.put("trial 0", gate.wait, again=True)
    writer.put("trial 1", lambda: server.take(1), again=True)
    assert writer.close(hurry) == ["trial 0", "trial 1"]
    gate.set()
    assert server.took == []
    assert problems == ["MLflow did not take trial 0: no answer in 0 seconds; the study goes on without it"]


def test_what_is_forgotten_is_not_written(writer: BackgroundWriter, server: Server):
    gate = threading.Event()
    writer.put("slow", gate.wait)
    writer.put("forgotten", lambda: server.take(1))
    writer.forget()
    writer.put("written", lambda: server.take(2))
    gate.set()
    writer.wait()
    assert server.took == [2]


def test_a_password_is_not_said(problems: list[str], server: Server):
    server.up = False
    writer = BackgroundWriter(problems, hide=lambda text: text.replace("answer", "***"))
    writer.put("trial 0", lambda: server.take(0))
    writer.close()
    assert "no *** to 0" in problems[0]
