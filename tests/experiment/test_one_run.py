"""A process runs one search at a time; a second one is refused before it changes anything of the first."""

from __future__ import annotations

import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import dropsearch
from dropsearch.core.environment import one_run
from dropsearch.core.errors import InputError
from dropsearch.core.printable import masked, remember_secrets
from tests.experiment.conftest import Cli
from tests.user_modules.data import Digits
from tests.user_modules.nets import LitNet


def test_a_second_run_is_refused_while_one_goes_on(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})

    def search() -> None:
        dropsearch.search(LitNet, Digits(), output_dir=tmp_path / "out")

    with one_run(), ThreadPoolExecutor(thread_name_prefix="second") as pool:
        remember_secrets({"api_key": "planted-0815"})
        with pytest.raises(InputError, match="in thread MainThread, and thread MainThread starts another"):
            search()
        with pytest.raises(InputError, match="in thread MainThread, and thread second_0 starts another"):
            pool.submit(search).result()
        ended = cli("study.n_trials=1")
        assert (ended.status, "one search at a time" in ended.err) == (2, True)
        assert masked("planted-0815") == "***", "the first run's secrets are still known"
    assert list(tmp_path.glob("*")) == []


def test_a_run_ends_with_its_error() -> None:
    with pytest.raises(ZeroDivisionError), one_run():
        raise ZeroDivisionError
    with one_run():
        pass


def test_a_forked_process_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with one_run():
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with one_run():
            pass
        monkeypatch.undo()


def test_the_signature_of_search_stays() -> None:
    assert "make_module" in inspect.signature(dropsearch.search).parameters
