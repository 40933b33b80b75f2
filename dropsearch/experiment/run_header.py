"""What a run is about to do, in a few lines for the user to read before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dropsearch.config.params import ranges
from dropsearch.config.schema import Config
from dropsearch.core.records import ARMS, Site
from dropsearch.datasets.user_data import UserData
from dropsearch.experiment import build, dropout_check, user_module
from dropsearch.experiment.build import Source
from dropsearch.experiment.provenance import shorter
from dropsearch.experiment.scoring import has_test

_SAMPLERS = {"tpe": "TPE", "random": "chance", "gp": "a Gaussian process"}
_PRUNERS = {"none": "nothing is pruned", "median": "the median pruner", "hyperband": "Hyperband"}


def run_header(
    config: Config,
    source: Source,
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
    batchnorm = not user_module.is_user_module(config) or any(ARMS[arm].batchnorm for arm in arms)
    confirmations = len(arms) * confirm.top_k * confirm.seeds
    facts = {
        "data": _data(source),
        "sites": ", ".join(f"{site.name} ({site.kind})" for site in sites if site.controllable) or "none",
        "search": f"{len(arms)} arms ({', '.join(arms)}) x {config.study.n_trials} trials of up to "
        f"{config.trainer.max_epochs} epochs; {_proposed(config)}{_repeated(config)}",
        **_also(config),
        "confirm": f"the best {confirm.top_k} of each arm on {confirm.seeds} fresh seeds, {confirmations} retrainings "
        f"at most{'; then the test set, once' if has_test(source) else ''}",
        "engine": engine,
        "output": config.output_dir,
    }
    if config.evidence.single_sites:
        facts["single sites"] = "each winner that drops, one rate at a time at zero and at the mean of the others"
    if config.evidence.l2_control:
        facts["L2 control"] = "each winner that drops, with weight decay in place of dropout"
    if sizes := config.evidence.train_sizes:
        facts["sizes"] = f"each winner on {', '.join(f'{size:,}' for size in sizes)} training examples"
    if mlflow.get("tracking_uri"):
        facts["MLflow"] = f"{shorter(mlflow['tracking_uri'])}, experiment {mlflow.get('experiment', '')}"
    if said := notes(config, source):
        facts["note"] = "; ".join(said)
    if done:
        facts["so far"] = f"{done} trials of study {config.study.name} are done; it continues"
    question = "which dropout rates" if not batchnorm else "which dropout rates, and is BatchNorm better, or both"
    return f"{config.model.name} on {source.name}: {question}?", facts


def notes(config: Config, source: Source) -> tuple[str, ...]:
    """Return what a reader must know of a run with a module or data of the user's own; nothing of one with ours."""
    if not user_module.is_user_module(config):
        return ()
    said = [*user_module.modules(config, source, build.settings(config)).notes, *dropout_check.notes(config, source)]
    if not has_test(source):
        said.append("there is no test set: arms are compared on validation, which chose them too")
    if isinstance(source, UserData) and source.left_out:
        said.append(f"{source.left_out} training examples that do not fill a batch are left out of each epoch")
    return (*said, *(source.notes if isinstance(source, UserData) else ()))


def _data(source: Source) -> str:
    if isinstance(source, UserData):
        return _user_data(source)
    train, val, test = (f"{source.sizes[part]:,}" for part in ("train", "val", "test"))
    shape = "x".join(str(size) for size in source.input_shape)
    return f"{train} training, {val} validation and {test} test examples of {shape} in {source.classes} classes"


def _user_data(source: UserData) -> str:
    known = [f"{size:,} {part}" for part, size in source.sizes.items() if size]
    where = "" if source.rows is None else ", the training set in memory"
    return f"{' and '.join(known) or 'unknown numbers of'} examples from {source.source}{where}"


def _repeated(config: Config) -> str:
    times = config.study.repeats
    return f"; then the search {times - 1} more time{'s' if times > 2 else ''}, for the spread of its best" * (
        times > 1
    )


def _also(config: Config) -> dict[str, str]:
    searched = ", ".join(f"{key} in {given}" for key, given in ranges(config).items())
    return {"also": f"{searched}, in every arm"} if searched else {}


def _proposed(config: Config) -> str:
    pruner = _PRUNERS.get(config.pruner.name, config.pruner.name)
    stopped = pruner if config.pruner.name == "none" else f"{pruner} stops the hopeless"
    return f"{_SAMPLERS.get(config.sampler.name, config.sampler.name)} proposes, {stopped}"
