"""A trial's control sees each drop, with a function mode and, where functions can be shown, without one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch._compat.torch_modes import is_active
from dropsearch.dropout.trial_control import OBSERVED, FirstSteps, HiddenDrawError, TrialControl

STEPS = OBSERVED + 2


class Net(nn.Module):
    """Drops in layers, in bare calls and in attention, and at the end by `extra`."""

    def __init__(self, extra: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.drop, self.channels, self.alpha = nn.Dropout(0.3), nn.Dropout1d(0.2), nn.AlphaDropout(0.1)
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(self.drop(self.drop(x)), 0.1, self.training)
        x = x + self.attend(x, x, x)[0]
        return self.extra(self.alpha(self.channels(x)))


def run(
    model: nn.Module,
    needs_mode: bool,
    before: Callable[[int], None] = lambda _: None,
    known: FirstSteps | None = None,
) -> tuple[list[Any], Any]:
    """Return what each step gives, whether the mode was on in it, and how many calls of each site dropped."""
    torch.manual_seed(0)
    x, found = torch.rand(4, 6, 8), []
    known = known or FirstSteps(need_mode=needs_mode)
    control = TrialControl(model, {"drop": 0.4, "drop@2": 0.0, "model": 0.2}, 5, first_steps=known)
    handle = model.register_forward_pre_hook(lambda *_: found.append(is_active(control)))
    outputs = []
    with control.whole_trial():
        for step in range(STEPS):
            before(step)
            with control.training_step(step):
                outputs.append(model(x))
    handle.remove()
    return [outputs, dict(control.dropped), control.unnamed], found


def same(one: list[Any], other: list[Any]) -> bool:
    return one[1:] == other[1:] and all(map(torch.equal, one[0], other[0]))


def test_shown_functions_drop_as_under_a_mode():
    torch.manual_seed(1)
    model = Net()
    (by_mode, always), (shown, on) = run(model, True), run(model, False)
    assert same(by_mode, shown)
    assert always == [True] * STEPS
    assert on == [True] * OBSERVED + [False] * (STEPS - OBSERVED)


def test_what_first_steps_showed_holds_for_later_trials_with_the_same_code() -> None:
    torch.manual_seed(1)
    model, known = Net(), FirstSteps()
    first, second = (run(copy.deepcopy(model), False, known=known) for _ in range(2))
    assert same(first[0], second[0])
    assert second[1] == [False] * STEPS
    drawing = FirstSteps()
    (_, first_on), (_, second_on) = (run(Net(torch.rand_like), False, known=drawing) for _ in range(2))
    assert first_on == second_on == [True] * STEPS


@pytest.mark.parametrize(
    "extra",
    [
        lambda x: x + torch.randn_like(x),
        lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        lambda x: torch.dropout(x, 0.5, True),
        lambda x: x + torch.poisson(x.abs()),
    ],
    ids=["draw", "attention", "torch.dropout", "unknown to the mode"],
)
def test_other_functions_keep_the_mode_on(extra: Any):
    torch.manual_seed(1)
    model = Net(extra)
    (by_mode, _), (found, on) = run(model, True), run(model, False)
    assert same(by_mode, found)
    assert on == [True] * STEPS


def test_a_draw_that_comes_late_is_noticed():
    model = Net()

    def before(step: int) -> None:
        if step == OBSERVED:
            model.extra = torch.rand_like

    known = FirstSteps()
    with pytest.raises(HiddenDrawError):
        run(model, False, before, known)
    assert known.need_mode, "the trial begins again with the mode"
    model.extra = lambda x: x
    assert run(model, False, before, known)[1] == [True] * STEPS


def test_functions_are_their_own_again():
    code = F.dropout.__code__
    with TrialControl(nn.Dropout(), {}, 0).whole_trial():
        assert F.dropout.__code__ is not code
    assert F.dropout.__code__ is code


def test_outside_of_steps_shown_functions_are_controlled():
    model, x = nn.Dropout(0.5), torch.ones(100)
    control = TrialControl(model, {"model": 0.0}, 0, off=True)
    with control.whole_trial():
        assert torch.equal(model(x), x)
        with control.seeing():
            assert torch.equal(torch.dropout(x, 0.5, True), x)
    assert not torch.equal(model(x), x)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_modules_are_scripted_as_they_are_written() -> None:
    class Dropping(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x, 0.5, self.training)

    with TrialControl(Dropping(), {}, 0).whole_trial():
        inside = torch.jit.script(Dropping().eval())
    assert torch.equal(inside(torch.ones(2)), torch.ones(2))
    assert torch.equal(torch.jit.script(Dropping().eval())(torch.ones(2)), torch.ones(2))


def helper(x: Tensor) -> Tensor:
    return torch.dropout(x, 0.0, True)


class Late(Net):
    """Reaches a call that only the mode sees after the observed steps, in its own code or in that of a function."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(self.late(x) if self.calls > OBSERVED else x)

    def late(self, x: Tensor) -> Tensor:
        return torch.dropout(x, 0.0, True)


class LateInFunction(Late):
    def late(self, x: Tensor) -> Tensor:
        return helper(x)


class LateAttention(Late):
    def late(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)


class LateForked(Late):
    def late(self, x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            return torch.rand_like(x)


class LateRecurrent(Late):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 8, 2)

    def late(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


@pytest.mark.parametrize("kind", [Late, LateInFunction, LateAttention, LateForked, LateRecurrent])
def test_a_call_that_comes_late_is_seen(kind: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kind()
    (found, on), (by_mode, _) = (run(copy.deepcopy(model), needs) for needs in (False, True))
    assert on == [True] * STEPS
    assert same(found, by_mode)


def test_code_that_names_no_hidden_call_runs_without_the_mode() -> None:
    assert run(Net(), False)[1] == [True] * OBSERVED + [False] * (STEPS - OBSERVED)
