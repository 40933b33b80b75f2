"""Engines by name: an engine that is added trains where it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropsearch.config.messages import conf_folder
from dropsearch.core.errors import InputError
from dropsearch.training import engines
from dropsearch.training.engines import ENGINES, check_engine


def test_each_engine_has_a_file_in_conf():
    written = {path.stem for path in Path(conf_folder() / "engine").glob("*.yaml")}
    assert written == {"auto", *ENGINES}


def test_unknown_engine_is_refused():
    with pytest.raises(InputError, match=r'engine.name must be one of auto, .* got "sequentail" \(did you mean'):
        check_engine("sequentail")


def test_added_engine_is_known(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "ENGINES", {**ENGINES, "mine": ENGINES["sequential"]})
    check_engine("mine")
