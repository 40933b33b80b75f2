"""The header that describes a run before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dropsearch.config.schema import Config, ConfirmConfig
from dropsearch.core.printable import masked
from dropsearch.core.records import TrialResult
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.params import describe_ranges
from dropsearch.experiment.provenance import shorter
from dropsearch.report.text.phrases import counted, listed, question
from dropsearch.stats.comparisons import minimum_seeds, planned_contrasts
from dropsearch.study.algorithms import PRUNERS, SAMPLERS
from dropsearch.study.retrainings import RETRAININGS
from dropsearch.study.selection import retraining_count

MOST_SITES, FIRST_SITES = 8, 3
"""Largest number of sites that are all listed, and how many of more are."""


def run_header(
    context: ExperimentContext,
    engine: str,
    done: Sequence[TrialResult],
    tracking: Mapping[str, str],
    bought: str = "",
    threads: str = "",
) -> tuple[str, dict[str, str]]:
    """Return a headline and facts by topic."""
    config, source = context.config, context.source
    arms, confirm = config.arms, config.confirm
    confirmations = len(arms) * retraining_count(confirm.top_k, confirm.seeds, confirm.screening_seeds)
    facts = {
        "data": source.description,
        **({"budget": f"{config.budget}: {bought}"} if bought else {}),
        "sites": _listed([f"{site.name} ({site.kind})" for site in context.sites if site.controllable]),
        "search": f"{counted(len(arms), 'arm')} ({', '.join(arms)}) x {counted(config.study.n_trials, 'trial')} of "
        f"up to {counted(config.trainer.max_epochs, 'epoch')}; {_proposed(config)}{_repeated(config)}",
        **_also(context),
        "confirm": f"{_confirmed(confirm)}, {counted(confirmations, 'retraining')}"
        f"{'; then the test set, once' if source.has_test else ''}",
        "engine": engine,
        **({"threads": threads} if threads else {}),
        "output": config.output_dir,
    }
    for each in RETRAININGS.values():
        if getattr(config.evidence, each.asked_by):
            facts[each.title] = each.summary
    if tracking.get("tracking_uri"):
        facts["MLflow"] = f"{shorter(tracking['tracking_uri'])}, experiment {tracking.get('experiment', '')}"
    if tracking.get("project"):
        facts["W&B"] = f"project {tracking['project']}, {tracking['mode']}"
    if tracking.get("logdir"):
        facts["TensorBoard"] = tracking["logdir"]
    no_test = () if source.has_test else ("there is no test set: arms are compared on the validation set",)
    few = () if bought else _too_few_seeds(config)
    if lines := (*few, *notes(context), *no_test, *source.overlaps):
        facts["note"] = "; ".join(lines)
    if done:
        facts["so far"] = f"{_counted(done)} of study {config.study.name} done; it continues"
    return f"{config.model.name} on {source.name}: {question(arms)}?", facts


def _counted(done: Sequence[TrialResult]) -> str:
    searched = sum(result.spec.phase == "search" for result in done)
    kinds = {"trial": searched, "retraining": len(done) - searched}
    return listed([counted(number, kind) for kind, number in kinds.items() if number])


def _listed(sites: Sequence[str]) -> str:
    """Return the sites of a model, or the first of many."""
    if len(sites) <= MOST_SITES:
        return ", ".join(sites) or "none"
    return f"{len(sites)}: {', '.join(sites[:FIRST_SITES])} and {len(sites) - FIRST_SITES} more; task=sites lists all"


def _confirmed(confirm: ConfirmConfig) -> str:
    if confirm.top_k < 2 or confirm.screening_seeds >= confirm.seeds:
        return f"the best {confirm.top_k} of each arm on {counted(confirm.seeds, 'fresh seed')}"
    return (
        f"the best {confirm.top_k} of each arm on {counted(confirm.screening_seeds, 'fresh seed')}, the best of these "
        f"on {confirm.seeds}"
    )


def _too_few_seeds(config: Config) -> Iterator[str]:
    """Yield that no difference can be shown with the seeds, and with how many one can."""
    contrasts = len(planned_contrasts(config.arms))
    if contrasts and config.confirm.seeds < (needed := minimum_seeds(contrasts)):
        seeds = counted(config.confirm.seeds, "fresh seed")
        yield f"with {seeds} no difference between the arms can be shown: that takes confirm.seeds={needed}"


def notes(context: ExperimentContext) -> tuple[str, ...]:
    """Return notes about the module and the data."""
    lines = [*context.modules.notes]
    if context.rate_check:
        lines += context.rate_check.notes(context.config.model.name)
    if context.space.earlier:
        origin = masked(context.config.study.warm_start or "")
        lines.append(f"each arm's first trials include the best settings of {origin}, trained anew")
    return (*lines, *context.source.notes)


def _repeated(config: Config) -> str:
    times = config.study.repeats
    return f"; then the search {times - 1} more time{'s' if times > 2 else ''}, for the spread of its best" * (
        times > 1
    )


def _also(context: ExperimentContext) -> dict[str, str]:
    return {"also": f"in every arm: {describe_ranges(context.params)}"} if context.params else {}


def _proposed(config: Config) -> str:
    sampler, pruner = (
        known[name].title if name in known else name
        for known, name in ((SAMPLERS, config.sampler.name), (PRUNERS, config.pruner.name))
    )
    stops = pruner if config.pruner.name == "none" else f"{pruner} stops unpromising trials"
    return f"{sampler} proposes, {stops}"
