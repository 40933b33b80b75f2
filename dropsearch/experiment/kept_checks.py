"""Checks that models can be saved, loaded and validated, before the search and at its end."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path

from torch.nn.parameter import is_lazy

from dropsearch.core.errors import InputError
from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialResult
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.scoring import measured
from dropsearch.experiment.user_module import PROBED
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.adapters.probe import for_a_look, trained_for
from dropsearch.training.controlled_trial import controlled_trial, drops_nothing
from dropsearch.training.trainers import make_trainer, quiet_lightning

TOLERANCE = 1e-3
"""Relative tolerance of two evaluations of a float32 model, since kernels round differently."""


def try_end(context: ExperimentContext) -> None:
    """Save and load an untrained module, as a run does with its winners."""
    name, settings = context.config.model.name, for_a_look(context.settings)
    spec = dataclasses.replace(PROBED, hyperparameters=context.modules.start)
    module = context.modules.whole(spec)
    if any(map(is_lazy, module.parameters())):  # its first batch decides the shapes
        trained_for(module, context.source.for_trainer(spec.seed), settings, 1)
    try:
        with tempfile.TemporaryDirectory() as folder, quiet_lightning():
            trainer = make_trainer(module, settings, [])
            trainer.strategy.connect(module)
            path = Path(folder, "model.ckpt")
            sha256 = save_checkpoint(trainer, path)
            context.load(TrialResult(spec, "COMPLETE", (), 0.0, "", str(path), sha256), path)
    except USER_ERRORS as error:  # user code
        raise InputError(
            f"model={name} must be savable in a checkpoint and loadable again, like the winners, but "
            f"failed: {described(error)}"
        ) from error


def reproduced(context: ExperimentContext, result: TrialResult, path: Path) -> str:
    """Validate a kept model again; return a message if its score differs from the reported one, or an empty string.

    A module that draws random numbers in validation, or fails outside of training, is not compared.
    """
    if result.best is None:
        return ""
    try:
        logged, again = (_validated(context, result, path, seed) for seed in (0, 1))
    except Exception:  # user code may fail outside of training
        return ""
    if logged != again or context.monitor.name not in logged:
        return ""
    reported, found = context.monitor.objective(result.best.objective), logged[context.monitor.name]
    if math.isclose(reported, found, rel_tol=TOLERANCE, abs_tol=1e-6):
        return ""
    return (
        f"the checkpoint of {result.spec.key} has {context.monitor.name}={found:.6g} when loaded and validated, "
        f"but {reported:.6g} was reported: the validation depends on more than weights (an epoch, state in hooks)"
    )


def _validated(context: ExperimentContext, result: TrialResult, path: Path, seed: int) -> dict[str, float]:
    module, source = context.load(result, path), context.source
    control = TrialControl(module, result.spec.rates, seed, off=drops_nothing(result.spec))
    epoch = result.best.epoch if result.best else 0
    with seeded(seed), controlled_trial(module, control, []):
        loader = source.for_trial(result.spec).val_dataloader()
        return measured(module, source, context.settings, "val", loader, epoch=epoch)
