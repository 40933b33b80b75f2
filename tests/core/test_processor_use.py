"""Processor time shows whether a process makes progress."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dropsearch.core.processor_use import processor_time

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc of Linux")


def test_processor_time_grows_with_work() -> None:
    before = processor_time(os.getpid())
    assert before is not None
    while processor_time(os.getpid()) == before:
        sum(range(100_000))
    assert processor_time(2**22 + 1) is None
