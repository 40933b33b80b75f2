"""Where the user's code has threads, training processes begin anew, or one process trains; no process is forked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import dropsearch
from dropsearch.core.repetition import repeating
from dropsearch.experiment import context
from dropsearch.experiment.context import unsafe_threads
from tests.experiment.conftest import composed
from tests.experiment.forked_runs import RunForker
from tests.user_modules import nets


@pytest.fixture
def thread() -> Iterator[threading.Thread]:
    done = threading.Event()
    started = threading.Thread(target=done.wait, name="prefetch", daemon=True)
    started.start()
    yield started
    done.set()
    started.join()


def test_threads_that_user_code_starts_are_found(thread: threading.Thread) -> None:
    assert "prefetch" in unsafe_threads()
    harmless = threading.Thread(name="IOPub")
    assert unsafe_threads([threading.main_thread(), harmless, thread]) == ("prefetch",)


def test_threads_of_a_run_are_harmless() -> None:
    with repeating(lambda: None, 60.0, "anything"):
        assert unsafe_threads() == ()


def processes(monkeypatch: pytest.MonkeyPatch, made_by: Any, wanted: str = "auto") -> int:
    monkeypatch.setattr(context, "cores", lambda: 3)
    config = composed("engine=auto", f"engine.processes={wanted}")
    config.study.storage = threading.Lock()  # type: ignore[assignment]  # as an open storage, it stays in this process
    config.model.made_by = made_by  # type: ignore[union-attr]
    source: Any = type("Data", (), {"uses_workers": False})
    settings: Any = type("Settings", (), {"trainer": dict})
    return context._processes(config, torch.device("cpu"), settings, source, ("prefetch",))


def test_processes_begin_anew_where_a_thread_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert processes(monkeypatch, lambda: nets.LitNet(lr=1e-3)) == 3
    assert "training processes are spawned, because a thread is running (prefetch)" in capsys.readouterr().err


def test_one_process_trains_what_no_other_can_be_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = threading.Lock()
    assert processes(monkeypatch, lambda: held) == 1
    assert "one process trains, because a thread is running (prefetch)" in capsys.readouterr().err
    with pytest.raises(dropsearch.InputError, match=r"engine\.processes=1"):
        processes(monkeypatch, lambda: held, wanted="2")


NET = """
from concurrent.futures import ThreadPoolExecutor
from tests.user_modules import nets

POOL = ThreadPoolExecutor(1)  # its thread runs from the first step on; a fork would wait for it for ever

class Threaded(nets.LitNet):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, POOL.submit(int, batch_idx).result())
"""
SCRIPT = """
import dropsearch
from net import Threaded
from tests.user_modules import data

class Mine(data.Digits): ...

found = dropsearch.search(
    lambda lr: Threaded(lr=lr), Mine(), n_trials=4, max_epochs=1, output_dir="out", confirm_seeds=2,
    confirm_top_k=1, arms=["dropout"], tracking="none", engine="sequential",
    overrides=["engine.processes=2", "evidence=off"],
)
print("trained", [trial.state for trial in found.summary.arms["dropout"].trials], found.summary.engine)
"""
"""A script as people write it, without a guard around the search."""


@pytest.mark.slow
def test_a_script_with_threads_is_searched_in_processes_that_begin_anew(run_forker: RunForker, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "net.py").write_text(NET)
    ended = run_forker.python(tmp_path, "script.py")
    assert ended.returncode == 0, ended.stderr
    assert "training processes are spawned, because a thread is running (ThreadPoolExecutor" in ended.stderr
    assert "trained ['COMPLETE', 'COMPLETE', 'COMPLETE', 'COMPLETE'] 2 processes" in ended.stdout, ended.stdout
