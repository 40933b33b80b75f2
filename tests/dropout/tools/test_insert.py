"""Dropout is put where there was none, and taken away again without a trace."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import dropsearch
from dropsearch.core.errors import InputError
from dropsearch.dropout.row_control import RowBits, RowDropoutControl, mask_shapes, row_rates
from dropsearch.dropout.trial_control import TrialControl
from tests.dropout.tools.test_inventory import nothing_changed
from tests.dropout.user_blocks import Encoder, OneLayer, Tagger, TwoAttentions
from tests.dropout.user_lightning import Litten
from tests.dropout.user_modules import kept_copy, sentences
from tests.dropout.user_nets import Grandchild, ResNetlet


class Plain(nn.Module):
    """Blocks with names, none of which drops."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            [nn.ModuleDict({"fc": nn.Linear(6, 6), "norm": nn.BatchNorm1d(6), "relu": nn.ReLU()}) for _ in range(2)]
        )
        self.head = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3), nn.Softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.encoder:
            x = block["relu"](block["norm"](block["fc"](x)))  # type: ignore[index]
        return self.head(x)


ACTIVATIONS = ("encoder.0.relu", "encoder.1.relu", "head.1")


def controlled(module: nn.Module, x: Tensor, rates: dict[str, float], seed: int = 0) -> Tensor:
    control = TrialControl(module, rates, seed)
    with control.watching(), control.training_step(0):
        return module(x)


def test_a_dropout_stands_behind_each_activation_and_is_a_site_of_that_name() -> None:
    module = Plain()
    done = dropsearch.insert_dropout(module)
    assert done.names == ACTIVATIONS
    assert repr(done) == "dropout at rate 0 after encoder.0.relu, encoder.1.relu, head.1"
    found = dropsearch.dropout_sites(module, torch.randn(4, 6))
    assert [(s.name, s.kind, s.rate, s.activations) for s in found] == [(n, "hidden", 0.0, 6) for n in ACTIVATIONS]


def test_inserted_sites_are_alive_under_the_control() -> None:
    module = Plain()
    dropsearch.insert_dropout(module)
    assert dropsearch.check_dropout(module, torch.randn(4, 6)).alive == ACTIVATIONS


def test_the_inserted_rate_is_the_share_that_is_dropped() -> None:
    module = nn.Sequential(nn.Identity())
    dropsearch.insert_dropout(module, "0", 0.3)
    out = module(torch.ones(300, 300))
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert torch.equal(out.unique(), torch.tensor([0, 1 / 0.7]))
    assert torch.equal(module.eval()(torch.ones(3, 3)), torch.ones(3, 3))


def test_at_rate_zero_the_output_is_the_same_bit_for_bit() -> None:
    module, x = Plain(), torch.randn(4, 6)
    before = copy.deepcopy(module)(x)
    dropsearch.insert_dropout(module)
    assert torch.equal(before, module(x))


def test_removal_undoes_insertion_bit_for_bit() -> None:
    module, x = Plain(), torch.randn(4, 6)
    module.head[1].register_forward_hook(lambda *_: None)  # somebody's own hook stays
    before = copy.deepcopy(module)(x)
    with nothing_changed(module):
        dropsearch.insert_dropout(module, rate=0.5)
        assert dropsearch.remove_dropout(module) == ACTIVATIONS
    assert torch.equal(before, copy.deepcopy(module)(x))
    assert dropsearch.remove_dropout(module) == ()


def test_the_names_in_the_state_dict_stay_as_they_are() -> None:
    module = Plain()
    before = list(module.state_dict())
    dropsearch.insert_dropout(module, rate=0.5)
    assert list(module.state_dict()) == before
    Plain().load_state_dict(module.state_dict())


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("encoder.*.relu", ACTIVATIONS[:2]),
        ("head.0", ("head.0",)),
        (["head.0", "encoder.1.*"], ("encoder.1.fc", "encoder.1.norm", "encoder.1.relu", "head.0")),
        (nn.BatchNorm1d, ("encoder.0.norm", "encoder.1.norm")),
        ([nn.Tanh, "head.2"], ("head.1", "head.2")),
    ],
)
def test_patterns_and_types_say_where(where: Any, names: tuple[str, ...]) -> None:
    assert dropsearch.insert_dropout(Plain(), where).names == names


def test_an_activation_with_a_dropout_behind_it_is_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Dropout(0.1), nn.Linear(3, 3), nn.ReLU())
    done = dropsearch.insert_dropout(module)
    assert (done.names, done.left_out) == (("4",), ("1",))
    assert repr(done) == "dropout at rate 0 after 4; already followed by dropout: 1"


def test_one_relu_used_throughout_is_one_site() -> None:
    module = ResNetlet()
    assert dropsearch.insert_dropout(module).names == ("stem.2", "relu")
    found = dropsearch.dropout_sites(module, torch.randn(2, 1, 8, 8))
    assert [(site.name, site.kind) for site in found] == [("stem.2", "conv"), ("relu", "conv")]
    assert all(each.alive for each in dropsearch.check_dropout(module, torch.randn(2, 1, 8, 8)).sites)


def test_a_module_under_two_names_is_found_by_either() -> None:
    module = nn.Module()
    module.first = module.second = nn.ReLU()
    assert dropsearch.insert_dropout(module, "second").names == ("first",)


def test_behind_a_layer_the_kind_is_the_layers() -> None:
    module = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten(), nn.Linear(12, 2))
    dropsearch.insert_dropout(module, [nn.Conv1d, nn.Linear])
    assert [s.kind for s in dropsearch.dropout_sites(module, torch.randn(5, 2, 4))] == ["conv", "hidden"]


def test_behind_recurrent_layers_and_attention_the_output_is_dropped_and_the_rest_kept() -> None:
    batch = {key: value for key, value in sentences().items() if key != "tags"}
    tagger = Tagger()
    dropsearch.insert_dropout(tagger, "lstm", 0.5)  # packed sequences
    found = {site.name: site for site in dropsearch.dropout_sites(tagger, batch)}
    assert (found["lstm"].controllable, found["lstm"].kind) == (True, "rnn")
    assert (found["lstm#2"].controllable, found["lstm#2"].kind) == (True, "rnn")
    assert "lstm#2" in dropsearch.check_dropout(tagger, batch).alive

    layers = OneLayer()
    dropsearch.insert_dropout(layers, nn.GRU, 1.0)
    assert torch.count_nonzero(layers(torch.randn(2, 3, 4))) == 0

    attending = TwoAttentions(0.1)
    dropsearch.insert_dropout(attending, "attend", 0.2)
    found = dropsearch.dropout_sites(attending, torch.randn(2, 3, 8))
    assert [(s.kind, s.rate) for s in found] == [("attention", 0.1), ("residual", 0.2)]


def test_after_a_selu_mean_and_variance_are_kept() -> None:
    module = nn.Sequential(nn.SELU())
    dropsearch.insert_dropout(module, rate=0.2)
    out = module(torch.randn(500, 500, dtype=torch.float64))
    assert float(out.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(out.var()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("kept", ["deepcopy", "pickle"])
def test_a_copy_has_the_dropout_and_loses_it_by_itself(kept: str) -> None:
    module = Plain()
    dropsearch.insert_dropout(module, rate=0.25)
    copied = kept_copy(module, kept)
    copied.to(torch.float64)
    x = torch.randn(4, 6, dtype=torch.float64)
    assert [site.rate for site in dropsearch.dropout_sites(copied, x)] == [0.25] * 3
    assert dropsearch.remove_dropout(copied) == ACTIVATIONS
    assert dropsearch.dropout_sites(copied, x) == ()
    assert len(dropsearch.dropout_sites(module, torch.randn(4, 6))) == 3


def test_a_lightning_module_takes_it_too() -> None:
    module = Litten()
    dropsearch.insert_dropout(module, ["bn"], 0.1)
    batch = (torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2]))
    assert dropsearch.check_dropout(module, batch).alive == ("bn", "model")


def test_each_row_drops_at_its_own_rate_as_sequentially() -> None:
    modules = [Plain().double() for _ in range(3)]
    for module in modules:
        dropsearch.insert_dropout(module)
    skeleton, x = copy.deepcopy(modules[0]), torch.randn(5, 6, dtype=torch.float64)
    rates = [dict.fromkeys(ACTIVATIONS, rate) for rate in (0.0, 0.4, 0.8)]
    parameters, buffers = stack_module_state(modules)  # type: ignore[arg-type]
    shapes = mask_shapes(skeleton, ACTIVATIONS, lambda: skeleton(x))
    bits = dict(RowBits(shapes, 3, torch.device("cpu")).draw([1, 2, 3], [0, 0, 0]))
    control = RowDropoutControl(skeleton)

    def row(parameters: Any, buffers: Any, rates: Any, bits: Any) -> Tensor:
        control.load(rates, bits)
        with control.step():
            return functional_call(skeleton, (parameters, buffers), (x,))

    with control.watching():
        together = vmap(row)(parameters, buffers, row_rates(rates, x.dtype, x.device), bits)
    alone = [controlled(module, x, rate, seed) for module, rate, seed in zip(modules, rates, (1, 2, 3), strict=True)]
    assert torch.allclose(together, torch.stack(alone), atol=1e-12)


def test_inserting_twice_is_refused_and_changes_nothing() -> None:
    module = Plain()
    dropsearch.insert_dropout(module, "head.1", 0.1)
    with (
        nothing_changed(module),
        pytest.raises(InputError, match=r"got a second one after head\.1: remove_dropout\(module\)"),
    ):
        dropsearch.insert_dropout(module)
    assert dropsearch.insert_dropout(module, "encoder.*.relu").names == ACTIVATIONS[:2]


@pytest.mark.parametrize(
    ("module", "where", "rate", "message"),
    [
        (
            Plain(),
            "encoder.*.rely",
            0.1,
            r'where must name submodules of Plain .* got "encoder\.\*\.rely".*its submodules are',
        ),
        (Plain(), "heat.1", 0.1, r'got "heat\.1" \(did you mean "head\.1"\?\)'),
        (Plain(), [nn.Conv2d], 0.1, "got Conv2d: its submodules are encoder"),
        (Encoder(), "*.out_proj", 0.1, "types of called submodules"),
        (Litten(), "after_activation", 0.1, r'Litten has none: .* where=\["fc1"\] or where=\[torch\.nn\.Linear\]'),
        (
            Plain(),
            5,
            0.1,
            "where must be after_activation, a name, pattern or type of submodules, or a list, got 5",
        ),
        (Plain(), [], 0.1, r"where must be after_activation, .* got \[\]"),
        (Plain(), "head.1", 1.5, r"rate must be a number in \[0, 1\], .* got 1\.5"),
        (Plain(), "head.1", "0.5", r"rate must be a number in \[0, 1\], .* got '0\.5'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(module: nn.Module, where: Any, rate: Any, message: str) -> None:
    with nothing_changed(module), pytest.raises(InputError, match=message) as caught:
        dropsearch.insert_dropout(module, where, rate)
    assert "\n" not in str(caught.value)


def test_a_module_that_has_dropout_already_keeps_its_sites() -> None:
    module = Grandchild()
    dropsearch.insert_dropout(module, [nn.Linear])
    found = dropsearch.dropout_sites(module, torch.randn(4, 5))
    assert [site.name for site in found] == ["model", "body", "drop", "head"]
