"""What the command line makes of classes of the user's own."""

from __future__ import annotations

import pytest

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.plain import plain
from dropsearch.config.schema import DEFAULT_ARMS, arguments
from tests.config.conftest import Compose

MODEL, DATA = "model._target_=mine.nets.Net", "data._target_=mine.Data"


def test_a_command_line_without_them_stays_as_it_is():
    assert with_user_targets([]) == []
    words = ["dropsearch", "model=cnn", "model.channels=[8]", "-m"]
    assert with_user_targets(words) == words


def test_a_class_of_one_s_own_takes_the_place_of_a_model_and_brings_its_arms(composed: Compose):
    config = composed(*with_user_targets([MODEL, "+model.width=64", DATA, "data.batch_size=8"]))
    assert (config.model.name, config.data.name, config.study.name) == ("Net", "Data", "Net-Data")
    assert (arguments(config.model), arguments(config.data)) == ({"width": 64}, {"batch_size": 8})
    assert tuple(config.arms) == DEFAULT_ARMS


def test_arguments_may_be_nested_and_have_any_name(composed: Compose):
    config = composed(
        *with_user_targets([MODEL, "model.norm=batch", "model.inner._target_=mine.Part", "model.inner.sizes=[1,2]"])
    )
    assert arguments(config.model) == {"norm": "batch", "inner": {"_target_": "mine.Part", "sizes": [1, 2]}}
    assert plain(config)["model"]["inner"]["sizes"] == [1, 2]


def test_arms_that_are_named_are_kept(composed: Compose):
    assert composed(*with_user_targets([MODEL, "arms=[none]"])).arms == ["none"]


def test_arguments_of_the_trainer_pass_through(composed: Compose):
    config = composed(*with_user_targets([MODEL, "trainer.accumulate_grad_batches=2", "trainer.max_epochs=3"]))
    assert config.trainer.max_epochs == 3
    assert arguments(config.trainer) == {"accumulate_grad_batches": 2}


@pytest.mark.parametrize(
    "words",
    [
        ["arm_args={batchnorm: {norm: batch}, both: {norm: batch}}"],
        ["arm_args.batchnorm={norm: batch}", "arm_args.both.norm=batch"],
    ],
)
def test_arguments_of_arms_need_no_plus_in_any_form(composed: Compose, words: list[str]):
    assert composed(*with_user_targets([MODEL, *words])).arm_args == {
        "batchnorm": {"norm": "batch"},
        "both": {"norm": "batch"},
    }


@pytest.mark.parametrize("words", [["--config-name", "x", MODEL], ["--config-name=x", MODEL]])
def test_another_configuration_file_has_no_group_to_leave_out(words: list[str]):
    assert not [word for word in with_user_targets(words) if word.startswith("~")]


@pytest.mark.parametrize(
    ("word", "kinds"),
    [
        ("sites.kinds={a.drop: conv}", {"a.drop": "conv"}),
        ("sites.kinds.a.drop=conv", {"a.drop": "conv"}),
        ("sites.kinds.model#2=conv", {"model?2": "conv"}),
        ("sites.kinds={model#2: conv, enc.*: rnn}", {"model?2": "conv", "enc.*": "rnn"}),
        ("""sites.kinds={"model#2": conv, 'enc.*':rnn}""", {"model?2": "conv", "enc.*": "rnn"}),
    ],
)
def test_names_of_sites_need_no_plus_for_any_model(composed: Compose, word: str, kinds: dict[str, str]):
    assert composed(*with_user_targets([word])).sites.kinds == kinds
    assert composed(*with_user_targets([MODEL, word])).sites.kinds == kinds
