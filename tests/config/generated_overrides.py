"""Overrides as nobody should type them: each key with values of every kind, and words that are no overrides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from dropsearch.config.command_line import with_user_targets
from dropsearch.config.compose import compose_overrides
from dropsearch.config.messages import known_keys
from dropsearch.core.errors import InputError
from dropsearch.core.printable import one_line as printable_line
from tests.experiment.forked_runs import TINY, Job, RunForker
from tests.experiment.one_figure import ONE_FIGURE

VALUES = (
    *("", "null", "true", "0", "1", "-1", "3", "0.5", "-0.5", "1e-3", "1e20", "1e308", "1e400", "nan", "inf", "-inf"),
    *("word", "auto", "[]", "[1]", "[[1]]", "[a,b]", "[none,none]", "{}", "{a: 1}", "{a: {b: [1, 2]}}", "'quoted'"),
    *("99999999999999999999", "[99999999999999999999]", "0x10", "1_000", "${seed}", "${nothing}", "${oc.env:NO_SUCH}"),
    *(
        "'a b'",
        "a=b",
        "é",
        "'\\x1b[31m'",
        "'line\\nline'",
        "choice(1,2)",
        "interval(0.1,0.9)",
        "interval(1,0)",
        "range(3)",
    ),
    *("../up", "1.5", "-1e-320", "[[[1]]]", "[a,[b]]", "[{a: 1}]", "{type: int, low: 1}", "${model}", "it's"),
    *("/dev/null", "%20", "'?'", "sqlite:///", "http://", "x" * 300, "???", "[1", "}", "'", ",", "1,2"),
)
PREFIXES = ("", "", "", "", "+", "++", "~")
OF_MODELS = ("model.hidden", "model.activation", "model.norm", "model.input_dropout", "model.nothing")
WORDS = (
    "-x",
    "--nothing=3",
    "~model",
    "model@x=1",
    "=",
    "==",
    "=1",
    "a",
    "~",
    "+",
    "--nothing",
    "model=mlp,cnn",
    "model=",
    "model=none",
    "@x=1",
    "seed",
    "a.b.c=1",
)
MOST = 1500
"""Characters of a message."""


def override(draw: random.Random, keys: Sequence[str]) -> str:
    """Return an override: most have a key of the configuration, some one that is misspelt, some none."""
    chance = draw.random()
    if chance < 0.04:
        return draw.choice(WORDS)
    key = draw.choice(keys)
    if chance < 0.12:
        place = draw.randrange(len(key))
        key = key[:place] + key[place + 1 :]
    return f"{draw.choice(PREFIXES)}{key}={draw.choice(VALUES)}"


def answer(*words: str) -> str:
    """Return how the configuration refuses words of a command line; empty where it accepts them.

    Anything but a refusal is raised.
    """
    try:
        compose_overrides(with_user_targets(words))
    except InputError as error:
        return printable_line(str(error))
    return ""


class Answers:
    """How generated overrides are answered.

    Args:
        seed: The overrides are a function of it.
    """

    def __init__(self, seed: int) -> None:
        self._draw, self._keys = random.Random(seed), sorted({*known_keys(), *OF_MODELS})
        self.accepted: list[str] = []
        self.refused = 0

    def collect(self, count: int) -> None:
        """Give the configuration so many overrides, each alone; each must be accepted or refused in one line."""
        for _ in range(count):
            word = override(self._draw, self._keys)
            try:
                said = answer(word)
            except Exception as error:
                raise AssertionError(f"{word!r} raised {type(error).__name__}: {error}") from error
            _check_line(word, said)
            self.refused += bool(said)
            if not said:
                self.accepted.append(word)

    def run_accepted(self, run_forker: RunForker, folder: Path) -> int:
        """Run the program with each override that the configuration accepts; return how many runs were refused.

        A run must come to its end, or be refused in one line that leaves no file.
        """
        refused = 0
        for number, word in enumerate(self.accepted):
            here, log = folder / f"override{number}", folder / f"override{number}.log"
            here.mkdir()
            (status,) = run_forker.run(Job((*SMALLEST, word), str(log), cwd=str(here), setup=ONE_FIGURE))
            said = log.read_text()
            assert status in (0, 2), (word, status, said)
            assert "Traceback" not in said, (word, said)
            if status == 2:
                refused += 1
                _check_line(word, said.removesuffix("\n"))
                assert not list(here.iterdir()), (word, "leaves files")
        return refused


def _check_line(word: str, said: str) -> None:
    assert "\n" not in said, (word, said)
    assert said.isprintable(), (word, said)
    assert len(said) <= MOST, (word, said)


SMALLEST = (
    *TINY,
    *("model.hidden=[8]", "trainer.max_epochs=1", "arms=[none,dropout]", "study.n_trials=1", "confirm.top_k=1"),
    *("confirm.seeds=2", "evidence=off", "engine.processes=1", "tracking=none"),
)
"""A run of a few seconds; an override that is given beside takes the place of its own."""
