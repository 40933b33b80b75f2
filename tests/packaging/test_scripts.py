"""The scripts that are run by hand still start."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WITH_OPTIONS = sorted(
    str(path.relative_to(SCRIPTS))
    for path in SCRIPTS.rglob("*.py")
    if '__name__ == "__main__"' in (text := path.read_text(encoding="utf-8")) and "ArgumentParser(" in text
)


def run(script: str, *argv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = SCRIPTS / script
    monkeypatch.setattr(sys, "argv", [str(path), *argv])
    monkeypatch.syspath_prepend(str(path.parent))
    known = {*sys.modules}
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:  # what lies beside a script, such as user_module, has names that other tests use too
        for name in {*sys.modules} - known:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(f"{SCRIPTS}/"):
                del sys.modules[name]


@pytest.mark.parametrize("script", WITH_OPTIONS)
def test_help(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        run(script, "--help", monkeypatch=monkeypatch)
    assert ended.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_driver_messages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    options = ("--workers", "3", "--rows", "2", "--epochs", "2", "--rounds", "1")
    run("bench/driver_messages.py", *options, monkeypatch=monkeypatch)
    sampler, workers, rows, trials, messages, *_ = capsys.readouterr().out.splitlines()[-1].split()
    assert (sampler, workers, rows, trials) == ("random", "3", "2", "6")
    assert int(messages) == 3 * (2 + 2 + 1)  # asks before and after, an epoch each, the results


def test_the_page_of_all_keys_is_up_to_date(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        run("configuration_page.py", "--check", monkeypatch=monkeypatch)
    assert ended.value.code == 0, capsys.readouterr().err
