"""What a run meets around it: streams that cannot be written, users without names, warnings as errors."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dropsearch.core import environment
from dropsearch.core.environment import TolerantStream

ROOT = Path(__file__).parents[2]


def test_output_that_nobody_reads_any_more_is_dropped() -> None:
    reading, writing = os.pipe()
    stream = TolerantStream(os.fdopen(writing, "w"))
    stream.write("first\n")
    stream.flush()
    assert os.read(reading, 100) == b"first\n"
    os.close(reading)
    for line in ("second\n", "third\n"):
        stream.write(line)
        stream.flush()
    assert stream.reader_ended
    stream._stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_under_the_output_is_noted() -> None:
    with Path("/dev/full").open("w") as full:
        stream = TolerantStream(full)
        stream.write("text")
        stream.flush()
    assert stream.failure is not None
    assert stream.failure.strerror == "No space left on device"
    assert not stream.reader_ended


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("{python} -m dropsearch --version > /dev/full", 1, "standard output could not be written (No space left"),
        ("{python} -m dropsearch --version >&-", 0, ""),
        ("{python} -m dropsearch --version >&- 2>&- <&-", 0, ""),
        ("{python} -m dropsearch --version | true; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("PYTHONWARNINGS=error MPLBACKEND=nonsense {python} -m dropsearch --version", 0, ""),
    ],
)
def test_the_program_ends_well_whatever_its_streams_are(line: str, status: int, said: str) -> None:
    command = line.format(python=sys.executable)
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert ended.returncode == status, ended.stderr
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == bool(said)


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME", "HOME"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    environment._name_user()
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert Path.home().is_dir()


def test_warnings_as_errors_are_shown_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["error", "ignore::UserWarning"])
    with warnings.catch_warnings():
        environment._disable_warning_errors()
        warnings.warn("a library is old", DeprecationWarning, stacklevel=1)
    assert sys.warnoptions == ["ignore::UserWarning"]


def test_python_ends_without_a_search_for_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    from dropsearch import __main__

    frozen: list[bool] = []
    monkeypatch.setattr(__main__, "prepare_environment", lambda: None)
    monkeypatch.setattr(__main__, "_run", lambda: None)
    monkeypatch.setattr("gc.freeze", lambda: frozen.append(True))
    with pytest.raises(SystemExit):
        __main__.main()
    assert frozen == [True]


def test_a_further_ctrl_c_does_not_interrupt_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from dropsearch import __main__

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "prepare_environment", lambda: None)
    monkeypatch.setattr(__main__, "_run", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as ended:
            __main__.main()
        assert ended.value.code == 130
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
