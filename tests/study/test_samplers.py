from __future__ import annotations

from typing import Any

import pytest

from dropsearch.config.schema import PrunerConfig, SamplerConfig
from dropsearch.core.constraints import field_problems
from dropsearch.study.algorithms import PRUNERS, SAMPLERS


@pytest.mark.parametrize(("config", "known"), [(SamplerConfig, SAMPLERS), (PrunerConfig, PRUNERS)])
def test_the_configuration_names_what_can_be_made(config: type[Any], known: dict[str, object]):
    assert [problem for name in known for problem in field_problems(config(name=name))] == []
    (problem,) = field_problems(config(name="nothing"))
    assert all(name in problem for name in known)
