"""SetDropoutRates: a module trains at the rates of the callback, and has its own before and after."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

import dropsearch
from dropsearch.core.errors import InputError
from tests.user_modules import data, nets


class Seen(Callback):
    """Notes the rate of a layer while the module trains, and fails on request."""

    def __init__(self, fail: bool = False) -> None:
        self.rates: list[float] = []
        self.fail = fail

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rates.append(pl_module.drop.p)
        if self.fail:
            raise RuntimeError("stop here")


pytestmark = pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning")


def trained(rates: dict[str, float], *, fail: bool = False) -> tuple[Any, Seen]:
    module, seen = nets.LitNet(), Seen(fail)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    options |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1, "limit_train_batches": 2}
    trainer = Trainer(**options, callbacks=[dropsearch.SetDropoutRates(rates), seen])
    if fail:
        with pytest.raises(RuntimeError, match="stop here"):
            trainer.fit(module, data.Digits())
    else:
        trainer.fit(module, data.Digits())
    return module, seen


def test_a_module_trains_at_the_rates_and_has_its_own_afterwards():
    own = nets.LitNet().drop.p
    module, seen = trained({"drop": 0.125})
    assert seen.rates == [0.125, 0.125]
    assert module.drop.p == own != 0.125


def test_a_fit_that_fails_leaves_the_rates_of_the_module():
    module, seen = trained({"drop": 0.125}, fail=True)
    assert seen.rates == [0.125]
    assert module.drop.p == nets.LitNet().drop.p


def test_the_rate_of_a_bare_call_is_set():
    torch.manual_seed(0)
    module = nets.LitNet().train()
    rate = {site.name: site.rate for site in dropsearch.dropout_sites(module, data_batch())}["model"]
    callback = dropsearch.SetDropoutRates({"model": 0.75})
    callback.setup(Trainer(barebones=True), module, "fit")
    assert {site.name: site.rate for site in dropsearch.dropout_sites(module, data_batch())}["model"] == 0.75
    callback.teardown(Trainer(barebones=True), module, "fit")
    assert {site.name: site.rate for site in dropsearch.dropout_sites(module, data_batch())}["model"] == rate


def data_batch() -> Any:
    source = data.Digits()
    source.setup("fit")
    return next(iter(source.train_dataloader()))


def test_an_unknown_site_is_refused_when_the_fit_starts():
    with pytest.raises(InputError, match='got "dorp" \\(did you mean "drop"\\?\\)'):
        trained({"dorp": 0.1})
