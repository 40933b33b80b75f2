"""The inventory of operations with their own dropout code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dropsearch.core.records import Site
from dropsearch.dropout import unsupported
from dropsearch.dropout.ops.own_code import OwnCode
from dropsearch.dropout.site_kinds import guess_kind


@dataclass
class _Own:
    op: OwnCode | None
    layer_before: str
    is_part: bool
    rate: float = 0.0
    draws: int = 0
    """Random numbers per example, over all calls."""


class OwnSites:
    """Sites of operations with their own dropout code, recorded during a pass."""

    def __init__(self) -> None:
        self._sites: dict[str, _Own] = {}

    def known(self, site: str, op: OwnCode | None, layer_before: str, *, is_part: bool = False) -> None:
        """Record the operation of a site and the kind of the preceding layer."""
        each = self._sites.setdefault(site, _Own(op, layer_before, is_part))
        each.op = each.op or op

    def met(self, site: str, rate: float) -> None:
        """Record that the operation runs at a rate."""
        each = self._sites.setdefault(site, _Own(None, "", is_part=False))
        each.rate = rate

    def drew(self, site: str, count: int) -> None:
        """Record how many random numbers its code draws per example."""
        if site in self._sites:
            self._sites[site].draws += count

    def is_listed(self, site: str) -> bool:
        """Return whether a site is listed: a module that does more than dropout is listed only if it draws."""
        each = self._sites.get(site)
        return each is not None and (each.draws > 0 or not each.is_part)

    def kind_known(self, site: str) -> str:
        """Return the kind of a site's family; empty if it depends on the surrounding layers."""
        op = self._sites[site].op
        return op.kind if op else ""

    def site(self, name: str) -> Site:
        """Return the `Site` of a name."""
        each = self._sites[name]
        kind = self.kind_known(name) or guess_kind(name.partition(":")[0], each.layer_before)
        reason = ""
        if each.rate == 0 and each.is_part:
            reason = unsupported.AT_ZERO.format(attribute=name.replace(":", ".").removeprefix("model."))
        elif each.rate > 0 and not each.draws:
            reason = unsupported.NO_DRAWS
        return Site(name, kind, each.rate, each.draws, not reason, reason)

    def found(self) -> Iterator[Site]:
        """Yield every site."""
        return (self.site(name) for name in self._sites if self.is_listed(name))
