"""Checks that models can be saved, loaded and validated, and the files of the output directory."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.nn.parameter import is_lazy

from dropsearch.config.plain import plain, without_secrets
from dropsearch.config.schema import REFERENCE, Config, OptimizerConfig, arguments, is_from_python, takes_optimizer
from dropsearch.config.user_files import HYDRA_OF_BEST
from dropsearch.core.atomic_io import atomic_write, atomic_write_text
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import process_state_kept, seeded
from dropsearch.core.override_text import literal
from dropsearch.core.printable import MASK, one_line
from dropsearch.core.records import ArmOutcome, Confirmed, Summary, TrialResult, TrialSpec, best_arm
from dropsearch.core.records.trials import OPTIMIZER_OPTIONS
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.experiment.checkpoints import kept_checkpoint, verified_content
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.scoring import measured
from dropsearch.experiment.user_module import PROBED
from dropsearch.experiment.winning_module import load_winner
from dropsearch.report.figures.registry import write_figures
from dropsearch.report.html.page import write_page
from dropsearch.report.markdown import write_markdown
from dropsearch.report.results import save_summary, write_results
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


def kept_winner(context: ExperimentContext, arms: Mapping[str, ArmOutcome]) -> tuple[TrialResult, Path] | None:
    """Return the best arm's retraining whose model is kept, and its checkpoint; None without a winner."""
    name = best_arm(arms)
    winner = arms[name].winner if name else None
    return (winner.best, kept_checkpoint(context.checkpoints, winner.best)) if winner else None


def winning_model(context: ExperimentContext, summary: Summary) -> tuple[Any, Any]:
    """Return a factory of the best arm's model and a batch for it; None if there is none."""
    found = kept_winner(context, summary.arms)
    if found is None or not summary.complete or not context.config.tracking.log_model:
        return None, None
    batch = next(iter(context.source.val_dataloader()))
    if not isinstance(batch, list | tuple) or not all(isinstance(part, torch.Tensor) for part in batch):
        return None, None  # the model's input is an unknown part of the batch
    inputs = [part[:4].cpu().numpy() for part in batch[:-1] or batch]
    return partial(context.load, *found), inputs[0] if len(inputs) == 1 else tuple(inputs)


def why_not_loaded(config: Config, shown: Mapping[str, Any], spec: TrialSpec, path: Path) -> str:
    """Return why no command loads the model of a trial from its checkpoint, or an empty string.

    `shown` is the configuration as plain containers with masked secrets.
    """
    if config.model.made_by is not None:
        return (
            "it was made from Python: use `load_best()` of the result, or `SearchResult.load(FOLDER, make_module=...)`"
        )
    if not path.exists() or MASK in str(shown["model"]):
        return ""
    try:
        with process_state_kept():
            load_winner(shown, spec, path, insert=config.sites.insert)
    except InputError as error:
        return one_line(str(error))
    except USER_ERRORS as error:  # user code
        return described(error)
    return ""


def write_files(context: ExperimentContext, summary: Summary, step: Callable[[], None] = lambda: None) -> list[Path]:
    """Write results.json, the figures, report.html, report.md and best/; return their paths.

    `step` is called after each figure.
    """
    folder, test_examples = context.folder, context.source.sizes.get("test") or None
    for name, outcome in summary.arms.items():
        if outcome.winner:
            _write_best(context, name, outcome.winner)
    results, page, text = (folder / name for name in ("results.json", "report.html", "report.md"))
    write_results(summary, results)  # first, since it depends on nothing else
    save_summary(summary, folder)
    figures = write_figures(summary, folder / "figures", step)
    write_page(summary, page, figures, test_examples=test_examples)
    write_markdown(summary, text, figures, test_examples=test_examples)
    return [results, page, text, *(figure.path for figure in figures), *sorted((folder / "best").glob("*.yaml"))]


def _write_best(context: ExperimentContext, arm: str, winner: Confirmed) -> None:
    best = context.folder / "best"
    best.mkdir(exist_ok=True)
    kept = winner.best
    atomic_write_text(best / f"{arm}.yaml", best_yaml(arm, kept, context.config, best))
    source = kept_checkpoint(context.checkpoints, kept)
    if source.exists():
        with atomic_write(best / f"{arm}.ckpt") as temporary:
            temporary.write_bytes(verified_content(source, kept))


def best_yaml(arm: str, kept: TrialResult, config: Config, folder: Path) -> str:
    """Return a Hydra configuration that retrains the winner of an arm."""
    values: dict[str, Any] = without_secrets(literal(plain(config)))
    values["model"] |= {
        name: REFERENCE for name, of in arguments(config.model).items() if isinstance(of, OptimizerConfig)
    }
    on_optimizer = set() if takes_optimizer(config) else set(OPTIMIZER_OPTIONS)
    for key, value in kept.spec.hyperparameters.items():
        group, _, name = key.partition(".")
        if key not in on_optimizer:
            values[group][name] = literal(value)
    values["space"]["params"] = {}
    values["task"] = "retrain"
    values["seed"] = config.seed
    values["output_dir"] = os.path.join(config.output_dir, "retrained", arm)
    values["retrain"] = {
        "arm": arm,
        "rates": dict(kept.spec.rates),
        # A setting that was not searched is not used; any legal number works.
        "lr": kept.spec.lr if math.isfinite(kept.spec.lr) else 1e-3,
        "weight_decay": kept.spec.weight_decay if math.isfinite(kept.spec.weight_decay) else 0.0,
        "params": {key: value for key, value in kept.spec.hyperparameters.items() if key in on_optimizer},
        "seed": kept.spec.seed,
    }
    parts = {"defaults": HYDRA_OF_BEST["defaults"], **values, "hydra": HYDRA_OF_BEST["hydra"]}
    return _first_line(arm, config, folder) + OmegaConf.to_yaml(OmegaConf.create(parts))


def _first_line(arm: str, config: Config, folder: Path) -> str:
    if is_from_python(config):
        return (
            "# Searched from Python, so no command retrains it: pass retrain.rates to dropsearch.set_rates(module, "
            "rates), or call apply(module) of the search's result.\n"
        )
    return f"# python -m dropsearch --config-dir {shlex.quote(str(folder))} --config-name {arm}\n"
