"""Where a model drops, and whether its rates do anything: listed on request, and looked at before a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dropsearch
from dropsearch.core.errors import InputError
from tests.experiment.conftest import Cli, Ended
from tests.user_modules import data, inactive, nets

TINY = (
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "study.n_trials=1",
    "confirm.top_k=1",
    "confirm.seeds=1",
    "tracking=none",
    "evidence=off",
    "engine=sequential",
    "engine.processes=1",
    "output_dir=out",
)
HEAD = ["site", "kind", "rate", "typical", "activations", "met", "searched", "alive"]


def own(net: str, *more: str) -> tuple[str, ...]:
    return (f"model._target_=tests.user_modules.{net}", "data._target_=tests.user_modules.data.Digits", *TINY, *more)


def table(ended: Ended) -> dict[str, list[str]]:
    """The table of sites: by site, what stands in the columns behind its name."""
    assert ended.status == 0, ended.err
    assert ended.left == [], "nothing is written"
    lines = ended.out.split("\n\n")[1].splitlines()
    assert lines[0].split() == HEAD
    edges = [lines[0].index(name) for name in ("kind", "met", "searched", "alive")]
    found = {}
    for line in lines[1:]:
        site, middle, met, searched, rest = (
            line[a:b].strip() for a, b in zip([0, *edges], [*edges, None], strict=True)
        )
        found[site] = [*middle.split(), met, searched, *(part.strip() for part in rest.split("  ") if part)]
    return found


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_site_is_listed_with_what_it_is_and_what_its_rate_does(cli: Cli):
    ended = cli(*own("inactive.Odd", "task=sites"))
    found = table(ended)
    assert {site: row[:7] for site, row in found.items()} == {
        "model": ["hidden", "0.3", "0.40", "12", "1", "yes", "yes"],
        "lost": ["hidden", "0.2", "0.40", "12", "1", "yes", "no"],
        "model:bernoulli": ["hidden", "?", "0.40", "12", "1", "no", "not tried"],
        "lstm": ["rnn", "0.3", "0.25", "12", "1", "yes", "yes"],
        "single": ["rnn", "0.4", "0.25", "0", "1", "no", "no"],
        "drop": ["rnn", "0.5", "0.25", "24", "1", "yes", "yes"],
        "never": ["hidden", "0.1", "0.40", "0", "0", "no", "not tried"],
    }
    reasons = {site: row[-1] for site, row in found.items() if len(row) > 7}
    assert reasons["lost"].startswith("rates 0 and 0.9 give the same loss")
    assert "bernoulli" in reasons["model:bernoulli"]
    assert "lstm" not in reasons
    assert reasons["single"].startswith("it has no effect: it drops between layers, but there is only one")
    assert "untaken branch" in reasons["never"]
    assert "4 of 7 sites can be searched. A rate of 0.9 instead of 0 changes the loss at model, lstm, drop." in (
        words(ended.out)
    )
    assert "The submodule between is in eval mode and stays in it, as in Lightning" in words(ended.out)


def test_the_table_is_that_of_the_inventory(cli: Cli):
    found = table(cli(*own("inactive.Odd", "task=sites")))
    source = data.Digits()
    source.setup()
    sites = dropsearch.dropout_sites(inactive.Odd(), next(iter(source.train_dataloader())))
    assert [(site.name, site.kind, f"{site.activations}") for site in sites] == [
        (name, row[0], row[3]) for name, row in found.items()
    ]


def test_the_sites_of_a_model_of_ours_have_no_rates_of_their_own(cli: Cli):
    ended = cli("model=transformer", "model.layers=1", "data.train_size=90", "task=sites", "trainer.accelerator=cpu")
    found = table(ended)
    assert found["net.layer1.attention"] == ["attention", "-", "0.10", "256", "1", "yes", "yes"]
    assert {row[1] for row in found.values()} == {"-"}
    assert "5 of 5 sites can be searched. A rate of 0.9 instead of 0 changes the loss at each of them." in (
        words(ended.out)
    )


def test_for_a_module_without_dropout_the_message_says_how_to_insert_some(cli: Cli):
    ended = cli(*own("inactive.Plain", "task=sites"))
    assert "Plain has no dropout site. sites.insert=after_activation inserts dropout after each" in words(ended.out)
    ended = cli(*own("nets.Bare", "task=sites"))
    assert "0 of 1 sites can be searched. sites.insert=[first] inserts dropout after first." in words(ended.out)
    assert table(cli(*own("inactive.Plain", "task=sites", "sites.insert=after_activation"))) == {
        "relu": ["hidden", "0", "0.40", "12", "1", "yes", "yes", "by sites.insert"],
        "tanh": ["hidden", "0", "0.40", "12", "1", "yes", "yes", "by sites.insert"],
    }


def test_a_metric_that_is_not_logged_does_not_hide_the_sites(cli: Cli):
    assert list(table(cli(*own("inactive.Asleep", "task=sites", "monitor=f1")))) == ["model", "drop"]


@pytest.mark.parametrize(
    ("kinds", "kind", "typical"),
    [
        ("sites.kinds={drop: residual}", ["rnn", "residual"], ["0.25", "0.10"]),
        ("sites.kinds={drop*: residual}", ["rnn", "residual"], ["0.25", "0.10"]),
        ("sites.kinds.drop=conv", ["rnn", "conv"], ["0.25", "0.20"]),
        ("sites.kinds={drop*: conv, drop: input}", ["rnn", "conv"], ["0.25", "0.20"]),
    ],
)
def test_a_guessed_kind_can_be_corrected(cli: Cli, kinds: str, kind: list[str], typical: list[str]):
    found = table(cli(*own("inactive.Odd", "task=sites", kinds)))
    sites = ("lstm", "drop")
    assert [found[site][0] for site in sites] == kind
    assert [found[site][2] for site in sites] == typical


def test_the_kind_decides_the_typical_rate_and_a_study_is_not_continued_with_another(tmp_path: Path):
    result = search(nets.LitNet, tmp_path, arms=["typical"], kinds={"drop": "residual"})
    assert {site.name: site.kind for site in result.summary.sites} == {"model": "hidden", "drop": "residual"}
    assert dict(result.best_rates) == {"model": 0.4, "drop": 0.1}
    with pytest.raises(InputError, match=r"sites\.kinds"):
        search(nets.LitNet, tmp_path, arms=["typical"])


def search(make: Any, folder: Path, **more: Any) -> Any:
    light: dict[str, Any] = {"overrides": ["evidence=off"]}
    light |= {"n_trials": 1, "max_epochs": 1, "confirm_top_k": 1, "confirm_seeds": 1, "engine": "sequential"}
    return dropsearch.search(
        make, data.Digits(), **{**light, "accelerator": "cpu", "output_dir": folder / "out", **more}
    )


ASLEEP = "the module Asleep is in eval mode, but the search trains it in training mode"


def test_a_module_in_eval_mode_is_searched_in_training_mode_and_that_is_said(cli: Cli, tmp_path: Path):
    ended = cli(*own("inactive.Asleep", "arms=[typical]"))
    assert ended.status == 0, ended.err
    assert f"; {ASLEEP}" in words(ended.out)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert any(note.startswith(ASLEEP) for note in results["notes"])
    assert ASLEEP[1:] in words((tmp_path / "out" / "report.md").read_text())


@pytest.mark.parametrize(
    ("net", "note"),
    [
        ("inactive.Asleep", ASLEEP),
        ("inactive.Odd", "the submodule between is in eval mode"),
        ("inactive.Odd", "the site lost: rates 0 and 0.9 give the same loss"),
        (
            "nets.Wordless",
            "the effect of its rates was not checked (check_dropout needs a batch for which Wordless",
        ),
    ],
)
def test_the_plan_says_what_is_wrong_too(cli: Cli, net: str, note: str):
    ended = cli(*own(net, "task=plan", "arms=[typical]"))
    assert ended.status == 0, ended.err
    assert f"note {note}" in words(ended.out)


@pytest.mark.parametrize("task", ["search", "plan"])
def test_a_module_none_of_whose_rates_changes_anything_is_refused(cli: Cli, task: str):
    ended = cli(*own("inactive.Dead", f"task={task}"))
    assert ended.status == 2
    assert "arms must not name typical for a module whose rates change nothing, got model=Dead with drop" in ended.err
    assert ended.err.count("\n") == 1
    assert ended.left == []


def test_its_arm_without_dropout_can_be_trained_all_the_same(tmp_path: Path):
    assert search(inactive.Dead, tmp_path, arms=["none"]).best_arm == "none"


def test_sites_that_exist_only_above_zero_are_named_with_the_argument(cli: Cli):
    said = "sites that exist only at a rate above 0 are not searched: model.dropout=0.1 makes drop"
    ended = cli(*own("assortment.Guarded", "task=sites"))
    assert said in words(ended.out).replace("Sites that", "sites that")
    ended = cli(*own("assortment.Guarded", "arms=[dropout]"))
    assert ended.status == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert set(table(cli(*own("assortment.Guarded", "task=sites", "model.dropout=0.1")))) == {"drop"}


REFUSED = [
    ("sites.kinds={dorp: conv}", 'sites.kinds must name sites of the module, got "dorp" (did you mean "drop"?)'),
    ("sites.kinds={drop: cnv}", 'got "cnv" for drop (did you mean "conv"?)'),
    ("sites.kinds=conv", "sites.kinds has the wrong type"),
    ("sites.kind={drop: conv}", '(did you mean "sites.kinds"?)'),
]


@pytest.mark.parametrize(("word", "message"), REFUSED)
def test_kinds_and_names_that_there_are_not_are_refused(cli: Cli, word: str, message: str):
    ended = cli(*own("inactive.Odd", word))
    assert ended.status == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.left == []
