"""An error of a feed, or of the way to it, ends the run; no engine takes it for an error of a trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import TrialResult
from dropsearch.training.multiprocess import ProcessEngine, can_fork
from dropsearch.training.protocols import Engine, Feed, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from dropsearch.training.vectorized.row_source import RowSource
from tests.training.conftest import Queue, make_factory, make_source, make_specs

SETTINGS = TrainerSettings(2, "cpu")
forks = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux without CUDA only")


def sequential() -> Engine:
    return SequentialEngine(make_factory("mlp"), make_source("mlp"), SETTINGS)


def vectorized() -> Engine:
    return VectorizedEngine(make_factory("mlp"), make_source("mlp"), SETTINGS, 2)


class Broken(Queue):
    """A feed one of whose calls raises."""

    def __init__(self, call: str, error: BaseException) -> None:
        super().__init__(make_specs("mlp", 3))

        def fail(*_: object) -> Any:
            raise error

        setattr(self, call, fail)


def trained(engine: Engine, feed: Feed, processes: int) -> None:
    """Train in this process, or in forks."""
    if not processes:
        engine.run(feed)
        return
    forked = ProcessEngine(engine, processes)
    try:
        forked.run(feed)
    finally:
        forked.close()


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=forks)])
@pytest.mark.parametrize("make", [sequential, vectorized])
@pytest.mark.parametrize(
    ("call", "said"), [("ask", "no trial can be started"), ("report", "no epoch"), ("tell", "no result"),
                       ("cancelled", "the run cannot go on")]
)  # fmt: skip
def test_an_error_of_the_feed_ends_the_run(make: Callable[[], Engine], processes: int, call: str, said: str) -> None:
    with pytest.raises(RunError, match=rf"^{said}.*\(TypeError: not written .*: repeat the command"):
        trained(make(), Broken(call, TypeError("not written")), processes)


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit()])
@pytest.mark.parametrize("make", [sequential, vectorized])
def test_an_exit_of_the_feed_ends_the_run(make: Callable[[], Engine], error: BaseException) -> None:
    with pytest.raises(RunError, match=r"^no result can be recorded"):
        trained(make(), Broken("tell", error), 0)


@pytest.mark.parametrize("make", [sequential, vectorized])
def test_errors_for_the_user_stay_as_they_are(make: Callable[[], Engine]) -> None:
    with pytest.raises(InputError, match=r"^the storage is of another study$"):
        trained(make(), Broken("tell", InputError("the storage is of another study")), 0)


@forks
def test_a_result_that_cannot_be_sent_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    result = RowSource.result

    def unsendable(self: RowSource, *given: Any) -> TrialResult:
        return dataclasses.replace(result(self, *given), reason=lambda: None)  # type: ignore[arg-type]

    monkeypatch.setattr(RowSource, "result", unsendable)
    feed = Queue(make_specs("mlp", 3))
    with pytest.raises(RunError, match="no result can be recorded of trial dropout/0 and 1 more"):
        trained(vectorized(), feed, 1)
    assert not feed.results


@forks
@pytest.mark.parametrize("error", [EOFError, BrokenPipeError, ConnectionResetError])
def test_an_error_of_a_worker_is_no_end_of_the_run(error: type[Exception]) -> None:
    class Failing:
        description = "fails"

        def describe(self, processes: int = 1) -> str:
            return self.description

        def run(self, feed: Feed) -> None:
            feed.ask(1)
            raise error("of a file")

        def close(self) -> None: ...

    with pytest.raises(RunError, match=rf"a training process failed \({error.__name__}: of a file"):
        trained(Failing(), Queue(make_specs("mlp", 2)), 1)


@forks
def test_a_worker_ends_silently_with_its_run(capfd: pytest.CaptureFixture[str]) -> None:
    class Ending(Queue):
        def tell(self, results: Sequence[TrialResult]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(vectorized(), Ending(make_specs("mlp", 4)), 2)
    assert capfd.readouterr().err == ""
