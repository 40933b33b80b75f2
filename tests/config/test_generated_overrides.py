"""Whatever is typed is accepted or refused in one line."""

from __future__ import annotations

import pytest

from tests.config.generated_overrides import WORDS, Answers, answer


@pytest.mark.slow
def test_generated_overrides_have_one_line_each() -> None:
    """At length by `scripts/prove/attack.py`."""
    answers = Answers(seed=1)
    answers.collect(30)
    assert answers.refused > 15, "most of them are wrong"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("study.n_trials=-1", "study.n_trials"),
        ("seed=[[1]]", "seed"),
        ("optimizer=[99999999999999999999]", "GROUP=OPTION"),
    ],
)
def test_a_refusal_names_the_key(word: str, said: str) -> None:
    assert said in answer(word)


@pytest.mark.parametrize("word", WORDS)
def test_words_that_are_no_overrides_are_refused(word: str) -> None:
    assert answer(word)
