"""A summary as a real run of four arms leaves it: 12 trials and 3 x 10 retrainings each, in known numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dropsearch.core.records import (
    ARMS,
    ArmEvidence,
    ArmOutcome,
    Budget,
    Claim,
    Comparison,
    ComparisonMetric,
    Confirmed,
    EpochMetrics,
    Evidence,
    Interval,
    Quantity,
    Response,
    Series,
    Site,
    Summary,
    TestScores,
    TrialResult,
    TrialSpec,
)
from dropsearch.stats.comparisons import compared

EPOCHS = 12
LEVEL = {
    "none": 0.34,
    "dropout": 0.27,
    "batchnorm": 0.30,
    "both": 0.25,
    "dropout_shared": 0.28,
    "typical": 0.29,
}
OPTIMUM = {"input": 0.05, "hidden": 0.55, "conv": 0.2, "rnn": 0.3, "attention": 0.1}
TYPICAL = {"input": 0.15, "hidden": 0.4, "conv": 0.2, "rnn": 0.25, "attention": 0.1}
DEFAULT_SITES = (
    Site("input_dropout", "input", 0.1, 64),
    Site("blocks.0.dropout", "hidden", 0.4, 128),
    Site("blocks.1.dropout", "hidden", 0.4, 128),
)


QUANTITIES = {
    "gap_best": Quantity("gap at the best epoch", "nats", higher_is_better=False),
    "gap_last": Quantity("gap at the last epoch", "nats", higher_is_better=False),
    "correlation": Quantity("mean |correlation| between hidden units", higher_is_better=False),
    "participation": Quantity("participation ratio"),
    "knockout_area": Quantity("area under the knock-out curve", higher_is_better=True),
    "robustness_area": Quantity("robustness", higher_is_better=True),
    "corruption_error": Quantity("mean corruption error", higher_is_better=False),
    "mc_nll": Quantity("loss, averaged over masks", "nats", higher_is_better=False),
    "mc_nll_gain": Quantity("gain by averaging over masks", "nats", higher_is_better=True),
    "mc_minus_scaled": Quantity("averaged minus temperature-scaled", "nats", higher_is_better=False),
    "ece": Quantity("calibration error", higher_is_better=False),
    "temperature": Quantity("temperature"),
    "shift_min": Quantity("least variance ratio"),
    "recalibration_gain": Quantity("gain by recalibration", "points", higher_is_better=True),
}
CORRUPTIONS = {"noise": 0.08, "salt_and_pepper": 0.11, "blur": 0.03, "contrast": 0.05, "translation": 0.09}
SAMPLES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


def curve(level, overfit, generator, epochs=EPOCHS):
    """A learning curve that falls to about `level` and then rises by `overfit` nats."""
    points = []
    for epoch in range(epochs):
        val = level + 1.9 * math.exp(-0.7 * epoch) + overfit * (epoch / epochs) ** 2 + generator.normal(0, 0.004)
        train = max(val - overfit * (1 + epoch) / epochs - 0.04 * epoch / epochs, 0.005)
        points.append(EpochMetrics(epoch, train, train + 0.08, val, 1 - train / 4, 1 - val / 4))
    return tuple(points)


class Maker:
    """Makes arms and summaries; equal arguments give equal records."""

    def spec(self, arm, number, seed, rates, phase="search"):
        lr = 10 ** (-3 + 0.05 * (number % 40))
        params = {f"rate:{site}": rate for site, rate in rates.items()} | {"lr": lr, "weight_decay": 1e-4}
        configuration = number // 10 if phase == "confirm" else None
        return TrialSpec(arm, number, seed, rates, lr, 1e-4, params, phase, configuration)

    def rates(self, arm, number, sites, generator):
        if ARMS[arm].dropout == "off":
            return {}
        if number == 0 or ARMS[arm].dropout == "typical":
            return {site.name: TYPICAL.get(site.kind, 0.3) for site in sites}
        if number == 1:
            return {site.name: 0.0 for site in sites}
        if ARMS[arm].dropout == "shared":
            return dict.fromkeys((site.name for site in sites), float(generator.uniform(0, 0.9)))
        if number < 4:
            return {site.name: float(generator.uniform(0, 0.9)) for site in sites}
        wanted = [OPTIMUM.get(site.kind, 0.3) + 0.02 * place for place, site in enumerate(sites)]
        drawn = np.clip(generator.normal(wanted, 0.12), 0, 0.9)
        return {site.name: float(rate) for site, rate in zip(sites, drawn, strict=True)}

    def trial(self, arm, number, sites, generator):
        rates = self.rates(arm, number, sites, generator)
        distance = [(rates[s.name] - OPTIMUM.get(s.kind, 0.3)) ** 2 for s in sites if s.name in rates]
        level = LEVEL[arm] + (0.4 * float(np.mean(distance)) if distance else 0.0) + generator.exponential(0.03)
        overfit = 0.02 if rates and max(rates.values()) > 0.2 else 0.12
        spec = self.spec(arm, number, 1000 + number, rates)
        if number % 6 == 5:
            return TrialResult(spec, "PRUNED", curve(level + 0.2, overfit, generator, 4), 0.8, "pruned at epoch 3")
        return TrialResult(spec, "COMPLETE", curve(level, overfit, generator), 2.1)

    def confirmed(self, trial, seeds, generator):
        level = trial.best.val_loss + 0.01
        results = []
        for index in range(seeds):
            spec = self.spec(trial.spec.arm, 10 * trial.spec.number + index, 5000 + index, trial.spec.rates, "confirm")
            results.append(
                TrialResult(spec, "COMPLETE", curve(level + generator.normal(0, 0.01), 0.05, generator), 2.0)
            )
        return Confirmed(trial.spec.number, tuple(results))

    def arm(self, name, trials=12, top=3, seeds=10, sites=DEFAULT_SITES, acc=None):
        """An arm with all it can have; `acc` are its test accuracies, one a seed."""
        generator = np.random.default_rng([trials, seeds, *map(ord, name)])
        done = tuple(self.trial(name, number, sites, generator) for number in range(trials))
        complete = sorted((t for t in done if t.state == "COMPLETE"), key=lambda t: t.best.val_loss)
        confirmed = tuple(self.confirmed(trial, seeds, generator) for trial in complete[:top])
        winner = min(confirmed, key=lambda c: c.mean_val_loss)
        luck = np.random.default_rng(77).normal(0, 0.004, seeds)
        drawn = np.round(360 * (1.05 - LEVEL[name] / 3 + luck + generator.normal(0, 0.003, seeds))) / 360
        acc = tuple(float(value) for value in (drawn if acc is None else acc))
        loss, examples = tuple(4 * (1.03 - value) for value in acc), 30
        alike = [tuple((value,) * examples for value in values) for values in (loss, acc)]
        test = TestScores("2026-11-01T12:00:00+00:00", loss, acc, *alike)
        typical = {site.name: TYPICAL.get(site.kind, 0.3) for site in sites}
        return ArmOutcome(ARMS[name], done, confirmed, winner, test, typical)

    def summary(self, arms=("none", "dropout", "batchnorm", "both"), sites=DEFAULT_SITES, **changes):
        """A summary of arms given by name, or as outcomes by name."""
        outcomes = dict(arms) if isinstance(arms, dict) else {name: self.arm(name, sites=sites) for name in arms}
        fields = {
            "study": "digits-mlp",
            "model": "mlp",
            "data": "digits",
            "seed": 0,
            "versions": {"dropsearch": "0.1.0", "torch": "2.13.0", "optuna": "5.0.0"},
            "seconds": 125.4,
            "engine": "sequential",
            "sites": sites,
            "arms": outcomes,
            "comparisons": compared(outcomes, ComparisonMetric()),
            "config": {"study": {"n_trials": 12}, "confirm": {"seeds": 10, "top_k": 3}, "seed": 0},
            "tracking": {
                "tracking_uri": "sqlite:///mlflow.db",
                "experiment": "mlp on digits",
                "run_id": "a1b2",
            },
            "commands": {
                "mlflow": "mlflow ui --backend-store-uri sqlite:///outputs/mlflow.db",
                "reload": "python -m dropsearch experiment=outputs/best/both.yaml",
            },
        }
        return Summary(**(fields | changes))

    def tested(self, **accuracies):
        """A summary whose arms have exactly these test accuracies."""
        return self.summary({name: self.arm(name, seeds=len(acc), acc=acc) for name, acc in accuracies.items()})

    def measured(self, name, seeds, level):
        """What is measured on an arm's winner; what takes dropout or BatchNorm is NaN without."""
        generator = np.random.default_rng([7, *map(ord, name)])
        dropout, batchnorm = ARMS[name].dropout != "off", ARMS[name].batchnorm

        def draw(mean, spread, there=True):
            drawn = generator.normal(mean, spread, seeds)
            return tuple(float(value) if there else math.nan for value in drawn)

        values = {
            "gap_best": draw(0.05 if dropout else 0.12, 0.01),
            "gap_last": draw(0.06 if dropout else 0.21, 0.02),
            "correlation": draw(0.19 if dropout else 0.26, 0.01),
            "participation": draw(0.2, 0.02),
            "knockout_area": draw(0.8, 0.02),
            "robustness_area": draw(0.86, 0.01),
            "corruption_error": draw(0.2, 0.01),
            "mc_nll": draw(level, 0.005, dropout),
            "mc_nll_gain": draw(0.01, 0.003, dropout),
            "mc_minus_scaled": draw(-0.004, 0.003, dropout),
            "ece": draw(0.02, 0.003),
            "temperature": draw(1.2, 0.1),
            "shift_min": draw(0.8, 0.02, dropout and batchnorm),
            "recalibration_gain": draw(0.002, 0.001, dropout and batchnorm),
        }
        return ArmEvidence(
            tuple(5000 + index for index in range(seeds)), values, self.series(name, seeds, level, generator)
        )

    def series(self, name, seeds, level, generator):
        """The curves that belong to those measures."""
        dropout, batchnorm = ARMS[name].dropout != "off", ARMS[name].batchnorm

        def draw(x, means, spread):
            drawn = generator.normal(means, spread, (seeds, len(x)))
            return Series(tuple(map(float, x)), tuple(tuple(map(float, row)) for row in drawn))

        shares = np.arange(10) / 10
        found = {"knockout": draw(shares, 0.97 - (0.4 if dropout else 0.8) * shares**2, 0.01)}
        for corruption, loss in CORRUPTIONS.items():
            found[corruption] = draw(range(6), [0.97 - loss * (0.6 if dropout else 1) * s for s in range(6)], 0.008)
        if dropout:
            found["nll_by_samples"] = draw(SAMPLES, [level + 0.08 / t for t in SAMPLES], 0.004)
            found["nll_by_members"] = draw((1.0, 2.0, 5.0), [level, level - 0.02, level - 0.03], 0.003)
        if dropout and batchnorm:
            found["shift"] = draw((1.0, 2.0), (0.92, 0.8), 0.02)
        return found

    def response(self, site, typical):
        rates = tuple(float(rate) for rate in np.linspace(0, 0.9, 19))
        expected = tuple(0.28 + 0.3 * (rate - OPTIMUM.get(site.kind, 0.3)) ** 2 for rate in rates)
        low, high = (
            tuple(value + sign * (0.01 + 0.05 * rate) for value, rate in zip(expected, rates, strict=True))
            for sign in (-1, 1)
        )
        return Response(site.name, rates, expected, low, high, 0.4, OPTIMUM.get(site.kind, 0.3), typical)

    def evidence(self, outcomes, sites=DEFAULT_SITES):
        """All that can be measured on the winners of `outcomes`."""
        won = {name: len(arm.winner.results) for name, arm in outcomes.items() if arm.winner}
        arms = {name: self.measured(name, seeds, LEVEL[name]) for name, seeds in won.items()}
        searched = [name for name in won if ARMS[name].dropout == "search"]
        trials = tuple(range(1, 13))
        return Evidence(
            arms,
            contrasts=tuple(
                Comparison(name, "none", "gap_best", (-0.07,) * won[name], Interval(-0.07, -0.09, -0.05), 0.002, 0.006)
                for name in won
                if name != "none"
            ),
            claims=(
                Claim(
                    "overfitting",
                    "Less overfitting with dropout",
                    "held",
                    "gap, dropout minus none",
                    Interval(-0.07, -0.09, -0.05),
                    "With dropout the gap is 0.07 nats smaller (95 % interval 0.05 to 0.09).",
                    "gaps",
                    "nats",
                ),
                Claim(
                    "robustness",
                    "More robustness to noise with dropout",
                    "undecided",
                    "robustness, dropout minus none",
                    Interval(math.nan, math.nan, math.nan),
                    "The arms with and without dropout were not both run.",
                ),
            ),
            responses={
                name: tuple(self.response(site, TYPICAL.get(site.kind, 0.3)) for site in sites) for name in searched
            },
            budgets={
                name: Budget(
                    trials,
                    tuple(LEVEL[name] + 0.2 / k for k in trials),
                    tuple(LEVEL[name] + 0.1 / k for k in trials),
                    tuple(LEVEL[name] + 0.5 / k for k in trials),
                    "trials",
                )
                for name in won
            },
            seconds=4.2,
            notes=("variance_shift was not measured on 2 of 40 models: the network has no BatchNorm",),
            quantities=QUANTITIES,
        )

    def with_evidence(self, arms=("none", "dropout", "batchnorm", "both"), sites=DEFAULT_SITES, **changes):
        """A summary whose winners were measured."""
        summary = self.summary(arms, sites=sites, **changes)
        return replace(summary, evidence=self.evidence(summary.arms, sites))

    def failed(self, name, reason="CUDA out of memory", trials=12):
        """An arm all of whose trials failed."""
        specs = [self.spec(name, number, number, {}) for number in range(trials)]
        return ArmOutcome(ARMS[name], tuple(TrialResult(spec, "FAIL", (), 0.1, reason) for spec in specs))

    def untested(self, name):
        """An arm whose winner has not seen the test set."""
        return replace(self.arm(name), test=None)

    def searched(self, name):
        """An arm that was never confirmed."""
        return replace(self.arm(name), confirmed=(), winner=None, test=None)


@pytest.fixture(scope="session")
def make():
    return Maker()


@pytest.fixture(scope="session")
def summary(make):
    return make.summary()
