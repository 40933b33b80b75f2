"""All evidence of a run: what is measured on its winners, what its searches show, and what can be claimed from both."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from dropsearch.analysis.claims import claims
from dropsearch.core.records import Evidence, Summary
from dropsearch.experiment.arm_runner import ArmRunner
from dropsearch.experiment.evidence import measured
from dropsearch.experiment.landscape import with_searches
from dropsearch.experiment.retrainings import varied


def collect_evidence(arm_runner: ArmRunner, summary: Summary, step: Callable[[], None] = lambda: None) -> Evidence:
    """Return what dropout did in the winners of a run that came to its end.

    Args:
        arm_runner: The arms of the run.
        summary: What was found without it.
        step: Called when a model has been looked at.
    """
    started = time.perf_counter()
    evidence = measured(arm_runner.context, summary.arms, step)
    evidence = with_searches(evidence, arm_runner.context, arm_runner.studies, summary.arms)
    sites = {arm.arm.name: varied(arm, summary.arms[arm.arm.name], summary.fixed_luck) for arm in arm_runner.studies}
    evidence = dataclasses.replace(evidence, single_sites={arm: found for arm, found in sites.items() if found})
    said = claims(evidence, summary)
    return dataclasses.replace(evidence, claims=said, seconds=time.perf_counter() - started)
