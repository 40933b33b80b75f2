"""Which attributes of a module a step changes."""

from __future__ import annotations

import pytest
from torch import nn

from dropsearch.core.errors import UnsupportedError
from dropsearch.training.vectorized import watched_parts
from dropsearch.training.vectorized.attribute_watch import AttributeWatch

WORDS = ["".join(letters) for letters in zip("abcdefghijklmnopqrst", "tsrqponmlkjihgfedcba", strict=True)]


class Grouped(nn.Module):
    """A module whose sets hold many names: the order of a set and of its copy differs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.groups = {*WORDS}, {"a": {*WORDS}}
        self.words -= {*WORDS[5:15]}  # a set that has shrunk keeps its large table


class Reading(nn.Module):
    """A module that reads many words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = [str(each) for each in range(2000)]

    def forward(self, at: int) -> str:
        """Return a word."""
        return self.words[at]


def test_many_words_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_parts, "leaves", lambda value: pytest.fail("each word is looked at"))
    assert watched_parts.differing_attributes(Reading(), Reading()) == set()


def test_sets_that_stay_are_unchanged() -> None:
    assert AttributeWatch(Grouped()).changed() == {}


def test_a_set_in_a_container_that_changes_is_named() -> None:
    module = Grouped()
    watch = AttributeWatch(module)
    module.groups["a"].add("new")
    assert [*watch.changed()] == [(("",), "groups")]
    with pytest.raises(UnsupportedError, match=r"a step changes self.groups by changing a container that it holds"):
        watch.change_of((("",), "groups"), module.groups)


def test_a_set_that_grows_shows_what_is_new() -> None:
    module = Grouped()
    watch = AttributeWatch(module)
    module.words.add("new")
    assert watch.change_of((("",), "words"), module.words) == ("added", {"new"})
