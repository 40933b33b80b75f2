"""`task=plan`: show sites, engine, width and expected duration of a run, without writing anything."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain

import torch

from dropsearch.config.schema import Config
from dropsearch.core.preparation import preparing
from dropsearch.core.records import Site, TrialSpec
from dropsearch.core.records.arms import typical_rate
from dropsearch.experiment import engines
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.layout import described_layout, with_layout
from dropsearch.experiment.params import describe_ranges, programs
from dropsearch.experiment.run_progress import planned_stages
from dropsearch.report.progress import Forecast, in_all
from dropsearch.report.tables.table import WIDTH
from dropsearch.report.text.phrases import counted
from dropsearch.training.planning.compatibility import remedy
from dropsearch.training.planning.plan import Plan
from dropsearch.training.protocols import Engine, describe_engine


def show_plan(config: Config) -> int:
    """Print the plan and return 0."""
    with preparing("reading the data and inspecting the module"):
        context = build_context(config)
    engines.use_precision(config.trainer.matmul)
    engines.use_threads(context)
    with preparing("comparing vectorized with sequential training"):
        context, plan = with_layout(context, engines.plan(context))
    make = engines.run_engine if context.threads_each > 1 else partial(engines.engine, checkpoint_path=lambda _: None)
    with closing(make(context, plan)) as engine:
        for line in chain(_lines(context, plan), _durations(context, plan, engine)):
            # What does not fit on a line stands below its text.
            shown = textwrap.fill(
                line, WIDTH, subsequent_indent=" " * 12, break_long_words=False, break_on_hyphens=False
            )
            print(shown)
    return 0


def _lines(context: ExperimentContext, plan: Plan) -> Iterator[str]:
    config, source, processes = context.config, context.source, context.processes
    yield f"{config.model.name} on {source.name}, {context.device.type}"
    yield from _sites(context.sites)
    yield ""
    if context.params:
        yield f"also        in every arm: {describe_ranges(context.params)}"
    description = describe_engine(plan.engine, context.device.type, plan.width, processes=processes)
    yield f"engine      {description} ({plan.reason})"
    if plan.engine == "sequential":
        yield from _reasons(plan)
    yield f"threads     {described_layout(context, plan)}"
    yield f"batches     {source.reading}"
    if plan.rates:
        measured = ", ".join(f"{width}: {rate:,.0f}" for width, rate in plan.rates.items())
        yield f"measured    trial steps per second in one process, by width: {measured}"
    yield f"memory      {_memory(_parameters(context), plan)}"
    yield from _frozen(plan)
    notes = context.rate_check.notes(config.model.name) if context.rate_check else ()
    yield from (f"note        {note}" for note in notes)


def _reasons(plan: Plan) -> Iterator[str]:
    """Name everything that keeps trials from training vectorized, and what would change it."""
    for number, reason in enumerate((plan.reason, *plan.further_reasons)):
        if number:
            yield f"            also: {reason}"
        if change := remedy(reason):
            yield f"            vectorized with {change}"


def _durations(context: ExperimentContext, plan: Plan, engine: Engine) -> Iterator[str]:
    """Yield the expected durations of a run, measured on a few epochs and one model."""
    stages, paces = planned_stages(context, plan, engine)
    if pace := paces.get("search"):
        epochs = context.config.trainer.max_epochs
        hourly = 3600 / (epochs * pace.of(epochs))
        yield f"expected    about {hourly:,.0f} trials of {counted(epochs, 'epoch')} an hour"
    yield f"duration    {in_all(Forecast(stages).by_stage()) or 'unknown: nothing could be measured'}"


def _memory(parameters: int, plan: Plan) -> str:
    known = f"{parameters:,} parameters a trial"
    if plan.memory is None:
        return known
    row, all_rows = plan.memory.per_row / 2**20, plan.memory.total(plan.width) / 2**20
    return f"{known}; {row:,.1f} MiB for each in training, {all_rows:,.1f} MiB in each process"


def _frozen(plan: Plan) -> Iterator[str]:
    """Yield the memory that rows share, and the savings."""
    if plan.engine != "vectorized" or plan.memory is None or not plan.memory.holds_parts_once:
        return
    once = plan.memory.held_once / 2**20
    faster = f", {plan.gain_of_holding_once:.1f} times the speed of copies" if plan.gain_of_holding_once else ""
    yield (
        f"frozen      {once:,.1f} MiB held once for all rows instead of {plan.width * once:,.1f} MiB of copies{faster}"
    )


def _sites(sites: tuple[Site, ...]) -> Iterator[str]:
    width = max((len(site.name) for site in sites), default=4)
    yield f"{'site':{width}}  {'kind':9}  typical  activations"
    for site in sites:
        note = "" if site.controllable else f"  not controllable: {site.reason}"
        yield f"{site.name:{width}}  {site.kind:9}  {typical_rate(site.kind):7.2f}  {site.activations:11,}{note}"


def _parameters(context: ExperimentContext) -> int:
    """Return the number of trainable parameters of a trial; the maximum over searched values."""
    begun = context.modules.start
    spec = TrialSpec(context.config.arms[0], 0, context.config.seed, {}, lr=1e-3, weight_decay=0.0)
    every = [replace(spec, hyperparameters={**begun, **values}) for values in programs(context.params)]
    with torch.no_grad():
        return max(sum(parameter.numel() for parameter in context.make_module(each).parameters()) for each in every)
