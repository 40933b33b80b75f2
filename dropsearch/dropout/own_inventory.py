"""What an inventory learns of operations that drop by code of their own."""

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
    """Whether the module does more than to drop."""
    rate: float = 0.0
    draws: int = 0
    """Random numbers an example, in all calls."""


class OwnSites:
    """The sites of operations that drop by their own code, as a pass meets them."""

    def __init__(self) -> None:
        self._sites: dict[str, _Own] = {}

    def known(self, site: str, op: OwnCode | None, layer_before: str, *, is_part: bool = False) -> None:
        """Note which operation a site is, and the kind of the layer that ran before."""
        each = self._sites.setdefault(site, _Own(op, layer_before, is_part))
        each.op = each.op or op

    def met(self, site: str, rate: float) -> None:
        """Note that the operation runs, at this rate."""
        each = self._sites.setdefault(site, _Own(None, "", is_part=False))
        each.rate = rate

    def drew(self, site: str, count: int) -> None:
        """Note how many random numbers its code drew for an example."""
        if site in self._sites:
            self._sites[site].draws += count

    def is_listed(self, site: str) -> bool:
        """Return whether a site is one: a module that does more than to drop is one where its code draws."""
        each = self._sites.get(site)
        return each is not None and (each.draws > 0 or not each.is_part)

    def kind_known(self, site: str) -> str:
        """Return the kind that the family of a site has; empty where it depends on what stands around."""
        op = self._sites[site].op
        return op.kind if op else ""

    def site(self, name: str) -> Site:
        """Return what is known of a site."""
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
