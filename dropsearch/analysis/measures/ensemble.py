"""Dropout as an ensemble: averaging over masks, compared with temperature scaling and deep ensembles."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dropsearch.analysis.measures.passes import averaged, has_dropout, logits_of
from dropsearch.analysis.measures.protocol import Measured, TrainedModel
from dropsearch.analysis.measures.scores import Scores, fitted_temperature
from dropsearch.core.records import Quantity, Series

MEMBERS = (1, 2, 5, 10)
SCORES = tuple(field.name for field in dataclasses.fields(Scores))

_UNSCALED = {
    "nll": Quantity("negative log-likelihood", "nats", higher_is_better=False),
    "brier": Quantity("Brier score", higher_is_better=False),
    "accuracy": Quantity("accuracy", higher_is_better=True),
    "ece": Quantity("expected calibration error", higher_is_better=False),
}


def _described(name: str, words: str) -> dict[str, Quantity]:
    """Return the quantities of the four scores; `name` is a pattern of their names, `words` ends their labels."""
    return {
        name.format(score): dataclasses.replace(each, label=f"{each.label}{words}") for score, each in _UNSCALED.items()
    }


VALUES = {
    **_described("{}", ", dropout off"),
    **_described("scaled_{}", ", temperature-scaled"),
    **_described("mc_{}", ", averaged over masks"),
    "mc_scaled_nll": Quantity(
        "negative log-likelihood, averaged over masks and temperature-scaled", "nats", higher_is_better=False
    ),
    "temperature": Quantity("best temperature on validation"),
    "mc_nll_gain": Quantity("log-likelihood gained by averaging over masks", "nats", higher_is_better=True),
    "mc_minus_scaled": Quantity(
        "loss when averaged over masks minus that of the temperature-scaled net", "nats", higher_is_better=False
    ),
}
SERIES = {
    **_described("{}_by_samples", " by number of masks averaged"),
    **_described("{}_by_members", " by number of retrainings averaged"),
}


def measure(trained: TrainedModel) -> Measured:
    """Score a network's probabilities on held-out examples: as they are, scaled, and averaged over dropout's masks.

    `nll`, `brier`, `accuracy` and `ece` are scores with dropout off. The prefix `scaled_` means the same logits divided
    by the `temperature` fitted on the validation set (Guo et al. 2017); `mc_` means the mean probability over the
    largest number of passes with dropout on (Gal and Ghahramani 2016), NaN in arms without dropout. `mc_nll_gain` is
    nll minus mc_nll. `mc_minus_scaled` is mc_nll minus scaled_nll; only if it is below 0 do the samples achieve more
    than one temperature. `mc_scaled_nll` is the loss of the averaged probabilities with a temperature fitted to them;
    its comparison with scaled_nll has calibrated probabilities on both sides (Ashukha et al. 2020). The series
    `nll_by_samples`, `brier_by_samples` etc. are the mc scores by the number of passes.
    """
    examples, validation = trained.held_out, trained.validation
    logits = logits_of(trained, examples.inputs).double()
    temperature = fitted_temperature(logits_of(trained, validation.inputs), validation.targets)
    plain = Scores.of(logits.log_softmax(-1), examples.targets)
    scaled = Scores.of((logits / temperature).log_softmax(-1), examples.targets)
    values = {**_named("", plain), **_named("scaled_", scaled), "temperature": temperature}
    passes = trained.settings.monte_carlo
    if not passes or not has_dropout(trained):
        return Measured({**dict.fromkeys(VALUES, math.nan), **values})
    means = averaged(trained, examples.inputs, passes)
    by_samples = [Scores.of(each, examples.targets) for each in means]
    last = by_samples[-1]
    gains = {
        "mc_nll_gain": plain.nll - last.nll,
        "mc_minus_scaled": last.nll - scaled.nll,
        "mc_scaled_nll": _rescaled(trained, means[-1]),
    }
    series = {f"{name}_by_samples": (passes, [getattr(each, name) for each in by_samples]) for name in SCORES}
    return Measured({**values, **_named("mc_", last), **gains}, series)


def _rescaled(trained: TrainedModel, averages: Tensor) -> float:
    """Return the loss of probabilities averaged over masks, with the temperature fitted on validation.

    `averages` are log-probabilities `[examples, classes]` over the largest number of passes.
    """
    (chosen_by,) = averaged(trained, trained.validation.inputs, trained.settings.monte_carlo[-1:])
    temperature = fitted_temperature(chosen_by, trained.validation.targets)
    return Scores.of((averages / temperature).log_softmax(-1), trained.held_out.targets).nll


def _named(prefix: str, scores: Scores) -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in dataclasses.asdict(scores).items()}


def deep_ensemble(logits: Tensor, targets: Tensor, members: Sequence[int] = MEMBERS) -> Mapping[str, Series]:
    """Score the mean probabilities of networks that differ by their seeds (Lakshminarayanan et al. 2017).

    The reference for averaging over masks. Row i contains ensembles of network i and the k - 1 networks after it
    (cyclic). A row therefore starts with the score of one network and ends with that of all n, and the mean over rows
    weighs every network equally.

    Args:
        logits: `[models, examples, classes]` with dropout off.
        targets: Classes `[examples]`.
        members: Ensemble sizes; sizes above the number of models are dropped, and the number of models is added.

    Returns:
        ``nll_by_members``, ``brier_by_members``, ``accuracy_by_members`` and ``ece_by_members`` by ensemble size, one
        row per model.
    """
    log_probabilities = logits.double().log_softmax(-1)
    models = len(logits)
    counts = sorted({count for count in members if count < models} | {models})
    rows = [[_of_members(log_probabilities.roll(-i, 0)[:k], targets) for k in counts] for i in range(models)]
    x = tuple(float(count) for count in counts)
    return {
        f"{name}_by_members": Series(x, tuple(tuple(getattr(each, name) for each in row) for row in rows))
        for name in SCORES
    }


def _of_members(log_probabilities: Tensor, targets: Tensor) -> Scores:
    return Scores.of(torch.logsumexp(log_probabilities, 0) - math.log(len(log_probabilities)), targets)
