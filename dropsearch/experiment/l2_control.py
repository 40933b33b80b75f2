"""Winners beside controls that weight decay, and not dropout, keeps from fitting the training set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.records import ArmEvidence, ArmOutcome, Comparison, Confirmed, Evidence, L2Control, Quantity
from dropsearch.experiment import build, study_settings
from dropsearch.experiment.arm_runner import ArmRunner, ArmStudies
from dropsearch.experiment.evidence import measured_again
from dropsearch.experiment.retrainings import at_best, retrained
from dropsearch.stats.comparisons import contrasted

TRAIN_LOSS = "train_loss"
MATCHED = {TRAIN_LOSS: Quantity("train loss with dropout off, best epoch", "nats", higher_is_better=False)}
"""What the control is to have like the winner: told for its remaining difference."""
COMPARED = ("correlation", "participation", "active_share", "knockout_area", "gap_best")
MEASURED = ("overfitting", "coadaptation")


def check_weight_decay(config: Config, source: build.Source) -> None:
    """Check that weight decay reaches the models, where a control is to be trained by it.

    Raises:
        InputError: The class of the user's own takes none, and its optimiser has none.
    """
    if config.evidence.l2_control and "weight_decay" in study_settings.space_settings(config, source).fixed:
        raise InputError(
            f"evidence.l2_control=true needs a module whose weight decay can be set, got model={config.model.name}: "
            "give its __init__ the argument weight_decay, or take an optimiser that has one"
        )


def with_controls(evidence: Evidence, arm_runner: ArmRunner, arms: Mapping[str, ArmOutcome]) -> Evidence:
    """Return the evidence with the control of each winner that drops anything, where that is asked for."""
    controls: dict[str, L2Control] = {}
    notes: list[str] = []
    for studies in arm_runner.studies:
        name, winner = studies.arm.name, arms[studies.arm.name].winner
        if winner is None or "l2" not in studies.retrained:
            continue
        if not any(winner.results[0].spec.rates.values()):
            notes.append(f"arm {name} has no L2 control, for its winner drops nothing anywhere")
            continue
        tried = _tried(studies, winner)
        chosen = nearest(tried, winner)
        if chosen is None:
            notes.append(f"arm {name} has no L2 control: no weight decay gave a finite train loss on every seed")
            continue
        found, missed = measured_again(arm_runner.config, arm_runner.source, chosen, arm_runner.checkpoints, MEASURED)
        notes += [f"on the L2 control of arm {name}: {why}" for why in missed]
        controls[name] = _control(tried, chosen, found, winner, evidence.arms[name])
    quantities = {**evidence.quantities, **(MATCHED if controls else {})}
    return dataclasses.replace(evidence, l2_controls=controls, notes=(*evidence.notes, *notes), quantities=quantities)


def _tried(arm: ArmStudies, winner: Confirmed) -> list[Confirmed]:
    """Return the retrainings without dropout, one entry a weight decay."""
    return [Confirmed(winner.number, results) for _, results in retrained(arm, winner, "l2").values() if results]


def nearest(tried: Sequence[Confirmed], winner: Confirmed) -> Confirmed | None:
    """Return the retrainings whose mean train loss over all seeds is nearest to the winner's; None where none has one.

    The train loss is that with dropout off, of the epoch whose weights were kept.
    """
    wanted = _mean_train_loss(winner)
    whole = [retraining for retraining in tried if retraining.seeds == winner.seeds]
    distances = [abs(_mean_train_loss(retraining) - wanted) for retraining in whole]
    finite = [(distance, index) for index, distance in enumerate(distances) if math.isfinite(distance)]
    return whole[min(finite)[1]] if finite else None


def train_losses(retraining: Confirmed) -> tuple[float, ...]:
    """Return the train loss with dropout off at the best epoch, one a seed; NaN where no epoch ended."""
    return tuple(at_best(result, lambda point: point.train_loss) for result in retraining.results)


def _mean_train_loss(retraining: Confirmed) -> float:
    losses = train_losses(retraining)
    return sum(losses) / len(losses)


def _control(
    tried: Sequence[Confirmed], chosen: Confirmed, found: ArmEvidence, winner: Confirmed, own: ArmEvidence
) -> L2Control:
    measures = {TRAIN_LOSS: train_losses(chosen), **_compared(found)}
    winners = {TRAIN_LOSS: train_losses(winner), **_compared(own)}
    return L2Control(
        chosen.results[0].spec.weight_decay,
        tuple((each.results[0].spec.weight_decay, _mean_train_loss(each)) for each in tried),
        winner.seeds,
        measures,
        winners,
        _contrasts(chosen.results[0].spec.arm, winner.seeds, measures, winners),
    )


def _compared(found: ArmEvidence) -> dict[str, tuple[float, ...]]:
    """Return what is compared of all that was measured; a model without hidden layers has no co-adaptation."""
    known = {name: found.measures.get(name, ()) for name in COMPARED}
    return {name: values for name, values in known.items() if any(map(math.isfinite, values))}


def _contrasts(
    arm: str,
    seeds: tuple[int, ...],
    measures: Mapping[str, tuple[float, ...]],
    winners: Mapping[str, tuple[float, ...]],
) -> tuple[Comparison, ...]:
    """Return the winner minus the control, p-values adjusted for all that is compared; the match is its own family."""
    shared = [name for name in measures if name in winners]
    families = [[name for name in shared if name == TRAIN_LOSS], [name for name in shared if name != TRAIN_LOSS]]
    return tuple(found for family in families for found in _family(arm, seeds, family, measures, winners))


def _family(
    arm: str,
    seeds: tuple[int, ...],
    names: Sequence[str],
    measures: Mapping[str, tuple[float, ...]],
    winners: Mapping[str, tuple[float, ...]],
) -> list[Comparison]:
    values = {
        f"{name} of {who}": dict(zip(seeds, found[name], strict=True))
        for who, found in (("winner", winners), ("control", measures))
        for name in names
    }
    pairs = [(f"{name} of winner", f"{name} of control") for name in names]
    found = contrasted(values, pairs, "")
    return [
        dataclasses.replace(comparison, a=arm, b="L2 control", metric=name)
        for name, comparison in zip(names, found, strict=True)
    ]
