"""The plan: an array only where it is proven, as wide as pays."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.models import Classifier
from dropsearch.training.planning.equivalence import proof, proof_specs
from dropsearch.training.planning.plan import make_plan
from dropsearch.training.planning.throughput import widest, widest_from_above
from dropsearch.training.protocols import TrainerSettings
from tests.training.conftest import make_factory, make_source, make_specs

SETTINGS = TrainerSettings(2, "cpu")


def pair(model: str = "mlp") -> tuple[TrialSpec, TrialSpec]:
    first, second, *_ = make_specs(model, 2)
    return first, second


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn", "transformer"])
def test_every_model_of_the_zoo_is_proven(model: str, norm: str) -> None:
    assert proof(make_factory(model, norm), make_source(model), SETTINGS, pair(model)) == ""


class InFloat32(nn.Module):
    """Computes some of it in float32, whatever its weights are: by name, by argument, and into a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x.flatten(1)).softmax(-1, dtype=torch.float32)
        return self.last(x.to(torch.float32) * 9).float() ** 2


def test_what_a_module_computes_in_float32_is_compared_in_float64() -> None:
    def make(spec: TrialSpec) -> Classifier:
        torch.manual_seed(spec.seed)
        return Classifier(InFloat32())

    assert proof(make, make_source("mlp"), SETTINGS, pair()) == ""


class Asks(nn.Module):
    """Looks at its numbers, but not where it is compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        present = (x.flatten(1) > -1e9).double()
        if torch.compiler.is_compiling() or not present.all():
            x = x.flatten(1) * present
        return self.layer(x.flatten(1))


def test_a_module_that_asks_does_not_look_at_values_in_an_array() -> None:
    def make(spec: TrialSpec) -> Classifier:
        torch.manual_seed(spec.seed)
        return Classifier(Asks())

    assert proof(make, make_source("mlp"), SETTINGS, pair()) == ""
    assert not torch.compiler.is_compiling()


class Reads(nn.Module):
    """Something that an array cannot do, or does differently."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        if self.how == "item" and x.sum().item() > 1e9:
            return self.layer(x)
        if self.how == "random":
            x = x + torch.randn_like(x)
        if self.how == "mask":
            x = x + x[x > 0].sum()
        if self.how == "bernoulli":
            x = x * torch.bernoulli(torch.full_like(x, 0.5))
        return self.layer(x)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("item", "the module takes a number out of a tensor"),
        ("random", "the module draws random numbers of its own from torch"),
        ("bernoulli", "the module draws random numbers of its own from torch"),
        ("mask", "the module makes tensors whose size depends on their values"),
    ],
)
def test_what_an_array_cannot_do_is_trained_alone_and_the_reason_says_what(how: str, words: str) -> None:
    def make(spec: TrialSpec) -> Classifier:
        torch.manual_seed(spec.seed)
        return Classifier(Reads(how))

    reason = proof(make, make_source("mlp"), SETTINGS, pair())
    assert words in reason
    assert "\n" not in reason
    plan = make_plan(make, make_source("mlp"), SETTINGS, [pair()], engine="auto", width=None)
    assert (plan.engine, plan.reason) == ("sequential", reason)
    with pytest.raises(InputError, match="use engine=auto"):
        make_plan(make, make_source("mlp"), SETTINGS, [pair()], engine="vectorized", width=None)


def test_a_module_whose_rows_touch_each_other_is_found_out() -> None:
    class Counting(Classifier):
        """Scales its loss by how often any instance has run: the second row differs from the trial alone."""

        calls = 0

        def training_step(self, batch: tuple[torch.Tensor, ...], batch_idx: int = 0) -> torch.Tensor:
            Counting.calls += 1
            return super().training_step(batch, batch_idx) * Counting.calls

    factory = make_factory("mlp")
    reason = proof(lambda spec: Counting(factory(spec).net), make_source("mlp"), SETTINGS, pair())
    assert "the loss" in reason
    assert "Counting" in reason


def test_several_optimisers_are_named_as_the_reason() -> None:
    class Two(Classifier):
        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]

    factory = make_factory("mlp")
    reason = proof(lambda spec: Two(factory(spec).net), make_source("mlp"), SETTINGS, pair())
    assert "configure_optimizers" in reason


def test_weights_of_low_precision_are_trained_alone() -> None:
    reason = proof(make_factory("mlp"), make_source("mlp"), TrainerSettings(2, "cpu", "bf16-true"), pair())
    assert "bf16-true" in reason


def test_an_engine_that_was_asked_for_is_not_measured() -> None:
    alone = make_plan(make_factory("mlp"), make_source("mlp"), SETTINGS, [pair()], engine="sequential", width=None)
    array = make_plan(make_factory("mlp"), make_source("mlp"), SETTINGS, [pair()], engine="vectorized", width=5)
    assert (alone.engine, array.engine, array.width) == ("sequential", "vectorized", 5)


def test_a_measured_plan_names_a_width_and_what_was_measured() -> None:
    plan = make_plan(make_factory("mlp"), make_source("mlp"), SETTINGS, [pair()], engine="auto", width=None)
    assert plan.engine == "vectorized"
    assert plan.width in plan.rates


def test_where_each_trial_is_its_own_program_the_speed_is_that_of_one_row() -> None:
    given = {"settings": SETTINGS, "pairs": [pair()], "engine": "vectorized", "apart": "model.slope"}
    plan = make_plan(make_factory("mlp"), make_source("mlp"), width=None, **given)
    assert plan.speed == plan.rates[1]
    assert plan.reason.endswith("arrays of one row, for model.slope makes each trial its own program")
    chosen = make_plan(make_factory("mlp"), make_source("mlp"), width=5, **given)
    assert "model.slope makes each trial its own program" in chosen.reason


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({1: 10, 2: 19, 4: 35, 8: 60, 16: 90, 32: 120}, 32),
        ({1: 10, 2: 9, 4: 8, 8: 100}, 1),
        ({1: 10, 2: 9, 4: 20, 8: 19, 16: 18, 32: 90}, 4),
    ],
)
def test_the_width_grows_as_long_as_that_pays(rates: dict[int, float], best: int) -> None:
    measured = widest(lambda width: rates[width], 32)
    assert max(measured, key=measured.__getitem__) == best


def test_the_trials_of_a_proof_differ_in_every_rate() -> None:
    from dropsearch.core.records import Site

    sites = tuple(Site(name, "hidden", 0.1, 1) for name in "abc")
    first, second = proof_specs("dropout", sites, dropping=True)
    assert len({*first.rates.values(), *second.rates.values()}) == 6
    assert proof_specs("none", sites, dropping=False)[0].rates == {}


def test_where_memory_ends_what_was_measured_before_counts() -> None:
    assert widest(lambda width: 10.0 * width if width < 8 else None, 32) == {1: 10.0, 2: 20.0, 4: 40.0}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        widest(lambda _: None, 32)


def test_a_module_that_cannot_be_measured_trains_alone_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("PReLU wants one dtype")

    monkeypatch.setattr("dropsearch.training.planning.throughput.Throughput.rate", broken)
    given = make_factory("mlp"), make_source("mlp"), TrainerSettings(2, "cpu"), [pair()]
    assert make_plan(*given, engine="auto", width=None).reason == "RuntimeError: PReLU wants one dtype"
    with pytest.raises(InputError, match="engine=vectorized cannot train this module"):
        make_plan(*given, engine="vectorized", width=None)


def test_on_a_gpu_widths_are_tried_from_the_greatest_down_until_one_gains_nothing() -> None:
    throughput = {512: None, 256: 900.0, 64: 1000.0, 16: 500.0, 4: 100.0}
    assert widest_from_above(throughput.get, 512, 60.0) == {256: 900.0, 64: 1000.0, 16: 500.0}
    assert widest_from_above(throughput.get, 64, 60.0) == {64: 1000.0, 16: 500.0}
    assert widest_from_above({1: 5.0}.get, 1, 60.0) == {1: 5.0}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        widest_from_above(lambda _: None, 8, 60.0)
