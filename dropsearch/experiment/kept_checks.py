"""Whether confirmed models can be kept, loaded and measured: tried before the search, and checked at its end."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.core.global_rng import seeded
from dropsearch.core.records import TrialResult
from dropsearch.core.user_errors import described
from dropsearch.datasets.user_data import defines
from dropsearch.datasets.user_loaders import each_loader
from dropsearch.dropout.control import TrialControl
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.scoring import by_loader, measured, on_test
from dropsearch.experiment.user_module import PROBED
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.adapters.probe import for_a_look
from dropsearch.training.controlled_trial import controlled_trial, drops_nothing
from dropsearch.training.sequential import quiet_lightning
from dropsearch.training.trainers import make_trainer

TOLERANCE = 1e-3
"""How far two measurements of one float32 model may lie apart, relative to the value: other kernels round otherwise."""


def try_end(context: ExperimentContext) -> None:
    """Do with an untrained module what a run does with its winners in the end, on one batch of the validation set.

    Raises:
        InputError: Its checkpoint cannot be written or loaded, or `test_step` fails or does not log what is compared.
    """
    if not context.settings.is_user_module:
        return
    name, settings = context.config.model.name, for_a_look(context.settings, limit_test_batches=1, limit_val_batches=1)
    spec = dataclasses.replace(PROBED, hyperparameters=context.modules.start)
    module = context.modules.whole(spec)
    what = "be saved in a checkpoint and loaded again"
    try:
        with tempfile.TemporaryDirectory() as folder, quiet_lightning():
            trainer = make_trainer(module, settings, [])
            trainer.strategy.connect(module)
            path = Path(folder, "model.ckpt")
            sha256 = save_checkpoint(trainer, path)
            module = context.load(TrialResult(spec, "COMPLETE", (), 0.0, "", str(path), sha256), path)
        step, batches = _dry_test(context, module)
        if batches is None:
            return
        what = "run test_step" if step == "test" else "run validation_step on the test set"
        with seeded(spec.seed):
            logged = measured(module, context.source, settings, step, batches)
    except Exception as error:  # user code
        raise InputError(
            f"model={name} must {what}, as the winners will in the end, and did not: {described(error)}"
        ) from error
    wanted = on_test(context.monitor)
    if not by_loader(wanted, logged) and context.monitor.name not in context.modules.logged:
        raise InputError(f"model={name} must log {wanted} in test_step, got {', '.join(logged) or 'nothing'}")


def _dry_test(context: ExperimentContext, module: Any) -> tuple[str, Any]:
    """Return the step that the test set will be measured by, and batches of its form; None where that is proven."""
    source = context.source
    val, count = each_loader(source.val_dataloader()), len(each_loader(source.test_dataloader()))
    step = "test" if defines(module, "test_step") else "val"
    if not count or (step == "val" and count == len(val)):
        return step, None
    return step, val[0] if count == 1 else [val[0]] * count


def reproduced(context: ExperimentContext, result: TrialResult, path: Path) -> str:
    """Validate a kept model again; return in one line how what it scores differs from what is reported, or nothing.

    A module that draws random numbers in its validation, or fails where nothing trains it, is not compared.
    """
    if result.best is None or not context.settings.is_user_module:
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
        return measured(module, source, context.settings, "val", source.val_dataloader(), epoch)
