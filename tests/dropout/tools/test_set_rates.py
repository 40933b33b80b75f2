"""Rates are set on anybody's module, and taken back."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

import dropsearch
from dropsearch.core.errors import InputError
from dropsearch.dropout import sites
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.training.trainers import quiet_lightning
from tests.dropout.tools.test_inventory import nothing_changed
from tests.dropout.user_blocks import Encoder, OneLayer, OwnAttention, TwoAttentions
from tests.dropout.user_lightning import Litten, LittenMore, pytorch_lightning_net
from tests.dropout.user_modules import USER_MODULES, kept_copy, labelled
from tests.dropout.user_nets import InAList, LoopingNet, Reusing


def settable(name: str) -> dict[str, float]:
    """A rate of its own for each site that can be controlled."""
    rows = [row for row in USER_MODULES[name].sites if row[4]]
    return {row[0]: round(0.3 + 0.05 * place, 2) for place, row in enumerate(rows)}


def rates_of(module: nn.Module, batch: Any) -> dict[str, float]:
    return {site.name: site.rate for site in dropsearch.dropout_sites(module, batch)}


@pytest.mark.parametrize("name", USER_MODULES)
def test_every_site_of_user_modules_takes_the_rate_and_returns_it(name: str) -> None:
    example, rates = USER_MODULES[name], settable(name)
    module, batch = example.make(), example.batch()
    before = rates_of(module, batch)
    with nothing_changed(module):
        # One p serves two drops of one module: the second has a rate of its own only where it is named.
        with dropsearch.set_rates(module, rates):
            found = rates_of(module, batch)
            assert {site: found[site] for site in rates} == rates
        assert rates_of(module, batch) == before


class Shares(nn.Module):
    """Returns what four kinds of drop let through of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        first, second = self.drop(x), self.drop(x)
        third = F.dropout(x, 0.5, self.training)
        return first, second, third, F.dropout(x, p=0.5, training=self.training)


def shares(outputs: tuple[Tensor, ...]) -> list[float]:
    return [round(float((each == 0).float().mean()), 1) for each in outputs]


def test_each_drop_drops_its_own_share_without_our_control() -> None:
    module, x = Shares(), torch.ones(200, 200)
    setting = dropsearch.set_rates(module, {"drop": 0.1, "drop@2": 0.2, "model": 0.3, "model#2": 0.7})
    assert shares(module(x)) == [0.1, 0.2, 0.3, 0.7]
    assert float(module(x)[1].max()) == pytest.approx(1 / 0.8)
    assert repr(setting) == "rates set: drop=0.1, drop@2=0.2 (call), model=0.3 (call), model#2=0.7 (call)"
    assert module.drop.p == 0.1
    setting.remove()
    assert shares(module(x)) == [0.5] * 4
    assert repr(setting) == "rates restored"
    setting.remove()


def test_in_eval_mode_nothing_drops() -> None:
    module, x = Shares().eval(), torch.ones(20, 20)
    dropsearch.set_rates(module, {"drop": 0.9, "drop@2": 0.9, "model": 0.9, "model#2": 0.9})
    assert shares(module(x)) == [0.0] * 4


def test_a_name_means_all_calls_that_have_no_rate_of_their_own() -> None:
    module, x = Reusing(), torch.ones(300, 5)
    with dropsearch.set_rates(module, {"drop1": 0.2}):
        assert per_call(module, x) == {"drop1": 0.2, "drop1@2": 0.2}
    with dropsearch.set_rates(module, {"drop1@2": 0.3}):
        assert per_call(module, x) == {"drop1": 0.5, "drop1@2": 0.3}


def per_call(module: nn.Module, batch: Any) -> dict[str, float]:
    found = sites.dropout_sites(module, lambda: module(batch), per_call=["*"])
    return {site.name: site.rate for site in found}


def test_numbers_of_recurrent_layers_and_attention_are_set() -> None:
    module, attending, x = OneLayer(), TwoAttentions(), torch.randn(2, 3, 8)
    with dropsearch.set_rates(module, {"gru": 0.4}), dropsearch.set_rates(attending, {"attend": 0.3, "attend@2": 0.6}):
        assert (module.gru.dropout, attending.attend.dropout) == (0.4, 0.3)
        assert per_call(attending, x) == {"attend": 0.3, "attend@2": 0.6}
    assert (module.gru.dropout, attending.attend.dropout) == (0.0, 0.0)


def test_an_inserted_dropout_takes_a_rate() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    dropsearch.insert_dropout(module)
    with dropsearch.set_rates(module, {"1": 0.4}):
        assert rates_of(module, torch.randn(4, 3)) == {"1": 0.4}
    assert rates_of(module, torch.randn(4, 3)) == {"1": 0.0}


def test_an_inserted_dropout_and_the_layers_own_are_set_apart() -> None:
    module = nn.LSTM(4, 4, num_layers=2)
    outer = nn.ModuleDict({"lstm": module, "attend": nn.MultiheadAttention(4, 2)})
    outer.forward = lambda x: outer["attend"](*[outer["lstm"](x)[0]] * 3)[0]  # type: ignore[method-assign]
    dropsearch.insert_dropout(outer, ["lstm", "attend"])
    rates = {"lstm": 0.1, "lstm#2": 0.2, "attend": 0.3, "attend#2": 0.4}
    with dropsearch.set_rates(outer, rates):
        assert rates_of(outer, torch.randn(3, 2, 4)) == rates


def test_a_wrapper_adds_nothing_to_the_state_dict() -> None:
    module = LoopingNet()
    before = list(module.state_dict())
    dropsearch.set_rates(module, {"model@2": 0.6})
    assert list(module.state_dict()) == before


@pytest.mark.parametrize("kept", ["deepcopy", "pickle"])
def test_a_copy_drops_at_the_rates_that_were_set_and_by_itself(kept: str) -> None:
    module, batch = LoopingNet(), torch.randn(2, 4)
    setting = dropsearch.set_rates(module, {"model@2": 0.6, "model@3": 0.2})
    copied = kept_copy(module, kept)
    setting.remove()
    assert rates_of(module, batch) == {"model": 0.15}
    assert per_call(copied, batch) == {"model": 0.15, "model@2": 0.6, "model@3": 0.2}


def test_a_later_setting_wins_and_the_earlier_one_comes_back() -> None:
    module, batch = LoopingNet(), torch.randn(2, 4)
    first = dropsearch.set_rates(module, {"model": 0.3, "model@2": 0.4})
    with dropsearch.set_rates(module, {"model@3": 0.6}):
        assert per_call(module, batch) == {"model": 0.3, "model@2": 0.4, "model@3": 0.6}
    assert per_call(module, batch) == {"model": 0.3, "model@2": 0.4, "model@3": 0.3}
    first.remove()
    assert "forward" not in vars(module)


def test_settings_that_are_removed_in_the_wrong_order_leave_no_wrapped_rates() -> None:
    module, batch = LoopingNet(), torch.randn(2, 4)
    first = dropsearch.set_rates(module, {"model": 0.3})
    second = dropsearch.set_rates(module, {"model@2": 0.6})
    first.remove()
    assert per_call(module, batch) == {"model": 0.15, "model@2": 0.6, "model@3": 0.15}
    second.remove()
    assert rates_of(module, batch) == {"model": 0.15}


@pytest.mark.parametrize("make", [Litten, LittenMore])
def test_a_plain_trainer_trains_at_the_rates(make: type[Litten]) -> None:
    module = make().train()
    name = "model" if make is Litten else "model#2"
    dropsearch.set_rates(module, {name: 1.0})
    before = copy.deepcopy(module.state_dict())
    data = DataLoader(list(zip(*labelled(), strict=True)), batch_size=6)
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=2,
            num_sanity_val_steps=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data, data)
    after = module.state_dict()
    # At rate 1 nothing but the last bias can learn.
    assert torch.equal(before["fc1.weight"], after["fc1.weight"])
    assert not torch.equal(before["fc2.bias"], after["fc2.bias"])


def test_the_other_lightning_takes_rates_too() -> None:
    module = pytorch_lightning_net()
    with dropsearch.set_rates(module, {"net.2": 0.7}):
        assert rates_of(module, labelled()) == {"net.2": 0.7}


def test_a_control_around_a_module_whose_rates_are_set_has_the_last_word() -> None:
    module, x = Shares(), torch.ones(200, 200)
    dropsearch.set_rates(module, {"drop": 0.1, "model": 0.3})
    control = TrialControl(module, {"drop": 0.6, "model": 0.8}, seed=1)
    with control.watching(), control.training_step(0):
        first, _, third, _ = module(x)
    assert shares((first, third)) == [0.6, 0.8]


def test_the_mean_of_the_scaled_attention_is_kept() -> None:
    module = OwnAttention()
    with dropsearch.set_rates(module, {"attn_drop": 0.3, "proj_drop": 1.0}):
        x = torch.randn(2, 3, 6)
        assert torch.equal(module(x), x)


def test_an_exception_in_the_module_leaves_the_wrapper_usable() -> None:
    module = LoopingNet()
    dropsearch.set_rates(module, {"model": 1.0, "model@3": 1.0})
    with pytest.raises(RuntimeError):
        module(torch.randn(2, 5))
    assert torch.count_nonzero(module(torch.randn(2, 4))) == 0
    assert not module._forward_hooks


@pytest.mark.parametrize(
    ("make", "rates", "message"),
    [
        (
            Encoder,
            {"encoder.layers.0.dropout3": 0.1},
            r'Encoder, got .*\(did you mean "encoder\.layers\.0\.dropout"\?\)',
        ),
        (Encoder, {"head": 0.1}, r'got "head".*: Linear does not drop; insert_dropout\(module, "head"\) inserts'),
        (Encoder, {"modell": 0.1}, r'got "modell" \(did you mean "model"\?\): dropout_sites\(module, batch\) lists'),
        (OneLayer, {"lstm": 0.1}, "LSTM of one layer has no dropout between layers"),
        (Reusing, {"drop1": 1.1}, r'rates\["drop1"\] must be a number in \[0, 1\], .* got 1\.1'),
        (Reusing, {"drop1": 0.2, "drop1:randn": 0.1}, r'got "drop1:randn"'),
        (InAList, 0.2, "rates must be a rate by site name, got 0.2: for example"),
        (InAList, {"model": None}, r'rates\["model"\] must be a number in \[0, 1\]'),
    ],
)
def test_what_cannot_be_set_is_one_clear_line_and_nothing_is_set(
    make: type[nn.Module], rates: dict[str, Any], message: str
) -> None:
    module = make()
    with nothing_changed(module), pytest.raises(InputError, match=message) as caught:
        dropsearch.set_rates(module, rates)
    assert "\n" not in str(caught.value)
    assert not isinstance(module, Reusing) or module.drop1.p == 0.5


def test_a_call_that_the_first_pass_does_not_meet_is_warned_of_once() -> None:
    module = LoopingNet()
    dropsearch.set_rates(module, {"model": 0.2, "model#4": 0.3})
    with pytest.warns(UserWarning, match=r"found no dropout site named model#4; dropout_sites\(module, batch\) lists"):
        module(torch.randn(2, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(torch.randn(2, 4))
