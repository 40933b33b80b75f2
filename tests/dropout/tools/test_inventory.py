"""The inventory of modules as users write them."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import dropsearch
from dropsearch.core.errors import InputError
from tests.dropout.user_blocks import Block, Encoder
from tests.dropout.user_lightning import Adversarial, Litten, Watching
from tests.dropout.user_modules import USER_MODULES, features, labelled
from tests.dropout.user_nets import Conditional, LoopingNet, Moving, Renormed, SmallVision


def state(module: nn.Module) -> dict[str, Any]:
    """Everything of a module that an outsider can see, and the random generators."""
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}
    return {
        "tensors": {name: value.clone() for name, value in module.state_dict().items()},
        "gradients": grads,
        "modes": {name: part.training for name, part in module.named_modules()},
        "hooks": {name: (len(p._forward_hooks), len(p._forward_pre_hooks)) for name, p in module.named_modules()},
        "attributes": {name: set(vars(part)) for name, part in module.named_modules()},
        "random": (torch.get_rng_state(), random.getstate(), np.random.get_state()[1]),  # type: ignore
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(np.all(a == b))


@contextmanager
def nothing_changed(module: nn.Module) -> Iterator[None]:
    before = state(module)
    yield
    assert same(before, state(module))


@pytest.mark.parametrize("name", USER_MODULES)
def test_the_inventory_of_a_user_module_is_exact(name: str) -> None:
    example = USER_MODULES[name]
    found = dropsearch.dropout_sites(example.make(), example.batch())
    assert tuple((s.name, s.kind, s.rate, s.activations, s.controllable) for s in found) == example.sites
    assert all(bool(site.reason) != site.controllable for site in found)


@pytest.mark.parametrize("name", USER_MODULES)
@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_module_is_changed(name: str, training: bool) -> None:
    example = USER_MODULES[name]
    module, batch = example.make().train(training), example.batch()
    next(module.parameters()).grad = torch.ones_like(next(module.parameters()))
    kept = copy.deepcopy(batch)
    with nothing_changed(module):
        dropsearch.dropout_sites(module, batch)
    assert same(kept, batch)


def test_attributes_that_a_forward_changes_are_put_back() -> None:
    module = Moving()
    seen, average = module.seen, module.average
    dropsearch.dropout_sites(module, torch.randn(5, 4))
    assert module.seen is seen
    assert module.seen == []
    assert module.calls == 0
    assert module.average is average
    assert torch.count_nonzero(average) == 0


def test_parameters_that_a_forward_touches_are_put_back() -> None:
    module = Renormed()
    with torch.no_grad():
        module.embed.weight.fill_(3.0)
    dropsearch.dropout_sites(module, torch.arange(6).view(2, 3))
    assert torch.equal(module.embed.weight, torch.full((7, 4), 3.0))


def test_an_input_that_a_forward_writes_into_is_not_the_users() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x.mul_(2), 0.5, self.training)

    batch = torch.ones(3, 4)
    dropsearch.dropout_sites(Writes(), batch)
    assert torch.equal(batch, torch.ones(3, 4))


def test_all_is_put_back_when_the_module_raises() -> None:
    module, batch = SmallVision().eval(), torch.randn(2, 1, 9, 20)
    with nothing_changed(module), pytest.raises(InputError):
        dropsearch.dropout_sites(module, batch)


def test_stochastic_depth_is_a_site_and_noise_is_none() -> None:
    found = {site.name: site for site in dropsearch.dropout_sites(Block(), torch.randn(4, 6))}
    assert list(found) == ["drop", "drop_path", "off"]
    assert all(site.controllable and site.kind == "residual" for site in found.values())
    assert [site.rate for site in found.values()] == [0.1, 0.2, 0.0]


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.8)),
        lambda x: x * torch.empty_like(x).bernoulli_(0.8),
        lambda x: x * x.new_empty(x.shape).bernoulli_(0.8),
        lambda x: x * (torch.rand_like(x) > 0.2),
        lambda x: x * (torch.rand(x.shape) > 0.2),
        lambda x: x * torch.distributions.Bernoulli(0.8).sample(x.shape),
        lambda x: x * torch.bernoulli(torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(3, 4)),
        lambda x: x * (torch.rand_like(x) > torch.tensor([[0.1, 0.2, 0.3, 0.4]])),
        lambda x: torch.native_dropout(x, 0.3, True)[0],
    ],
)
def test_a_forward_that_drops_by_its_own_draws_is_named(draw: Any) -> None:
    class Draws(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return draw(x)

    (site,) = dropsearch.dropout_sites(Draws(), torch.rand(3, 4))
    assert site.name.startswith("model:")
    assert site.activations == 4
    assert not site.controllable
    assert 'dropsearch.register_op(Draws, rate="ATTRIBUTE")' in site.reason


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: x + torch.randn(x.shape),
        lambda x: x + torch.empty_like(x).normal_() * torch.exp(x),
        lambda x: x + torch.empty_like(x).uniform_(),
        lambda x: x + torch.rand_like(x) * 0.1,
        lambda x: x + torch.distributions.Normal(0.0, 1.0).sample(x.shape),
        lambda x: torch.distributions.Normal(x, 1.0).rsample(),
        lambda x: x * torch.bernoulli(x),
        lambda x: x * torch.empty_like(x).bernoulli_(x),
        lambda x: x * x.bernoulli(),
        lambda x: x * torch.distributions.Bernoulli(logits=x).sample(),
        lambda x: x * (torch.rand_like(x) < x),
        lambda x: x * (x > torch.rand(x.shape)),
        lambda x: torch.distributions.RelaxedBernoulli(torch.tensor(0.5), logits=x).rsample(),
        lambda x: F.gumbel_softmax(x),
        lambda x: F.rrelu(x, training=True),
    ],
)
def test_noise_and_samplings_are_no_sites(draw: Any) -> None:
    class Draws(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return draw(x)

    assert dropsearch.dropout_sites(Draws(), torch.rand(3, 4)) == ()


@pytest.mark.parametrize("name", ["StochasticDepth", "DropPath", "DropPath2d", "ZoneOutLSTMCell", "DropBlock2d"])
def test_stochastic_modules_of_other_libraries_are_known_by_the_name_of_their_type(name: str) -> None:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return x * torch.empty(x.shape[0], 1).bernoulli_(1 - self.p) if self.training else x  # type: ignore

    kind = type(name, (nn.Module,), {"forward": forward})
    part = kind()
    part.p = 0.4  # type: ignore
    (site,) = dropsearch.dropout_sites(nn.Sequential(part), torch.randn(3, 4))
    assert (site.name, site.rate, site.controllable) == ("0", 0.4, True)


def test_a_module_of_that_name_whose_rate_is_not_found_is_named() -> None:
    class DropPath(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.empty(x.shape[0], 1).bernoulli_(0.8)

    (site,) = dropsearch.dropout_sites(nn.Sequential(DropPath()), torch.randn(3, 4))
    assert (site.name, site.controllable) == ("0", False)
    assert 'dropsearch.register_op(DropPath, rate="ATTRIBUTE")' in site.reason


def test_a_module_of_that_name_that_drops_by_a_known_call_can_be_controlled() -> None:
    class DropPath(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout1d(x.unsqueeze(0), 0.3, self.training).squeeze(0)

    (site,) = dropsearch.dropout_sites(nn.Sequential(DropPath()), torch.randn(3, 4))
    assert site.controllable


def test_what_torchscript_compiled_is_named() -> None:
    with pytest.warns(DeprecationWarning, match="jit"):
        inner = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))
    (site,) = dropsearch.dropout_sites(nn.Sequential(nn.Linear(4, 4), inner), torch.randn(3, 4))
    assert (site.name, site.controllable) == ("1", False)
    assert "TorchScript" in site.reason
    assert [site.name for site in dropsearch.dropout_sites(inner, torch.randn(3, 4))] == ["model"]


def test_a_compiled_module_shows_what_was_compiled() -> None:
    module = torch.compile(LoopingNet(), backend="eager")
    found = dropsearch.dropout_sites(module, torch.randn(2, 4))  # type: ignore
    assert [site.name for site in found] == ["_orig_mod"]
    with pytest.raises(InputError, match=r"rates of calls \(_orig_mod\) .* got a compiled OptimizedModule"):
        dropsearch.set_rates(module, {"_orig_mod": 0.3})  # type: ignore
    with pytest.raises(InputError, match="LightningModule that is not compiled, got a compiled Litten"):
        dropsearch.dropout_sites(torch.compile(Litten(), backend="eager"), labelled())  # type: ignore


def test_a_dropout_behind_an_if_is_a_site_when_the_batch_leads_there() -> None:
    found = dropsearch.dropout_sites(Conditional(deep=True), torch.randn(4, 5))
    assert [site.name for site in found if site.controllable] == ["always", "sometimes", "model"]


@pytest.mark.parametrize(
    ("make", "names"),
    [(Adversarial, ["generator.1", "model"]), (Watching, ["model"])],
)
def test_a_step_may_ask_for_its_optimisers_which_stand_still(make: Any, names: list[str]) -> None:
    module = make()
    with nothing_changed(module):
        found = dropsearch.dropout_sites(module, labelled())
    assert [site.name for site in found] == names


def test_the_user_knows_the_kinds_better() -> None:
    batch = torch.randint(0, 11, (3, 4))
    kinds = {"encoder.layers.0.dropout": "conv", "encoder.*": "embedding"}
    found = dropsearch.dropout_sites(Encoder(), batch, kinds=kinds)
    assert [site.kind for site in found if site.name == "encoder.layers.0.dropout"] == ["conv"]
    assert {site.kind for site in found if site.name != "encoder.layers.0.dropout"} == {"embedding"}


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ({"model": "hiden"}, r'kinds\["model"\] must be one of input, .*, got "hiden" \(did you mean "hidden"\?\)'),
        (["model"], r"kinds must be a kind by site name or pattern, got \['model'\]: for example"),
        ({"modl*": "conv"}, r'kinds must name sites of the module, got "modl\*".*: its sites are model'),
    ],
)
def test_a_wrong_kind_is_one_clear_line(kinds: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dropsearch.dropout_sites(LoopingNet(), torch.randn(2, 4), kinds=kinds)


@pytest.mark.parametrize(
    ("module", "batch", "message"),
    [
        (Encoder(), torch.randn(2, 3), r"a batch that Encoder\.forward takes, got RuntimeError .*pass its argument"),
        (Litten(), torch.randn(6, 5), r"a batch that Litten\.training_step takes, got ValueError .*that the Trainer"),
        (nn.LazyLinear(3), torch.randn(2, 3), "whose parameters exist, got LazyLinear"),
        (len, torch.randn(2, 3), r"needs a torch\.nn\.Module, got builtin_function_or_method"),
    ],
)
def test_what_cannot_run_is_one_clear_line(module: Any, batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dropsearch.dropout_sites(module, batch)
    assert "\n" not in str(caught.value)


def test_a_forward_that_takes_one_dict_or_one_tuple_gets_it() -> None:
    class TakesOne(nn.Module):
        def forward(self, batch: Any) -> Tensor:
            x = batch["x"] if isinstance(batch, dict) else batch[0]
            return F.dropout(x, 0.5, self.training)

    for batch in ({"x": torch.ones(2, 3)}, (torch.ones(2, 3), torch.ones(2))):
        assert len(dropsearch.dropout_sites(TakesOne(), batch)) == 1


def test_printed_the_inventory_is_a_table_with_the_reasons() -> None:
    lines = repr(dropsearch.dropout_sites(Block(), features(4, 6)())).splitlines()
    assert lines[0].split() == ["site", "kind", "rate", "activations"]
    assert lines[1].split() == ["drop", "residual", "0.1", "6"]
    assert lines[2].split() == ["drop_path", "residual", "0.2", "1"]
    reasons = repr(dropsearch.dropout_sites(Conditional(), torch.randn(4, 5)))
    assert "sometimes  hidden" in reasons.split("not controllable: ")[0]
    assert repr(dropsearch.dropout_sites(nn.Linear(2, 2), torch.ones(1, 2))) == "no dropout sites"


def test_a_trainer_that_a_step_asks_for_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    example = USER_MODULES["dict_batch"]
    dropsearch.dropout_sites(example.make(), example.batch())
    assert capfd.readouterr() == ("", "")
