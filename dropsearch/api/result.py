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

from dropsearch.core.errors import InputError, require
from dropsearch.core.printable import printable
from dropsearch.core.records import EpochMetrics, Summary, best_arm
from dropsearch.report.markdown import answer_blocks
from dropsearch.report.results import load_summary
from dropsearch.report.tables.arms import tables
from dropsearch.report.terminal import first_screen


class SearchResult:
    """The result of a search, returned by `dropsearch.search` or read by `SearchResult.load`.

    `print(result)` shows the answer in three sentences, what limits it, and the tables; a notebook shows Markdown with
    figures.

    Args:
        summary: All results of the run.
        make_module: The class or function that built the modules, for `load_best`.
        insert: Where the search inserted dropout, as for `insert_dropout`.
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
        """Read the result of an earlier run, started from Python or the command line.

        Args:
            output_dir: The output directory of the run; it may have been moved.
            make_module: The class or function that built the modules, for `load_best`.
            storage: The storage of the studies; by default study.journal in `output_dir`.

        Raises:
            InputError: The folder contains no result, or one of an incompatible version.
        """
        summary = load_summary(Path(output_dir))
        config = {**summary.config, "output_dir": os.fspath(output_dir)}
        inserted, stored = (summary.config.get(group, {}) for group in ("sites", "study"))
        loaded = dataclasses.replace(summary, config=config)
        return cls(loaded, make_module, insert=inserted.get("insert"), storage=storage or stored.get("storage"))

    @property
    def best_arm(self) -> str | None:
        """The arm with the best confirmed model on validation, or the best search trial; None without either."""
        confirmed = best_arm(self.summary.arms)
        if confirmed is not None:
            return confirmed
        best = {name: arm.best.best.objective for name, arm in self.summary.arms.items() if arm.best and arm.best.best}
        return min(best, key=best.__getitem__, default=None)

    @property
    def best_rates(self) -> Mapping[str, float]:
        """Dropout rate by site of the best arm; all zero if that arm has no dropout."""
        return self.rates(self.best_arm) if self.best_arm else {}

    def rates(self, arm: str) -> Mapping[str, float]:
        """Return the dropout rate by site that the search found for an arm.

        Raises:
            InputError: No arm of this name ran.
        """
        if arm not in self.summary.arms:
            raise InputError(f'arm must be one of {", ".join(self.summary.arms)}, got "{arm}"')
        return dict(self.summary.arms[arm].rates)

    @property
    def best_params(self) -> Mapping[str, Any]:
        """Other searched values of the best arm, by configuration key."""
        return dict(self.summary.arms[self.best_arm].hyperparameters) if self.best_arm else {}

    @property
    def best_lr(self) -> float | None:
        """Learning rate of the best arm; None if it was not searched."""
        return self._best("lr")

    @property
    def best_weight_decay(self) -> float | None:
        """Weight decay of the best arm; None if it was not searched."""
        return self._best("weight_decay")

    def _best(self, setting: str) -> float | None:
        spec = self.summary.arms[self.best_arm].found if self.best_arm else None
        value = getattr(spec, setting, math.nan)
        return value if math.isfinite(value) else None

    @property
    def best_checkpoint(self) -> Path | None:
        """Path of the Lightning checkpoint of the best arm's model; None without a confirmation."""
        path = Path(self.output_dir, "best", f"{self.best_arm}.ckpt")
        return path if path.exists() else None

    @property
    def output_dir(self) -> Path:
        """Folder with report.md, figures, results.json and the models."""
        return Path(os.fspath(self.summary.config["output_dir"]))

    @property
    def studies(self) -> Mapping[str, Any]:
        """The search of each arm as an `optuna.Study`, for Optuna's plots, importances and dashboard.

        The objective is minimized: the monitored metric, negated if higher is better.

        Raises:
            InputError: The storage is missing or cannot be opened.
        """
        from dropsearch.study.studies import load_studies  # imports Optuna

        names = {arm: f"{self.summary.study}/{arm}" for arm in self.summary.arms}
        found = load_studies(self._storage, self.output_dir / "study.journal", names.values())
        return {arm: found[name] for arm, name in names.items()}

    def trials_dataframe(self) -> Any:
        """Return a DataFrame with one row per search trial: arm, state, settings, rates by site, logged metrics."""
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
        """Set the found rates on a module as `dropsearch.set_rates` does, and return the module.

        Dropout that the search inserted is inserted here too, unless `insert_dropout` has done so. BatchNorm that the
        search removed for the arm (`batchnorm="identity"`) is removed. Pass constructor arguments (`arm_args`,
        `best_lr`, `best_weight_decay`, `best_params`) yourself when you build the module.

        Args:
            module: A module of the searched class.
            arm: The arm whose rates to use; the best arm by default.

        Raises:
            InputError: The module lacks a site; it is unchanged then.
        """
        from dropsearch.experiment.winning_module import apply_rates  # imports torch

        chosen = arm or self.best_arm
        apply_rates(module, self.summary.config, chosen, self.rates(chosen) if chosen else {}, self._insert)
        return module

    def load_best(self, make_module: Callable[..., Any] | None = None, arm: str | None = None) -> Any:
        """Return the trained model of an arm, on the CPU, in evaluation mode, with its found rates.

        The weights are from the winner's best retraining. The checkpoint is read with ``weights_only=True``.

        Args:
            make_module: The class or function that builds the module; by default that of the search or, if the run was
                started from the command line, the one that the command named.
            arm: The arm; the best one by default.

        Raises:
            InputError: There is no confirmed model, the checkpoint is missing, or `make_module` is needed.
        """
        from dropsearch.experiment.winning_module import load_winner  # imports torch

        chosen = arm or self.best_arm
        winner = self.summary.arms[chosen].winner if chosen and chosen in self.summary.arms else None
        if chosen is None or winner is None:
            raise InputError(
                f'arm must be one with a winner, got "{chosen}": this run has {", ".join(self.summary.arms)}'
            )
        path, make = self.output_dir / "best" / f"{chosen}.ckpt", make_module or self._make_module
        spec = dataclasses.replace(winner.best.spec, arm=chosen, rates=self.rates(chosen))
        return load_winner(self.summary.config, spec, path, make, self._insert)

    def plot_rates(self) -> Any:
        """Return a matplotlib figure: rate of each site against the monitored metric, one dot per trial."""
        return self._plot("rates")

    def plot_differences(self) -> Any:
        """Return a matplotlib figure: paired differences between arms, with intervals."""
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
        return printable("\n\n".join(first_screen(self.summary)), keep="\n")

    def _repr_markdown_(self) -> str:
        blocks = [*answer_blocks(self.summary), *(table.as_markdown() for table in tables(self.summary))]
        return "\n\n".join([*filter(None, blocks), *self._pictures()])

    def _pictures(self) -> Iterator[str]:
        """Yield figures for notebooks as Markdown images; none without the extra `report`."""
        for name in ("differences", "rates", "curves"):
            image = BytesIO()
            try:
                self._plot(name).savefig(image, format="png", dpi=80)
            except InputError:  # the figure has no data, or matplotlib is missing
                continue
            yield f"![{name}](data:image/png;base64,{b64encode(image.getvalue()).decode()})"


def _logged(best: EpochMetrics) -> Iterator[tuple[str, float]]:
    """Yield the metrics logged in the best epoch, except validation loss and accuracy, which have columns."""
    for name, value in (("val_loss", best.val_loss), ("val_acc", best.val_acc)):
        # If its name is not val_loss, the loss is the monitored metric, which has a column.
        if math.isfinite(value) and value != best.objective:
            yield name, value
    yield from best.logged.items()
