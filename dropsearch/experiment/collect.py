"""Collection of the evidence of a run: measures on winners, response curves and budgets, and claims."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from dropsearch.analysis.claims import claims
from dropsearch.core.records import Evidence, Summary, Variation
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.evidence import measured
from dropsearch.experiment.landscape import with_searches
from dropsearch.experiment.retrainings import varied
from dropsearch.study.retrainings import RETRAININGS


def collect_evidence(arm_runner: ArmRunner, summary: Summary, step: Callable[[], None] = lambda: None) -> Evidence:
    """Return the evidence of a finished run.

    Args:
        arm_runner: The arms of the run.
        summary: The summary without evidence.
        step: Called after each measured model.
    """
    started = time.perf_counter()
    evidence = measured(arm_runner.context, summary.arms, step)
    evidence = with_searches(evidence, arm_runner.context, arm_runner.studies, summary.arms)
    evidence = dataclasses.replace(evidence, variations=_variations(arm_runner, summary))
    return dataclasses.replace(evidence, claims=claims(evidence, summary), seconds=time.perf_counter() - started)


def _variations(arm_runner: ArmRunner, summary: Summary) -> dict[str, dict[str, tuple[Variation, ...]]]:
    """Return the variations of the winners by the title of their retraining and by arm, without empty entries."""
    found: dict[str, dict[str, tuple[Variation, ...]]] = {}
    for phase, retraining in RETRAININGS.items():
        for arm in arm_runner.studies:
            name = arm.arm.name
            if variations := varied(arm, summary.arms[name], phase, summary.fixed_luck):
                found.setdefault(retraining.title, {})[name] = variations
    return found
