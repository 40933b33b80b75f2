"""Loaders reach a search from the command line as from Python."""

from __future__ import annotations

from typing import Any

import pytest

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides
from dropsearch.core.errors import InputError
from dropsearch.experiment.build import data_source, device
from tests.experiment.conftest import Cli

GIVEN, CONFIGURED = "tests.user_modules.loader_targets", "tests.user_modules.configured"
LOADER = f"_target_: torch.utils.data.DataLoader, dataset: {{_target_: {GIVEN}.Set, n: 24}}, batch_size: 8"


def source(*words: str) -> Any:
    config = compose_overrides(with_user_targets([f"model._target_={CONFIGURED}.Small", *words]))
    return data_source(config, device(config))


@pytest.mark.parametrize(
    ("words", "sizes"),
    [
        ((f"data._target_={GIVEN}.pair",), (32, 16, 0)),
        ((f"data._target_={GIVEN}.pair", "data.n=40"), (40, 16, 0)),
        ((f"data._target_={GIVEN}.three",), (32, 16, 8)),
        ((f"data._target_={GIVEN}.mapping",), (32, 16, 8)),
        ((f"data._target_={GIVEN}.Both",), (32, 16, 0)),
        ((f"data._target_={GIVEN}.Maker.make", "data.n=16"), (16, 16, 0)),
        (("data._target_=builtins.dict", f"data.train={{{LOADER}}}", f"data.val={{{LOADER}}}"), (24, 24, 0)),
        (("data=module", f"model._target_={GIVEN}.Holding"), (32, 16, 0)),
    ],
)
def test_loaders_are_taken_as_they_are_given(words: tuple[str, ...], sizes: tuple[int, int, int]) -> None:
    assert tuple(source(*words).sizes.values()) == sizes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((f"data._target_={GIVEN}.one",), "data=one must be a LightningDataModule, or return loaders: (train, val)"),
        ((f"data._target_={GIVEN}.half",), "got a dict with train, valid"),
        ((f"data._target_={GIVEN}.pair", "data.m=3"), 'data must name arguments of pair, got "m"'),
        (("data=module",), "data=module needs a module that has loaders itself, and Small has no train_dataloader"),
    ],
)
def test_what_gives_no_loaders_is_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError) as caught:
        source(*words)
    assert said in str(caught.value)


def test_a_search_takes_loaders_of_a_function(cli: Cli) -> None:
    ended = cli(
        f"model._target_={CONFIGURED}.Small", f"data._target_={GIVEN}.three", "arms=[dropout]", "study.n_trials=1",
        "trainer.max_epochs=1", "confirm.top_k=1", "confirm.seeds=1", "engine=sequential", "tracking=none",
        "trainer.accelerator=cpu", "evidence=off", "output_dir=out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    assert "32 train and 16 val and 8 test examples" in " ".join(ended.out.split())
