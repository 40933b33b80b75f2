"""Whether a rate does anything is found out before anything is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropsearch
from dropsearch.core.errors import InputError
from tests.dropout.tools.test_inventory import nothing_changed
from tests.dropout.user_blocks import Encoder, OneLayer, Tagger
from tests.dropout.user_lightning import Adversarial, Frozen, Litten
from tests.dropout.user_modules import USER_MODULES, features, labelled, sentences
from tests.dropout.user_nets import Base, Child, Conditional, InAList


@pytest.mark.parametrize("name", USER_MODULES)
def test_every_controllable_site_of_user_modules_is_alive(name: str) -> None:
    example = USER_MODULES[name]
    module, batch = example.make().train(), example.batch()
    with nothing_changed(module):
        found = dropsearch.check_dropout(module, batch)
    assert [each.site.name for each in found.sites] == [row[0] for row in example.sites]
    assert all(each.alive for each in found.sites if each.site.controllable)


def test_a_lightning_module_that_does_all_well_has_no_findings() -> None:
    found = dropsearch.check_dropout(Litten(), labelled())
    assert found.ok
    assert found.alive == ("model",)
    assert repr(found).splitlines() == ["site   alive", "model  yes"]


@pytest.mark.parametrize(("make", "batch"), [(Litten, labelled), (Child, features(4, 5))])
def test_a_module_in_eval_mode_trains_without_dropout(make: Any, batch: Any) -> None:
    found = dropsearch.check_dropout(make().eval(), batch())
    assert found.alive == ()
    assert not found.ok
    assert "is in eval mode: Lightning does not change a module's mode" in found.findings[0]
    assert "call module.train() before fit" in found.findings[0]


def test_of_manual_optimisation_the_losses_that_it_gives_away_are_compared() -> None:
    found = dropsearch.check_dropout(Adversarial(), labelled())
    assert found.alive == ("generator.1", "model")


def test_a_step_that_shows_no_loss_cannot_be_tried() -> None:
    class Backward(Adversarial):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            F.cross_entropy(self(batch[0]), batch[1]).backward()

    with pytest.raises(InputError, match=r"passes its loss to self\.manual_backward, got NoneType"):
        dropsearch.check_dropout(Backward(), labelled())


def test_a_part_in_eval_mode_is_named() -> None:
    module = nn.Sequential(Base(5), nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.2)))
    module[1].eval()
    found = dropsearch.check_dropout(module, torch.randn(3, 5))
    assert (found.alive, found.dead, found.findings) == (("0.drop",), ("1.1",), ())
    assert found.sites[1].finding.startswith("1 is in eval mode and does not drop: call 1.train()")


def test_a_part_that_stays_in_eval_mode_is_dead() -> None:
    found = dropsearch.check_dropout(Frozen(), labelled())
    assert found.dead == ("backbone.drop",)
    assert "stays in eval mode (frozen)" in found.sites[0].finding


def test_a_frozen_part_that_still_drops_is_noticed() -> None:
    class Beside(nn.Module):
        """Adds a frozen branch to what trains."""

        def __init__(self) -> None:
            super().__init__()
            self.base, self.head = Base(5).requires_grad_(False), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x) + self.base(x)

    found = dropsearch.check_dropout(Beside(), torch.randn(3, 5))
    assert found.sites[0].alive
    assert found.sites[0].finding.startswith("base is frozen, and no trainable parameter depends on it")


def test_a_frozen_part_in_front_of_what_trains_may_drop() -> None:
    module = nn.Sequential(Base(5), nn.Linear(5, 4))
    module[0].requires_grad_(False)
    found = dropsearch.check_dropout(module, torch.randn(3, 5))
    assert (found.alive, found.sites[0].finding) == (("0.drop",), "")


class Detour(nn.Module):
    """Drops where nothing is made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lost, self.zero = nn.Linear(4, 4), nn.Dropout(0.3), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        self.lost(x)
        return self.fc(x) + self.zero(torch.zeros_like(x))


def test_a_site_without_effect_is_dead() -> None:
    found = dropsearch.check_dropout(Detour(), torch.randn(3, 4))
    assert found.dead == ("lost", "zero")
    assert "rates 0 and 0.9 give the same output" in found.sites[0].finding


def test_a_branch_that_reaches_the_log_but_not_the_loss_is_dead() -> None:
    class Logs(Litten):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.log("noise", F.dropout(batch[0], 0.5, self.training).sum())
            return super().training_step(batch, batch_idx)

    found = dropsearch.check_dropout(Logs(), labelled())
    assert (found.dead, found.alive) == (("model",), ("model#2",))
    assert "the same loss" in found.sites[0].finding


def test_a_one_layer_lstm_has_a_dropout_that_does_nothing() -> None:
    found = dropsearch.check_dropout(OneLayer(), torch.randn(2, 3, 4))
    assert found.dead == ("lstm",)
    assert "it has no effect: it drops between layers, but there is only one" in found.sites[0].finding
    assert found.alive == ("gru",)


def test_the_dropout_between_two_layers_is_alive_in_training_and_dead_in_eval_mode() -> None:
    batch = {key: value for key, value in sentences().items() if key != "tags"}
    assert dropsearch.check_dropout(Tagger(), batch).alive == ("drop", "lstm", "model")
    assert dropsearch.check_dropout(Tagger().eval(), batch).alive == ()


def test_a_site_behind_an_if_is_not_tried() -> None:
    found = {each.site.name: each for each in dropsearch.check_dropout(Conditional(), torch.randn(4, 5)).sites}
    assert found["sometimes"].alive is None
    assert "untaken branch" in found["sometimes"].finding


def test_what_is_random_out_of_reach_does_not_pass_for_an_effect() -> None:
    found = dropsearch.check_dropout(nn.Sequential(Detour(), nn.RReLU()), torch.randn(3, 4))
    assert set(found.dead) == {"0.lost", "0.zero"}


class ForgotTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.fc(x), 0.5)
        return F.dropout(x, 0.2, self.training)


class AttendsAlways(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.3)


def test_a_call_that_forgot_training_drops_in_eval_mode_too() -> None:
    first, second = dropsearch.check_dropout(ForgotTraining(), torch.randn(3, 4)).sites
    assert first.alive
    assert "it also drops in eval mode: pass training=self.training to the call" in first.finding
    assert second.finding == ""
    (attention,) = dropsearch.check_dropout(AttendsAlways(), torch.randn(2, 3, 4)).sites
    assert "also drops in eval mode" in attention.finding


def test_a_step_that_needs_training_mode_is_tried_in_it() -> None:
    class TrainingOnly(Litten):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if not self.training:
                raise ValueError("what for?")
            return super().training_step(batch, batch_idx)

    assert dropsearch.check_dropout(TrainingOnly(), labelled()).ok


def test_a_dropout_in_a_plain_list_is_not_reached_by_eval() -> None:
    found = dropsearch.check_dropout(InAList(), torch.randn(3, 5))
    assert [each.alive for each in found.sites] == [True, True]
    assert found.findings[0].startswith("drops[0] (Dropout) is not registered in PyTorch")
    assert len(found.findings) == 2


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ([nn.Linear(2, 2), nn.ReLU()], ": dropsearch.insert_dropout(module) inserts one after each activation"),
        ([nn.Softmax(-1), nn.Linear(2, 2)], ': dropsearch.insert_dropout(module, "1") inserts one after 1'),
        ([nn.Softmax(-1)], ""),
    ],
)
def test_for_a_module_without_dropout_a_working_insertion_is_named(layers: list[nn.Module], told: str) -> None:
    found = dropsearch.check_dropout(nn.Sequential(*layers), torch.randn(3, 2))
    assert repr(found) == f"Sequential has no dropout site{told}"


def test_the_encoder_in_eval_mode_does_not_hide_behind_its_fast_path() -> None:
    module = Encoder()
    module.encoder.layers[1].eval()
    found = dropsearch.check_dropout(module, torch.randint(0, 11, (3, 4)))
    assert set(found.dead) == {f"encoder.layers.1.{part}" for part in ("self_attn", "dropout1", "dropout", "dropout2")}
    assert "encoder.layers.1 is in eval mode" in found.sites[-1].finding


def test_an_output_that_is_a_dataclass_is_compared() -> None:
    @dataclass
    class Output:
        logits: Tensor

    class Wraps(nn.Module):
        def forward(self, x: Tensor) -> Output:
            return Output(F.dropout(x, 0.1, self.training))

    assert dropsearch.check_dropout(Wraps(), torch.randn(3, 4)).alive == ("model",)


def test_a_module_that_returns_no_tensor_is_one_clear_line() -> None:
    class Says(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "hello"

    with pytest.raises(InputError, match=r"check_dropout needs a module that returns tensors.*got str from Says"):
        dropsearch.check_dropout(Says(), torch.randn(3, 4))


def test_a_step_that_returns_no_loss_is_one_clear_line() -> None:
    class Silent(Litten):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            return None

    with pytest.raises(InputError, match=r"Silent\.training_step returns a loss, got NoneType"):
        dropsearch.check_dropout(Silent(), labelled())
