"""The inventory of any module, as its author asks for it."""

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
    """The sites of a module in the order of its forward pass; printed, a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return a table with one line a site, and the reason where a site cannot be controlled."""
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
    """Return every place where a module drops activations, in the order of one training pass.

    The module runs once in training mode and is then as it was before: parameters, gradients, buffers (BatchNorm's
    statistics among them), modes, hooks and the random generators' state. ``print(dropout_sites(...))`` shows a table.

    Args:
        module: Any ``nn.Module``, or a LightningModule of ``lightning`` or ``pytorch_lightning``.
        batch: For a LightningModule, the batch as its ``training_step`` takes it. For any other module the forward's
            argument, a tuple of arguments, or a dict of keyword arguments.
        kinds: Kinds that are known better than they are guessed, by site name or pattern:
            ``{"encoder.*": "residual"}``. The first that fits counts.

    Returns:
        A tuple of `Site`: name, kind, the present rate, how many activations one example passes through it, whether
        it can be controlled, and why not. Random parts out of reach (stochastic depth, a recurrent layer's
        ``dropout=``, a forward's own ``bernoulli_``) and dropouts that this pass did not call are among them.

    Raises:
        InputError: The module cannot run this batch, or `kinds` names an unknown kind or site.
    """
    return take_inventory(DryRun(module, batch, "dropout_sites"), kinds or {})


def take_inventory(dry_run: DryRun, kinds: Mapping[str, str]) -> Inventory:
    """Return the sites that one training pass of a rehearsal meets."""
    module = dry_run.module
    with dry_run.unchanged():
        module.train()
        found = sites.dropout_sites(module, dry_run.run_through, examples=dry_run.examples, own_step=True)
    return Inventory(with_kinds(found, kinds))
