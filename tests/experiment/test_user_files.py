"""Configuration files of the user's own: groups, experiments and whole configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dropsearch.config.schema import DEFAULT_ARMS, Config, arguments
from tests.experiment.conftest import Cli

NETS = "tests.user_modules.configured"
BOTH = f"""
model: {{_target_: {NETS}.ByGroup, cfg: {{net: {{hidden: 6}}}}}}
data: {{_target_: {NETS}.Points, n: 48}}
"""
FILES = {
    "model/mynet": f"_target_: {NETS}.ByGroup\ncfg: {{net: {{hidden: 6}}}}\n",
    "data/mine": f"_target_: {NETS}.Points\nn: 48\n",
    "experiment/inline": f"# @package _global_{BOTH}",
    "experiment/chosen": "# @package _global_\ndefaults: [{override /model: mynet}, {override /data: mine}]\n",
    "experiment/seeded": "# @package _global_\nseed: 3\n",
    "experiment/ours": "# @package _global_\nmodel: {hidden: [4]}\n",
    "bare": BOTH,
    "typed": f"defaults: [schema, _self_]{BOTH}",
    "on_top": f"defaults: [config, _self_]{BOTH}",
    "choosing": "defaults: [config, {override model: mynet}, {override data: mine}, _self_]\nseed: 3\n",
    "foreign": f"{BOTH}mykey: {{a: 1}}\n",
    "broken": "model: [\n",
    "sub/whole": BOTH,
    "sub/deeper/whole": f"defaults: [schema, part, _self_]\nhydra: {{searchpath: [file://conf]}}{BOTH}",
    "sub/deeper/part": "seed: 5\n",
    "sub/global": f"# @package _global_{BOTH}",
    "sub/config": BOTH,
    "experiment/unheaded": "seed: 3\n",
    "experiment/late": "# mine\n\n# @package _global_\nseed: 4\n",
    "experiment/choosing": "\ndefaults: [{override /model: mynet}]\n",
    "with_unheaded": "defaults: [config, {experiment: unheaded}, _self_]\n",
}

Composed = Callable[..., Config]


@pytest.fixture
def files(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Composed:
    """Return a function that gives the configuration of a command line, with `FILES` in the folder conf."""
    for name, text in FILES.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found: list[Config] = []
    monkeypatch.setattr("dropsearch.experiment.tasks.run", lambda config, _: found.append(config) or 0)

    def composed(*words: str) -> Config:
        ended = cli("--config-dir", "conf", *words)
        assert ended.status == 0, ended.err
        return found[-1]

    return composed


@pytest.mark.parametrize(
    "words",
    [
        ("model=mynet", "data=mine"),
        ("experiment=inline",),
        ("experiment=chosen",),
        ("experiment=[seeded,inline]",),
        ("--config-name", "bare"),
        ("--config-name=typed.yaml",),
        ("-cn", "on_top"),
        ("--config-name", "choosing"),
    ],
)
def test_class_gets_its_own_arguments_and_no_others(files: Composed, words: tuple[str, ...]):
    config = files(*words)
    assert (config.model._target_, config.data._target_) == (f"{NETS}.ByGroup", f"{NETS}.Points")
    assert (arguments(config.model), arguments(config.data)) == ({"cfg": {"net": {"hidden": 6}}}, {"n": 48})
    assert (config.study.name, tuple(config.arms), config.arm_args) == ("ByGroup-Points", DEFAULT_ARMS, {})


def test_command_line_overrides_a_file(files: Composed):
    config = files("--config-name", "bare", "model.cfg.net.hidden=2", "study.n_trials=7")
    assert (arguments(config.model), config.study.n_trials) == ({"cfg": {"net": {"hidden": 2}}}, 7)


@pytest.mark.parametrize("name", ["bare", "typed", "on_top"])
def test_options_of_groups_are_added_to_a_whole_configuration(files: Composed, name: str):
    config = files("--config-name", name, "engine=sequential", "sampler=random", "tracking=none")
    assert (config.engine.name, config.sampler.name, config.tracking.name) == ("sequential", "random", "none")
    assert arguments(config.model) == {"cfg": {"net": {"hidden": 6}}}


@pytest.mark.parametrize("name", ["sub/whole", "sub/deeper/whole.yaml", "sub/global"])
def test_a_configuration_in_a_folder_is_one_like_any_other(files: Composed, name: str):
    config = files("--config-name", name, "model=mynet", "engine=sequential", "tracking=none", "study.n_trials=7")
    assert (config.engine.name, config.tracking.name, config.study.n_trials) == ("sequential", "none", 7)
    assert (config.model._target_, config.data._target_) == (f"{NETS}.ByGroup", f"{NETS}.Points")
    assert config.seed == (5 if "deeper" in name else 0)


def test_group_on_the_command_line_stands_above_the_experiment(files: Composed):
    config = files("experiment=ours", "data=mine")
    assert (config.model.name, arguments(config.model)["hidden"], config.data.name) == ("mlp", [4], "Points")


def test_nothing_is_left_by_hydra(files: Composed, tmp_path: Path):
    files("--config-name", "bare")
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--config-name", "foreign"), '"mykey.a" is not a key of the configuration'),
        (("--config-name", "broken"), "conf/broken.yaml, line 2, must be valid YAML"),
        (("--config-name", "bare", "~model"), "~model must name a group or key that the configuration has"),
        (
            ("experiment=nothing",),
            "experiment must be one of choosing, chosen, fashion_cnn, inline, late, ours",
        ),
        (("experiment=unheaded",), 'conf/experiment/unheaded.yaml must begin with the line "# @package _global_"'),
        (("experiment=late",), 'late.yaml must begin with the line "# @package _global_"'),
        (("experiment=[seeded,choosing]",), 'choosing.yaml must begin with the line "# @package _global_"'),
        (("-cn", "with_unheaded"), 'unheaded.yaml must begin with the line "# @package _global_"'),
        (("-cn", "sub/config"), "must end in a name that dropsearch has no file of"),
    ],
)
def test_faulty_file_is_refused_in_one_line(
    files: Composed, cli: Cli, words: tuple[str, ...], said: str, tmp_path: Path
):
    ended = cli("--config-dir", "conf", *words)
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]
