"""Modules whose layers take their shapes from the first batch, or whose code is compiled, are searched."""

from __future__ import annotations

import pytest

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides
from dropsearch.experiment.artifacts import try_end
from dropsearch.experiment.context import ExperimentContext, build_context

NETS = "tests.user_modules.constructed"


def context(name: str) -> ExperimentContext:
    words = [f"model._target_={NETS}.{name}", f"data._target_={NETS}.Points"]
    shared = ["engine=sequential", "task=work", "trainer.accelerator=cpu"]
    return build_context(compose_overrides(with_user_targets([*words, *shared])))


@pytest.mark.parametrize(("name", "site"), [("Lazy", "net.2"), ("CompilesForward", "net.layers.2")])
def test_a_module_is_looked_at_kept_and_loaded(name: str, site: str) -> None:
    found = context(name)
    assert [(each.name, each.controllable) for each in found.sites] == [(site, True)]
    try_end(found)
