"""Processor time shows whether a process makes progress."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dropsearch.core import processes
from dropsearch.core.processes import processor_time

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc of Linux")


def test_processor_time_grows_with_work() -> None:
    before = processor_time(os.getpid())
    assert before is not None
    while processor_time(os.getpid()) == before:
        sum(range(100_000))
    assert processor_time(2**22 + 1) is None


@pytest.mark.parametrize(
    ("quota", "allowed"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("?", 4)]
)
def test_cores_respect_container_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, allowed: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(processes, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert processes.cores() == allowed


@pytest.mark.parametrize(("wall", "factor"), [(0.1, 1.0), (0.2, 1.0), (0.6, 3.0), (9.0, 4.0)])
def test_slowness_is_the_time_that_others_take(wall: float, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = iter([5.0, 5.0, 5.1, 5.2, 5.2])
    clocks = SimpleNamespace(perf_counter=iter([50.0, 50.0 + wall]).__next__, process_time=busy.__next__)
    monkeypatch.setattr(processes, "time", clocks)
    assert processes.slowness(0.2) == pytest.approx(factor)
