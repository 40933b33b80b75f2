"""What a search found, in the hands of a script or a notebook."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS, EpochMetrics, Summary, best_arm
from dropsearch.report import findings
from dropsearch.report.tables.arms import brief_tables, tables
from dropsearch.report.text.terminal import wrapped
from dropsearch.report.text.verdict import verdict


class SearchResult:
    """The answer of `dropsearch.search`; its `repr` is the tables and the verdict.

    Args:
        summary: Everything that the run found.
        insert: Where dropout was put into the module for the search, as `insert_dropout` takes it.
    """

    def __init__(self, summary: Summary, insert: Any = None) -> None:
        self.summary = summary
        self._insert = insert

    @property
    def best_arm(self) -> str | None:
        """The arm whose confirmed model is best on validation, or leads the search; None without one."""
        confirmed = best_arm(self.summary.arms)
        if confirmed is not None:
            return confirmed
        best = {name: arm.best.best.objective for name, arm in self.summary.arms.items() if arm.best and arm.best.best}
        return min(best, key=best.__getitem__, default=None)

    @property
    def best_rates(self) -> Mapping[str, float]:
        """The rates of the best arm by site; all zero where that arm has no dropout."""
        return self.rates(self.best_arm) if self.best_arm else {}

    def rates(self, arm: str) -> Mapping[str, float]:
        """Return the rates that an arm found, by site.

        Raises:
            InputError: No arm of this name ran.
        """
        if arm not in self.summary.arms:
            raise InputError(f'arm must be one of {", ".join(self.summary.arms)}, got "{arm}"')
        return dict(findings.rates(self.summary.arms[arm]))

    @property
    def best_params(self) -> Mapping[str, Any]:
        """What else was searched, as the best arm found it: values by configuration key."""
        return dict(findings.hyperparameters(self.summary.arms[self.best_arm])) if self.best_arm else {}

    @property
    def best_lr(self) -> float | None:
        """The learning rate that the best arm found; None where it was not searched."""
        return self._best("lr")

    @property
    def best_weight_decay(self) -> float | None:
        """The weight decay that the best arm found; None where it was not searched."""
        return self._best("weight_decay")

    def _best(self, setting: str) -> float | None:
        spec = findings.found(self.summary.arms[self.best_arm]) if self.best_arm else None
        value = getattr(spec, setting, math.nan)
        return value if math.isfinite(value) else None

    @property
    def best_checkpoint(self) -> Path | None:
        """The Lightning checkpoint of the best arm's model, None where nothing was confirmed."""
        path = Path(self.output_dir, "best", f"{self.best_arm}.ckpt")
        return path if path.exists() else None

    @property
    def output_dir(self) -> Path:
        """Where report.md, figures, results.json and the models are."""
        return Path(os.fspath(self.summary.config["output_dir"]))

    def to_dataframe(self) -> Any:
        """Return one row a trial of the search: its arm, state, settings, rates by site, and what it logged."""
        import pandas as pd  # comes with mlflow

        return pd.DataFrame([self._row(trial) for arm in self.summary.arms.values() for trial in arm.trials])

    def _row(self, trial: Any) -> dict[str, Any]:
        spec, best, monitor = trial.spec, trial.best, self.summary.monitor
        row = {"arm": spec.arm, "number": spec.number, "state": trial.state, "seed": spec.seed, "reason": trial.reason}
        row |= {monitor.name: monitor.objective(best.objective) if best else float("nan")}
        row |= {"epochs": len(trial.curve), "seconds": trial.seconds, "lr": spec.lr, "weight_decay": spec.weight_decay}
        row |= dict(spec.hyperparameters)
        row |= {f"rate.{site}": rate for site, rate in spec.rates.items()}
        return row | ({name: value for name, value in _logged(best) if name not in row} if best else {})

    def apply(self, module: Any, arm: str | None = None) -> Any:
        """Set the rates that were found on a module, and return it: `dropsearch.set_rates` says how.

        Where the search inserted dropout, it is inserted here too, unless `insert_dropout` was there before. Where it
        took BatchNorm out for the arm (`batchnorm="identity"`), that is taken out of the module. What an arm has by
        arguments (`arm_args`, `best_lr`, `best_weight_decay`, `best_params`) the module must be built with.

        Args:
            module: A module of the class that was searched.
            arm: Whose rates; the best arm's by default.

        Raises:
            InputError: The module has not all of the sites; nothing was set then.
        """
        from dropsearch.experiment.insertion import apply  # imports torch

        chosen = arm or self.best_arm
        rates = self.rates(chosen) if chosen else {}
        kept = not chosen or not self.summary.config["batchnorm"]["replace"] or ARMS[chosen].batchnorm
        apply(module, self._insert, rates, batchnorm=kept)
        return module

    def __repr__(self) -> str:
        text = [table.as_text() for table in brief_tables(self.summary)]
        return "\n\n".join([*text, wrapped(verdict(self.summary))])

    def _repr_markdown_(self) -> str:
        return "\n\n".join([*(table.as_markdown() for table in tables(self.summary)), verdict(self.summary)])


def _logged(best: EpochMetrics) -> Iterator[tuple[str, float]]:
    """Yield what a module logged at validation in the best epoch, where its loss and accuracy stand by themselves."""
    for name, value in (("val_loss", best.val_loss), ("val_acc", best.val_acc)):
        # Under another name the loss is what is monitored, which has a column.
        if math.isfinite(value) and value != best.objective:
            yield name, value
    yield from best.logged.items()
