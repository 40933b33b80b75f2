"""Whether confirmed models can be kept, loaded and measured: tried before the search, and checked at its end."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

from dropsearch.core.errors import InputError
from dropsearch.core.global_rng import seeded
from dropsearch.core.records import TrialResult
from dropsearch.core.user_errors import described
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.scoring import measured
from dropsearch.experiment.user_module import PROBED
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.adapters.probe import for_a_look
from dropsearch.training.controlled_trial import controlled_trial, drops_nothing
from dropsearch.training.trainers import make_trainer, quiet_lightning

TOLERANCE = 1e-3
"""How far two measurements of one float32 model may lie apart, relative to the value: other kernels round otherwise."""


def try_end(context: ExperimentContext) -> None:
    """Save and load an untrained module, as a run does with its winners in the end.

    Raises:
        InputError: Its checkpoint cannot be written or loaded.
    """
    name, settings = context.config.model.name, for_a_look(context.settings)
    spec = dataclasses.replace(PROBED, hyperparameters=context.modules.start)
    module = context.modules.whole(spec)
    try:
        with tempfile.TemporaryDirectory() as folder, quiet_lightning():
            trainer = make_trainer(module, settings, [])
            trainer.strategy.connect(module)
            path = Path(folder, "model.ckpt")
            sha256 = save_checkpoint(trainer, path)
            context.load(TrialResult(spec, "COMPLETE", (), 0.0, "", str(path), sha256), path)
    except Exception as error:  # user code
        raise InputError(
            f"model={name} must be saved in a checkpoint and loaded again, as the winners will in the end, and did "
            f"not: {described(error)}"
        ) from error


def reproduced(context: ExperimentContext, result: TrialResult, path: Path) -> str:
    """Validate a kept model again; return in one line how what it scores differs from what is reported, or nothing.

    A module that draws random numbers in its validation, or fails where nothing trains it, is not compared.
    """
    if result.best is None:
        return ""
    try:
        logged, again = (_validated(context, result, path, seed) for seed in (0, 1))
    except Exception:  # user code, where it was not meant to run
        return ""
    if logged != again or context.monitor.name not in logged:
        return ""
    said, found = context.monitor.objective(result.best.objective), logged[context.monitor.name]
    if math.isclose(said, found, rel_tol=TOLERANCE, abs_tol=1e-6):
        return ""
    return (
        f"the checkpoint of {result.spec.key} has {context.monitor.name}={found:.6g} when it is loaded and validated, "
        f"and {said:.6g} was reported: the module validates with more than its weights (an epoch, state in hooks)"
    )


def _validated(context: ExperimentContext, result: TrialResult, path: Path, seed: int) -> dict[str, float]:
    module, source = context.load(result, path), context.source
    control = TrialControl(module, result.spec.rates, seed, off=drops_nothing(result.spec))
    epoch = result.best.epoch if result.best else 0
    with seeded(seed), controlled_trial(module, control, []):
        loader = source.for_trial(result.spec).val_dataloader()
        return measured(module, source, context.settings, "val", loader, epoch=epoch)
