"""The warm start of a search: where the earlier study is, and which of its configurations are tried first."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError
from dropsearch.core.printable import masked, tell
from dropsearch.core.records import ARMS, Site
from dropsearch.core.records.arms import typical_rates
from dropsearch.study.search_space import Params, Space, SpaceSettings
from dropsearch.study.storage import open_storage, storage_exists
from dropsearch.study.warm_start import EarlierStudy, earlier_study, kept_points

TASKS = ("search", "work", "plan", "evidence")
"""The tasks with a study."""
JOURNAL = "study.journal"


def warm_started(config: Config, space: SpaceSettings, sites: Sequence[Site], module: str) -> SpaceSettings:
    """Return a search space with first points from the earlier study of `study.warm_start`, if it is given.

    Arms get equally many points, which a study that has begun keeps: it continues without the earlier one.

    Raises:
        InputError: The earlier study is missing, is of another module, or has nothing to start from.
    """
    if config.study.warm_start is None or config.task not in TASKS:
        return space
    kept = _kept(config)
    if all(arm in kept for arm in config.arms):
        return dataclasses.replace(space, earlier=kept)
    earlier = _earlier(config)
    if not earlier.is_of(module, [site.name for site in sites]):
        raise _refused(config, f"study {earlier.name} is of module {earlier.module}, and this search of {module}")
    if not any(earlier.trials.values()):
        raise _refused(config, f"study {earlier.name} has no completed trial")
    spaces = {name: Space(space, ARMS[name], sites, typical_rates(sites)) for name in config.arms if name not in kept}
    points = {name: earlier.points(each) for name, each in spaces.items()}
    count = min((len(points[name].points) for name, each in spaces.items() if each.distributions), default=0)
    if not count and not any(each.points or each.is_tried for each in points.values()):
        raise _refused(config, f"the search space contains no value of study {earlier.name}")
    if not count:
        tell(f"note: study.warm_start adds nothing: an arm tries all that study {earlier.name} found for it anyway")
    if left_out := {name: why for each in points.values() for name, why in each.left_out.items()}:
        listed = ", ".join(f"{name} ({why})" for name, why in left_out.items())
        tell(f"note: the sampler proposes what study.warm_start has and this search lacks: {listed}")
    return dataclasses.replace(
        space, earlier={**kept, **{name: tuple(each.points[:count]) for name, each in points.items()}}
    )


def _kept(config: Config) -> Mapping[str, Sequence[Params]]:
    """Return the points that the arms' studies keep, by arm."""
    journal = Path(config.output_dir) / JOURNAL
    if not storage_exists(config.study.storage, journal):
        return {}
    names = {f"{config.study.name}/{arm}": arm for arm in config.arms}
    found = kept_points(open_storage(config.study.storage, journal), names)
    return {names[name]: points for name, points in found.items()}


def _earlier(config: Config) -> EarlierStudy:
    own_storage, own_journal = config.study.storage, Path(config.output_dir) / JOURNAL
    given = str(config.study.warm_start)
    name, storage = None, given
    if "://" not in given and os.path.isdir(given):
        storage = str(Path(given) / JOURNAL)
    elif "://" not in given and not os.path.exists(given):
        name, storage = given, own_storage
    if name == config.study.name:
        raise _refused(config, "that is the study of this search")
    shares_storage = _same(storage, own_storage or own_journal)
    try:
        if not storage_exists(storage, own_journal):
            raise InputError(f"{storage} does not exist" if name is None else "no folder, file or study has this name")
        return earlier_study(
            open_storage(storage, own_journal), name, other_than=config.study.name if shares_storage else None
        )
    except (InputError, OSError) as error:
        raise _refused(config, masked(str(error))) from error


def _same(storage: Any, own: Any) -> bool:
    if isinstance(storage, str) and isinstance(own, str | Path) and "://" not in f"{storage}{own}":
        return Path(storage).resolve() == Path(own).resolve()
    return storage is None or storage == own


def _refused(config: Config, reason: str) -> InputError:
    return InputError(
        "study.warm_start must be an earlier study of this module: its output directory, its storage, or its name in "
        f'study.storage; got "{masked(str(config.study.warm_start))}" ({reason})'
    )
