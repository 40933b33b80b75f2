"""`task=sites`: list the dropout sites and check that their rates have an effect, without writing anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dropsearch.config.schema import Config
from dropsearch.core.records import Site
from dropsearch.core.records.arms import typical_rate
from dropsearch.dropout import unsupported
from dropsearch.dropout.location import owner_of
from dropsearch.dropout.tools.check import SiteCheck
from dropsearch.dropout.tools.insert import AFTER_ACTIVATION, suggested_where
from dropsearch.experiment.context import ExperimentContext, build_context
from dropsearch.experiment.dropout_check import RateCheck
from dropsearch.experiment.module_builder import inserted_names
from dropsearch.report.terminal import wrapped

_HEAD = ("site", "kind", "rate", "typical", "activations", "met", "searched", "alive", "")
_NUMBERS = (2, 3, 4)
_ALIVE = {True: "yes", False: "no", None: "not tried"}


def show_sites(config: Config) -> int:
    """Print the sites and the effects of their rates; return 0."""
    context = build_context(config)
    found, modules, name = context.rate_check, context.modules, config.model.name
    assert found is not None, "this task tries the rates"
    module = modules.specimen(modules.start)
    inserted = inserted_names(module)
    parts = [
        f"{name} on {context.source.name}",
        "\n".join(_table(context, found, inserted)),
        wrapped(" ".join(_in_words(context, found, suggested_where(module)))),
        *(wrapped(f"{note[:1].upper()}{note[1:]}.") for note in found.of_module(name)),
    ]
    print("\n\n".join(filter(None, parts)))
    return 0


def _table(context: ExperimentContext, found: RateCheck, inserted: Sequence[str]) -> Iterator[str]:
    sites = context.sites
    if not sites:
        return
    known = {each.site.name: each for each in found.found.sites} if found.found else {}
    rows = [_row(context, site, known.get(site.name), inserted) for site in sites]
    widths = [max(len(row[column]) for row in (_HEAD, *rows)) for column in range(len(_HEAD))]
    for row in (_HEAD, *rows):
        cells = enumerate(zip(row, widths, strict=True))
        padded = (cell.rjust(width) if at in _NUMBERS else cell.ljust(width) for at, (cell, width) in cells)
        yield "  ".join(padded).rstrip()


def _row(context: ExperimentContext, site: Site, live: SiteCheck | None, inserted: Sequence[str]) -> tuple[str, ...]:
    remark = site.reason or (live.finding if live else "")
    if site.controllable and live is not None and live.alive is None:
        remark = "later steps or epochs call it"
    if not remark and owner_of(site.name) in inserted:
        remark = "by sites.insert"
    return (
        site.name,
        site.kind,
        _rate(context, site),
        f"{typical_rate(site.kind):.2f}",
        f"{site.activations:,}",
        "0" if site.reason == unsupported.UNMET else "1",
        "yes" if site.controllable else "no",
        _ALIVE[live.alive if live else None],
        remark,
    )


def _rate(context: ExperimentContext, site: Site) -> str:
    """Return the module's own rate; built-in models have none."""
    if not context.modules.has_own_rates:
        return "-"
    return "?" if math.isnan(site.rate) else f"{site.rate:.3g}"


def _in_words(context: ExperimentContext, found: RateCheck, where: str) -> Iterator[str]:
    name, sites = context.config.model.name, context.sites
    searched = [site.name for site in sites if site.controllable]
    if sites and context.modules.has_own_rates and not found.in_eval:
        yield f"{name} is in training mode, in which dropout is active."
    yield f"{len(searched)} of {len(sites)} sites can be searched." if sites else f"{name} has no dropout site."
    if absent := context.modules.absent_sites:
        yield f"{absent[:1].upper()}{absent[1:]}."
    if not searched and context.modules.has_own_rates and where:
        behind = "each activation" if where == AFTER_ACTIVATION else where
        yield f"sites.insert={where if where == AFTER_ACTIVATION else f'[{where}]'} inserts dropout after {behind}."
    if found.found is not None:
        yield from _tried_in_words([each for each in found.found.sites if each.site.controllable])


def _tried_in_words(sites: Sequence[SiteCheck]) -> Iterator[str]:
    alive = [each.site.name for each in sites if each.alive]
    if alive:
        where = "each of them" if len(alive) == len(sites) > 1 else ", ".join(alive)
        yield f"A rate of 0.9 instead of 0 changes the loss at {where}."
    elif sites:
        yield "No rate changes the loss: all rates would have the same score."
