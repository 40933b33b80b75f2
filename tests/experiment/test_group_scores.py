"""What a user module scores on groups of examples, and what that lets be shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import dropsearch
from dropsearch.core.records import Monitor
from dropsearch.datasets.user_data import UserData
from dropsearch.experiment import scoring
from dropsearch.experiment.scoring import monitored_scores, validation_scores
from dropsearch.report.text.verdict import verdict
from dropsearch.report.text.warnings import warnings
from dropsearch.training.protocols import TrainerSettings
from tests.user_modules import data, nets


class RootOfLoss(nets.LitNet):
    """Logs what is no mean over examples, at the end of an epoch."""

    def on_validation_epoch_start(self) -> None:
        self.losses: list[Any] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.losses.append(F.cross_entropy(self(x), y, reduction="none"))

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.cat(self.losses).mean().sqrt())


class NeedsAll(nets.LitNet):
    """Can be measured on whole batches only."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert len(batch[0]) > 30
        super().validation_step(batch, batch_idx)


@pytest.fixture
def source():
    return UserData(data.WithTest(), "digits")


def scored(module: Any, source: UserData) -> Any:
    return monitored_scores("net", module, source, TrainerSettings(1, "cpu"))


@pytest.mark.parametrize("make", [nets.LitNet, nets.Tested])
def test_a_mean_over_examples_is_measured_on_each_group(make, source):
    found = scored(make(), source)
    assert len(found.examples.loss) == 25
    assert np.mean(found.examples.loss) == pytest.approx(found.loss, rel=1e-5)


def test_another_metric_has_pseudo_values(source):
    torch.manual_seed(0)
    module = RootOfLoss().eval()
    found = scored(module, source)
    x, y = source.test_dataloader().dataset.tensors
    by_example = F.cross_entropy(module(x), y, reduction="none").detach()
    assert found.loss == pytest.approx(float(by_example.mean().sqrt()), rel=1e-5)
    spread = float(by_example.std()) / (2 * found.loss)  # the delta method's
    assert np.mean(found.examples.loss) == pytest.approx(found.loss, rel=0.02)
    assert np.std(found.examples.loss, ddof=1) * np.sqrt(4) == pytest.approx(spread, rel=0.4)


class SpreadOfBatch(nets.LitNet):
    """Logs of each batch what is no mean over its examples, as R2 is."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y, reduction="none").std())


def test_a_metric_that_is_no_mean_needs_one_trainer_where_its_step_needs_none(source, monkeypatch):
    torch.manual_seed(0)
    module, trainers = SpreadOfBatch().eval(), []
    make = scoring.make_trainer
    monkeypatch.setattr(scoring, "make_trainer", lambda *given, **more: trainers.append(1) or make(*given, **more))
    found = scored(module, source)
    assert len(trainers) == 2  # the whole set, with and without groups
    monkeypatch.setattr(scoring, "_of_step", lambda *_: {})
    by_trainer = scored(module, source)
    assert len(trainers) > 50
    assert found.examples.loss == pytest.approx(by_trainer.examples.loss, rel=1e-3, abs=1e-3)


def test_outputs_that_a_module_keeps_do_not_add_up(source):
    source, settings = (
        UserData(data.Digits(), "digits"),
        TrainerSettings(1, "cpu", monitor=Monitor("valid/loss", "min")),
    )
    one, other = (validation_scores(nets.Scored(torch.nn.Linear(64, 12)), source, settings) for _ in range(2))
    assert one is not None
    assert other is not None
    assert len(one) == 25
    assert all(1.5 < each < 4 for each in one)


def test_a_module_that_takes_whole_batches_only_has_no_groups(source):
    assert scored(NeedsAll(), source).examples is None


class Fixed(nets.LitNet):
    """Whose last layer is loaded: no seed changes it."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        with torch.no_grad():
            self.last.weight.copy_(torch.randn(self.last.weight.shape, generator=torch.Generator().manual_seed(1)))


SEARCH: dict[str, Any] = {
    "n_trials": 1, "max_epochs": 1, "engine": "sequential", "accelerator": "cpu", "arms": ["none", "dropout"],
    "confirm_top_k": 1, "confirm_seeds": 6, "overrides": ["evidence=off"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "module", "missing"),
    [
        (Fixed, data.WithTest, ["initial weights of last.weight"]),
        (NeedsAll, data.WithTest, ["test examples"]),
        (NeedsAll, data.Digits, ["validation examples"]),
        (nets.LitNet, data.WithTest, []),
        (nets.LitNet, data.Digits, []),
    ],
)
def test_what_seeds_and_examples_leave_out_is_named(make: Any, module: Any, missing: list[str], tmp_path: Path) -> None:
    found = dropsearch.search(make, module(), output_dir=tmp_path, **SEARCH)
    (contrast,) = found.summary.comparisons
    assert list(contrast.missing) == missing
    said = [text for text in warnings(found.summary) if text.startswith("No difference can be shown")]
    assert all(part in said[0] for part in missing) if missing else not said
    examples = "test" if module is data.WithTest else "validation"
    assert contrast.covers == ("seeds" if "examples" in str(missing) else f"seeds and {examples} examples")
    assert not missing or not any(word in verdict(found.summary) for word in ("worse by", "better on", "excluded"))
