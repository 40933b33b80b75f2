"""`space.params` in Hydra's words: what reads, what it becomes, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dropsearch.config.compose import compose_overrides
from dropsearch.config.params import applied, flat, ranges, with_params
from dropsearch.config.schema import Config, ModelConfig
from dropsearch.core.errors import InputError
from dropsearch.core.records import Choice, Numbers, Range

READ = [
    ("model.hidden: choice([64,64],[128,128])", Choice(([64, 64], [128, 128]))),
    ("model.activation: choice(relu,gelu)", Choice(("relu", "gelu"))),
    ("model.activation: [relu,gelu]", Choice(("relu", "gelu"))),
    ("model.activation: sort(choice(relu,gelu))", Choice(("gelu", "relu"))),
    ("model.input_dropout: choice(true,false)", Choice((True, False))),
    ("optimizer.momentum: interval(0.5,0.99)", Numbers(0.5, 0.99)),
    ("optimizer.momentum: 'interval(0.5,0.99)'", Numbers(0.5, 0.99)),
    ("optimizer.momentum: tag(log,interval(0.01,0.1))", Numbers(0.01, 0.1, log=True)),
    ("optimizer.momentum: range(0.1,0.4,0.1)", Numbers(0.1, 0.3, step=0.1)),
    ("optimizer.momentum: [0.5, 0.9]", Choice((0.5, 0.9))),
    ("trainer.gradient_clip_val: [null,1]", Choice((None, 1.0))),
    ("trainer.gradient_clip_val: int(interval(1,5))", Numbers(1, 5, step=1)),
    ("model.hidden: {choices: [[64,64],[128,128]]}", Choice(([64, 64], [128, 128]))),
    ("model: {activation: {choices: [relu,gelu]}}", Choice(("relu", "gelu"))),
    ("optimizer: {momentum: {type: float, low: 0.5, high: 0.99}}", Numbers(0.5, 0.99)),
    ("optimizer.momentum: {type: float, low: 0.01, high: 0.1, log: true}", Numbers(0.01, 0.1, log=True)),
    ("optimizer.momentum: {type: float, low: 0.1, high: 0.4, step: 0.1}", Numbers(0.1, 0.4, step=0.1)),
    ("trainer.gradient_clip_val: {type: int, low: 1, high: 5}", Numbers(1, 5, step=1)),
    ("trainer.gradient_clip_val: {type: int, low: 1, high: 9, step: 4}", Numbers(1, 9, step=4)),
]

ILL_TYPED = [
    ("{type: int, low: 16, hihg: 64}", 'not hihg (did you mean "high"?)'),
    ("{type: int, low: 16}", "its ends must be finite numbers"),
    ("{low: 16, high: 64}", "type must be int or float, got None"),
    ("{type: complex, low: 16, high: 64}", "type must be int or float, got complex"),
    ("{type: int, low: 1.5, high: 64}", "a range of type int needs integers"),
    ("{type: int, low: 64, high: 16}", "low must be below high"),
    ("{type: int, low: 1, high: 8, step: 3}", "high must be low plus a multiple of step"),
    ("{type: int, low: 1, high: 8, step: 0}", "step must be a number above 0"),
    ("{type: float, low: 0, high: 8, log: true}", "a log scale needs low above 0"),
    ("{type: float, low: 1, high: 8, log: 2}", "log must be true or false, got 2"),
    ("{type: float, low: 1, high: 8, log: true, step: 1}", "a log scale excludes a step"),
    ("{choices: [1]}", "a choice needs at least two values"),
    ("{choices: [1, 2], low: 1}", "choices exclude other keys"),
]


@pytest.mark.parametrize(("written", "reason"), ILL_TYPED)
def test_ill_typed_ranges_are_refused(written: str, reason: str):
    with pytest.raises(InputError, match="must be choice") as caught:
        compose_overrides([f"space.params={{trainer.gradient_clip_val: {written}}}"])
    assert reason in str(caught.value)


@pytest.mark.parametrize(("written", "meant"), READ)
def test_a_range_is_read_as_hydra_writes_it(written: str, meant: Range):
    config = compose_overrides(["optimizer=sgd", f"space.params={{{written}}}"])
    assert list(ranges(config).values()) == [meant]


@pytest.mark.parametrize(
    "words",
    [
        "space.params={model.width: choice(32,64)}",
        "space.params={model.width: [32,64]}",
        'space.params={model.width: "choice(32,64)"}',
        "+space.params={model.width: choice(32,64)}",
        "space.params={model: {width: choice(32,64)}}",
        "space.params.model.width=choice(32,64)",
        "+space.params.model.width='choice(32,64)'",
    ],
)
def test_a_key_may_be_spelt_in_many_ways(words: str):
    assert ranges(compose_overrides(["model=transformer", words])) == {"model.width": Choice((32, 64))}


def test_an_interval_of_a_key_that_is_a_whole_number_has_whole_numbers():
    config = compose_overrides(["model=transformer", "space.params={model.feedforward: tag(log,interval(16,128))}"])
    assert ranges(config) == {"model.feedforward": Numbers(16, 128, log=True, step=1)}


WORD = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=6)
VALUE = st.one_of(st.integers(-99, 99), st.booleans(), st.floats(-9, 9), WORD, st.lists(st.integers(0, 9), max_size=3))
CHOICES = st.lists(VALUE, min_size=2, max_size=4, unique_by=repr).map(tuple).map(Choice)
WHOLE = st.tuples(st.integers(1, 99), st.integers(1, 99), st.integers(1, 9)).map(
    lambda given: Numbers(given[0], given[0] + given[1] * given[2], step=given[2])
)
REAL = st.tuples(st.floats(0.001, 9), st.floats(0.001, 9), st.booleans()).map(
    lambda given: Numbers(given[0], given[0] + given[1], log=given[2])
)


@given(searched=st.one_of(CHOICES, WHOLE, REAL))
def test_what_a_range_says_of_itself_reads_as_the_same_range(searched: Range):
    config = Config()
    if isinstance(searched, Choice):
        config.model = ModelConfig(name="Net", _target_="mine.Net")
        key = "model.anything"
        assume(not _repeats(searched))  # 1, 1.0 and true are one value
    else:
        key = "trainer.gradient_clip_val"
    config.space.params = {key: str(searched)}
    assert ranges(config) == {key: searched}


def _repeats(searched: Choice) -> bool:
    return any(value in searched.values[:n] for n, value in enumerate(searched.values))


def test_other_arguments_stay_as_they_are():
    words = ["model=cnn", "space.params=a,b", "optimizer.betas=[0.9,0.99]", "space.lr.low=0.1"]
    assert with_params(words) == words


def test_values_take_the_place_of_those_of_the_configuration_and_leave_it_as_it_was():
    config = compose_overrides(["optimizer=sgd"])
    changed = applied(config, {"model.hidden": [8], "optimizer.momentum": 0.5})
    assert (changed.model.hidden, changed.optimizer.momentum) == ([8], 0.5)  # type: ignore[attr-defined]
    assert (config.model.hidden, config.optimizer.momentum) == ([128, 128], 0.9)  # type: ignore[attr-defined]


def test_nested_and_dotted_keys_are_the_same():
    assert dict(flat({"model": {"width": 1}, "optimizer.momentum": 2})) == {"model.width": 1, "optimizer.momentum": 2}


ANYWAY = "which is searched anyway: its range is"
REFUSED = [
    ("data.batch_size: choice(32,64)", "model or optimizer, because all trials see the same data"),
    ("trainer.max_epochs: choice(3,4)", "because all trials train with the same Trainer settings"),
    (
        "engine.width: choice(3,4)",
        'space.params must name keys of model or optimizer, got "engine.width": use model.width or',
    ),
    ("optimizer.lr: interval(0,1)", f"space.params must leave out optimizer.lr, {ANYWAY} space.lr.low"),
    ("lr: interval(0,1)", f"space.params must leave out lr, {ANYWAY} space.lr.low and space.lr.high"),
    ("weight_decay: interval(0,1)", f"{ANYWAY} space.weight_decay.low"),
    ("rate.net.hidden1.dropout: interval(0,1)", f"{ANYWAY} space.low and space.high"),
    ("model.dropout: interval(0,1)", f"space.params must leave out model.dropout, {ANYWAY} space.low"),
    ("model.name: choice(mlp,cnn)", "space.params must leave out model.name, since models differ in their sites"),
    ("optimizer.betas: choice([0.9,0.99],[0.8,0.99])", "which optimizer=sgd does not read: choose optimizer=adam or"),
    ("model.hidden: choice(1,2)", "space.params must contain legal values only: model.hidden must be a list, got 1"),
    (
        "model.hidden: choice([8],[0])",
        "space.params must contain legal values only: model.hidden[0] must be at least 1",
    ),
    ("model.activation: choice(relu,gleu)", 'silu, got "gleu" (did you mean "gelu"?)'),
    (
        "model.activation: interval(0,1)",
        "space.params.model.activation must be choice(A,B), because the key is not a number",
    ),
    ("optimizer.momentum: interval(0.5,1)", "optimizer.momentum must be below 1, got 1.0"),
    (
        "optimizer.momentum: 0.5",
        "must be choice(A,B), interval(LOW,HIGH), range(LOW,HIGH[,STEP]), {choices: [A, B]} or {type: int or float, ",
    ),
    ("optimizer.momentum: [0.5]", "got [0.5] (a choice needs at least two values)"),
    ("optimizer.momentum: choice(0.5,0.5)", "a choice must not repeat a value"),
    ("optimizer.momentum: choise(0.5,0.6)", "Unknown function 'choise' (did you mean \"choice\"?)"),
    ("optimizer.momentum: interval(0.9,0.5)", "low must be below high"),
    ("optimizer.momentum: tag(lgo,interval(0.1,0.5))", "the only tag is log, got lgo"),
    ("optimizer.momentum: tag(log,interval(0,0.5))", "a log scale needs low above 0"),
    ("optimizer.momentum: range(0.1,0.15,0.1)", "it must contain at least two numbers; its end is excluded"),
    ("optimizer.momentum: tag(log,range(0.1,0.5,0.1))", "range() takes no tag"),
    ("optimizer.momentum: glob(*)", "it is something else"),
    ("optimizer.momentum: 'interval(0.5'", "space.params.optimizer.momentum must be choice(A,B)"),
]


@pytest.mark.parametrize(("written", "message"), REFUSED)
def test_what_cannot_be_searched_is_refused_on_one_line(written: str, message: str):
    with pytest.raises(InputError) as caught:
        compose_overrides(["optimizer=sgd", f"space.params={{{written}}}"])
    assert message in str(caught.value)
    assert str(caught.value).startswith("space.params")
    assert "\n" not in str(caught.value)


def test_every_combination_of_values_must_be_legal():
    with pytest.raises(InputError, match=r"model.width must be a multiple of model.heads, got 30 and 4"):
        compose_overrides(["model=transformer", "space.params={model.width: choice(30,60), model.heads: choice(2,4)}"])
    with pytest.raises(InputError, match=r"model.width must be a multiple of model.heads, got 33 and 4"):
        compose_overrides(["model=transformer", "space.params={model.width: interval(32,64)}"])


def test_what_the_arms_with_batchnorm_have_is_not_searched():
    with pytest.raises(
        InputError, match=r"space.params.model.norm must leave out batch, which arm_args.batchnorm gives"
    ):
        compose_overrides(["space.params={model.norm: [none,batch]}"])


def test_a_module_of_one_s_own_makes_its_own_optimiser():
    own = ["~model", "model._target_=mine.Net", "arms=[none]"]
    with pytest.raises(
        InputError, match=r"Net makes its own optimizer, on which .* name an argument .* model.schedule"
    ):
        compose_overrides([*own, "space.params={optimizer.schedule: choice(none,cosine)}"])
    config = compose_overrides([*own, "space.params={optimizer.momentum: interval(0.5,0.9)}"])
    assert list(ranges(config)) == ["optimizer.momentum"]
