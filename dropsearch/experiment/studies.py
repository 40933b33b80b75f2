"""Which studies a run has: for each arm its searches, its confirmation and what its winner is retrained for."""

from __future__ import annotations

import copy
from typing import Any

from dropsearch.config.schema import Config
from dropsearch.core.records import ARMS, Arm, Site, TrialPhase
from dropsearch.dropout.typical_rates import typical_rates
from dropsearch.experiment import build, study_settings
from dropsearch.experiment.arm_runner import ArmStudies
from dropsearch.study.samplers import make_pruner, sampler_factory
from dropsearch.study.search_space import Space
from dropsearch.study.store import StudyStore
from dropsearch.study.studies import RETRAINED


def fingerprints(config: Config, source: build.Source, sites: tuple[Site, ...]) -> dict[str, Any]:
    """Return what must be the same for each arm's study to be continued, by the study's name."""
    return {
        f"{config.study.name}/{name}": study_settings.fingerprint(config, source, ARMS[name], sites)
        for name in config.arms
    }


def retraining_phases(config: Config, arm: Arm) -> list[TrialPhase]:
    """Return what an arm's winner is retrained for beside its confirmation."""
    asked = config.evidence
    drops = arm.dropout != "off"
    wanted: dict[TrialPhase, bool] = {
        "sites": asked.single_sites and drops,
        "l2": asked.l2_control and drops,
        "sizes": bool(asked.train_sizes),
    }
    return [phase for phase, is_wanted in wanted.items() if is_wanted]


def arm_studies(config: Config, source: build.Source, sites: tuple[Site, ...], storage: Any, name: str) -> ArmStudies:
    """Open all studies of an arm, which are made where they are not there."""
    arm = ARMS[name]
    study = f"{config.study.name}/{name}"
    fingerprint = study_settings.fingerprint(config, source, arm, sites)
    searches = [
        StudyStore(
            storage,
            study if repeat == 1 else f"{study}/repeat-{repeat}",
            arm=name,
            phase="search",
            fingerprint=fingerprint,
            make_sampler=sampler_factory(
                config.sampler.made_by or config.sampler.name, config.sampler.n_startup_trials
            ),
            pruner=copy.deepcopy(config.pruner.made_by)
            or make_pruner(
                config.pruner.name,
                config.trainer.max_epochs,
                config.pruner.n_startup_trials,
                config.pruner.warmup_epochs,
            ),
            repeat=repeat,
        )
        for repeat in range(1, config.study.repeats + 1)
    ]
    confirm = StudyStore(storage, f"{study}/confirm", arm=name, phase="confirm", fingerprint=fingerprint)
    space = Space(study_settings.space_settings(config, source), arm, sites, typical_rates(sites))
    retrained: dict[TrialPhase, StudyStore] = {
        phase: StudyStore(storage, f"{study}/{RETRAINED[phase]}", arm=name, phase=phase, fingerprint=fingerprint)
        for phase in retraining_phases(config, arm)
    }
    return ArmStudies(arm, space, searches[0], confirm, tuple(searches[1:]), retrained)
