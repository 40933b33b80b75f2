"""How good searches are on a simulated loss, which takes seconds: a surrogate of the losses that quality.py measured.

python scripts/bench/simulated_search.py WORKLOAD FOLDER [FOLDER ...] [--seeds 24] [--trials 30] [--sobol] \\
    [-- OVERRIDES ...]

FOLDERs are what `quality.py --folder` kept. Of all trials in them, a Gaussian process of log loss in rates, learning
rate and weight decay is the surrogate; a trial's loss is its mean and a draw of its noise. Proposals, first points and
the order in which trials end are those of a search; only the training is simulated. The quality of a configuration is
the surrogate's mean there. Printed are medians and quartiles over the seeds of the quality of the configuration with
the least loss after 10, 20 and all trials; confirmation is left out. --sobol puts Sobol points in the place of the
random first trials.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import qmc
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from workloads import words

from dropsearch.config.compose import compose_overrides
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.seeds import derived_seed
from dropsearch.experiment import studies
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.study.search_space import Params, Space
from dropsearch.study.storage import open_storage
from dropsearch.training.protocols import Engine, Feed

SHOWN = (10, 20)


class Surrogate:
    """A Gaussian process of the log losses of measured trials."""

    def __init__(self, trials: Sequence[dict[str, Any]]) -> None:
        points = np.array([coordinates(each["rates"], each["lr"], each["weight_decay"]) for each in trials])
        losses = np.log([each["loss"] for each in trials])
        self._middle, self._scale = losses.mean(), losses.std()
        kernel = Matern([1.0] * points.shape[1], nu=2.5) + WhiteKernel(0.1)
        self._fit = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0)
        self._fit.fit(points, (losses - self._middle) / self._scale)
        fitted: Any = self._fit.kernel_
        self.noise = self._scale * math.sqrt(fitted.k2.noise_level)
        """The standard deviation of a log loss."""

    def quality(self, spec: TrialSpec) -> float:
        """Return the loss that a configuration has without noise."""
        point = coordinates(list(spec.rates.values()), spec.lr, spec.weight_decay)
        return math.exp(self._middle + self._scale * self._fit.predict([point])[0])

    def loss(self, spec: TrialSpec) -> float:
        """Return the loss of a trial."""
        draw = np.random.default_rng(derived_seed(spec.seed, "noise", spec.number)).normal()
        return self.quality(spec) * math.exp(self.noise * draw)


def coordinates(rates: Sequence[float], lr: float, weight_decay: float) -> list[float]:
    """Return a configuration as a point near the unit cube."""
    return [*(rate / 0.9 for rate in rates), math.log10(lr / 3e-4) / 2, math.log10(weight_decay / 1e-6) / 5]


class SimulatedEngine(Engine):
    """Ends trials at once, as many together as fit in `width` rows."""

    def __init__(self, surrogate: Surrogate, width: int) -> None:
        self._surrogate, self._width = surrogate, width
        self.ended: list[TrialResult] = []

    def describe(self, processes: int = 1) -> str:
        """Return the description."""
        return "simulated"

    def run(self, feed: Feed) -> None:
        """End all trials of the feed."""
        while specs := feed.ask(self._width):
            results = [self._result(spec) for spec in specs]
            self.ended += results
            feed.tell(results)

    def _result(self, spec: TrialSpec) -> TrialResult:
        loss = self._surrogate.loss(spec)
        return TrialResult(spec, "COMPLETE", (EpochMetrics(0, loss, loss, loss),), 0.0)


def searched(context: ExperimentContext, surrogate: Surrogate, width: int, sobol: bool) -> list[float]:
    """Search once; return the quality of the trial with the least loss after each trial."""
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(None, Path(folder) / "study.journal")
        arm = studies.arm_studies(context, storage, context.config.arms[0])
        if sobol:
            vars(arm.space)["_sobol"] = sobol_points(arm.space, context.config)
            arm.space.__class__ = SobolSpace
        engine = SimulatedEngine(surrogate, width)
        ArmRunner(context, [arm], engine, lambda: False).search(lambda feed: feed)
    qualities = [surrogate.quality(result.spec) for result in engine.ended]
    losses = [result.curve[0].val_loss for result in engine.ended]
    return [qualities[int(np.argmin(losses[: count + 1]))] for count in range(len(losses))]


class SobolSpace(Space):
    """A space whose random first trials are Sobol points."""

    @property
    def first_points(self) -> tuple[Params, ...]:
        """Return the own first points and the Sobol points behind them."""
        return (*super().first_points, *self.__dict__["_sobol"])


def sobol_points(space: Space, config: Any) -> list[Params]:
    """Return scrambled Sobol points in the place of the random trials."""
    missing, ranges = config.sampler.n_startup_trials - len(space.first_points), space.distributions
    drawn = qmc.Sobol(len(ranges), rng=config.seed).random(16)[: max(missing, 0)]
    return [{name: within(ranges[name], x) for name, x in zip(ranges, point, strict=True)} for point in drawn.tolist()]


def within(searched: Any, share: float) -> float:
    """Return a value of a range by its share of the length."""
    if searched.log:
        return searched.low * (searched.high / searched.low) ** share
    return searched.low + (searched.high - searched.low) * share


def main() -> None:
    """Print the qualities."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--width", type=int, default=10)
    parser.add_argument("--sobol", action="store_true")
    options, _, overrides = " \0".join(sys.argv[1:]).partition(" \0-- \0")
    chosen = parser.parse_args(options.split(" \0"))
    warnings.simplefilter("ignore")
    texts = {file.read_text() for at in chosen.folders for file in at.glob(f"{chosen.workload}-*.json")}
    kept = [json.loads(text) for text in sorted(texts)]  # sides may be in several folders
    surrogate = Surrogate([trial for run in kept for trial in run["ended"] if trial["loss"]])
    shared = ["sampler=tpe", "pruner=none", "trainer.max_epochs=1", f"study.n_trials={chosen.trials}", "task=plan"]
    runs = []
    for seed in range(chosen.seeds):
        given = [*shared, "tracking=none", f"seed={seed + 100}", *filter(None, overrides.split(" \0"))]
        with tempfile.TemporaryDirectory() as folder:
            context = build_context(compose_overrides(words(chosen.workload, folder, *given)))
            runs.append(searched(context, surrogate, chosen.width, chosen.sobol))
    print(f"{chosen.workload}, {sum(len(run['ended']) for run in kept)} trials measured, noise {surrogate.noise:.3f}")
    for count in (*SHOWN, chosen.trials):
        low, middle, high = np.quantile([run[count - 1] for run in runs], (0.25, 0.5, 0.75))
        print(f"after {count} trials: {middle:.4f} ({low:.4f} to {high:.4f})", flush=True)


if __name__ == "__main__":
    main()
