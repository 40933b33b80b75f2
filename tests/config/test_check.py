from __future__ import annotations

import copy
from functools import cache

import pytest

from dropsearch.config.check import check
from dropsearch.config.compose import compose_overrides
from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError

NAN, INF = float("nan"), float("inf")

ILLEGAL = [
    ("task", "serch", "task must be one of search, work, plan, sites, retrain, evidence"),
    ("seed", -1, "seed must be at least 0, got -1"),
    ("seed", 10**30, "seed must be below"),
    ("study.n_trials", 0, "study.n_trials must be at least 1, got 0 (see conf/config.yaml)"),
    ("study.n_trials", -3, "study.n_trials must be at least 1, got -3"),
    ("study.repeats", 0, "study.repeats must be at least 1, got 0 (see conf/config.yaml)"),
    ("study.repeats", 10**6, "study.repeats must be at most 10000"),
    ("study.n_trials", 10**22, "study.n_trials must be at most 1000000"),
    ("study.name", " ", "study.name must be a name on one line"),
    ("study.name", "a\nb", "study.name must be a name on one line, got 'a\\nb'"),
    ("study.name", "../x", 'study.name must be a name, or names between slashes, got "../x"'),
    ("study.name", "a//b", "study.name must be a name, or names between slashes"),
    ("retrain.lr", 0.1, "retrain.lr must be left out without task=retrain, which alone reads it, got 0.1"),
    ("retrain.seed", 3, "retrain.seed must be left out without task=retrain"),
    ("output_dir", "", "output_dir must be a name on one line"),
    ("confirm.seeds", 0, "confirm.seeds must be at least 1"),
    ("confirm.seeds", 10**12, "confirm.seeds must be at most 10000"),
    ("confirm.top_k", 0, "confirm.top_k must be at least 1"),
    ("trainer.max_epochs", 0, "trainer.max_epochs must be at least 1, got 0 (see conf/trainer/default.yaml)"),
    ("trainer.accelerator", "tpu", 'trainer.accelerator must be one of auto, cpu, gpu, got "tpu"'),
    ("trainer.precision", "32", "trainer.precision must be one of 32-true"),
    ("trainer.matmul", "tf32", "trainer.matmul must be one of highest, high, medium"),
    ("space.high", 1.2, "space.high must be at most 0.95, got 1.2 (see conf/space/per_layer.yaml)"),
    ("space.high", NAN, "space.high must be a finite number, got nan"),
    ("space.low", -0.1, "space.low must be at least 0, got -0.1"),
    ("space.low", 0.9, "space.low must be below space.high while space.zero_share is above 0"),
    ("space.low", 0.92, "space.low must be at most space.high, got low=0.92, high=0.9"),
    ("space.zero_share", 1.0, "space.zero_share must be below 1"),
    ("space.zero_share", NAN, "space.zero_share must be a finite number"),
    ("space.lr.low", 0.0, "space.lr.low must be above 0"),
    ("space.lr.low", 1.0, "space.lr.low must be at most space.lr.high, got low=1, high=0.03"),
    ("space.lr.high", INF, "space.lr.high must be a finite number, got inf"),
    ("space.weight_decay.low", 0.0, "space.weight_decay.low must be above 0"),
    ("space.weight_decay.high", NAN, "space.weight_decay.high must be a finite number"),
    ("space.name", "layers", "space.name must be one of per_layer, shared, depth, step"),
    ("data.batch_size", 0, "data.batch_size must be at least 1, got 0 (see conf/data/digits.yaml)"),
    ("data.train_size", 0, "data.train_size must be at least 1"),
    ("data.val_fraction", 0.0, "data.val_fraction must be above 0"),
    ("data.val_fraction", 1.0, "data.val_fraction must be below 1"),
    ("data.val_fraction", NAN, "data.val_fraction must be a finite number"),
    ("sampler.name", "tpee", 'sampler.name must be one of tpe, random, gp, got "tpee" (did you mean "tpe"?)'),
    ("sampler.n_startup_trials", 0, "sampler.n_startup_trials must be at least 1"),
    ("pruner.warmup_epochs", -1, "pruner.warmup_epochs must be at least 0"),
    ("optimizer.betas", [0.9], "optimizer.betas must be two numbers in [0, 1), got [0.9]"),
    ("optimizer.betas", [0.9, 1.0], "optimizer.betas[1] must be below 1, got 1.0"),
    ("trainer.gradient_clip_val", 0.0, "trainer.gradient_clip_val must be above 0"),
    ("optimizer.momentum", NAN, "optimizer.momentum must be a finite number"),
    ("engine.width", "0", 'engine.width must be auto or a number from 1 to 1024, got "0"'),
    ("engine.width", "wide", "engine.width must be auto or a number"),
    ("engine.processes", "100000", "engine.processes must be auto or a number from 1 to 1024"),
    ("engine.threads", "0", "engine.threads must be auto or a number from 1 to 1024"),
    ("tracking.name", "wndb", "tracking.name must be of mlflow, wandb, tensorboard, none"),
    ("evidence.name", "of", 'evidence.name must be one of on, off, got "of" (did you mean "off"?)'),
    ("evidence.severities", 0, "evidence.severities must be at least 1, got 0 (see conf/evidence/on.yaml)"),
    ("evidence.monte_carlo", [0, 5], "evidence.monte_carlo[0] must be at least 1, got 0"),
    ("evidence.monte_carlo", [5, 1], "evidence.monte_carlo must be increasing numbers from 1 to 10000, got [5, 1]"),
    ("arms", [], "arms must include at least one of none, dropout"),
    ("arms", ["none", "none"], 'arms must include each arm once, got "none" 2 times'),
    ("arms", ["droput"], 'got "droput" (did you mean "dropout"?)'),
    ("arms", ["none", ["dropout"]], "arms must be of none, dropout"),
    ("sites.kinds", {"drop": "cnv"}, 'got "cnv" for drop (did you mean "conv"?) (see conf/config.yaml)'),
    ("model.norm", "batch", "model.norm must not be batch, which arm_args.batchnorm gives to the arms with BatchNorm"),
    ("model.activation", "rellu", 'model.activation must be one of relu, gelu, tanh, leaky_relu, silu, got "rellu"'),
    ("model.hidden", [64, 0], "model.hidden[1] must be at least 1, got 0 (see conf/model/mlp.yaml)"),
    ("model.hidden", [[1]], "model.hidden[0] must be an integer, got [1]"),
    ("model.hidden", [10**20], "model.hidden[0] must be at most 16384"),
    ("model.hidden", [8] * 500, "model.hidden must be a list of at most 64 items, got 500"),
    ("model.hidden", 8, "model.hidden must be a list, got 8"),
    ("model.input_dropout", 2, "model.input_dropout must be true or false, got 2"),
    ("optimizer.nesterov", 2, "optimizer.nesterov must be true or false, got 2"),
    ("evidence.single_sites", -1, "evidence.single_sites must be true or false, got -1"),
    ("optimizer.betas", [[0.9], 0.99], "optimizer.betas[0] must be a number, got [0.9]"),
    ("evidence.monte_carlo", [1, [2]], "evidence.monte_carlo[1] must be an integer, got [2]"),
    ("sites.per_call", [["a"]], "sites.per_call[0] must be a string"),
    ("monitor", "a\nb", "monitor must be a name on one line"),
    ("sampler.n_startup_trials", 10**20, "sampler.n_startup_trials must be at most 1000000"),
    ("space.lr.high", 1e308, "space.lr.high must be at most 100"),
    ("study.timeout", 1e308, "study.timeout must be at most"),
    ("data.batch_size", 10**20, "data.batch_size must be at most"),
]  # fmt: skip


@cache
def _composed(model: str) -> Config:
    return compose_overrides([f"model={model}"])


def legal(model: str = "mlp") -> Config:
    return copy.deepcopy(_composed(model))


def put(config: Config, key: str, value: object) -> Config:
    """Set the value at a dotted key."""
    *path, last = key.split(".")
    place: object = config
    for part in path:
        place = getattr(place, part)
    assert hasattr(place, last), key
    setattr(place, last, value)
    return config


def test_the_defaults_are_legal():
    check(legal())


@pytest.mark.parametrize(("key", "value", "message"), ILLEGAL)
def test_a_broken_rule_is_one_line_with_key_and_value(key: str, value: object, message: str):
    with pytest.raises(InputError) as caught:
        check(put(legal(), key, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(key.split(".")[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("space.high", 0.95),
        ("space.high", 0.0),
        ("space.zero_share", 0.0),
        ("seed", 2**63 - 1),
        ("data.train_size", None),
        ("model.hidden", []),
        ("study.name", "naïve/試し"),
        ("engine.width", "16"),
        ("arms", ["typical"]),
    ],
)
def test_the_edge_of_a_rule_is_legal(key: str, value: object):
    config = put(legal(), key, value)
    if key == "space.high" and value == 0.0:
        config.space.zero_share = 0.0  # one rate, so nothing is left to search below it
    check(config)


@pytest.mark.parametrize(
    ("model", "key", "value", "message"),
    [
        ("cnn", "kernel_size", 4, "model.kernel_size must be odd, got 4 (see conf/model/cnn.yaml)"),
        ("cnn", "kernel_size", 999, "model.kernel_size must be at most 63, got 999"),
        ("cnn", "dropout_unit", "pixel", "model.dropout_unit must be one of element, channel"),
        ("cnn", "pool", 0, "model.pool must be at least 1"),
        ("transformer", "layers", 500, "model.layers must be at most 64, got 500"),
    ],
)
def test_each_model_has_its_own_constraints(model: str, key: str, value: object, message: str):
    with pytest.raises(InputError) as caught:
        check(put(legal(model), f"model.{key}", value))
    assert message in str(caught.value)


def test_evidence_cannot_be_measured_where_it_is_off():
    config = put(put(legal(), "task", "evidence"), "evidence.name", "off")
    with pytest.raises(InputError, match=r"evidence must be on with task=evidence, got off \(see conf/config\.yaml\)"):
        check(config)


@pytest.mark.parametrize(("key", "value"), [("threads", "2"), ("devices", [0])])
def test_a_ray_cluster_decides_what_its_workers_have(key: str, value: object):
    config = put(put(legal(), "cluster.name", "ray"), f"engine.{key}", value)
    with pytest.raises(InputError, match=f"engine.{key} must be auto with cluster=ray"):
        check(config)


def test_nesterov_needs_momentum():
    config = legal()
    config.optimizer.nesterov, config.optimizer.momentum = True, 0.0
    with pytest.raises(InputError, match=r"optimizer\.momentum must be above 0 with optimizer.nesterov=true"):
        check(config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("arm", "", 'retrain.arm must be one of none, dropout, .*, got "" \\(see best/ARM.yaml of a run\\)'),
        ("lr", -1.0, "retrain.lr must be above 0"),
        ("lr", NAN, "retrain.lr must be a finite number"),
        ("rates", {"a": 0.99}, "retrain.rates must be in \\[0, 0.95\\], got 0.99 for a"),
        ("rates", {"a": NAN}, "retrain.rates must be in"),
    ],
)
def test_a_retraining_is_checked_too(key: str, value: object, message: str):
    config = put(put(put(legal(), "task", "retrain"), "retrain.arm", "dropout"), f"retrain.{key}", value)
    with pytest.raises(InputError, match=message):
        check(config)
