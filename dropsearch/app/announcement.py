"""What a run is about to do, in a few lines for the user to read before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropsearch.app.provenance import shorter
from dropsearch.config.schema import Config
from dropsearch.data.tensors import TensorDataModule
from dropsearch.records import Site

_SAMPLERS = {"tpe": "TPE", "random": "chance", "gp": "a Gaussian process"}
_PRUNERS = {"none": "nothing is pruned", "median": "the median pruner", "hyperband": "Hyperband"}


def announcement(
    config: Config,
    source: TensorDataModule,
    sites: Sequence[Site],
    engine: str,
    done: int,
    mlflow: Mapping[str, str],
) -> tuple[str, dict[str, str]]:
    """Return a headline, and what there is to say by topic.

    Args:
        config: The configuration.
        source: The data.
        sites: The model's sites.
        engine: What trains.
        done: How many trials an earlier run of the study ended.
        mlflow: What the tracker tells of itself, empty where nothing is tracked.
    """
    arms, confirm = config.arms, config.confirm
    confirmations = len(arms) * confirm.top_k * confirm.seeds
    facts = {
        "data": _data(source),
        "sites": ", ".join(f"{site.name} ({site.kind})" for site in sites if site.controllable) or "none",
        "search": f"{len(arms)} arms ({', '.join(arms)}) x {config.study.n_trials} trials of up to "
        f"{config.trainer.max_epochs} epochs; {_proposed(config)}",
        "confirm": f"the best {confirm.top_k} of each arm on {confirm.seeds} fresh seeds, {confirmations} retrainings "
        "at most; then the test set, once",
        "engine": engine,
        "output": config.output_dir,
    }
    if mlflow.get("tracking_uri"):
        facts["MLflow"] = f"{shorter(mlflow['tracking_uri'])}, experiment {mlflow.get('experiment', '')}"
    if done:
        facts["so far"] = f"{done} trials of study {config.study.name} are done; it continues"
    return f"{config.model.name} on {source.name}: which dropout rates, and is BatchNorm better, or both?", facts


def _data(source: TensorDataModule) -> str:
    train, val, test = (f"{source.sizes[part]:,}" for part in ("train", "val", "test"))
    shape = "x".join(str(size) for size in source.input_shape)
    return f"{train} training, {val} validation and {test} test examples of {shape} in {source.classes} classes"


def _proposed(config: Config) -> str:
    pruner = _PRUNERS[config.pruner.name]
    stopped = pruner if config.pruner.name == "none" else f"{pruner} stops the hopeless"
    return f"{_SAMPLERS[config.sampler.name]} proposes, {stopped}"
