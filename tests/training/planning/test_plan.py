"""The plan trains vectorized only if the results are equal, at the fastest width."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.models import Classifier
from dropsearch.training.planning.equivalence import check_equivalence, equivalence_specs
from dropsearch.training.planning.plan import _sequential_rate, make_plan
from dropsearch.training.planning.throughput import measure_down, measure_up
from dropsearch.training.protocols import TrainerSettings
from tests.training.conftest import make_factory, make_source, make_specs
from tests.user_modules.data import Digits
from tests.user_modules.package_style import BuiltInHooks

SETTINGS = TrainerSettings(2, "cpu")


def pair(model: str = "mlp") -> tuple[TrialSpec, TrialSpec]:
    first, second, *_ = make_specs(model, 2)
    return first, second


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn", "transformer"])
def test_built_in_models_are_equivalent(model: str, norm: str) -> None:
    assert check_equivalence(make_factory(model, norm), make_source(model), SETTINGS, pair(model)) == ""


class InFloat32(nn.Module):
    """Computes parts in float32 regardless of the dtype of its weights: by `float()`, `to` and a dtype argument."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x.flatten(1)).softmax(-1, dtype=torch.float32)
        return self.last(x.to(torch.float32) * 9).float() ** 2


def test_float32_casts_are_compared_in_float64() -> None:
    def make(spec: TrialSpec) -> Classifier:
        torch.manual_seed(spec.seed)
        return Classifier(InFloat32())

    assert check_equivalence(make, make_source("mlp"), SETTINGS, pair()) == ""


class BranchesUnlessCompiling(nn.Module):
    """Branches on tensor values, unless it is being compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        present = (x.flatten(1) > -1e9).double()
        if torch.compiler.is_compiling() or not present.all():
            x = x.flatten(1) * present
        return self.layer(x.flatten(1))


def test_is_compiling_is_true_under_vmap() -> None:
    def make(spec: TrialSpec) -> Classifier:
        torch.manual_seed(spec.seed)
        return Classifier(BranchesUnlessCompiling())

    assert check_equivalence(make, make_source("mlp"), SETTINGS, pair()) == ""
    assert not torch.compiler.is_compiling()


class Unsupported(nn.Module):
    """Uses an operation that vectorized training does not support."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        if self.how == "item" and x.sum().item() > 1e9:
            return self.layer(x)
        if self.how == "random":
            x = x + torch.poisson(x.detach().abs())
        if self.how == "mask":
            x = x + x[x > 0].sum()
        return self.layer(x)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("item", "the module converts a tensor to a number"),
        ("random", "a step draws random numbers that no trial's seed gives: torch draws by poisson"),
        ("mask", "the module creates tensors whose shape depends on values"),
    ],
)
def test_unsupported_operations_train_sequentially(how: str, words: str) -> None:
    def make(spec: TrialSpec) -> Classifier:
        torch.manual_seed(spec.seed)
        return Classifier(Unsupported(how))

    reason = check_equivalence(make, make_source("mlp"), SETTINGS, pair())
    assert words in reason
    assert "\n" not in reason
    plan = make_plan(make, make_source("mlp"), SETTINGS, [pair()], engine="auto", width=None)
    assert (plan.engine, plan.reason) == ("sequential", reason)
    with pytest.raises(InputError, match="use engine=auto"):
        make_plan(make, make_source("mlp"), SETTINGS, [pair()], engine="vectorized", width=None)


CALLS: dict[int, bool] = {}


def test_dependent_rows_are_detected() -> None:
    class Counting(Classifier):
        """Scales its loss by the number of calls of all instances, which differs between the two ways to train."""

        def training_step(self, batch: Any, batch_idx: int = 0) -> torch.Tensor:
            CALLS[len(CALLS)] = True
            return super().training_step(batch, batch_idx) * len(CALLS)

    factory = make_factory("mlp")
    reason = check_equivalence(lambda spec: Counting(factory(spec).net), make_source("mlp"), SETTINGS, pair())
    assert "train_loss" in reason
    assert "Counting" in reason


def test_several_optimizers_train_sequentially() -> None:
    class Two(Classifier):
        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]

    factory = make_factory("mlp")
    reason = check_equivalence(lambda spec: Two(factory(spec).net), make_source("mlp"), SETTINGS, pair())
    assert "configure_optimizers" in reason


def test_low_precision_weights_train_sequentially() -> None:
    reason = check_equivalence(make_factory("mlp"), make_source("mlp"), TrainerSettings(2, "cpu", "bf16-true"), pair())
    assert "bf16-true" in reason


def test_requested_engine_is_not_measured() -> None:
    alone = make_plan(make_factory("mlp"), make_source("mlp"), SETTINGS, [pair()], engine="sequential", width=None)
    array = make_plan(make_factory("mlp"), make_source("mlp"), SETTINGS, [pair()], engine="vectorized", width=5)
    assert (alone.engine, array.engine, array.width) == ("sequential", "vectorized", 5)


def test_plan_has_measured_rates() -> None:
    plan = make_plan(make_factory("mlp"), make_source("mlp"), SETTINGS, [pair()], engine="auto", width=None)
    assert plan.engine == "vectorized"
    assert plan.width in plan.rates


def test_unstackable_parameter_limits_speed_to_one_row() -> None:
    given = {"settings": SETTINGS, "pairs": [pair()], "engine": "vectorized", "unstackable": "model.slope"}
    plan = make_plan(make_factory("mlp"), make_source("mlp"), width=None, **given)
    assert plan.speed == plan.rates[1]
    assert plan.reason.endswith("one trial at a time, since values of model.slope cannot share stacked tensors")
    chosen = make_plan(make_factory("mlp"), make_source("mlp"), width=5, **given)
    assert "model.slope cannot share stacked tensors" in chosen.reason


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({1: 10, 2: 19, 4: 35, 8: 60, 16: 90, 32: 120}, 32),
        ({1: 10, 2: 9, 4: 8, 8: 100}, 1),
        ({1: 10, 2: 9, 4: 20, 8: 19, 16: 18, 32: 90}, 4),
    ],
)
def test_measure_up_stops_when_doubling_gains_nothing(rates: dict[int, float], best: int) -> None:
    measured = measure_up(lambda width: rates[width], 32)
    assert max(measured, key=measured.__getitem__) == best


def test_equivalence_specs_differ_in_every_rate() -> None:
    from dropsearch.core.records import Site

    sites = tuple(Site(name, "hidden", 0.1, 1) for name in "abc")
    first, second = equivalence_specs("dropout", sites, dropping=True)
    assert len({*first.rates.values(), *second.rates.values()}) == 6
    assert equivalence_specs("none", sites, dropping=False)[0].rates == {}


def test_measure_up_stops_at_out_of_memory() -> None:
    assert measure_up(lambda width: 10.0 * width if width < 8 else None, 32) == {1: 10.0, 2: 20.0, 4: 40.0}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        measure_up(lambda _: None, 32)


def test_failed_measurement_trains_sequentially(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> float:
        raise RuntimeError("PReLU wants one dtype")

    monkeypatch.setattr("dropsearch.training.planning.throughput.Throughput.rate", broken)
    given = make_factory("mlp"), make_source("mlp"), TrainerSettings(2, "cpu"), [pair()]
    reason = make_plan(*given, engine="auto", width=None).reason
    assert re.fullmatch(r"RuntimeError: PReLU wants one dtype \(test_plan.py:\d+ in broken\)", reason)
    with pytest.raises(InputError, match="engine=vectorized cannot train this module"):
        make_plan(*given, engine="vectorized", width=None)


def test_measure_down() -> None:
    throughput = {512: None, 256: 900.0, 64: 1000.0, 16: 500.0, 4: 100.0}
    assert measure_down(throughput.get, 512, 60.0) == {256: 900.0, 64: 1000.0, 16: 500.0}
    assert measure_down(throughput.get, 64, 60.0) == {64: 1000.0, 16: 500.0}
    assert measure_down({1: 5.0}.get, 1, 60.0) == {1: 5.0}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        measure_down(lambda _: None, 8, 60.0)


class Moved(BuiltInHooks):
    """Is moved to a device with the layers that its hooks build."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        assert hasattr(self, "last"), "moved before its layers are built"
        return super().to(*args, **kwargs)


def test_the_speed_of_one_trial_is_that_of_all_its_layers_on_the_device() -> None:
    assert _sequential_rate(lambda _: Moved(), UserData(Digits(), "data").in_rows(), SETTINGS, pair()[0]) > 0
