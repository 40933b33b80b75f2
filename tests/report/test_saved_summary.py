"""The summary of a run as a file, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.errors import InputError
from dropsearch.core.records import Summary
from dropsearch.core.records.codec import encode
from dropsearch.report.results import SUMMARY_FILE, load_summary, save_summary


def test_a_summary_comes_back_as_it_was(make: Any, tmp_path: Path):
    summary = make.with_evidence()
    assert save_summary(summary, tmp_path) == tmp_path / SUMMARY_FILE
    loaded = load_summary(tmp_path)
    assert encode(loaded) == encode(summary)
    assert type(loaded.arms["dropout"].trials[0]) is type(summary.arms["dropout"].trials[0])
    assert isinstance(loaded, Summary)


@pytest.mark.parametrize("content", [b"", b"no gzip", b"\x1f\x8b"])
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, content: bytes):
    (tmp_path / SUMMARY_FILE).write_bytes(content)
    with pytest.raises(InputError, match="must be a summary that this version of dropsearch wrote") as caught:
        load_summary(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_format_is_refused(summary: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["dropsearch.report.results"], "SUMMARY_FORMAT", 0)
    save_summary(summary, tmp_path)
    monkeypatch.undo()
    with pytest.raises(InputError, match="its format is 0, not 1"):
        load_summary(tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="must be that of a finished run"):
        load_summary(tmp_path)
