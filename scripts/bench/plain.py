"""The baseline: Optuna, Lightning, its logger and DataLoader as their documentation shows, one trial at a time.

python scripts/bench/plain.py WORKLOAD FOLDER [OVERRIDES ...]

Its last line has "startup" and "run" in seconds, "cpu" (processor seconds of the run), "startup_cpu", "trials", and
"ended": when each trial ended, its settings, and its best validation loss (none if it was pruned). Sampler, pruner and
seed are those of the overrides, by Optuna's own classes. The logger is MLFlowLogger, with tracking=none CSVLogger (and
the study is then held in memory).
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
warnings.filterwarnings("ignore")

import optuna  # noqa: E402
import torch  # noqa: E402
from given_trials import own_examples  # noqa: E402
from lightning import Callback, LightningModule, Trainer  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger  # noqa: E402
from processor_seconds import cpu_seconds  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402
from user_module import Digits, LitMLP  # noqa: E402
from workloads import words, workload  # noqa: E402

from dropsearch.config.compose import compose_overrides  # noqa: E402
from dropsearch.config.schema import Config, arguments  # noqa: E402
from dropsearch.datasets.data_module import TensorDataModule  # noqa: E402
from dropsearch.experiment.engines import use_precision  # noqa: E402
from dropsearch.models import Classifier, build_net  # noqa: E402

SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}
PRUNERS = {"none": optuna.pruners.NopPruner, "median": optuna.pruners.MedianPruner}


@dataclass(frozen=True)
class Subject:
    """What is trained: the names of its rates, what builds it, and its loaders."""

    sites: Sequence[str]
    make: Callable[[Sequence[float], float, float], LightningModule]
    """Builds a module from rates, learning rate and weight decay."""
    loaders: Callable[[], tuple[Any, Any]]


def built_in(config: Config, arm: str) -> Subject:
    """Return a built-in network on a built-in data set."""
    source = TensorDataModule(config.data.name, **arguments(config.data))
    source.setup()
    train = TensorDataset(*own_examples(source.train_loader(0)))
    val = TensorDataset(*own_examples(source.val_dataloader()))
    options = {name: value for name, value in arguments(config.model).items() if name not in ("optimizer", "_convert_")}
    options |= {"name": config.model.name, **config.arm_args.get(arm, {})}
    shape = {"input_shape": list(source.input_shape), "layout": source.layout, "classes": source.classes}
    sites = list(build_net({**options, **shape}).rates)
    size = source.batch_size

    def make(rates: Sequence[float], lr: float, weight_decay: float) -> LightningModule:
        net = build_net({**options, **shape, "dropout": dict(zip(sites, rates, strict=True))})
        return Classifier(net, lr=lr, weight_decay=weight_decay)

    def loaders() -> tuple[Any, Any]:
        return DataLoader(train, batch_size=size, shuffle=True, drop_last=True), DataLoader(val, batch_size=size)

    return Subject(sites, make, loaders)


def user_module() -> Subject:
    """Return the user module on its own data."""
    data = Digits()
    data.setup()
    return Subject(
        ("input", "hidden1", "hidden2"),
        lambda rates, lr, weight_decay: LitMLP(lr, weight_decay, rates),
        lambda: (data.train_dataloader(), data.val_dataloader()),
    )


class BestEpoch(Callback):
    """Keeps the least validation loss of a trial; stops the trial if the pruner says so."""

    def __init__(self, trial: optuna.Trial, prunes: bool) -> None:
        self._trial, self._prunes = trial, prunes
        self.loss, self.is_pruned = math.inf, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the loss of an epoch."""
        if trainer.sanity_checking:
            return
        loss = trainer.callback_metrics["val_loss"].item()
        self.loss = min(self.loss, loss)
        if self._prunes:
            self._trial.report(loss, trainer.current_epoch)
            self.is_pruned = trainer.should_stop = self._trial.should_prune()


def main(name: str, folder: Path, *more: str) -> None:
    """Train the workload's trials and print how long it took."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    work, config = workload(name), compose_overrides(words(name, str(folder), *more))
    use_precision(config.trainer.matmul)
    subject = user_module() if work.is_user_module else built_in(config, work.arm)
    uri = f"sqlite:///{folder.resolve()}/plain.db"
    tracked = config.tracking.name == "mlflow"
    if tracked:
        MLFlowLogger(experiment_name=name, tracking_uri=uri).experiment.search_experiments()
    ended: list[dict[str, Any]] = []

    def objective(trial: optuna.Trial) -> float:
        rates = [trial.suggest_float(f"dropout.{site}", 0.0, 0.9) for site in subject.sites]
        lr = trial.suggest_float("lr", 3e-4, 3e-2, log=True)
        weight_decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
        best = BestEpoch(trial, prunes=config.pruner.name != "none")
        logger = MLFlowLogger(experiment_name=name, tracking_uri=uri) if tracked else CSVLogger(folder)
        logger.log_hyperparams(trial.params)
        trainer = Trainer(
            max_epochs=config.trainer.max_epochs,
            accelerator="auto",
            devices=1,
            logger=logger,
            callbacks=[best],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(subject.make(rates, lr, weight_decay), *subject.loaders())
        settings = {"rates": rates, "lr": lr, "weight_decay": weight_decay}
        loss = None if best.is_pruned or not math.isfinite(best.loss) else best.loss
        ended.append({"wall": time.perf_counter() - begun, "cpu": cpu_seconds() - cpu, "loss": loss, **settings})
        if best.is_pruned:
            raise optuna.TrialPruned
        return best.loss

    study = optuna.create_study(
        storage=f"sqlite:///{folder}/optuna.db" if tracked else None,
        direction="minimize",
        sampler=SAMPLERS[config.sampler.name](seed=config.seed),
        pruner=PRUNERS[config.pruner.name](),
    )
    torch.manual_seed(config.seed)
    begun, cpu = time.perf_counter(), cpu_seconds()
    study.optimize(objective, n_trials=config.study.n_trials)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    times = {"startup": begun - STARTED, "run": time.perf_counter() - begun, "cpu": cpu_seconds() - cpu}
    print(json.dumps({**times, "startup_cpu": cpu, "trials": len(study.trials), "ended": ended}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
