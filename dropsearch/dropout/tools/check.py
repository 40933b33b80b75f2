"""A check that a module's dropout rates have an effect, to run before a search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.torch_modules import DropoutBase
from dropsearch.core.errors import InputError
from dropsearch.core.records import Site
from dropsearch.dropout import unsupported
from dropsearch.dropout.location import owner_path
from dropsearch.dropout.mode import DropoutMode
from dropsearch.dropout.ops import DropCall
from dropsearch.dropout.tools.dry_run import DryRun, is_lightning
from dropsearch.dropout.tools.insert import AFTER_ACTIVATION, suggested_where
from dropsearch.dropout.tools.inventory import Inventory, take_inventory
from dropsearch.dropout.tools.rate_effect import RateEffect
from dropsearch.dropout.tools.snapshot import hidden_modules

_WORDS = {True: "yes", False: "no", None: "not tried"}


@dataclass(frozen=True)
class SiteCheck:
    """The effect of one site on the result of a training pass."""

    site: Site
    alive: bool | None
    """Whether rates 0 and 0.9 give different results or gradients in the module's current modes; None if not tried."""
    finding: str = ""
    """A description of the problem; empty if there is none."""


@dataclass(frozen=True, repr=False)
class DropoutCheck:
    """The effects of all sites of a module; printed as a table with problems."""

    sites: tuple[SiteCheck, ...]
    findings: tuple[str, ...]
    """Problems of the module as a whole."""

    @property
    def ok(self) -> bool:
        """Whether every tried site is alive and there are no problems."""
        return not self.findings and not any(site.alive is False or site.finding for site in self.sites)

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the sites whose rate changes the result."""
        return tuple(each.site.name for each in self.sites if each.alive)

    @property
    def dead(self) -> tuple[str, ...]:
        """Names of the sites whose rate changes nothing."""
        return tuple(each.site.name for each in self.sites if each.alive is False)

    def __repr__(self) -> str:
        """Return one line per site, then the problems of the module as a whole."""
        if not self.sites:
            return "\n".join(self.findings)
        width = max(4, *(len(each.site.name) for each in self.sites))
        lines = [f"{'site':{width}}  {'alive':9}"]
        lines += [f"{each.site.name:{width}}  {_WORDS[each.alive]:9}  {each.finding}" for each in self.sites]
        return "\n".join(line.rstrip() for line in (*lines, *self.findings))


def check_dropout(module: nn.Module, batch: Any) -> DropoutCheck:
    """Check whether each dropout site of a module has an effect, and describe problems.

    For each site, rate 0 is compared with rate 0.9, with all other sites at 0, by their results and, if these are the
    same, by the gradients of what is trained. The parts of the module keep their
    modes (training or eval), as they do when Lightning trains them. The module is not changed.

    Args:
        module: Any ``nn.Module``, or a LightningModule of ``lightning`` or ``pytorch_lightning``.
        batch: As for `dropout_sites`. For a LightningModule the losses of ``training_step`` are compared, otherwise
            the outputs of the forward.

    Raises:
        InputError: The module cannot run this batch, or returns nothing comparable.
    """
    return checked(DryRun(module, batch, "check_dropout"))


def checked(dry_run: DryRun) -> DropoutCheck:
    """Return the check of the module of a dry run; see `check_dropout`."""
    module = dry_run.module
    inventory = take_inventory(dry_run, {})
    trial = _Trial(dry_run, inventory)
    return DropoutCheck(tuple(trial.of(site) for site in inventory), tuple(_of_module(module, inventory)))


class _Trial:
    """Tries the sites of a module."""

    def __init__(self, dry_run: DryRun, inventory: Inventory) -> None:
        self.module = dry_run.module
        self.result = "loss" if is_lightning(self.module) else "output"
        names = [site.name for site in inventory if site.controllable]
        self.as_given = RateEffect(dry_run, names, train=False)
        self.in_training = self.as_given
        if not all(part.training for part in self.module.modules()):
            self.in_training = RateEffect(dry_run, names, train=True)
        self.in_eval = drops_in_eval(dry_run)

    def of(self, site: Site) -> SiteCheck:
        if not site.controllable:
            dead = site.reason in (unsupported.ONE_LAYER, unsupported.STAYS_IN_EVAL)
            return SiteCheck(site, False if dead else None, site.reason)
        if self.as_given.alive(site.name):
            return SiteCheck(site, True, self._though_alive(site))
        if self.as_given.reaches_training(site.name):
            return SiteCheck(site, True)  # for example a branch whose last weights start at zero
        if self.in_training is not self.as_given and self.in_training.alive(site.name):
            return SiteCheck(site, False, self._in_eval_mode(site))
        dead = (
            f"rates 0 and 0.9 give the same {self.result}: its output does not reach the {self.result}, "
            "or its input is zero"
        )
        return SiteCheck(site, False, dead)

    def _though_alive(self, site: Site) -> str:
        if site.name in self.in_eval:
            return (
                "it also drops in eval mode: pass training=self.training to the call, "
                "or register the nn.Dropout (nn.ModuleList instead of a list)"
            )
        frozen = next((name for name, part in self._around(site) if _is_frozen(part)), "")
        if not frozen or self.as_given.reaches_training(site.name):
            return ""
        return f"{frozen} is frozen, and no trainable parameter depends on it: call {frozen}.eval()"

    def _in_eval_mode(self, site: Site) -> str:
        if not self.module.training:
            return "the module is in eval mode"
        part = next((name for name, part in self._around(site) if not part.training), "its module")
        return f"{part} is in eval mode and does not drop: call {part}.train(), or leave the site out if it is frozen"

    def _around(self, site: Site) -> Iterator[tuple[str, nn.Module]]:
        """Yield the submodules that contain a site, the largest first."""
        path = owner_path(self.module, site.name)
        names = path.split(".") if path else []
        for end in range(1, len(names) + 1):
            name = ".".join(names[:end])
            yield name, self.module.get_submodule(name)


def _is_frozen(part: nn.Module) -> bool:
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _of_module(module: nn.Module, inventory: Inventory) -> Iterator[str]:
    name = type(module).__name__
    if not module.training:
        yield (
            f"{name} is in eval mode: Lightning does not change a module's mode for training, so nothing would be "
            "dropped and all rates would have the same score; call module.train() before fit"
        )
    if not inventory:
        yield f"{name} has no dropout site{_insertion(suggested_where(module))}"
    for where, part in hidden_modules(module).items():
        if any(isinstance(each, DropoutBase) for each in part.modules()):
            yield (
                f"{where} ({type(part).__name__}) is not registered in PyTorch, so .eval() does not reach "
                "it: use nn.ModuleList or nn.ModuleDict"
            )


def _insertion(where: str) -> str:
    if where == AFTER_ACTIVATION:
        return ": dropsearch.insert_dropout(module) inserts one after each activation"
    return f': dropsearch.insert_dropout(module, "{where}") inserts one after {where}' if where else ""


class _Watch(DropoutMode):
    """Records which sites drop."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.dropped: set[str] = set()

    def on_drop(self, site: str, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        if call.rate > 0:
            self.dropped.add(site)
        return original()

    def on_pass(self, call: DropCall, original: Callable[[], Tensor]) -> Tensor:
        """Record an attention that passes `dropout_p` in eval mode, where PyTorch still drops."""
        if call.op.kind == "attention" and call.rate > 0:
            self.dropped.add(self.location.last_drop)
        return original()


def drops_in_eval(dry_run: DryRun) -> frozenset[str]:
    """Return the names of the sites that drop when the whole module is in eval mode."""
    watch = _Watch(dry_run.module)
    with dry_run.unchanged():
        dry_run.module.eval()
        # A step written only for training may fail in eval mode, which is no problem.
        with contextlib.suppress(InputError), watch.watching(), watch.step():
            dry_run.run()
    return frozenset(watch.dropped)
