from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dropsearch.core.processes import is_dead, started, this_process

HOST = socket.gethostname()


@pytest.fixture
def ended() -> str:
    """The identifier of a process that has ended."""
    program = "from dropsearch.core.processes import this_process; print(this_process())"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return done.stdout.strip()


def test_this_process_is_alive():
    assert not is_dead(this_process())


def test_forked_process_has_its_own_id():
    program = (
        "import os; from dropsearch.core.processes import this_process; print(this_process(), flush=True); "
        "child = os.fork(); print(this_process(), flush=True) if child == 0 else os.waitpid(child, 0)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    parent, child = done.stdout.split()
    assert parent != child
    assert is_dead(child)


def test_ended_process_is_dead(ended: str):
    assert is_dead(ended)


def test_reused_pid_is_another_process():
    assert is_dead(f"{HOST}:{os.getpid()}:1")


def test_zombie_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    name = f"{HOST}:{child.pid}:{started(child.pid)}"
    assert not is_dead(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but still listed
    assert is_dead(name)
    child.communicate()


def test_processes_of_other_hosts_count_as_alive():
    assert not is_dead("elsewhere:1:1")


@pytest.mark.parametrize("owner", ["", "nobody", f"{HOST}:x:1", f"{HOST}:1:", f"{HOST}:1"])
def test_malformed_ids_count_as_alive(owner: str):
    assert not is_dead(owner)


def test_without_proc_ps_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("dropsearch.core.processes.PROC", tmp_path)
    assert started(os.getpid())
    assert started(2**22 + 1) == ""


def test_without_proc_and_ps_processes_count_as_alive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("dropsearch.core.processes.PROC", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert started(os.getpid()) is None
    assert not is_dead(f"{HOST}:{os.getpid()}:1")
