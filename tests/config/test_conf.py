"""What lies in conf/: every file composes, and says no more and no less than what it configures."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dropsearch.config.messages import GROUPS, conf_folder
from dropsearch.config.schema import Config
from dropsearch.datasets.catalogue import DATA_SETS
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.models.classifier import NETS
from tests.config.conftest import Compose, RawCompose

CONF = conf_folder()
OPTIONS = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in GROUPS}
GIVEN_BY_THE_DATA = {"input_shape", "layout", "classes", "dropout"}


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, options in OPTIONS.items() for o in options])
def test_every_option_of_every_group_composes_and_is_legal(composed: Compose, group: str, option: str):
    config = composed(f"{group}={option}")
    assert isinstance(config, Config)


def test_every_folder_of_conf_is_a_group_that_is_known():
    assert sorted(path.name for path in CONF.iterdir() if path.is_dir()) == sorted(GROUPS)


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in ("experiment", "trainer")])
def test_an_option_bears_the_name_of_its_file(raw: RawCompose, group: str):
    for option in OPTIONS[group]:
        assert raw(f"{group}={option}")[group].name == option


@pytest.mark.parametrize("model", OPTIONS["model"])
def test_a_model_is_configured_by_the_arguments_of_its_constructor(model: str):
    arguments = set(inspect.signature(NETS[model]).parameters) - GIVEN_BY_THE_DATA
    written = _load(CONF / "model" / f"{model}.yaml")["model"]
    assert set(written) == arguments | {"_target_", "_convert_", "name", "optimizer"}
    assert written["_target_"] == f"dropsearch.models.{model}_classifier"


def test_a_data_set_is_configured_by_the_arguments_of_its_module():
    arguments = {"_target_", *inspect.signature(TensorDataModule).parameters}
    assert sorted({*OPTIONS["data"]} - {"module"}) == sorted(DATA_SETS)
    for name in DATA_SETS:
        assert _keys("data", name) == arguments


@pytest.mark.parametrize(
    "group", ["space", "optimizer", "sampler", "pruner", "engine", "trainer", "tracking", "evidence", "cluster"]
)
def test_no_option_sets_what_its_schema_does_not_have(group: str):
    known = {field.name for field in dataclasses.fields(type(getattr(Config(), group)))}
    written = [_keys(group, option) for option in OPTIONS[group]]
    assert set().union(*written) == known, "and together they show every key there is"


def test_the_table_of_contents_shows_every_key_at_the_top():
    shown = set(_load(CONF / "config.yaml")) - {"defaults", "hydra"}
    groups_and_found = {*GROUPS, "retrain"}
    assert shown == {field.name for field in dataclasses.fields(Config)} - groups_and_found


@pytest.mark.parametrize("path", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_begins_with_the_command_that_runs_it(path: Path):
    head = path.read_text().splitlines()
    assert head[0] == "# @package _global_", "Hydra reads this only in the first line"
    assert head[1].startswith("# ")
    assert f"python -m dropsearch experiment={path.stem}" in head[1]


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_lists_every_option(group: str):
    template = _load(CONF / "config.yaml")["hydra"]["help"]["template"]
    lines = template.partition(f"\n  {group} ")[2].splitlines()
    further = itertools.takewhile(lambda line: line.startswith(" " * 12), lines[1:])
    words = " ".join([lines[0], *further]).replace(",", " ").replace(";", " ").split()
    assert set(OPTIONS[group]) <= set(words)


def _load(path: Path) -> dict:
    loaded = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(loaded, dict)
    return loaded


def _keys(group: str, option: str) -> set[str]:
    return set(_load(CONF / group / f"{option}.yaml")) - {"defaults"}
