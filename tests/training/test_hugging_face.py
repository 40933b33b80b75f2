"""Models of Hugging Face's transformers train in an array as they do alone, every site at its own rate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.dropout.rates import Rate
from dropsearch.dropout.sites import dropout_sites
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.training.logged_steps import captured_logs
from dropsearch.training.planning.equivalence import check_equivalence
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue
from tests.user_modules import hugging_face as user_modules

SETTINGS = TrainerSettings(2, "cpu", "64-true")
MODELS = [
    (make, attention, data)
    for make, data in (
        (user_modules.Unpacking, user_modules.Tuples),
        (user_modules.Language, user_modules.Texts),
        (user_modules.Images, user_modules.Pictures),
    )
    for attention in ("eager", "sdpa")
]


def own(data: type) -> UserData:
    return UserData(data(), data.__name__)


def specs_of(make: type, attention: str, data: UserData) -> list[TrialSpec]:
    """Two trials, each with a rate of its own at each site."""
    module = make(attention=attention)
    batch = next(iter(data.val_dataloader()))
    with captured_logs(module):
        sites = dropout_sites(module, lambda: module.training_step(batch, 0))
    first = {site.name: 0.1 + 0.1 * place for place, site in enumerate(sites)}
    second = {name: 0.7 - rate for name, rate in first.items()}
    return [TrialSpec("dropout", n, 5 + n, rates, 1e-2, 1e-3) for n, rates in enumerate((first, second))]


def factory(make: type, attention: str, dtype: torch.dtype = torch.float64) -> Any:
    def made(spec: TrialSpec) -> Any:
        with seeded(spec.seed):
            return make(lr=spec.lr, attention=attention).to(dtype)

    return made


@pytest.mark.parametrize(("make", "attention", "data"), MODELS)
def test_sequential_and_vectorized_are_one_trial(make: type, attention: str, data: type) -> None:
    examples = own(data)
    specs, curves = specs_of(make, attention, examples), []
    first, second = specs
    assert (
        check_equivalence(factory(make, attention, torch.float32), examples.in_rows(), SETTINGS, (first, second)) == ""
    )
    for engine in (
        VectorizedEngine(factory(make, attention), examples.in_rows(), SETTINGS, 2),
        SequentialEngine(factory(make, attention), examples, SETTINGS),
    ):
        feed = Queue(list(specs))
        engine.run(feed)
        curves.append([[point.val_loss for point in feed.results[n].curve] for n in (0, 1)])
    together, alone = (torch.tensor(each, dtype=torch.float64) for each in curves)
    # The language model computes its loss in float32, whatever its weights are.
    tolerance = 1e-5 if make is user_modules.Language else 1e-9
    assert torch.allclose(together, alone, rtol=0, atol=tolerance)
    assert not torch.allclose(together[0], together[1], atol=1e-4)


@contextmanager
def shares_noted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, int]]]:
    """Note of each mask what share of it is dropped, and of how many."""
    noted: list[tuple[float, int]] = []
    mask = Rate.mask

    def noting(self: Rate, bits: Tensor, dtype: torch.dtype) -> Tensor:
        made = mask(self, bits, dtype)
        noted.append((float((made == 0).double().mean()), made.numel()))
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Rate, "mask", noting)
        yield noted


@pytest.mark.parametrize(("make", "attention", "data"), MODELS)
def test_every_site_drops_the_share_that_was_asked_for(
    make: type, attention: str, data: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = data().examples()
    for spec in specs_of(make, attention, own(data)):
        module = factory(make, attention, torch.float32)(spec)
        control = TrialControl(module, spec.rates, spec.seed)
        with shares_noted(monkeypatch) as noted, captured_logs(module), control.watching(), control.training_step(0):
            module.training_step(tuple(examples.values()), 0)
        assert control.dropped.keys() == spec.rates.keys()
        calls = [spec.rates[site] for site in control.dropped.elements()]
        for rate, (share, count) in zip(calls, noted, strict=True):
            assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / count)


@pytest.mark.parametrize("drop_path", [{}, {"model.convnext.encoder.stages.1.layers.0.drop_path": 0.4}])
def test_stochastic_depth_trains_vectorized(drop_path: dict[str, float]) -> None:
    data = own(user_modules.Pictures)
    rates = {"model.classifier.0": 0.3, **drop_path}
    first, second = (TrialSpec("dropout", n, 5 + n, rates, 1e-2, 1e-3) for n in (0, 1))
    make = factory(user_modules.Deep, "", torch.float32)
    assert all(site in {name for name, _ in make(first).named_modules()} for site in rates)
    assert check_equivalence(make, data.in_rows(), SETTINGS, (first, second)) == ""
