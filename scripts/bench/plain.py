"""The baseline: Optuna, Lightning, its logger and DataLoader as their documentation shows, one trial at a time.

python scripts/bench/plain.py WORKLOAD FOLDER [OVERRIDES ...]

prints {"startup": s, "run": s, "trials": n} as its last line. The logger is MLFlowLogger, with tracking=none CSVLogger
(and the study is then held in memory).
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path

STARTED = time.perf_counter()
warnings.filterwarnings("ignore")

import optuna  # noqa: E402
import torch  # noqa: E402
from lightning import Trainer  # noqa: E402
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402
from workloads import WORKLOADS, overrides  # noqa: E402

from dropsearch.config.compose import compose_overrides  # noqa: E402
from dropsearch.config.schema import arguments  # noqa: E402
from dropsearch.datasets.data_module import TensorDataModule  # noqa: E402
from dropsearch.experiment.engines import use_precision  # noqa: E402
from dropsearch.models import Classifier, build_net  # noqa: E402


def main(name: str, folder: Path, *more: str) -> None:
    """Train the workload's trials and print how long it took."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    work, config = WORKLOADS[name], compose_overrides([*overrides(name, str(folder)), *more])
    use_precision(config.trainer.matmul)
    source = TensorDataModule(config.data.name, **arguments(config.data))
    source.setup()
    train = TensorDataset(*source.train_loader(0).tensors)
    val = TensorDataset(*source.val_dataloader().tensors)
    options = {name: value for name, value in arguments(config.model).items() if name not in ("optimizer", "_convert_")}
    options |= {"name": config.model.name, **config.arm_args.get(work.arm, {})}
    shape = {"input_shape": list(source.input_shape), "layout": source.layout, "classes": source.classes}
    sites = list(build_net({**options, **shape}).rates)
    uri = f"sqlite:///{folder.resolve()}/plain.db"
    tracked = config.tracking.name == "mlflow"
    if tracked:
        MLFlowLogger(experiment_name=name, tracking_uri=uri).experiment.search_experiments()

    def objective(trial: optuna.Trial) -> float:
        rates = {site: trial.suggest_float(f"dropout.{site}", 0.0, 0.9) for site in sites}
        lr = trial.suggest_float("lr", 3e-4, 3e-2, log=True)
        weight_decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
        net = build_net({**options, **shape, "dropout": rates})
        logger = MLFlowLogger(experiment_name=name, tracking_uri=uri) if tracked else CSVLogger(folder)
        logger.log_hyperparams(trial.params)
        trainer = Trainer(
            max_epochs=config.trainer.max_epochs,
            accelerator="auto",
            devices=1,
            logger=logger,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        size = source.batch_size
        trainer.fit(
            Classifier(net, lr=lr, weight_decay=weight_decay),
            DataLoader(train, batch_size=size, shuffle=True, drop_last=True),
            DataLoader(val, batch_size=size),
        )
        return trainer.callback_metrics["val_loss"].item()

    study = optuna.create_study(
        storage=f"sqlite:///{folder}/optuna.db" if tracked else None,
        direction="minimize",
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    begun = time.perf_counter()
    study.optimize(objective, n_trials=config.study.n_trials)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    print(json.dumps({"startup": begun - STARTED, "run": time.perf_counter() - begun, "trials": len(study.trials)}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
