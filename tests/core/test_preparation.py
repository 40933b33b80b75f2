"""What is shown before a run has a progress."""

from __future__ import annotations

import logging
import os
import pty
import sys
import time
from contextlib import nullcontext

import pytest

from dropsearch.core import preparation
from dropsearch.core.preparation import LogLines, preparing, redraws


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(("kind", "may"), [("xterm", True), ("dumb", False), ("unknown", False)])
def test_a_dumb_terminal_gets_whole_lines(monkeypatch: pytest.MonkeyPatch, kind: str, may: bool) -> None:
    shown, terminal = pty.openpty()
    monkeypatch.setenv("TERM", kind)
    with os.fdopen(terminal, "w") as stream:
        assert redraws(stream) is may
        monkeypatch.setattr(sys, "stderr", stream)
        with preparing("reading the data"):
            print("said meanwhile", file=sys.stderr)
        stream.flush()
        text = os.read(shown, 1000).decode()
    os.close(shown)
    assert ("\r" in text.replace("\r\n", "")) is may


def test_a_terminal_counts_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, terminal = pty.openpty()
    monkeypatch.setattr(preparation, "TICK", 0.001)
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        text = ""
        with preparing("reading the data", clock=iter(range(1000)).__next__):
            while "2 s" not in text:
                text += os.read(shown, 1000).decode()
        text += os.read(shown, 1000).decode()
    os.close(shown)
    assert text.startswith("[prepare] reading the data\r[prepare] reading the data, 1 s\r")
    assert text.endswith("\n")
    assert text.count("\n") == 1


def test_notes_stand_on_their_own_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, terminal = pty.openpty()
    monkeypatch.setattr(preparation, "TICK", 60)
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with preparing("reading the data"):
            print("note: one process trains", file=sys.stderr)
        assert sys.stderr is stream
        stream.flush()
        text = ""
        while text.count("\n") < 2:
            text += os.read(shown, 1000).decode()
    os.close(shown)
    assert "\r\x1b[Knote: one process trains\r\n" in text


def test_a_logger_that_keeps_the_stream_erases_no_line_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, terminal = pty.openpty()
    monkeypatch.setattr(preparation, "TICK", 60)
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with preparing("reading the data"):
            handler = logging.StreamHandler()  # as in a user's module with `logging.basicConfig()`
        text = ""
        for what in ("between", "within", "afterwards"):
            with preparing("comparing") if what == "within" else nullcontext():
                handler.emit(logging.makeLogRecord({"msg": what}))
        while "afterwards\r\n" not in text:
            text += os.read(shown, 1000).decode()
    os.close(shown)
    assert "[prepare] reading the data\r\nbetween\r\n[prepare] comparing\r\x1b[Kwithin\r\n" in text
    assert text.count("\x1b[K") == 1


def test_a_log_gets_a_line_every_ten_seconds() -> None:
    lines = LogLines()
    lines.begin(0.0)
    assert [lines.is_due(second) for second in (4.0, 10.0, 11.0)] == [False, True, False]
    lines.end(14.0)
    lines.begin(14.1)
    assert [lines.is_due(second) for second in (19.0, 20.5, 21.0)] == [False, True, False], "also in the next step"
    lines.end(22.0)
    lines.begin(500.0)
    assert not lines.is_due(501.0), "another run begins anew"


def test_a_line_of_a_log_names_the_step(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(preparation, "TICK", 0.001)
    monkeypatch.setattr(preparation, "_log", LogLines())
    text = ""
    with preparing("reading the data", clock=iter(range(0, 10**9, 10)).__next__):
        while "20 s" not in text:
            text += capfd.readouterr().err
    assert text.splitlines()[:2] == ["[prepare] reading the data, 10 s", "[prepare] reading the data, 20 s"]


@pytest.mark.parametrize(("in_notebook", "expected"), [(False, ""), (True, "[prepare] reading the data\n")])
def test_a_log_gets_nothing_and_a_notebook_a_line(
    in_notebook: bool, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if in_notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", time)
    with preparing("reading the data"):
        pass
    assert capsys.readouterr() == (expected, "")
