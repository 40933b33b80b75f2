"""A trial's result does not depend on engine, width, row or the other trials that train at the same time."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.models import MLP, Classifier
from dropsearch.training.protocols import INTERRUPTED, Engine, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.device_step import DeviceStep
from dropsearch.training.vectorized.engine import VectorizedEngine
from dropsearch.training.vectorized.step import HostStep, VectorizedStep
from dropsearch.training.vectorized.trial_stack import TrialStack
from dropsearch.training.vectorized.trials import VectorizedTrials
from tests.training.conftest import Queue, Waiting, make_factory, make_source, make_specs

CASES = [
    ("mlp", "none", {}),
    ("mlp", "batch", {"optimizer": "sgd", "nesterov": True}),
    ("mlp", "layer", {"schedule": "cosine"}),
    ("cnn", "batch", {}),
    ("cnn", "none", {"dropout_unit": "channel", "optimizer": "sgd"}),
    ("rnn", "none", {}),
    ("rnn", "batch", {"cell": "gru", "mask": "step"}),
    ("rnn", "layer", {"schedule": "step"}),
    ("transformer", "layer", {"optimizer": "adam"}),
    ("transformer", "batch", {"schedule": "warmup_cosine"}),
]


@pytest.fixture(autouse=True, params=[HostStep, DeviceStep])
def step_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test with both kinds of step; without a GPU, `DeviceStep` runs without a CUDA graph."""
    used: list[type[VectorizedStep]] = []
    make_step = TrialStack._make_step

    def make_and_store(self: TrialStack, *args: Any) -> VectorizedStep:
        step = make_step(self, *args)
        used.append(type(step))
        return step

    monkeypatch.setattr(
        "dropsearch.training.vectorized.trial_stack.uses_cuda_graphs", lambda _: request.param is DeviceStep
    )
    monkeypatch.setattr(TrialStack, "_make_step", make_and_store)
    yield
    expected = HostStep if request.node.get_closest_marker("no_flat_optimizer") else request.param
    assert set(used) <= {expected}


NET_OPTIONS = ("cell", "mask", "dropout_unit")


def run(
    engine: Engine, specs: Sequence[TrialSpec], prune: Callable[[TrialSpec, Any], bool] = lambda *_: False
) -> dict[int, TrialResult]:
    feed = Queue(list(specs), prune)
    engine.run(feed)
    return feed.results


def weights(result: TrialResult) -> dict[str, torch.Tensor]:
    return torch.load(result.checkpoint, weights_only=True)["state_dict"]


def engines(
    tmp_path: Path,
    model: str,
    norm: str,
    options: dict[str, object],
    width: int,
    epochs: int,
    clip: float | None = None,
    examples: int = 40,
) -> tuple[SequentialEngine, VectorizedEngine]:
    """Return a sequential and a vectorized engine in float64 that save the weights of the best epoch."""
    factory = make_factory(model, norm, torch.float64, **options)
    source = make_source(model, torch.float64, examples)
    settings = TrainerSettings(epochs, "cpu", "64-true", clip)
    sequential = SequentialEngine(factory, source, settings, lambda s: tmp_path / f"sequential-{s.number}.ckpt")
    vectorized = VectorizedEngine(factory, source, settings, width, lambda s: tmp_path / f"vectorized-{s.number}.ckpt")
    return sequential, vectorized


def assert_same(
    sequential: dict[int, TrialResult], vectorized: dict[int, TrialResult], tolerance: float = 1e-9
) -> None:
    assert set(sequential) == set(vectorized)
    for number, expected in sequential.items():
        got = vectorized[number]
        assert (got.state, len(got.curve)) == (expected.state, len(expected.curve)), (expected.reason, got.reason)
        for ours, theirs in zip(got.curve, expected.curve, strict=True):
            assert ours.epoch == theirs.epoch
            for name in ("train_loss", "train_loss_as_trained", "val_loss", "train_acc", "val_acc"):
                assert getattr(ours, name) == pytest.approx(getattr(theirs, name), abs=max(tolerance, 1e-7)), name
        if expected.checkpoint:
            for result in (got, expected):
                assert result.checkpoint_sha256 == hashlib.sha256(Path(result.checkpoint).read_bytes()).hexdigest()
            ours_w, theirs_w = weights(got), weights(expected)
            assert ours_w.keys() == theirs_w.keys()
            for name, value in theirs_w.items():
                assert torch.allclose(ours_w[name].double(), value.double(), rtol=0, atol=tolerance), name


Once = Callable[[Any, Callable[[], Any]], Any]


@pytest.fixture(scope="module")
def once() -> Once:
    """Return a function that trains what has a name only once: trials alone are the same for both kinds of step."""
    done: dict[Any, Any] = {}

    def get(name: Any, train: Callable[[], Any]) -> Any:
        if name not in done:
            done[name] = train()
        return done[name]

    return get


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{model}-{norm}" for model, norm, _ in CASES])
def test_parameters_equal_sequential(tmp_path: Path, case: int, once: Once) -> None:
    """After 50 steps in the first case of each model, and after 20 in the others."""
    model, norm, options = CASES[case]
    is_first = case == next(place for place, (name, *_) in enumerate(CASES) if name == model)
    net_options = {k: v for k, v in options.items() if k in NET_OPTIONS}
    specs = make_specs(model, 2, **net_options)
    sequential, vectorized = engines(
        tmp_path, model, norm, options, width=2, epochs=2, clip=1.0, examples=200 if is_first else 80
    )
    assert_same(once(case, lambda: run(sequential, specs)), run(vectorized, specs))


@pytest.mark.parametrize("width", [1, 5])
def test_width_does_not_change_results(tmp_path: Path, width: int, once: Once) -> None:
    specs = make_specs("mlp", 5)
    sequential, vectorized = engines(tmp_path, "mlp", "batch", {}, width, epochs=2)
    assert_same(once("five trials", lambda: run(sequential, specs)), run(vectorized, specs))


def test_refilled_row_equals_sequential(tmp_path: Path, once: Once) -> None:
    specs = make_specs("mlp", 5)
    sequential, vectorized = engines(tmp_path, "mlp", "none", {"schedule": "cosine"}, width=2, epochs=3)

    def prune(spec: TrialSpec, metrics: object) -> bool:
        return spec.number in (0, 3) and metrics.epoch == spec.number % 2  # type: ignore[attr-defined]

    expected = once("pruned", lambda: run(sequential, specs, prune))
    got = run(vectorized, specs, prune)
    assert [r.state for _, r in sorted(got.items())].count("PRUNED") == 2
    assert_same(expected, got)


def test_rows_that_wait_for_trials_come_back(tmp_path: Path, once: Once) -> None:
    specs = make_specs("mlp", 6)
    sequential, vectorized = engines(tmp_path, "mlp", "batch", {"schedule": "cosine"}, width=4, epochs=4)
    feed = Waiting(specs, lambda spec, _: spec.number == 1, first=2, epochs=4)
    asked: list[int] = []
    ask = feed.ask
    feed.ask = lambda count: asked.append(count) or ask(count)  # type: ignore[method-assign]
    vectorized.run(feed)
    assert 3 in asked  # two rows that there were not yet, and that of the pruned trial
    expected = once("one pruned", lambda: run(sequential, specs, lambda spec, _: spec.number == 1))
    assert_same(expected, feed.results)


def test_feed_calls_are_batched(tmp_path: Path) -> None:
    calls: list[tuple[str, list[int]]] = []

    class RecordingQueue(Queue):
        def ask(self, count: int) -> list[TrialSpec]:
            specs = super().ask(count)
            calls.append(("ask", [spec.number for spec in specs]))
            return specs

        def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
            calls.append(("report", [spec.number for spec, _ in reports]))
            return super().report(reports)

        def tell(self, results: Sequence[TrialResult]) -> None:
            calls.append(("tell", [result.spec.number for result in results]))
            super().tell(results)

    _, vectorized = engines(tmp_path, "mlp", "none", {}, width=3, epochs=2)
    vectorized.run(RecordingQueue(make_specs("mlp", 5), prune=lambda spec, metrics: spec.number == 1))
    assert [call for call in calls if call != ("ask", [])] == [
        ("ask", [0, 1, 2]),
        ("report", [0, 1, 2]),
        ("tell", [1]),
        ("ask", [3]),
        ("report", [0, 3, 2]),
        ("tell", [0, 2]),
        ("ask", [4]),
        ("report", [4, 3]),
        ("tell", [3]),
        ("report", [4]),
        ("tell", [4]),
    ]


def test_nan_trial_does_not_affect_others(tmp_path: Path) -> None:
    good = make_specs("mlp", 3)
    diverging = TrialSpec("dropout", 9, 7, good[0].rates, lr=1e30, weight_decay=0.0)
    _, vectorized = engines(tmp_path / "a", "mlp", "none", {"optimizer": "sgd"}, width=4, epochs=2)
    _, control = engines(tmp_path / "b", "mlp", "none", {"optimizer": "sgd"}, width=4, epochs=2)
    stable = TrialSpec("dropout", 9, 7, good[0].rates, lr=1e-3, weight_decay=0.0)
    beside_diverging, beside_stable = (
        run(vectorized, [good[0], diverging, *good[1:]]),
        run(control, [good[0], stable, *good[1:]]),
    )
    assert beside_diverging[9].state == "FAIL"
    assert "diverged" in beside_diverging[9].reason
    for spec in good:
        assert beside_diverging[spec.number].curve == pytest.approx(beside_stable[spec.number].curve, abs=0)


def test_diverged_trial_has_same_result_as_sequential(tmp_path: Path) -> None:
    diverging = [TrialSpec("dropout", 0, 7, make_specs("mlp", 1)[0].rates, lr=1e30, weight_decay=0.0)]
    sequential, vectorized = engines(tmp_path, "mlp", "none", {"optimizer": "sgd"}, width=2, epochs=2)
    expected, got = run(sequential, diverging)[0], run(vectorized, diverging)[0]
    assert (expected.state, expected.reason) == (got.state, got.reason)
    assert not math.isfinite(got.curve[-1].val_loss) or not math.isfinite(got.curve[-1].train_loss_as_trained)


def test_checkpoint_loads_into_module(tmp_path: Path) -> None:
    specs = make_specs("cnn", 2)
    _, vectorized = engines(tmp_path, "cnn", "batch", {}, width=2, epochs=1)
    result = run(vectorized, specs)[1]
    module = Classifier.load_from_checkpoint(result.checkpoint)
    rates = module.net.rates.items()  # type: ignore[union-attr, operator]
    assert {f"net.{site}": rate for site, rate in rates} == pytest.approx(dict(specs[1].rates))
    source = make_source("cnn", torch.float64)
    with torch.no_grad():
        logits = module.double().eval()(source.val[0])
    loss = torch.nn.functional.cross_entropy(logits, source.val[1])
    assert result.best is not None
    assert float(loss) == pytest.approx(result.best.val_loss, abs=1e-6)


def test_cancel_tells_trials_as_interrupted() -> None:
    feed = Queue(make_specs("mlp", 4), stop_after=1, prune=lambda spec, _: spec.number == 0)
    VectorizedEngine(make_factory("mlp"), make_source("mlp"), TrainerSettings(5, "cpu"), 3).run(feed)
    assert {r.reason for n, r in feed.results.items() if n > 0} == {INTERRUPTED}
    assert feed.asked == 3


@pytest.mark.no_flat_optimizer
def test_optimizer_without_fused_form(once: Once) -> None:
    class Rms(Classifier):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.RMSprop(self.parameters(), lr=self.hparams["lr"])

    factory = make_factory("mlp")

    def make(spec: TrialSpec) -> Classifier:
        return Rms(factory(spec).net, lr=spec.lr)

    specs, source, settings = make_specs("mlp", 3), make_source("mlp"), TrainerSettings(2, "cpu")
    expected = once("rms", lambda: run(SequentialEngine(make, source, settings), specs))
    assert_same(expected, run(VectorizedEngine(make, source, settings, 2), specs), 1e-4)


def test_module_that_cannot_be_built_fails_its_trial_only() -> None:
    factory = make_factory("mlp")

    def make(spec: TrialSpec) -> Classifier:
        if spec.number in (0, 2):
            raise ValueError("this one is broken")
        return factory(spec)

    got = run(VectorizedEngine(make, make_source("mlp"), TrainerSettings(2, "cpu"), 2), make_specs("mlp", 5))
    assert [got[n].state for n in range(5)] == ["FAIL", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert got[0].reason.startswith("ValueError: this one is broken (test_trials.py:")


@pytest.mark.falls_back
def test_failure_falls_back_to_sequential(monkeypatch: pytest.MonkeyPatch, once: Once) -> None:
    from dropsearch.training.vectorized import vmap_runner

    def broken(*_: object) -> None:
        raise RuntimeError("no batching rule")

    source, settings, specs = make_source("mlp"), TrainerSettings(2, "cpu"), make_specs("mlp", 5)
    expected = once("float32", lambda: run(SequentialEngine(make_factory("mlp"), source, settings), specs))
    monkeypatch.setattr(vmap_runner.VmapRunner, "train", broken)
    engine = VectorizedEngine(make_factory("mlp"), source, settings, 2)
    assert_same(expected, run(engine, specs))
    assert engine.description.startswith("sequential on cpu: RuntimeError: no batching rule (test_trials.py:")


def test_out_of_memory_halves_width(monkeypatch: pytest.MonkeyPatch, once: Once) -> None:
    from dropsearch.training.vectorized import vmap_runner

    real = vmap_runner.VmapRunner.train

    def limited_train(self: vmap_runner.VmapRunner, rows: object, *rest: object) -> object:
        if rows.width > 2:  # type: ignore[attr-defined]
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return real(self, rows, *rest)  # type: ignore[arg-type]

    source, settings, specs = make_source("mlp"), TrainerSettings(2, "cpu"), make_specs("mlp", 5)
    expected = once("float32", lambda: run(SequentialEngine(make_factory("mlp"), source, settings), specs))
    monkeypatch.setattr(vmap_runner.VmapRunner, "train", limited_train)
    engine = VectorizedEngine(make_factory("mlp"), source, settings, 8)
    assert_same(expected, run(engine, specs), tolerance=1e-4)
    assert engine.width == 2


@pytest.mark.parametrize("width", [1, 3])
def test_shared_masks_equal_sequential(width: int, once: Once) -> None:
    source, specs = make_source("mlp", torch.float64), make_specs("mlp", 3)
    factory = make_factory("mlp", "none", torch.float64)
    settings = TrainerSettings(2, "cpu", "64-true", shared_masks=True)
    shared, unshared = (
        once(name, lambda given=given: run(SequentialEngine(factory, source, given), specs))
        for name, given in (("shared", settings), ("unshared", TrainerSettings(2, "cpu", "64-true")))
    )
    assert_same(shared, run(VectorizedEngine(factory, source, settings, width), specs))
    assert shared[1].curve != unshared[1].curve


@pytest.mark.parametrize("sequential", [True, False])
def test_last_epoch_is_not_pruned(sequential: bool) -> None:
    kind = SequentialEngine if sequential else VectorizedEngine
    more = () if sequential else (2,)
    feed = Queue(make_specs("mlp", 2), prune=lambda spec, metrics: metrics.epoch == 2 - spec.number)
    kind(make_factory("mlp"), make_source("mlp"), TrainerSettings(3, "cpu"), *more).run(feed)  # type: ignore[arg-type]
    assert [(feed.results[n].state, len(feed.results[n].curve)) for n in range(2)] == [("COMPLETE", 3), ("PRUNED", 2)]
    assert feed.results[1].reason == "pruned after epoch 2"


def searched_factory(optimizer: str) -> Callable[[TrialSpec], Classifier]:
    """Return a factory of modules with the width and optimizer of a trial's hyperparameters."""

    def make(spec: TrialSpec) -> Classifier:
        options: dict[str, Any] = {
            key.removeprefix("optimizer."): value
            for key, value in spec.hyperparameters.items()
            if key.startswith("optimizer.")
        }
        name = options.pop("name", optimizer)
        torch.manual_seed(spec.seed)
        rates = {site.removeprefix("net."): rate for site, rate in spec.rates.items()}
        hidden = spec.hyperparameters.get("model.hidden", [12, 10])
        net = MLP((1, 4, 4), 3, hidden=hidden, dropout=rates, norm="batch")
        return Classifier(net, optimizer=name, lr=spec.lr, weight_decay=spec.weight_decay, **options).double()

    return make


MOMENTA = [(0.5, True, "none"), (0.95, False, "cosine"), (0.0, False, "step")]
SEARCHED: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "by row, sgd": (
        "sgd",
        [
            {"optimizer.momentum": momentum, "optimizer.nesterov": nesterov, "optimizer.schedule": schedule}
            for momentum, nesterov, schedule in MOMENTA
        ],
    ),
    "by row, adamw": ("adamw", [{"optimizer.betas": betas} for betas in ([0.9, 0.999], [0.5, 0.9])]),
    "optimiser": ("sgd", [{"optimizer.name": name} for name in ("sgd", "adamw")]),
    "clip": ("sgd", [{"trainer.gradient_clip_val": clip} for clip in (None, 0.05)]),
    "shape and row": (
        "sgd",
        [
            {"model.hidden": hidden, "optimizer.momentum": momentum}
            for hidden, momentum in (([12, 10], 0.9), ([6, 5], 0.5), ([12, 10], 0.3))
        ],
    ),
}


@pytest.mark.parametrize("case", SEARCHED)
def test_searched_hyperparameters_equal_sequential(tmp_path: Path, case: str, once: Once) -> None:
    optimizer, values = SEARCHED[case]
    specs = [
        dataclasses.replace(spec, hyperparameters=values[spec.number % len(values)], lr=3e-3)
        for spec in make_specs("mlp", 3)
    ]
    factory, source = searched_factory(optimizer), make_source("mlp", torch.float64)
    settings = TrainerSettings(2, "cpu", "64-true", gradient_clip_val=1.0)
    sequential = SequentialEngine(factory, source, settings, lambda s: tmp_path / f"sequential-{s.number}.ckpt")
    vectorized = VectorizedEngine(factory, source, settings, 3, lambda s: tmp_path / f"vectorized-{s.number}.ckpt")
    expected = once(case, lambda: run(sequential, specs))
    assert_same(expected, run(vectorized, specs))
    changed = [dataclasses.replace(specs[1], hyperparameters=values[0])]
    other = once(f"{case} changed", lambda: run(SequentialEngine(factory, source, settings), changed))
    assert other[1].curve != expected[1].curve, "the hyperparameters have no effect"


def test_partitions_train_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[set[str]] = []
    fit = VectorizedTrials.fit

    def record_fit(self: VectorizedTrials) -> None:
        widths.append({str(trial_row.spec.hyperparameters["model.hidden"]) for trial_row in self.stack.trial_rows})
        fit(self)

    monkeypatch.setattr(VectorizedTrials, "fit", record_fit)
    choices = ([12, 10], [6, 5])
    specs = [
        dataclasses.replace(spec, hyperparameters={"model.hidden": choices[spec.number % 2], "optimizer.momentum": 0.1})
        for spec in make_specs("mlp", 8)
    ]
    engine = VectorizedEngine(searched_factory("sgd"), make_source("mlp", torch.float64), TrainerSettings(2, "cpu"), 8)
    assert {r.state for r in run(engine, specs).values()} == {"COMPLETE"}
    assert widths == [{"[12, 10]"}, {"[6, 5]"}]


def test_cancel_tells_waiting_trials_as_interrupted() -> None:
    specs = [
        dataclasses.replace(spec, hyperparameters={"model.hidden": ([12, 10], [6, 5])[spec.number % 2]})
        for spec in make_specs("mlp", 6)
    ]
    feed = Queue(specs, stop_after=1, prune=lambda spec, _: spec.number == 0)
    source = make_source("mlp", torch.float64)
    VectorizedEngine(searched_factory("sgd"), source, TrainerSettings(5, "cpu", "64-true"), 4).run(feed)
    assert feed.asked == len(feed.results) > 4
    assert {r.reason for n, r in feed.results.items() if n > 0} == {INTERRUPTED}


def test_partition_that_cannot_be_built_does_not_block_others() -> None:
    factory = searched_factory("sgd")

    def make(spec: TrialSpec) -> Classifier:
        if spec.hyperparameters["model.hidden"] == [6, 5]:
            raise ValueError("too small")
        return factory(spec)

    specs = [
        dataclasses.replace(spec, hyperparameters={"model.hidden": [6, 5] if spec.number < 4 else [12, 10]})
        for spec in make_specs("mlp", 6)
    ]
    source = make_source("mlp", torch.float64)
    got = run(VectorizedEngine(make, source, TrainerSettings(2, "cpu", "64-true"), 4), specs)
    assert [got[n].state for n in range(6)] == ["FAIL"] * 4 + ["COMPLETE"] * 2
