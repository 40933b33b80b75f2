"""The studies of a run: for each arm its searches, confirmation and other retrainings; what must not change in them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dropsearch.config.plain import plain
from dropsearch.config.schema import Config, arguments
from dropsearch.core.atomic_io import atomic_write_text
from dropsearch.core.printable import comparable_values
from dropsearch.core.processes import crash_of
from dropsearch.core.records import ARMS, Arm, TrialPhase, TrialResult
from dropsearch.core.records.arms import typical_rates
from dropsearch.experiment.context import ExperimentContext
from dropsearch.study.algorithms import make_pruner, sampler_factory
from dropsearch.study.retrainings import RETRAININGS
from dropsearch.study.search_space import Space
from dropsearch.study.storage import open_storage, storage_exists
from dropsearch.study.store import StudyStore
from dropsearch.study.studies import CODE, check_studies, identity
from dropsearch.study.warm_start import NOTE


@dataclass(frozen=True)
class ArmStudies:
    """The studies of an arm and their search space."""

    arm: Arm
    space: Space
    search: StudyStore
    confirm: StudyStore
    repeats: tuple[StudyStore, ...] = ()
    """The second and further repetitions of the search."""
    retrained: Mapping[TrialPhase, StudyStore] = field(default_factory=dict)
    """Studies of requested retrainings of the winner with a change, by phase."""

    @property
    def stores(self) -> tuple[StudyStore, ...]:
        """All studies of the arm."""
        return (self.search, self.confirm, *self.repeats, *self.retrained.values())

    def results(self) -> tuple[TrialResult, ...]:
        """Return all ended trials of all studies."""
        return tuple(result for store in self.stores for result in store.results())

    def close_abandoned(self) -> None:
        """End the trials that dead processes left running."""
        for store in self.stores:
            store.close_abandoned()

    def untracked_results(self) -> tuple[TrialResult, ...]:
        """Return the results that no other living process will track."""
        return tuple(result for store in self.stores for result in store.untracked_results())


def fingerprint(context: ExperimentContext, arm: Arm) -> Mapping[str, Any]:
    """Return the settings that must not change when a study continues, by configuration key.

    They are the same in any folder and environment, so a password is masked only by its key or format, and what only
    has such a key (`model.token=cls`) is compared.
    """
    config = context.config
    given = comparable_values(plain(config))
    parts: dict[str, Any] = {name: given[name] for name in ("model", "data", "space", "optimizer")}
    parts["data"].pop("root", None)
    parts["space"].pop("params")
    parts["model"]["class"] = context.modules.class_name
    parts |= {name: given[name] for name in ("arm_args", "batchnorm", "sites")}
    parts["trainer"] = {name: given["trainer"][name] for name in arguments(config.trainer)}
    flat = {f"{name}.{key}": value for name, values in parts.items() for key, value in values.items()}
    return {
        **flat,
        "space.params": {key: str(each) for key, each in context.params.items()},
        "arm": arm.name,
        "confirm.split": "drawn by seed" if context.source.redraws_split else "given by the data",
        "engine.mask_seed": config.engine.mask_seed,
        "engine.batch_seed": config.engine.batch_seed,
        "data": context.source.digest,
        "the model's weights": context.modules.weights,
        CODE: context.modules.code,
        "monitor": config.monitor,
        "monitor.mode": config.mode,
        "seed": config.seed,
        "study.warm_start": given["study"]["warm_start"],
        "sites": [site.name for site in context.sites],
        "trainer.gradient_clip_val": config.trainer.gradient_clip_val,
        "trainer.matmul": config.trainer.matmul,
        "trainer.max_epochs": config.trainer.max_epochs,
        "trainer.precision": config.trainer.precision,
    }


def fingerprints(context: ExperimentContext) -> dict[str, Any]:
    """Return the settings that must not change when studies continue, by study name."""
    config = context.config
    return {f"{config.study.name}/{name}": fingerprint(context, ARMS[name]) for name in config.arms}


def check_existing(context: ExperimentContext) -> None:
    """Check that the studies of an earlier run, if there are any, can be continued."""
    storage, journal = context.config.study.storage, context.folder / "study.journal"
    if storage_exists(storage, journal):
        check_studies(open_storage(storage, journal), fingerprints(context), context.config.study.allow_code_changes)


def retraining_phases(config: Config, arm: Arm) -> list[TrialPhase]:
    """Return the phases of an arm's retrainings in addition to its confirmation."""
    if arm.dropout == "off":
        return []
    return [phase for phase, each in RETRAININGS.items() if getattr(config.evidence, each.asked_by)]


def arm_studies(context: ExperimentContext, storage: Any, name: str, *, only_trains: bool = False) -> ArmStudies:
    """Open all studies of an arm; create them if necessary.

    Args:
        only_trains: Whether other processes track the results of this one.
    """
    config, arm = context.config, ARMS[name]
    study = f"{config.study.name}/{name}"
    shared: dict[str, Any] = {
        "arm": name,
        "fingerprint": fingerprint(context, arm),
        "allow_code_changes": config.study.allow_code_changes,
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


FOLDER_MARK = "study.id"
"""File next to the checkpoints with the id of the study. A worker that can read it shares the folder of the run that
writes the report."""


def mark_folder(context: ExperimentContext, storage: Any) -> None:
    """Write the id of the study next to its checkpoints."""
    atomic_write_text(context.checkpoints / FOLDER_MARK, f"{identity(storage, context.config.study.name)}\n")


def shares_folder(context: ExperimentContext, storage: Any) -> bool:
    """Return whether this process can access the output directory of the run that writes the report."""
    if context.config.study.storage is None:  # the study is in the output directory
        return True
    try:
        noted = (context.checkpoints / FOLDER_MARK).read_text().strip()
    except OSError:
        return False
    return noted == identity(storage, context.config.study.name)
