"""The public inventory of any module, `dropout_sites`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from dropsearch.core.records import Site
from dropsearch.dropout import sites
from dropsearch.dropout.site_kinds import with_kinds
from dropsearch.dropout.tools.dry_run import DryRun


class Inventory(tuple[Site, ...]):
    """The sites of a module in the order of its forward pass, printed as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a table with one line per site, and the reason if a site is not controllable."""
        if not self:
            return "no dropout sites"
        width = max(4, *(len(site.name) for site in self))
        lines = [f"{'site':{width}}  {'kind':9}  {'rate':>5}  activations"]
        for site in self:
            rate = "?" if math.isnan(site.rate) else f"{site.rate:.3g}"
            reason = "" if site.controllable else f"  not controllable: {site.reason}"
            lines.append(f"{site.name:{width}}  {site.kind:9}  {rate:>5}  {site.activations:11,}{reason}")
        return "\n".join(lines)


def dropout_sites(module: nn.Module, batch: Any, *, kinds: Mapping[str, str] | None = None) -> Inventory:
    """Return the dropout sites of a module in the order of one training pass.

    The module runs once in training mode and is then restored: parameters, gradients, buffers (including BatchNorm's
    statistics), modes, hooks and the states of random generators. ``print(dropout_sites(...))`` shows a table.

    Args:
        module: Any ``nn.Module``, or a LightningModule of ``lightning`` or ``pytorch_lightning``.
        batch: For a LightningModule, the batch for its ``training_step``. For any other module the forward's
            argument, a tuple of arguments, or a dict of keyword arguments.
        kinds: Kinds by site name or pattern that correct inferred ones: ``{"encoder.*": "residual"}``. The first match
            counts.

    Returns:
        A tuple of `Site`: name, kind, current rate, activations per example, and whether it can be controlled. It
        includes randomness that cannot be controlled (such as ``bernoulli_`` in a forward) and dropouts that this pass
        did not call, with the reason.

    Raises:
        InputError: The module cannot run this batch, or `kinds` names an unknown kind or site.
    """
    return take_inventory(DryRun(module, batch, "dropout_sites"), kinds or {})


def take_inventory(dry_run: DryRun, kinds: Mapping[str, str]) -> Inventory:
    """Return the sites that one training pass of a dry run finds."""
    module = dry_run.module
    with dry_run.unchanged():
        module.train()
        found = sites.dropout_sites(module, dry_run.run_through, examples=dry_run.examples)
    return Inventory(with_kinds(found, kinds))
