"""The studies of a run: for each arm its searches, confirmation and other retrainings."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from dropsearch.config.schema import Config
from dropsearch.core.crashes import crash_of
from dropsearch.core.records import ARMS, Arm, TrialPhase
from dropsearch.core.records.arms import typical_rates
from dropsearch.experiment.arm_runner import ArmStudies
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.study_settings import fingerprint
from dropsearch.study.pruners import make_pruner
from dropsearch.study.retrainings import RETRAININGS
from dropsearch.study.samplers import sampler_factory
from dropsearch.study.search_space import Space
from dropsearch.study.store import StudyStore
from dropsearch.study.warm_start import NOTE


def fingerprints(context: ExperimentContext) -> dict[str, Any]:
    """Return the settings that must not change when studies continue, by study name."""
    config = context.config
    return {f"{config.study.name}/{name}": fingerprint(context, ARMS[name]) for name in config.arms}


def retraining_phases(config: Config, arm: Arm) -> list[TrialPhase]:
    """Return the phases of an arm's retrainings in addition to its confirmation."""
    if arm.dropout == "off":
        return []
    return [phase for phase, each in RETRAININGS.items() if getattr(config.evidence, each.asked_by)]


def arm_studies(context: ExperimentContext, storage: Any, name: str, *, only_trains: bool = False) -> ArmStudies:
    """Open all studies of an arm; create them if necessary.

    Args:
        context: What the run consists of.
        storage: The storage of the studies.
        name: The arm's name.
        only_trains: Whether other processes track the results of this one.
    """
    config, arm = context.config, ARMS[name]
    study = f"{config.study.name}/{name}"
    shared: dict[str, Any] = {
        "arm": name,
        "fingerprint": fingerprint(context, arm),
        "only_trains": only_trains,
        "crash_of": partial(crash_of, context.folder),
    }
    pruner = config.pruner
    searches = [
        StudyStore(
            storage,
            study if repeat == 1 else f"{study}/repeat-{repeat}",
            phase="search",
            make_sampler=sampler_factory(
                config.sampler.made_by or config.sampler.name, config.sampler.n_startup_trials
            ),
            pruner=copy.deepcopy(pruner.made_by)
            or make_pruner(pruner.name, config.trainer.max_epochs, pruner.n_startup_trials, pruner.warmup_epochs),
            repeat=repeat,
            **shared,
        )
        for repeat in range(1, config.study.repeats + 1)
    ]
    confirm = StudyStore(storage, f"{study}/confirm", phase="confirm", **shared)
    space = Space(context.space, arm, context.sites, typical_rates(context.sites))
    if (earlier := context.space.earlier.get(name)) and NOTE not in searches[0].notes:
        searches[0].note(NOTE, earlier)
    retrained: dict[TrialPhase, StudyStore] = {
        phase: StudyStore(storage, f"{study}/{RETRAININGS[phase].study}", phase=phase, **shared)
        for phase in retraining_phases(config, arm)
    }
    return ArmStudies(arm, space, searches[0], confirm, tuple(searches[1:]), retrained)
