"""The result of a search, for scripts and notebooks."""

from __future__ import annotations

import dataclasses
import math
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from dropsearch.config.schema import SitesConfig
from dropsearch.core.errors import InputError
from dropsearch.core.extras import require
from dropsearch.core.records import ARMS, EpochMetrics, Summary, best_arm
from dropsearch.report import findings, load_summary
from dropsearch.report.tables.arms import brief_tables, tables
from dropsearch.report.text.terminal import wrapped
from dropsearch.report.text.verdict import answer, verdict


class SearchResult:
    """What a search found. `dropsearch.search` returns it, and `SearchResult.load` reads it back.

    Printed, it is the answer in three sentences and the tables; in a notebook, the same as Markdown with figures.

    Args:
        summary: Everything that the run found.
        make_module: The class or function that built the modules, for `load_best`.
        insert: Where the search inserted dropout, as `insert_dropout` takes it.
        storage: The storage of the studies, its URL, or a path; None for study.journal in the output directory.
    """

    def __init__(
        self,
        summary: Summary,
        make_module: Callable[..., Any] | None = None,
        *,
        insert: Any = None,
        storage: Any = None,
    ) -> None:
        self.summary = summary
        self._make_module, self._insert, self._storage = make_module, insert, storage

    @classmethod
    def load(
        cls,
        output_dir: str | os.PathLike[str],
        make_module: Callable[..., Any] | None = None,
        *,
        storage: Any = None,
    ) -> SearchResult:
        """Read the result of an earlier run, from Python or from the command line.

        Args:
            output_dir: The output directory of the run; it may have been moved.
            make_module: The class or function that built your modules; `load_best` needs it.
            storage: The storage of the studies, where it was not study.journal in `output_dir`.

        Raises:
            InputError: The folder holds no result, or one of another version.
        """
        summary = load_summary(Path(output_dir))
        config = {**summary.config, "output_dir": os.fspath(output_dir)}
        inserted = summary.config["sites"].get("insert")
        loaded = dataclasses.replace(summary, config=config)
        return cls(loaded, make_module, insert=inserted, storage=storage or summary.config["study"]["storage"])

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

    @property
    def studies(self) -> Mapping[str, Any]:
        """The search of each arm as an `optuna.Study`, by arm: for Optuna's plots, importances and dashboard.

        A value is what is minimized: the monitored metric, negated where more of it is better.

        Raises:
            InputError: The storage is gone or cannot be opened.
        """
        from dropsearch.study.from_storage import load_studies  # imports Optuna

        names = {arm: f"{self.summary.study}/{arm}" for arm in self.summary.arms}
        found = load_studies(self._storage, self.output_dir / "study.journal", names.values())
        return {arm: found[name] for arm, name in names.items()}

    def trials_dataframe(self) -> Any:
        """Return one row a trial of the search: its arm, state, settings, rates by site, and what it logged."""
        require("trials_dataframe", "report")
        import pandas as pd  # takes a second

        return pd.DataFrame([self._row(trial) for arm in self.summary.arms.values() for trial in arm.trials])

    def _row(self, trial: Any) -> dict[str, Any]:
        spec, best, monitor = trial.spec, trial.best, self.summary.monitor
        row = {"arm": spec.arm, "number": spec.number, "state": trial.state, "seed": spec.seed, "reason": trial.reason}
        row |= {monitor.name: monitor.objective(best.objective) if best else float("nan")}
        row |= {"epochs": len(trial.curve), "seconds": trial.seconds, "lr": spec.lr, "weight_decay": spec.weight_decay}
        row |= dict(zip(("lr_used_low", "lr_used_high"), trial.lr_used or (math.nan, math.nan), strict=True))
        row |= dict(spec.hyperparameters)
        row |= {f"rate.{site}": rate for site, rate in spec.rates.items()}
        return row | ({name: value for name, value in _logged(best) if name not in row} if best else {})

    def apply(self, module: Any, arm: str | None = None) -> Any:
        """Set the rates that were found on a module, and return the module: `dropsearch.set_rates` says how.

        Where the search inserted dropout, it is inserted here too, unless `insert_dropout` was there before. Where it
        removed BatchNorm for the arm (`batchnorm="identity"`), it is removed here too. Arguments of the constructor
        (`arm_args`, `best_lr`, `best_weight_decay`, `best_params`) are yours to give when you build the module.

        Args:
            module: A module of the class that was searched.
            arm: Whose rates; the best arm's by default.

        Raises:
            InputError: The module lacks a site; nothing was set then.
        """
        from dropsearch.experiment.insertion import apply, where_of  # imports torch

        chosen = arm or self.best_arm
        rates = self.rates(chosen) if chosen else {}
        kept = not chosen or not self.summary.config["batchnorm"]["replace"] or ARMS[chosen].batchnorm
        where = where_of(SitesConfig(insert=self._insert)) if self._insert is not None else None
        apply(module, where, rates, batchnorm=kept)
        return module

    def load_best(self, make_module: Callable[..., Any] | None = None, arm: str | None = None) -> Any:
        """Return the trained model of an arm, on the CPU, in evaluation mode, with its rates set.

        Its weights are those of the winner's best retraining. The checkpoint is read with ``weights_only=True``.

        Args:
            make_module: The class or function that builds the module; by default that of the search.
            arm: The best arm by default.

        Raises:
            InputError: Nothing was confirmed, the checkpoint is gone, or `make_module` is needed and was not given.
        """
        from dropsearch.api.winning_module import built, load_weights  # imports torch
        from dropsearch.models.checkpoint import load_classifier

        chosen = arm or self.best_arm
        spec = findings.found(self.summary.arms[chosen]) if chosen and chosen in self.summary.arms else None
        if chosen is None or spec is None:
            raise InputError(
                f'arm must be one with a winner, got "{chosen}": the arms are {", ".join(self.summary.arms)}'
            )
        path, make = self.output_dir / "best" / f"{chosen}.ckpt", make_module or self._make_module
        if "_target_" not in self.summary.config["model"]:
            return load_classifier(path)
        if make is None:
            name = self.summary.config["model"]["_target_"]
            raise InputError(f"load_best needs the class or function that builds {name}: give make_module=...")
        module = self.apply(built(make, spec, self.summary.config), chosen)
        load_weights(module, path)
        return module.eval()

    def plot_rates(self) -> Any:
        """Return a matplotlib figure: the rate of each site against what is monitored, a dot a trial."""
        return self._plot("rates")

    def plot_differences(self) -> Any:
        """Return a matplotlib figure: the paired differences between arms, with their intervals."""
        return self._plot("differences")

    def plot_curves(self) -> Any:
        """Return a matplotlib figure: the learning curves of the winners."""
        return self._plot("curves")

    def plot_best_so_far(self) -> Any:
        """Return a matplotlib figure: the best score after each trial, by arm."""
        return self._plot("best_so_far")

    def plot_responses(self) -> Any:
        """Return a matplotlib figure: the expected score against the rate of each site, with a band."""
        return self._plot("responses")

    def plot_budgets(self) -> Any:
        """Return a matplotlib figure: the expected best score against the number of trials, by arm."""
        return self._plot("budgets")

    def _plot(self, name: str) -> Any:
        require(f"plot_{name}", "report")
        from dropsearch.report.figures.registry import figure  # imports matplotlib

        return figure(self.summary, name)

    def __repr__(self) -> str:
        sentences = "\n".join(wrapped(sentence) for sentence in answer(self.summary))
        return "\n\n".join([sentences, *(table.as_text() for table in brief_tables(self.summary))])

    def _repr_markdown_(self) -> str:
        said = [verdict(self.summary), *(table.as_markdown() for table in tables(self.summary))]
        return "\n\n".join([*said, *self._pictures()])

    def _pictures(self) -> Iterator[str]:
        """Yield the figures that a notebook shows, as images in Markdown; none without the extra `report`."""
        for name in ("differences", "rates", "curves"):
            image = BytesIO()
            try:
                self._plot(name).savefig(image, format="png", dpi=80)
            except InputError:  # it has nothing to show, or matplotlib is missing
                continue
            yield f"![{name}](data:image/png;base64,{b64encode(image.getvalue()).decode()})"


def _logged(best: EpochMetrics) -> Iterator[tuple[str, float]]:
    """Yield what a module logged at validation in the best epoch, where its loss and accuracy stand by themselves."""
    for name, value in (("val_loss", best.val_loss), ("val_acc", best.val_acc)):
        # Under another name the loss is what is monitored, which has a column.
        if math.isfinite(value) and value != best.objective:
            yield name, value
    yield from best.logged.items()
